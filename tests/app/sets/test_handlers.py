"""A set on the page: batches one by one through the line, what is kept on Stop and after an error, rows looked through and saved."""

import asyncio
import csv
import io
import json

import pytest

from app.limits import Limits
from app.sets.handlers import GoingOn, SetHandlers
from app.sets.progress import ALL, PAGE, filters_of, page_of
from app.sets.run import set_screens
from app.ui.admission import Admission
from app.ui.loading import Loading
from bitune import ConfigError, DataError, UnknownNameError
from bitune.sets.compared import compare
from bitune.sets.rows import Row, SetAnswer, SetSettings
from bitune.sets.run import answer_set
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


def screens(handlers, visitor=None, **values):
    return asyncio.run(collected(set_screens(handlers, visitor or Visitor(), **values)))


def stopped_after(handlers, rows, visitor, **values):
    """The screens of a set that is stopped once so many rows are there."""

    async def watched():
        found = []
        async for screen in set_screens(handlers, visitor, **values):
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


def test_a_set_waits_for_the_engine_and_says_so(engine):
    loading = Loading()
    handlers = SetHandlers(loading)

    async def both():
        found = []
        async for screen in set_screens(handlers, Visitor(), text="Why?", variants=["base"], max_new_tokens=2):
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
