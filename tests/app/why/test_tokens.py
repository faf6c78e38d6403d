"""Why they part, on a real tiny engine: which runs can be asked about, screens, JSON, going on, bad questions as sentences."""

import json
from dataclasses import replace

import pytest

from app.compare.handlers import CompareHandlers
from app.compare.recorded import from_json, to_json
from app.compare.request import CompareRequest
from app.limits import Limits
from app.ui.admission import Admission
from app.ui.loading import Loading
from app.ui.what_ifs import plain
from app.why.api import WhyApi
from app.why.run import run_of
from app.why.signs import labelled, notation, pieces, visible
from app.why.tokens import GoOn, TokenScores
from bitune import Engine, MixingRatios
from bitune.errors import BituneError, ConfigError, UnknownNameError
from bitune.inference.parting import part
from bitune.schema.variants import WhatIf
from tests.app.ui import visiting
from tests.browser.served import tiny_engine
from tests.closeness import assert_close
from tests.tiny import tiny_base

NAMES = ["base", "lora", "bitune", "if"]
WHAT_IF = {"if": {**plain(WhatIf("bitune", MixingRatios.constant(4, 0.9))), "colour": 1}}


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    return CompareHandlers(tiny_engine(tmp_path_factory.mktemp("tiny")), {})


@pytest.fixture(scope="module")
def shown(handlers):
    """The end of a run of four variants."""
    *_, last = visiting.run(handlers, prompt="hello", variants=NAMES, max_new_tokens=6, what_ifs=WHAT_IF)
    return last


@pytest.fixture(scope="module")
def run(shown):
    return run_of(shown)


def test_a_run_can_be_asked_about_when_it_has_ended_and_its_names_are_shown(handlers, shown, run):
    assert list(run.answers) == NAMES and list(run.views) == NAMES
    assert run.answers["lora"] == shown.update["lora"].token_ids
    assert set(run.reading) == {"template", "what_ifs", "history", "earlier"}
    assert run_of(replace(shown, running=True)) is None
    assert run_of(replace(shown, blind=True)) is None
    assert run_of(handlers.first_screen()) is None
    assert run_of(handlers.failed("no")) is None
    nothing = {name: replace(of, token_ids=()) for name, of in shown.update.completions.items()}
    assert run_of(replace(shown, update=replace(shown.update, completions=nothing))) is None
    first = {**nothing, "base": shown.update["base"]}
    some = run_of(replace(shown, update=replace(shown.update, completions=first)))
    assert (list(some.answers), list(some.views)) == (["base"], NAMES)


def test_a_look_at_the_tokens(handlers, run):
    shown = visiting.run(TokenScores(handlers), run=run)
    assert [screen.running for screen in shown] == [True] * (len(shown) - 1) + [False]
    value = shown[-1].value
    found = part(handlers.engine, "hello", NAMES, run.answers, what_ifs=run.request.options["what_ifs"])
    assert value["answers"] == NAMES
    assert [view["name"] for view in value["views"]] == NAMES and value["views"][3]["what_if"]
    for whose, by in value["data"]["scores"].items():
        assert [token["id"] for token in value["data"]["answers"][whose]["tokens"]] == list(run.answers[whose])
        for name, one in by.items():
            assert_close(one["log_probability"], found.scores[whose][name].sum, allowed=1e-3)
            assert len(one["top"]) == len(one["tokens"]) == len(run.answers[whose]) and len(one["top"][0]) == 8
    assert json.loads(json.dumps(value, allow_nan=False)) == value, "plain JSON"
    assert value["html"].count('class="bt-strip') == 4
    assert value["html"].count("<tr>") == 5
    places = [found.place("base", name) for name in NAMES[1:]]
    assert value["opened"] == {"answer": 0, "place": min(place for place in places if place is not None)}


def test_the_others_are_compared_with_the_reference_of_compare(handlers, shown):
    run = run_of(handlers.compared_with(shown, 2))
    assert (run_of(shown).reference, run.reference) == ("base", "bitune")
    scores = TokenScores(handlers)
    looked = visiting.run(scores, run=run)[-1]
    value, found = looked.value, looked.found
    places = {name: found.place("bitune", name) for name in NAMES if name != "bitune"}
    known = [place for place in places.values() if place is not None]
    assert value["opened"] == {"answer": 2, "place": min(known)}
    assert value["html"].count("parts from bitune at token") == len(known)
    for name, place in places.items():
        if place is not None:
            assert f'<button type="button" data-answer="{NAMES.index(name)}" data-place="{place}">{name} says' in value["html"]
    assert scores.screen(run_of(shown), found).value == visiting.run(scores, run=run_of(shown))[-1].value, (
        "compared anew, not computed"
    )


def test_recorded_answers_are_looked_into_where_the_weights_agree(handlers, shown, run):
    recording = from_json(to_json(handlers.recording_of(shown)))
    assert handlers.not_looked_into(recording) == ""
    again = run_of(handlers.opened(recording, []))
    assert again.answers == run.answers
    assert again.request == run.request
    look = {
        name: visiting.run(TokenScores(handlers), run=one)[-1].value["data"] for name, one in {"now": run, "then": again}.items()
    }
    assert look["then"] == look["now"]


