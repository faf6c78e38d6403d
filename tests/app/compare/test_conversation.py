"""More than one turn in Compare, on a real tiny engine: what is asked next, what is shown of it, and what cannot be asked."""

import asyncio
import json
from dataclasses import replace

import pytest

from app.compare.conversation import NOTHING_TO_GO_ON, SAME_AGAIN, GoingOn, again, can_go_on, follow_up, story, turns_in
from app.compare.handlers import CompareHandlers, Screen
from app.compare.history import MAX_TURNS, read_history
from app.compare.request import MAX_LINKED_SEED, CompareRequest
from app.limits import Limits
from app.ui.admission import Admission
from app.ui.frame import from_shown
from app.ui.pace import Work
from bitune.errors import ConfigError
from bitune.schema.conversation import EARLIER, Turn
from tests.app.ui import visiting
from tests.app.ui.visiting import Visitor, collected
from tests.browser.served import tiny_engine

SAMPLING = {"max_new_tokens": 6, "temperature": 0, "top_p": 1, "seed": 0}
WHAT_IF = {"of": "bitune", "keys": [0.5] * 4, "values": [0.5] * 4, "colour": 2}


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    return CompareHandlers(tiny_engine(tmp_path_factory.mktemp("tiny")), {})


@pytest.fixture(scope="module")
def first(handlers) -> Screen:
    """The end of a run of two variants and a what-if."""
    *_, last = visiting.run(
        handlers, prompt="Who?", variants=["base", "bitune", "mine"], what_ifs={"mine": WHAT_IF}, template="own", **SAMPLING
    )
    return last


def ask(handlers, shown, question="And why?", kept=None, earlier="recompute", **sampling) -> list[Screen]:
    fields = {"question": question, "kept": kept, "earlier": earlier, "what_ifs": {"mine": WHAT_IF}, **SAMPLING, **sampling}
    return going_on(handlers, follow_up, shown, **fields)


def going_on(handlers, asked, shown, visitor=None, **fields) -> list[Screen]:
    return asyncio.run(collected(from_shown(GoingOn(handlers, asked), visitor or Visitor(), shown=shown, **fields)))


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_follow_up_goes_to_all_columns_each_with_its_own_answers(handlers, first, earlier):
    second = ask(handlers, first, earlier=earlier)[-1]
    assert list(second.update.completions) == ["base", "bitune", "mine"]
    assert second.request.history == (Turn("Who?", {name: one.text for name, one in first.update.completions.items()}),)
    for name, completion in first.update.completions.items():
        assert second.update.prompts[name].startswith(first.update.prompts[name] + completion.text)
        assert second.update.prompts[name].endswith("Question: And why?\nAnswer:")
    third = ask(handlers, second, "Since when?", earlier=earlier)[-1]
    assert [turn.prompt for turn in turns_in(third)] == ["Who?", "And why?", "Since when?"]
    assert third.request.variants == first.request.variants


def test_a_question_asked_anew_leaves_out_what_came_after_it(handlers, first):
    second = ask(handlers, first)[-1]
    edited = ask(handlers, second, "And how?", kept=1)[-1]
    assert [turn.prompt for turn in turns_in(edited)] == ["Who?", "And how?"]
    begun = ask(handlers, second, "Who else?", kept=0)[-1]
    assert [turn.prompt for turn in turns_in(begun)] == ["Who else?"]
    assert not story(begun)


def test_regenerate_takes_the_next_seed_and_the_same_turns(handlers, first):
    second = ask(handlers, first, seed=7)[-1]
    *_, other = going_on(handlers, again, second, what_ifs={}, **SAMPLING | {"temperature": 1.5, "seed": 99})
    assert (other.request.seed, other.request.temperature) == (8, 1.5)
    assert (other.request.prompt, other.request.history) == (second.request.prompt, second.request.history)
    assert other.update["bitune"].text != second.update["bitune"].text
    assert (
        again(Screen("", request=CompareRequest("a", ("base",), seed=MAX_LINKED_SEED)), **SAMPLING | {"temperature": 1}).seed == 0
    )


