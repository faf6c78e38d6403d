"""A set on the page: batches one by one through the line, what is kept on Stop and after an error, rows looked through and saved."""

import asyncio
import csv
import io
import json
import threading
from dataclasses import replace

import pytest

from app.limits import Limits
from app.sets import html
from app.sets.handlers import GoingOn, SetHandlers
from app.sets.progress import ALL, PAGE, filters_of, page_of
from app.sets.run import set_screens
from app.ui.admission import Admission, Refused
from app.ui.loading import Loading
from app.ui.pace import Work
from bitune import ConfigError, DataError, UnknownNameError
from bitune.sets.compared import compare
from bitune.sets.rows import Row, SetAnswer, SetSettings
from bitune.sets.run import answer_set
from tests.app.ui.test_running import until
from tests.app.ui.visiting import Visitor, collected
from tests.browser.served import tiny_engine

TEXT = "\n".join(f"What is {number} and {number}?\t{2 * number}" for number in range(12))
ASKED = {"text": TEXT, "variants": ["bitune", "base"], "max_new_tokens": 3}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def handlers(engine):
    return SetHandlers(engine)


def screens(handlers, visitor=None, shown=None, **values):
    return asyncio.run(collected(set_screens(handlers, visitor or Visitor(), shown=shown, **values)))


def stopped_after(handlers, rows, visitor, **values):
    """The screens of a set that is stopped once so many rows are there."""

    async def watched():
        found = []
        async for screen in set_screens(handlers, visitor, **{"shown": None, **values}):
            found.append(screen)
            visitor.stopped = screen.progress is not None and len(screen.progress.rows) >= rows
        return found

    return asyncio.run(watched())


def test_a_set_is_answered_batch_by_batch_with_the_numbers_of_the_command_line(engine, handlers):
    *before, last = screens(handlers, **ASKED)
    assert all(screen.running for screen in before) and not last.running and not last.can_go_on
    counts = [len(screen.progress.rows) for screen in before if screen.progress]
    assert counts[0] == 0 and counts[-1] == 12 and len(set(counts)) > 2, "more than one batch"
    progress = last.progress
    assert list(progress.views) == ["base", "bitune"], "in the order of the page"
    batches = answer_set(engine, progress.prompts, ["base", "bitune"], SetSettings(max_new_tokens=3))
    rows = [row for batch in batches for row in batch]
    assert compare(rows).to_dict() == compare(progress.rows).to_dict()
    assert "12 of 12 prompts" in last.status and "Right, of 12" in last.summary


def test_every_batch_is_a_request_in_the_line(handlers, monkeypatch):
    asked, want = [], Admission.want
    monkeypatch.setattr(Admission, "want", lambda self, ticket, work: asked.append(work) or want(self, ticket, work))
    screens(handlers, **ASKED)
    assert len(asked) == 2 and sum(work.prompts for work in asked) == 12
    assert asked[0].variants == 2 and asked[0].writing == 3 * 2 * 8 and asked[0].reading == asked[0].prompt_tokens * 3 * 8


def test_stop_keeps_what_was_answered_and_going_on_answers_the_others(engine, handlers):
    last = stopped_after(handlers, 1, Visitor(), **ASKED)[-1]
    assert not last.running and last.can_go_on and 0 < len(last.progress.rows) < 12 and "Stopped." in last.status
    whole = screens(GoingOn(engine, handlers.admission), shown=last)[-1]
    assert sorted(row.key for row in whole.progress.rows) == [(index, 0) for index in range(12)]
    assert whole.progress.rows[: len(last.progress.rows)] == last.progress.rows
    again = screens(GoingOn(engine, handlers.admission), shown=handlers.first_screen())[-1]
    assert "There is no set to go on with" in again.status


def test_an_error_on_the_way_keeps_what_was_answered(handlers, monkeypatch):
    batch = handlers.runner.batch
    asked = []

    def fails_later(prompts, variants, **how):
        asked.append(prompts)
        if len(asked) > 1:
            raise ConfigError("The second batch is too much.")
        return batch(prompts, variants, **how)

    monkeypatch.setattr(handlers.runner, "batch", fails_later)
    last = screens(handlers, **ASKED)[-1]
    assert "The second batch is too much." in last.status and last.can_go_on and len(last.progress.rows) == len(asked[0])


