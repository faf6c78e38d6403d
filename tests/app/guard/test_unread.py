"""Answers that nobody fetches do not stay."""

import asyncio
import inspect
import time

import gradio as gr
import httpx
import pytest
from gradio_client import Client

from app.guard import unread
from app.guard.unread import Unread, forgetting_unread


@pytest.fixture
def page(monkeypatch):
    """A page of Gradio with a large answer, swept often."""
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 0.3)
    monkeypatch.setattr(unread, "SWEEP_SECONDS", 0.05)
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.api(large, api_name="large")
    options = {"prevent_thread_lock": True, "quiet": True, "ssr_mode": False, "run_history": False}
    try:
        blocks.queue().launch(server_name="127.0.0.1", app_kwargs={"lifespan": forgetting_unread}, **options)
        yield blocks
    finally:
        blocks.close(verbose=False)


def large(seconds: float) -> str:
    """A megabyte, after a while."""
    time.sleep(seconds)
    return "x" * 1_000_000


def test_what_is_not_fetched_goes_and_what_is_waited_for_stays(page):
    queue, api = page._queue, f"{page.local_url}gradio_api/call/large"
    events = [httpx.post(api, json={"data": [0]}).json()["event_id"] for _ in range(5)]
    client = Client(page.local_url, verbose=False, analytics_enabled=False)
    assert len(client.predict(1.0, api_name="/large")) == 1_000_000, "longer than an answer may lie unread"
    until = time.monotonic() + 20
    while set(events) & queue.pending_messages_per_session.keys() and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(events) & queue.pending_messages_per_session.keys()
    assert not set(events) & queue.pending_event_ids_session.keys() and not set(events) & queue.event_ids_to_events.keys()
    assert len(client.predict(0, api_name="/large")) == 1_000_000


def test_gradio_keeps_what_nobody_fetches_where_it_is_looked_for(page, monkeypatch):
    """What app/guard/unread.py relies on: a queue in `_queue`, and there what waits for whom by the id of the session."""
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 60.0)
    event = httpx.post(f"{page.local_url}gradio_api/call/large", json={"data": [0]}).json()["event_id"]
    queue, until = page._queue, time.monotonic() + 20
    messages = queue.pending_messages_per_session
    while not (event in messages and messages[event].qsize()) and time.monotonic() < until:
        time.sleep(0.01)
    assert event in messages and messages[event].qsize(), "Gradio keeps messages elsewhere now: nobody would forget them"
    assert event in queue.pending_event_ids_session, "Gradio keeps the ids of a session's events elsewhere now"
    assert "session_hash" in inspect.signature(queue.clean_events).parameters, "Gradio ends a session's events otherwise now"


def test_it_lies_unread_from_the_first_look_at_which_it_was(page):
    queue = page._queue
    swept = Unread(queue)
    for session, messages in {"unread": 1, "read": 0}.items():
        queue.pending_messages_per_session[session] = asyncio.Queue()
        for _ in range(messages):
            queue.pending_messages_per_session[session].put_nowait("message")
    for now, there in ((0.0, True), (0.2, True), (0.4, False)):
        asyncio.run(swept.sweep(now))
        assert ("unread" in queue.pending_messages_per_session) is there
    assert "read" in queue.pending_messages_per_session