def test_what_cannot_be_asked_is_a_note_and_the_answers_stay(handlers, first):
    *_, same = going_on(handlers, again, first, what_ifs={}, **SAMPLING)
    assert same.note == SAME_AGAIN
    for question, words in (("  ", "The prompt is empty"), ("long " * 300, "512")):
        last = ask(handlers, first, question)[-1]
        assert words in last.note
        assert (last.answers, last.update, last.running) == (first.answers, first.update, False)
    for shown in (Screen("recorded"), Screen("", running=True, update=first.update, request=first.request)):
        assert ask(handlers, shown)[-1].note == NOTHING_TO_GO_ON


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"per_address": 1}, "from your address"),
        ({"waiting": 1}, "As many requests wait here"),
        ({"seconds_waiting": 1}, "nothing waits here for more than"),
        ({"prompt_tokens": 10}, "tokens to read; this page allows at most 10"),
    ],
)
def test_a_follow_up_that_is_refused_leaves_the_conversation(handlers, first, monkeypatch, limits, words):
    second = ask(handlers, first)[-1]
    full = Admission(Limits(running=1, **limits))
    full.pace.learn(Work(1, new_tokens=1), 100)
    full.enter(Visitor().visitor).want(Work(1, new_tokens=1))
    before = (1, 0)
    if "waiting" in limits:
        full.enter("another")
        before = (1, 1)
    monkeypatch.setattr(handlers, "admission", full)
    last = ask(handlers, second, "Since when?")[-1]
    assert words in last.note
    assert last == replace(second, note=last.note) and can_go_on(last) and story(last) == story(second)
    assert full.counts == before


def test_a_follow_up_that_is_stopped_in_the_line_leaves_the_conversation(handlers, first, monkeypatch):
    full = Admission(Limits(running=1))
    full.enter("another").want(Work(1))
    monkeypatch.setattr(handlers, "admission", full)
    visitor = Visitor()

    async def stopped():
        found = []
        fields = {"question": "And why?", "kept": None, "earlier": "recompute", "what_ifs": {}, **SAMPLING}
        async for screen in from_shown(GoingOn(handlers, follow_up), visitor, shown=first, **fields):
            found.append(screen)
            visitor.stopped = "number 1 of 1 in the line" in screen.answers
        return found

    assert asyncio.run(stopped())[-1] == replace(first, note="Stopped before the first token.")


def test_any_error_in_a_follow_up_leaves_the_conversation(handlers, first, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(handlers.runner, "stream", broken)
    last = ask(handlers, first)[-1]
    assert "RuntimeError" in last.note and last == replace(first, note=last.note)


def test_a_variant_that_was_removed_is_a_note(handlers, first):
    lost = Screen("", update=first.update, request=CompareRequest("a", ("base", "gone")), views=first.views)
    assert "There is no variant called 'gone'" in ask(handlers, lost)[-1].note


def test_the_story_shows_the_turns_before_and_how_they_are_read(handlers, first):
    hostile = "</script><img src=x onerror=1>"
    assert story(first) == ""
    second = ask(handlers, first, hostile)[-1]
    third = ask(handlers, second, "Since when?", earlier="alternating")[-1]
    html = story(third)
    assert html.count("<details>") == 2, "collapsed"
    assert html.count("<article") == 6
    assert "<img" not in html and "&lt;img" in html
    assert "alternating" in html and "tested neither" in html
    assert 'data-turn="1"' in html
    assert "data-turn" not in story(ask(handlers, second, "Since when?")[0]), "nothing to edit while a run is under way"


def test_other_tabs_take_no_question_out_of_a_conversation(handlers, first):
    assert first.latest_run is not None
    assert ask(handlers, first)[-1].latest_run is None


@pytest.mark.parametrize("earlier", EARLIER)
def test_the_endpoint_goes_on_with_a_conversation(handlers, earlier):
    history = [{"prompt": "Who?", "answers": {"base": "Me.", "bitune": "You."}}]
    answer = handlers.compare("And why?", ["base", "bitune"], history=history, earlier=earlier, max_new_tokens=4)
    assert "You." in answer["prompts"]["bitune"]
    assert "Me." in answer["prompts"]["base"]
    assert answer["request"]["history"] == history
    assert answer["request"]["earlier"] == earlier
    json.dumps(answer)


TURN = {"prompt": "a", "answers": {"base": "b"}}


@pytest.mark.parametrize(
    ("history", "words"),
    [
        ("a", "history must be a list"),
        ([TURN, 7], "Turn 2 of the history must be an object with exactly the fields prompt, answers"),
        ([{"prompt": "a"}], "answers is missing"),
        ([{**TURN, "role": "user"}], "role is none of them"),
        ([{"prompt": 3, "answers": {}}], "Turn 1 of the history says prompt=3, which is not text"),
        ([{"prompt": "a", "answers": {"base": None}}], "answers.base=None, which is not text"),
        ([{"prompt": "a", "answers": "b"}], "Turn 1 of the history"),
        ([TURN] * (MAX_TURNS + 1), f"at most {MAX_TURNS}"),
    ],
)
def test_a_history_that_is_none_is_a_sentence(history, words):
    with pytest.raises(ConfigError, match=words):
        CompareRequest("a", ("base",), history=history)


def test_a_history_is_read_once():
    turns = read_history([TURN] * MAX_TURNS)
    assert read_history(turns) == turns
    assert read_history(None) == ()
