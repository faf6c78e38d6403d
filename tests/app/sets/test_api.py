"""The endpoint /sets without a server: its rows are those of the command line, it passes the line, and what is wrong is a sentence."""

import asyncio
import json
from contextlib import aclosing

import gradio as gr
import pytest
from gradio.context import LocalContext
from starlette.requests import Request

from app.limits import Limits
from app.sets.api import ForPrograms, sets_function
from app.sets.request import Link
from app.ui.admission import Admission
from app.ui.caller import Caller
from app.ui.runner import Runner
from app.ui.validation import as_far_as_valid
from bitune import ConfigError
from bitune.data.prompt_sets import parse_set
from bitune.sets.compared import compare
from bitune.sets.rows import SetSettings
from bitune.sets.run import answer_set
from tests.browser.served import tiny_engine

PROMPTS = [{"prompt": f"What is {number} and {number}?", "answer": str(2 * number)} for number in range(11)] + ["Why?"]
WHAT_IFS = {"mine": {"of": "bitune", "keys": [0.5] * 4, "values": [0.5] * 4}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def queued(monkeypatch):
    """As an event of Gradio's queue, whose client stays."""

    async def stays(self):
        return False

    monkeypatch.setattr(Caller, "is_gone", stays)


def values(engine, event="1", admission=None, **asked) -> list[dict]:
    """What a client gets that iterates; `event`: in Gradio's queue, None past it."""

    async def collected():
        LocalContext.request.set(Request({"type": "http", "headers": [], "client": ("somebody", 1)}))
        LocalContext.event_id.set(event)
        LocalContext.blocks.set(None)
        async with aclosing(sets_function(ForPrograms(engine, admission))(**asked)) as found:
            return [value async for value in found]

    return asyncio.run(collected())


def test_the_rows_are_those_of_the_command_line(engine, queued):
    *before, last = values(engine, prompts=PROMPTS, variants=["base", "bitune"], max_new_tokens=3)
    text = "\n".join(json.dumps(one) for one in PROMPTS)
    rows = [
        row for batch in answer_set(engine, parse_set(text), ["base", "bitune"], SetSettings(max_new_tokens=3)) for row in batch
    ]
    by_place = sorted(rows, key=lambda row: row.key)
    assert last["rows"] == [row.to_dict() for row in by_place]
    assert last["compared"] == compare(rows).to_dict() and last["compared"]["judged"] == 11
    assert (last["done"], last["total"], last["problem"]) == (12, 12, None) and last["settings"]["max_new_tokens"] == 3
    assert [value["done"] for value in before][0] == 0 and all(value["compared"] is None for value in before)
    assert json.loads(json.dumps(last)) == last, "plain JSON"
    assert values(engine, prompts=text, variants=["base", "bitune"], max_new_tokens=3)[-1] == last


def test_what_ends_a_set_on_its_way_leaves_the_rows_so_far(engine, queued, monkeypatch):
    asked, batch = [], Runner.batch

    def fails_later(self, prompts, variants, **how):
        asked.append(prompts)
        if len(asked) > 1:
            raise ConfigError("The second batch is too much.")
        return batch(self, prompts, variants, **how)

    monkeypatch.setattr(Runner, "batch", fails_later)
    for event in ("1", None):
        asked.clear()
        last = values(engine, event, prompts=PROMPTS, variants=["base", "bitune"], max_new_tokens=3)[-1]
        assert last["problem"] == "The second batch is too much." and last["compared"] is None
        assert last["done"] == len(last["rows"]) == len(asked[0]) < last["total"]
    asked[:] = [None]
    with pytest.raises(gr.Error, match="too much"):
        values(engine, prompts=PROMPTS, variants=["base"], max_new_tokens=3)


def test_past_the_queue_there_is_one_value(engine, queued):
    (only,) = values(engine, event=None, prompts=["Why?"], max_new_tokens=2, what_ifs=WHAT_IFS)
    assert list(only["rows"][0]["answers"]) == ["base", "lora", "bitune", "mine"] and only["compared"]["prompts"] == 1


def test_every_batch_is_a_request_in_the_line(engine, queued, monkeypatch):
    asked, want = [], Admission.want
    monkeypatch.setattr(Admission, "want", lambda self, ticket, work: asked.append(work) or want(self, ticket, work))
    values(engine, prompts=PROMPTS, variants=["base", "bitune"], max_new_tokens=3)
    assert sum(work.prompts for work in asked) == 12 and len(asked) > 1


@pytest.mark.parametrize(
    ("asked", "limits", "words"),
    [
        ({"prompts": ["a"] * 5}, {"set_prompts": 4}, "at most 4 of a set"),
        ({"prompts": ["a"] * 3, "samples": 2, "temperature": 1.0}, {"set_prompts": 4}, "3 prompts with 2 answers to each"),
        ({"prompts": ["a"], "max_new_tokens": 9}, {"new_tokens": 8}, "9 new tokens; this page allows at most 8"),
        ({"prompts": ["a" * 99]}, {"prompt_tokens": 50}, "tokens to read; this page allows at most 50"),
        ({"prompts": ["a"]}, {"variants": 2}, "3 variants at once"),
        ({"prompts": []}, {}, "holds no prompt"),
        ({"prompts": ""}, {}, "holds no prompt"),
        ({"prompts": 3}, {}, "must be a text or a list"),
        ({"prompts": ["a", 3]}, {}, "The list, entry 2"),
        ({"prompts": [{"prompt": "a"}], "variants": ["ghost"]}, {}, "ghost"),
        ({"prompts": ["a"], "variants": "base"}, {}, "list of names"),
        ({"prompts": ["a"], "samples": 2}, {}, "temperature above 0"),
        ({"prompts": ["a"], "what_ifs": [1]}, {}, "what_ifs"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(engine, queued, asked, limits, words):
    with pytest.raises(gr.Error, match=words):
        values(engine, admission=Admission(Limits(**limits)), **{"max_new_tokens": 2, **asked})


def test_a_link_holds_the_choices_and_no_prompts():
    fields = {
        "variants": ["base"],
        "template": "none",
        "max_new_tokens": 8,
        "temperature": 0.5,
        "top_p": 1,
        "seed": 3,
        "samples": 2,
    }
    link, words = as_far_as_valid(Link, fields, "The link")
    assert words == [] and link.model_dump() == fields
    _, words = as_far_as_valid(Link, {"text": "Why?", "samples": 9}, "The link")
    assert "text is none of them" in " ".join(words) and "above 8" in " ".join(words)