def test_what_cannot_be_computed_for_recorded_answers_is_said(handlers, shown, tmp_path):
    recording = handlers.recording_of(shown)
    assert "when the model is loaded" in CompareHandlers(Loading(), {}).not_looked_into(recording)
    bare = CompareHandlers(Engine(tiny_base()), {})
    words = "Not loaded here: 'lora', 'bitune'. So these recorded answers cannot be looked into; press Run for new ones."
    assert bare.not_looked_into(recording) == words
    strict = CompareHandlers(handlers.engine, {}, Admission(Limits(new_tokens=5)))
    assert "has 6 tokens, and this page writes at most 5" in strict.not_looked_into(recording)
    prompts = {**recording.update.prompts, "lora": "Another: hello"}
    other = replace(recording, update=replace(recording.update, prompts=prompts))
    assert "another template" in handlers.not_looked_into(other)
    taken = replace(recording.request, what_ifs={"lora": recording.request.what_ifs["if"]})
    assert "already there" in handlers.not_looked_into(replace(recording, request=taken))


def test_a_reference_without_an_answer_gives_way_to_the_first(shown):
    silent = {**shown.update.completions, "if": replace(shown.update["if"], token_ids=())}
    run = run_of(replace(shown, update=replace(shown.update, completions=silent), reference="if"))
    assert run.reference == "base"


def test_one_answer_alone_parts_from_nothing(handlers, run):
    alone = replace(run, answers={"lora": run.answers["lora"]}, reference="lora")
    value = visiting.run(TokenScores(handlers), run=alone)[-1].value
    assert value["opened"] == {"answer": 0, "place": 0}
    assert "parts from" not in value["html"] and len(value["data"]["scores"]["lora"]) == 4


def test_without_a_run_there_is_a_sentence(handlers):
    assert "press Run first" in visiting.run(TokenScores(handlers), run=None)[-1].value["problem"]
    assert "press Run first" in visiting.run(GoOn(handlers), run=None, chosen=chosen())[-1].html


def chosen(variant="bitune", answer="base", place=2, token=72):
    return {"variant": variant, "answer": answer, "place": place, "token": token}


def test_going_on_shows_the_answer_as_what_it_is(handlers, run):
    *_, last = visiting.run(GoOn(handlers), run=run, chosen=chosen())
    assert not last.running
    assert last.completion.token_ids[:3] == (*run.answers["base"][:2], 72)
    assert last.completion.tokens == 6, "as many as the run might write, behind the token"
    assert "bitune goes on from the first 2 tokens of the answer of base and the token that you chose" in last.html
    assert "<mark>i</mark>" in last.html
    *_, own = visiting.run(GoOn(handlers), run=run, chosen=chosen("if", "if", 3, run.answers["if"][3]))
    assert own.completion.token_ids[: len(run.answers["if"])] == run.answers["if"], "behind its own words it writes what it wrote"
    assert "of its own answer" in own.html
    *_, at_once = visiting.run(GoOn(handlers), run=run, chosen=chosen(place=0, token=257))
    assert "It ended by itself" in at_once.html and "no new token" in at_once.html


def test_going_on_that_was_stopped_keeps_what_came(handlers, run):
    going = GoOn(handlers)
    screens = list(going.run(run, chosen()))
    stopped = going.finish(replace(screens[-1], running=True, completion=replace(screens[-1].completion, finish_reason=None)))
    assert "You stopped it" in stopped.html and not stopped.running
    assert "Stopped." in going.finish(going.waiting("wait")).html


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        (None, ConfigError, "The chosen token"),
        ({"variant": "base"}, ConfigError, "exactly the fields"),
        (chosen(place=-1), ConfigError, "below 0"),
        (chosen(place=99), ConfigError, "no token at place 99"),
        (chosen(place="2"), ConfigError, "place='2'"),
        (chosen(answer="ghost"), UnknownNameError, "ghost"),
        (chosen(variant="ghost"), UnknownNameError, "ghost"),
        (chosen(token=10**6), ConfigError, "no token of this base"),
    ],
)
def test_a_question_that_no_page_asks_is_a_sentence(handlers, run, question, error, words):
    with pytest.raises(error, match=words):
        list(GoOn(handlers).run(run, question))
    assert 'role="alert"' in visiting.run(GoOn(handlers), run=run, chosen=question)[-1].html


def test_what_is_asked_of_the_model_is_counted(handlers, run):
    work = TokenScores(handlers).work(run)
    prompt = len(handlers.engine.prompt_ids("hello", "lora"))
    read = sum(map(len, run.answers.values())) * 4
    assert (work.prompt_tokens, work.new_tokens, work.variants) == (prompt, 0, 4)
    assert work.reading >= 4 * prompt + read > work.reading - prompt
    one = GoOn(handlers).work(run, chosen())
    assert (one.prompt_tokens, one.new_tokens, one.variants, one.passes) == (prompt + 3, 6, 1, 2)