def test_a_set_that_does_not_begin_leaves_the_one_before(engine, handlers, monkeypatch):
    whole = screens(handlers, **ASKED)[-1]
    part = stopped_after(handlers, 1, Visitor(), **ASKED)[-1]
    full = SetHandlers(engine, Admission(Limits(running=1, waiting=1)))
    full.admission.enter("another").want(Work(1))
    full.admission.enter("a third")
    small, seen = SetHandlers(engine, Admission(Limits(prompt_tokens=10))), (handlers.look(whole, "differ", 0), part)
    for before in seen:
        for on, asked, words in (
            (handlers, {"samples": 3}, "samples is 3 at temperature 0"),
            (handlers, {"text": '{"prompt": 1}'}, "line 1: field"),
            (full, {}, "As many requests wait here"),
            (small, {}, "allows at most 10"),
        ):
            last = screens(on, shown=before, **{**ASKED, **asked})[-1]
            assert words in last.status and 'role="alert"' in last.status and f"{len(before.progress.rows)} of 12" in last.status
            assert last == replace(before, status=last.status) and last.can_go_on == before.can_go_on
            assert handlers.saved(last, "csv") == handlers.saved(before, "csv")
    assert "As many requests wait" in screens(full, **ASKED)[-1].status


def test_stop_before_the_first_rows_leaves_the_set_before(handlers):
    before = screens(handlers, **ASKED)[-1]
    last = stopped_after(handlers, 0, Visitor(), shown=before, **ASKED)[-1]
    assert "Stopped before the first answer." in last.status and last == replace(before, status=last.status)
    visitor = Visitor()
    visitor.stopped = True
    last = screens(handlers, visitor, **ASKED)[-1]
    assert "Stopped" in last.status and not last.running and not last.rows


def test_going_on_that_is_refused_leaves_the_set(engine, handlers):
    part = stopped_after(handlers, 1, Visitor(), **ASKED)[-1]
    full = Admission(Limits(per_address=1))
    full.enter(Visitor().visitor)
    last = screens(GoingOn(engine, full), shown=part)[-1]
    assert "from your address" in last.status and last.can_go_on and last.progress == part.progress


def test_what_rows_say_is_not_counted_on_the_event_loop(engine, handlers, monkeypatch):
    part = stopped_after(handlers, 1, Visitor(), **ASKED)[-1]
    threads = []
    monkeypatch.setattr(html, "compare", lambda *given: threads.append(threading.current_thread()) or compare(*given))
    first, *_, last = screens(GoingOn(engine, handlers.admission), shown=part)
    assert first.running and first.rows and first.summary == part.summary and len(last.progress.rows) == 12
    assert threads and threading.main_thread() not in threads


def test_a_set_that_has_begun_waits_where_others_are_refused(engine, monkeypatch):
    """The line is full between its two batches, longer than anything may wait, and its visitor has all the requests that one may have."""
    admission = Admission(Limits(running=1, waiting=2, per_address=1))
    handlers, visitor, others, words = SetHandlers(engine, admission), Visitor(), [], []

    async def watched():
        found = []
        async for screen in set_screens(handlers, visitor, shown=None, **ASKED):
            found.append(screen)
            if screen.progress and screen.progress.rows and not others:
                for name in ("another", "a third"):
                    others.append(admission.enter(name))
                    others[-1].want(Work(1, new_tokens=1))
                await until(lambda: admission.counts == (1, 2))
                monkeypatch.setattr(admission, "limits", replace(admission.limits, seconds_waiting=1))
                admission.pace.learn(Work(1, new_tokens=1), 1000)
                with pytest.raises(Refused, match="from your address"):
                    admission.enter(visitor.visitor)
            elif others and "in the line" in screen.status:
                words.append(screen.status)
                if len(words) == 3:  # more than a second
                    for other in others:
                        other.leave()
        return found

    last = asyncio.run(watched())[-1]
    assert len(words) >= 3 and "it starts in about" in words[0] and "8 of 12" in words[0]
    assert len(last.progress.rows) == 12 and not last.running
    assert admission.counts == (0, 0)


@pytest.mark.parametrize("way", ["stop", "leave", "close"])
def test_a_set_that_waits_between_batches_ends_when_it_should(engine, way):
    admission = Admission(Limits(running=1))
    handlers, visitor, others = SetHandlers(engine, admission), Visitor(), []

    async def watched():
        found = []
        async for screen in set_screens(handlers, visitor, shown=None, **ASKED):
            found.append(screen)
            if screen.progress and screen.progress.rows and not others:
                others.append(admission.enter("another"))
                others[0].want(Work(1, new_tokens=1))
            elif others and "in the line" in screen.status:
                visitor.stopped = way == "stop"
                if way == "leave":
                    visitor.leave()
                elif way == "close":
                    admission.close("The page ends.")
        return found

    last = asyncio.run(watched())[-1]
    assert {"stop": "Stopped.", "leave": "in the line", "close": "The page ends."}[way] in last.status
    assert len(last.progress.rows) == 8 and last.running == (way == "leave")
    assert admission.counts == (1, 0), "the other one"


