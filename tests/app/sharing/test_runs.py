"""A saved run: what is in it, that it shows the same where no model is, and what is said of one that does not fit or is none."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.compare.handlers import CompareHandlers
from app.compare.origin import not_as_here
from app.compare.recorded import from_json
from app.sharing.handlers import SharingHandlers
from app.sharing.runs import RUN_BYTES
from app.ui.loading import Loading
from bitune import Engine
from bitune.errors import ConfigError, DataError
from tests.browser.served import tiny_engine
from tests.mutations import within
from tests.tiny import bitune_on, tiny_base

HOSTILE = "</script><img src=x onerror=alert(1)> ${1+1} {{7*7}}"
OPTIONS = {"template": "own", "max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0, "seed": 3}
NONE = {"of": "bitune", "keys": [0.0] * 4, "values": [0.0] * 4, "colour": 0}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def screen(engine):
    """A run with a what-if whose name and prompt are not kind."""
    variants = ["base", "bitune", HOSTILE]
    *_, last = CompareHandlers(engine, {}).run(HOSTILE, variants, {HOSTILE: NONE}, **OPTIONS)
    return last


@pytest.fixture(scope="module")
def saved(engine, screen):
    return SharingHandlers(engine).saved(CompareHandlers(engine, {}).recording_of(screen))


def test_a_file_says_what_was_asked_answered_and_with_what(engine, screen, saved):
    plain = json.loads(saved)
    assert (plain["format"], plain["version"]) == ("bitune run", 1)
    assert plain["request"] == {
        "prompt": HOSTILE,
        "variants": ["base", "bitune", HOSTILE],
        **OPTIONS,
        "what_ifs": plain["request"]["what_ifs"],
        "history": [],
        "earlier": "recompute",
    }
    assert plain["request"]["what_ifs"][HOSTILE]["keys"] == [0.0] * 4
    for name, completion in screen.update.completions.items():
        kept = plain["update"]["completions"][name]
        assert (kept["text"], tuple(kept["token_ids"])) == (completion.text, completion.token_ids)
        assert plain["tokens"][name] == [engine.base.tokenizer.decode([token]) for token in completion.token_ids]
    assert plain["base"]["id"] == "tiny-llama" and plain["base"]["fingerprint"]
    assert list(plain["checkpoints"]) == ["bitune"], "those that answered, a what-if's among them"
    assert plain["checkpoints"]["bitune"]["fingerprint"] == engine.checkpoints["bitune"].fingerprint
    assert {"python", "torch", "transformers", "peft"} <= set(plain["libraries"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", plain["recorded"])


def test_it_shows_the_same_where_no_model_is(screen, saved):
    recording, state, words = SharingHandlers(Loading(["bitune"])).open_run(saved)
    shown = CompareHandlers(Loading(["bitune"]), {}).opened(recording, words)
    columns = re.compile("<article.*</article>", re.DOTALL)
    assert columns.search(shown.answers)[0] == columns.search(screen.answers)[0]
    assert shown.prompts == screen.prompts
    assert "Saved run" in shown.answers and "No model is loaded here" in shown.answers
    assert "<img" not in shown.answers + shown.prompts
    assert state["compare"] == {"prompt": HOSTILE, "variants": ["base", "bitune", HOSTILE], **OPTIONS}
    assert shown.latest_run.id is None, "nobody votes on it, but Attention may take it"
    assert shown.latest_run.answers == screen.latest_run.answers
    assert CompareHandlers(Loading(), {}).recording_of(shown) == recording, "it can be saved again"


def test_a_conversation_comes_back_with_its_turns(engine, screen):
    handlers, shared = CompareHandlers(engine, {}), SharingHandlers(engine)
    turn = {"prompt": HOSTILE, "answers": {name: screen.update[name].text for name in ("base", "bitune")}}
    *_, last = handlers.run("and then?", ["base", "bitune"], history=[turn], **OPTIONS)
    recording, state, words = shared.open_run(shared.saved(handlers.recording_of(last)))
    assert recording.request.history == last.request.history
    assert state["compare"]["prompt"] == HOSTILE, "what it began with"
    assert handlers.opened(recording, words).request.prompt == "and then?"


def test_what_is_not_here_or_differs_is_said(engine, saved, tmp_path):
    recording = from_json(saved)
    assert not_as_here(recording, engine) == []
    bare = Engine(tiny_base(seed=1))
    assert not_as_here(recording, bare) == ["The base here has the same name, but other weights.", "Not loaded here: 'bitune'."]
    bitune_on(tiny_base(), "bitune", seed=9).save_pretrained(tmp_path / "bitune")
    other = Engine(tiny_base())
    other.add_checkpoint(tmp_path / "bitune")
    assert not_as_here(recording, other) == ["Of the same name, but with other weights here: 'bitune'."]
    renamed = replace(recording, base=replace(recording.base, id="another", sha256="a", fingerprint=()))
    assert "The base here is another: 'tiny-llama'." in not_as_here(renamed, engine)


def changed(saved: str, change) -> str:
    plain = json.loads(saved)
    change(plain)
    return json.dumps(plain)


BROKEN = {
    "nothing": lambda plain: plain.clear(),
    "version": lambda plain: plain.update(version=2),
    "more": lambda plain: plain.update(more=1),
    "date": lambda plain: plain.update(recorded="yesterday"),
    "a naive date": lambda plain: plain.update(recorded="2026-11-26T00:00:00"),
    "no answer": lambda plain: plain["update"].update(completions={}),
    "running": lambda plain: plain["update"]["completions"]["base"].update(finish_reason=None),
    "other view": lambda plain: plain["views"]["base"].update(name="lora"),
    "pass": lambda plain: plain["views"]["base"].update(passes=["sideways"]),
    "number": lambda plain: plain["update"]["completions"]["base"].update(tokens_per_second=10**400),
    "tokens": lambda plain: plain["tokens"]["base"].pop(),
    "long": lambda plain: plain["update"]["completions"]["base"].update(text="a b " * 100_000),
    "what-ifs": lambda plain: plain["request"].update(what_ifs={str(n): NONE for n in range(5)}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_one_sentence(engine, saved, name):
    with pytest.raises(DataError) as caught:
        SharingHandlers(engine).open_run(changed(saved, BROKEN[name]), "mine.json")
    why = (
        "is not a saved run."
        if name == "nothing"
        else "is a saved run, but it is damaged, was changed, or comes from another version"
    )
    assert str(caught.value).startswith(f"'mine.json' {why}")
    assert str(caught.value).endswith("Open a .json file that “Save run” has made.")


def test_a_file_of_another_kind_is_named_and_told_what_can_be_opened(engine):
    words = "is not a saved run. Open a .json file that “Save run” has made."
    for content in ("Dear diary", "{}", '{"recorded": 1}', "[1, 2]", "\ufffdPNG"):
        with pytest.raises(DataError) as caught:
            SharingHandlers(engine).open_run(content, "a.txt")
        assert str(caught.value) == f"'a.txt' {words}"
        with pytest.raises(DataError) as caught:
            SharingHandlers(engine).open_run(content)
        assert str(caught.value) == f"This {words}"
    with pytest.raises(DataError) as caught:
        SharingHandlers(engine).open_run("x", "n" * 10_000)
    assert len(str(caught.value)) < 300


def test_a_saved_run_has_the_time_at_which_it_ended(engine, screen):
    handlers, ended = CompareHandlers(engine, {}), datetime(2020, 1, 2, 3, 4, 5, 678, UTC)
    assert handlers.recording_of(replace(screen, finished=ended)).recorded == ended.replace(microsecond=0)
    blind = replace(screen, finished=ended, blind=True)
    assert handlers.recording_of(handlers.unveiled(blind)).recorded == ended.replace(microsecond=0), "not when its names came"
    before = datetime.now(UTC)
    *_, last = handlers.run("hello", ["base"], **OPTIONS)
    assert before <= last.finished <= datetime.now(UTC)


@pytest.mark.parametrize(
    "content", [None, 3, "", "x", "[]", "[" * 100_000, '{"a": 1, "a": 2}', "x" * (RUN_BYTES + 1), "\u4f60" * (RUN_BYTES // 2)]
)
def test_what_is_no_run_at_all_is_one_sentence_at_once(engine, content):
    with within(2), pytest.raises(DataError):
        SharingHandlers(engine).open_run(content)


def test_answers_that_are_slow_to_compare_are_shown_at_once(engine, saved):
    def repeat(plain):
        for name, text in {"base": "a b " * 8_000, "bitune": "b a a " * 5_000}.items():
            plain["update"]["completions"][name].update(text=text, tokens=400, token_ids=[5] * 400)
            plain["tokens"][name] = ["a"] * 400

    with within(2):
        recording, _, words = SharingHandlers(engine).open_run(changed(saved, repeat))
        CompareHandlers(engine, {}).opened(recording, words)


def test_nothing_is_saved_before_a_run_has_ended(engine, screen):
    handlers = CompareHandlers(engine, {})
    for unfinished in (handlers.first_screen(), handlers.failed("no"), replace(screen, running=True)):
        assert handlers.recording_of(unfinished) is None
    with pytest.raises(ConfigError, match="no run to save"):
        SharingHandlers(engine).saved(None)


def test_what_ifs_of_others_come_as_far_as_they_fit(engine):
    handlers = SharingHandlers(engine)
    found = handlers.what_ifs({"mine": NONE, HOSTILE: {**NONE, "keys": [1.0] * 4}}, {})
    assert list(found.known) == ["mine", HOSTILE] and not found.words
    again = handlers.what_ifs({"mine": {**NONE, "values": [0.5] * 4}, "same": NONE}, found.known)
    assert again.names == {"mine": "mine 2", "same": "mine"}, "another of this name, and one that is there already"
    bad = {"a": {**NONE, "of": "ghost"}, "b": {**NONE, "of": "lora"}, "c": {**NONE, "keys": [0.0]}, "d": 3}
    refused = handlers.what_ifs(bad, {})
    assert refused.known == {} and len(refused.words) == 4
    assert len(handlers.what_ifs({str(n): NONE for n in range(10_000)}, {}).words) == 1
    assert handlers.what_ifs([], {}).words
    (words,) = handlers.what_ifs({"n" * 300: NONE}, {}).words
    assert words == "The name of a what-if has 300 characters; this page takes at most 200, so give it a shorter one."