def test_no_look_goes_past_the_admission(tmp_path):
    engine = tiny_engine(tmp_path)
    handlers = CompareHandlers(engine, {})
    *_, last = visiting.run(handlers, prompt="hello", variants=["base"], max_new_tokens=6)
    strict = CompareHandlers(engine, {}, Admission(Limits(prompt_tokens=4, new_tokens=4)))
    assert "4" in visiting.run(TokenScores(strict), run=run_of(last))[-1].value["problem"]
    assert 'role="alert"' in visiting.run(GoOn(strict), run=run_of(last), chosen=chosen("base"))[-1].html


# --- for programs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(handlers):
    return WhyApi(handlers, CompareRequest)


def test_programs_get_what_the_page_shows(api, handlers, run):
    found = api.parting("hello", NAMES, max_new_tokens=6, what_ifs=WHAT_IF)
    assert found == visiting.run(TokenScores(handlers), run=run)[-1].value["data"]
    assert [(pair["one"], pair["other"]) for pair in found["parting"]][:2] == [("base", "lora"), ("base", "bitune")]
    assert set(api.parting("hello", max_new_tokens=2)["answers"]) == {"base", "lora", "bitune"}


def test_programs_go_on_from_any_tokens(api, run):
    ids = list(run.answers["bitune"])
    found = api.go_on("hello", "bitune", ids[:2], max_new_tokens=len(ids) - 2, what_ifs=WHAT_IF)
    assert found["token_ids"] == ids and found["tokens"] == len(ids) - 2
    assert found["text"].startswith(found["begun"])


@pytest.mark.parametrize(
    ("begun", "words"),
    [
        ("72", "list of token ids"),
        ([True, "x"], "list of token ids"),
        ([1.5], "list of token ids"),
        ([], "No token"),
        ([999], "no token of"),
    ],
)
def test_beginnings_that_are_none(api, begun, words):
    with pytest.raises(BituneError, match=words):
        api.go_on("hello", "base", begun)


def test_calls_are_counted_before_they_run(api):
    asked = {"prompt": "hello", "template": "own", "max_new_tokens": 9, "temperature": 0, "top_p": 1, "seed": 0, "history": None}
    work = api.parting_work(variants=["base", "bitune"], what_ifs=None, **asked, earlier="recompute")
    assert (work.new_tokens, work.variants) == (9, 2) and work.reading >= 2 * 2 * 9
    one = api.go_on_work("bitune", [72, 73], None, **asked, earlier="recompute")
    assert (one.new_tokens, one.variants) == (9, 1)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        api.parting_work(variants=["base"], what_ifs=None, **{**asked, "max_new_tokens": "x"}, earlier="recompute")


# --- text -------------------------------------------------------------------------------------------------------------


def test_a_character_of_several_tokens_stands_on_the_first_of_them():
    ids = [1, 2, 3, 4, 5]
    texts = {1: "a", 2: "\ufffd", 3: "\ufffd", 4: "\ufffd", 5: "b"}
    whole = {(2, 3): "\ufffd", (2, 3, 4): "你"}
    assert pieces(ids, texts, lambda part: whole.get(tuple(part), "\ufffd")) == ["a", "你", "", "", "b"]
    assert pieces(ids[:3], texts, lambda part: "\ufffd") == ["a", "\ufffd", "\ufffd"], "the answer was cut inside of it"


def test_a_token_of_signs_that_nobody_sees():
    assert visible(" a\n") == "␣a↵" and visible("") == "‥"
    assert visible("\t\r\x1b\u200b\u00a0") == "→␍␛<U+200B><U+00A0>", "one notation, as in Attention"
    assert visible("שלום") == "שלום"


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("âĢ", "\ufffd", "<0xE2 0x80>"),
        ("Ġâ", " \ufffd", "␣<0xE2>"),
        ("<0x9F>", "\ufffd", "<0x9F>"),
        ("▁", "\ufffd", "\ufffd"),
        (None, "\ufffd", "\ufffd"),
        ("ï¿½", "\ufffd", "\ufffd"),
        ("Ġthe", " the", "␣the"),
    ],
)
def test_a_token_that_is_part_of_a_character_shows_its_bytes(name, text, label):
    assert labelled(1, text, {1: name}.get) == label


def test_signs_are_explained_where_they_occur():
    assert notation(["␣a", "b"]) == "␣ is a space, ↵ a new line."
    words = notation(["→", "<U+200B>", "<0xE2 0x80>", "\ufffd", "‥"])
    assert words.count(".") == 5 and "a tab" in words and "<0xE2 0x80> is a token that is only part of a character" in words


def test_all_tokens_of_the_page_are_written_in_one_way(handlers, run):
    value = visiting.run(TokenScores(handlers), run=run)[-1].value
    assert set(value["labels"]) == set(value["data"]["texts"])
    partial = [value["labels"][token] for token, text in value["data"]["texts"].items() if "\ufffd" in text]
    assert partial and all(label.startswith("<0x") for label in partial)
    assert "only part of a character" in value["notation"]