def test_a_set_waits_for_the_engine_and_says_so(engine):
    loading = Loading()
    handlers = SetHandlers(loading)

    async def both():
        found = []
        async for screen in set_screens(handlers, Visitor(), shown=None, text="Why?", variants=["base"], max_new_tokens=2):
            found.append(screen)
            if len(found) == 1:
                loading.finish(engine)
        return found

    found = asyncio.run(both())
    assert found[0].running and found[0].progress is None and len(found[-1].progress.rows) == 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"text": ""}, "The text holds no prompt"),
        ({"text": 5}, "text must be text"),
        ({"variants": []}, "No variant is chosen"),
        ({"variants": ["qa"]}, "There is no variant called"),
        ({"samples": 2}, "all of them would be the same"),
        ({"samples": 17, "temperature": 1.0}, "12 prompts with 17 answers to each; this page answers at most 200"),
        ({"text": "Why?\n" * 201}, "201 prompts; this page answers at most 200"),
        ({"text": "Why?\n" + "b" * 600}, "Prompt 2 of 2 cannot be asked."),
        ({"max_new_tokens": 513}, "513 new tokens"),
        ({"template": "no"}, "There is no template called"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_runs_nothing(handlers, asked, words, monkeypatch):
    monkeypatch.setattr(handlers.runner, "batch", lambda *_, **__: pytest.fail("something ran"))
    last = screens(handlers, **{**ASKED, **asked})[-1]
    assert words in last.status and 'role="alert"' in last.status and not last.running


def test_a_prompt_that_is_longer_than_this_page_allows(engine):
    handlers = SetHandlers(engine, Admission(Limits(prompt_tokens=30)))
    assert "allows at most 30" in screens(handlers, text="Why?\n" + "b" * 40, variants=["base"])[-1].status


def row(index, base, qa, right=None):
    answers = {name: SetAnswer(text, 1, "eos", right and text == right) for name, text in (("base", base), ("qa", qa))}
    return Row(index, 0, f"p{index}", right, answers)


def test_rows_are_chosen_and_counted():
    rows = [row(2, "a", "a", "a"), row(0, "a", "b", "b"), row(1, "a", "b", "c"), row(3, "a", "b")]
    labels = {name: label for label, name in filters_of(rows)}
    assert labels["differ"] == "not all the same text (3)" and labels["split"] == "some right, some wrong (1)"
    kept = {name: [one.index for one in page_of(rows, name, 0)[0]] for name in labels}
    assert kept == {ALL: [0, 1, 2, 3], "differ": [0, 1, 3], "same": [2], "cut": [], "split": [0], "right": [2], "wrong": [1]}
    assert "split" not in {name: label for label, name in filters_of(rows[3:])}
    many = [row(index, "a", "b") for index in range(PAGE + 3)]
    assert [len(page_of(many, ALL, page)[1]) for page in (0, 1, 7)] == [PAGE, 3, 3]
    with pytest.raises(UnknownNameError):
        page_of(rows, "worst", 0)


def test_what_is_shown_is_what_was_written_and_nothing_of_it_runs(handlers):
    hostile = "<img src=x onerror=alert(1)> {{7*7}}"
    last = screens(handlers, text=hostile, variants=["base", "lora"], max_new_tokens=2)[-1]
    assert "<img" not in last.rows and "&lt;img src=x" in last.rows and "{{7*7}}" in last.rows
    assert handlers.prompt_of(last, "0") == (hostile, "own")
    for index in ("1", "-1", "x", None):
        with pytest.raises(ConfigError, match="not in the set"):
            handlers.prompt_of(last, index)
    with pytest.raises(ConfigError, match="not in the set"):
        handlers.prompt_of(handlers.first_screen(), "0")


def test_what_is_saved_has_every_row_in_order(handlers):
    last = screens(handlers, **ASKED)[-1]
    head, *rows = map(json.loads, handlers.saved(last, "jsonl").splitlines())
    assert head["settings"]["max_new_tokens"] == 3 and [one["index"] for one in rows] == list(range(12))
    table = list(csv.reader(io.StringIO(handlers.saved(last, "csv"))))
    assert len(table) == 13 and table[3][2:4] == ["What is 2 and 2?", "4"]
    with pytest.raises(ConfigError, match="no answer to save"):
        handlers.saved(handlers.first_screen(), "csv")


def test_a_file_stands_in_the_box_as_it_will_be_read(handlers):
    assert handlers.opened("A?\n\nB?\tb", "a.txt") == ("A?\n\nB?\tb", "2 prompts, 1 of them with a right answer.")
    text, words = handlers.opened("prompt\nA?\nB?", "a.csv")  # which nobody would take for a CSV without its name
    assert words == "2 prompts." and [json.loads(line) for line in text.splitlines()] == [{"prompt": "A?"}, {"prompt": "B?"}]
    with pytest.raises(DataError, match="set.csv has the columns name"):
        handlers.opened("name\nA?", "set.csv")
    with pytest.raises(ConfigError, match="at most 200"):
        handlers.opened("A?\n" * 300, "set.txt")
    with pytest.raises(ConfigError):
        handlers.opened(None, "set.txt")
