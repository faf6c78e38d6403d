"""What the page's own scripts send with their events, sent by somebody else: each answers with one sentence, and no fault of the program."""

import inspect

import gradio as gr
import httpx
import pytest

from app.page import build_page
from app.server import serve
from app.settings import Settings
from tests.browser.served import tiny_engine

CRAFTED = (None, {}, "text", [1], {"to": {}, "item": [], "row": 1, "place": "1", "turn": None, "chosen": 1, "text": 1, "name": 1})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    page = build_page(tiny_engine(tmp_path_factory.mktemp("tiny")), {})
    serve(page, Settings(port=0))
    try:
        yield page
    finally:
        page.close()


@pytest.mark.parametrize("sent", CRAFTED, ids=str)
def test_an_event_with_anything_in_it_is_a_sentence(page, sent):
    events = [number for number, block in page.fns.items() if block.fn and "event" in inspect.signature(block.fn).parameters]
    assert len(events) >= 6
    with httpx.Client(base_url=page.local_url, timeout=60) as client:
        for number in events:
            data = [[] if isinstance(one, gr.CheckboxGroup) else None for one in page.fns[number].inputs]
            request = {"fn_index": number, "data": data, "event_data": sent, "session_hash": "crafted"}
            answer = client.post("gradio_api/run/predict", json=request).json()
            said = str(answer.get("error") or answer["data"])
            assert "reload the page" in said and "failed inside" not in said, (page.fns[number].name, said)


def test_no_listener_has_the_page_keep_the_status_of_its_outputs(page):
    own = [one for one in page.config["dependencies"] if one["api_visibility"] == "private" and one["backend_fn"]]
    assert len(own) > 80
    assert [one["targets"] for one in own if one["show_progress_on"] != []] == []
