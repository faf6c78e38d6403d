"""Many at once, by every way in, and visitors who leave: the page goes on answering, and nothing runs for somebody who has gone."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pytest
from gradio.context import LocalContext
from gradio.queueing import Event
from gradio_client import Client

from app.attention.handlers import AttentionHandlers
from app.attention.request import AttentionRequest
from app.limits import Limits
from app.page import build_page
from app.server import serve
from app.settings import Settings
from app.ui.admission import Admission
from bitune.model.decoding import Decoder
from bitune.modeling.interface import attention_modules
from tests.browser.served import tiny_engine

LIMITS = Limits(running=2, waiting=20, per_address=200, connections=200)
PAGE_SECONDS = 60.0  # generous: where threads are used up, the page does not answer at all
LONG = {  # requests, and how many steps each would take
    "compare": (["hello", None, "own", 400, 0, 1, 0, None, None, "recompute"], 2004),
    "attention": (["x" * 400, "bitune", 0, 0, "", "none", None], 16),
    "mixing": ([["bitune"], "x" * 400, "none"], 8),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def admission():
    return Admission(LIMITS)


@pytest.fixture
def url(engine, admission):
    page = build_page(engine, {}, admission=admission)
    try:
        yield serve(page, Settings(port=0, limits=LIMITS))
    finally:
        page.close()


@pytest.fixture
def web(url):
    """One client for all visitors, as making one takes longer than what the page does for it. Each request has its connection."""
    many = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    with httpx.Client(base_url=f"{url}gradio_api/", timeout=120, limits=many, verify=False) as client:
        yield client


@pytest.fixture
def slow(engine, monkeypatch):
    """A model that takes its time for each token and each layer, so that a request lasts; and how often either ran."""
    steps = []
    forward, attend = Decoder.next_logits, type(attention_modules(engine.base.model.modules())[0]).forward

    def step(self):
        steps.append("token")
        time.sleep(0.02)
        return forward(self)

    def layer(self, *args, **kwargs):
        steps.append("layer")
        time.sleep(0.2)
        return attend(self, *args, **kwargs)

    monkeypatch.setattr(Decoder, "next_logits", step)
    monkeypatch.setattr(type(attention_modules(engine.base.model.modules())[0]), "forward", layer)
    return steps


def post(web: httpx.Client, name: str, data: list) -> httpx.Response:
    return web.post(f"run/{name}", json={"data": data})


def page_answers(web: httpx.Client) -> None:
    """Somebody opens the page."""
    assert web.get(str(web.base_url).removesuffix("gradio_api/"), timeout=PAGE_SECONDS).status_code == 200


def requests_running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bitune")]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for it."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.01)


def full(admission: Admission, web: httpx.Client, calls: list[Future]) -> None:
    """While nobody gets any further: as many run and wait as may, the others have been refused, and the page answers."""
    until(lambda: sum(call.done() for call in calls) == len(calls) - LIMITS.running - LIMITS.waiting)
    assert admission.counts == (LIMITS.running, LIMITS.waiting)
    page_answers(web)
    ours = [name for name in requests_running() if name == "bitune page request"]
    assert len(ours) == LIMITS.running, "who waits takes no thread"


def test_a_crowd_past_the_queue_is_answered_or_refused_and_the_page_goes_on(web, engine, admission):
    with ThreadPoolExecutor(45) as crowd:
        with engine.manager.turn():
            asked = [[f"visitor {number}", ["base"], "none", 8, 0, 1, 0, None, None, "recompute"] for number in range(45)]
            calls = [crowd.submit(post, web, "compare", data) for data in asked]
            full(admission, web, calls)
        answers = [call.result() for call in calls]
    refused = [answer for answer in answers if not answer.is_success]
    assert len(refused) == 45 - LIMITS.running - LIMITS.waiting
    assert all("requests wait here as may" in answer.json()["error"] for answer in refused)
    for data, answer in zip(asked, answers, strict=True):
        assert answer in refused or answer.json()["data"][0]["prompts"] == {"base": data[0]}
    until(lambda: not requests_running())


@pytest.fixture
def readings(monkeypatch):
    """The handlers of Attention on the page that is served afterwards."""
    made, init = [], AttentionHandlers.__init__

    def watched(self, *given, **options):
        init(self, *given, **options)
        made.append(self)

    monkeypatch.setattr(AttentionHandlers, "__init__", watched)
    return made


def test_a_crowd_at_the_functions_of_the_browser_too(readings, url, web, engine, admission):
    config = Client(url, verbose=False, analytics_enabled=False).config
    component = next(one for one in config["components"] if one["props"].get("elem_id") == "bt-attention")["id"]
    request = AttentionRequest("x" * 300, "bitune", "none")
    handlers = readings[0]
    key = handlers.store.add(request, handlers.compute(request, [])).key  # of a long reading no layer is kept

    def ask(layer: int) -> httpx.Response:
        body = {"data": {"key": key, "layer": layer, "head": 0}, "component_id": component, "session_hash": "s"}
        return web.post("component_server", json=body | {"fn_name": "picture"})

    with ThreadPoolExecutor(45) as crowd:
        with engine.manager.turn():
            calls = [crowd.submit(ask, number % 4) for number in range(45)]
            full(admission, web, calls)
        answers = [call.result().json() for call in calls]
    refused = [answer["problem"] for answer in answers if "problem" in answer]
    assert len(refused) == 45 - LIMITS.running - LIMITS.waiting
    assert all("requests wait here as may" in words for words in refused)
    assert {answer["layer"] for answer in answers if "problem" not in answer} <= {0, 1, 2, 3}


def test_fifty_at_once_through_the_queue_are_answered_each_with_their_own(web):
    def visit(number: int) -> str:
        data = [f"visitor {number}", ["bitune"], "none", 6, 0, 1, 0, None, None, "recompute"]
        event = web.post("call/compare", json={"data": data}).json()["event_id"]
        return web.get(f"call/compare/{event}").text

    with ThreadPoolExecutor(50) as crowd:
        answers = list(crowd.map(visit, range(50)))
    answered = [
        json.loads(answer.partition("data: ")[2])[0]["prompts"]["bitune"] for answer in answers if "event: complete" in answer
    ]
    refused = [answer for answer in answers if "event: error" in answer]
    own = [f"visitor {number}" for number, answer in enumerate(answers) if "event: complete" in answer]
    assert answered == own
    assert len(own) >= LIMITS.running + LIMITS.waiting
    assert len(own) + len(refused) == 50
    assert all("requests wait here as may" in answer for answer in refused)


@pytest.mark.parametrize("name", LONG)
def test_a_client_that_goes_away_frees_the_model(url, slow, name):
    """Past the queue: the connection is closed while the model runs."""
    data, whole = LONG[name]
    with closing(HTTPConnection(urlsplit(url).netloc)) as client:
        client.request("POST", f"/gradio_api/run/{name}", json.dumps({"data": data}), {"content-type": "application/json"})
        until(lambda: slow)
    freed(slow, whole)


@pytest.mark.parametrize("name", LONG)
def test_a_reader_that_goes_away_frees_the_model(web, slow, name):
    """Through the queue: the stream of the answer is closed while the model runs."""
    data, whole = LONG[name]
    event = web.post(f"call/{name}", json={"data": data}).json()["event_id"]
    with web.stream("GET", f"call/{name}/{event}"):
        until(lambda: slow)
    freed(slow, whole)


def test_who_cancels_a_job_frees_the_model(url, slow):
    job = Client(url, verbose=False, analytics_enabled=False).submit("hello", max_new_tokens=400, api_name="/compare")
    # Until the client knows that it runs: before, it has no number of the request that it could cancel.
    until(lambda: "token" in slow and job.status().code.name in ("PROCESSING", "ITERATING"))
    job.cancel()
    freed(slow, LONG["compare"][1])


def freed(steps: list[str], whole: int) -> None:
    """No request runs any more, before it has ended by itself after `whole` steps."""
    until(lambda: not requests_running())
    ran = len(steps)
    time.sleep(0.5)
    assert len(steps) == ran < whole


def test_gradio_tells_what_the_frame_asks_it():
    """What app/ui/caller.py reads of Gradio is there: of a call the request, the event and the page; of an event whether it is alive."""
    assert {"request", "event_id", "blocks"} <= vars(LocalContext).keys()
    assert "alive" in Event.__init__.__code__.co_names
