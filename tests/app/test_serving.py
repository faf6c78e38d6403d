"""What serving a page relies on in Gradio: its server is uvicorn's, in `page.server`, and does as its config says also once it runs."""

import socket
import time
from threading import Event

import gradio as gr
import httpx
import pytest

from app import serving
from app.limits import Limits
from app.serving import close, keeper_of, serve
from app.settings import Settings

MOST = 4


@pytest.fixture
def served():
    """(page, keeper, address) of a page with an endpoint that answers when the test is over."""
    settings, over = Settings(port=0, limits=Limits(connections=MOST)), Event()

    def slow() -> bool:
        return over.wait(60)

    with gr.Blocks(analytics_enabled=False) as page:
        gr.api(slow, api_name="slow")
    keeper = keeper_of(settings)
    yield page, keeper, serve(page, settings, keeper)
    over.set()
    page.close(verbose=False)


def test_connections_of_the_page_are_bounded_though_its_server_runs_already(served):
    page, _, address = served
    where = httpx.URL(address)
    waiting = [socket.create_connection((where.host, where.port), timeout=5) for _ in range(MOST)]
    with socket.create_connection((where.host, where.port), timeout=5) as another:
        assert another.recv(100) == b"", "Gradio's server makes connections by another config than page.server.config"
    for one in waiting:
        one.close()


def test_a_page_that_is_closed_waits_for_no_answer_that_goes_on_and_on(served, monkeypatch):
    page, keeper, address = served
    monkeypatch.setattr(serving, "LAST_ANSWERS_SECONDS", 0.0)
    call = f"{address}gradio_api/call/slow"
    event = httpx.post(call, json={"data": []}).json()["event_id"]
    with httpx.stream("GET", f"{call}/{event}", timeout=30) as waiting:
        assert waiting.status_code == 200
        started, server = time.monotonic(), page.server
        close(page, keeper)
        took = time.monotonic() - started
    assert not server.thread.is_alive(), "uvicorn does not read timeout_graceful_shutdown of page.server.config when it ends"
    assert took < 4, f"it took {took:.1f} s"
