"""Many at once, by every way in, and visitors who leave: the page goes on answering, and nothing runs for somebody who has gone."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gradio.context import LocalContext
from gradio.queueing import Event
from gradio_client import Client

from app.attention.handlers import AttentionHandlers
from app.attention.request import AttentionRequest
from app.limits import Limits
from bitune.model.decoding import Decoder
from bitune.modeling.interface import attention_modules
from tests.browser.served import served, tiny_engine

LIMITS = Limits(running=2, waiting=20, per_address=200, connections=200)
PAGE_SECONDS = 20.0  # generous: before, the page did not answer for minutes
LONG = {
    "compare": ["hello", None, "own", 400, 0, 1, 0, None],
    "attention": ["x" * 400, "bitune", 0, 0, "", "none", None],
    "mixing": [["bitune"], "x" * 400, "none"],
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def url(engine):
    with served(engine, LIMITS) as address:
        yield address


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
        time.sleep(0.01)
        return attend(self, *args, **kwargs)

    monkeypatch.setattr(Decoder, "next_logits", step)
    monkeypatch.setattr(type(attention_modules(engine.base.model.modules())[0]), "forward", layer)
    return steps


def post(url: str, name: str, data: list, timeout: float | None = 120) -> httpx.Response:
    return httpx.post(f"{url}gradio_api/run/{name}", json={"data": data}, timeout=timeout)


def page_answers(url: str) -> None:
    """Somebody opens the page."""
    assert httpx.get(url, timeout=PAGE_SECONDS).status_code == 200


def requests_running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bitune")]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for it."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.01)


def test_a_crowd_past_the_queue_is_answered_or_refused_and_the_page_goes_on(url, slow):
    before = threading.active_count()
    with ThreadPoolExecutor(45) as crowd:
        answers = [
            crowd.submit(post, url, "compare", [f"visitor {number}", None, "own", 8, 0, 1, 0, None]) for number in range(45)
        ]
        until(requests_running)
        most = 0
        for _ in range(5):
            page_answers(url)
            most = max(most, len(requests_running()))
        assert most <= 2 * LIMITS.running, "a thread of the page and one of the engine for each that runs"
        assert threading.active_count() - before - 45 < 25
        answers = [answer.result() for answer in answers]
    served_, refused = ([a for a in answers if a.is_success is good] for good in (True, False))
    assert len(served_) >= LIMITS.running + LIMITS.waiting
    assert all("requests wait here as may" in answer.json()["error"] for answer in refused)
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


def test_a_crowd_at_the_functions_of_the_browser_too(readings, url, slow):
    config = Client(url, verbose=False, analytics_enabled=False).config
    component = next(one for one in config["components"] if one["props"].get("elem_id") == "bt-attention")["id"]
    request = AttentionRequest("x" * 300, "bitune", "none")
    key = readings[0].store.add(request, readings[0].compute(request, [])).key  # of a long reading no layer is kept

    def ask(layer: int) -> httpx.Response:
        body = {"data": {"key": key, "layer": layer, "head": 0}, "component_id": component, "session_hash": "s"}
        return httpx.post(f"{url}gradio_api/component_server", json=body | {"fn_name": "picture"}, timeout=120)

    with ThreadPoolExecutor(45) as crowd:
        calls = [crowd.submit(ask, number % 4) for number in range(45)]
        for _ in range(5):
            page_answers(url)
        answers = [call.result().json() for call in calls]
    assert all("picture" in answer or "requests wait here as may" in answer["problem"] for answer in answers)


def test_fifty_at_once_through_the_queue_are_answered_each_with_their_own(url):
    def visit(number: int) -> str:
        data = [f"visitor {number}", ["bitune"], "none", 6, 0, 1, 0, None]
        event = httpx.post(f"{url}gradio_api/call/compare", json={"data": data}, timeout=120).json()["event_id"]
        return httpx.get(f"{url}gradio_api/call/compare/{event}", timeout=120).text

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


@pytest.mark.parametrize(("name", "data"), LONG.items())
def test_a_client_that_goes_away_frees_the_model(url, slow, name, data):
    """Past the queue: the connection is closed while the model runs."""
    with pytest.raises(httpx.ReadTimeout):
        post(url, name, data, timeout=0.3)
    freed(slow)


@pytest.mark.parametrize(("name", "data"), LONG.items())
def test_a_reader_that_goes_away_frees_the_model(url, slow, name, data):
    """Through the queue: the stream of the answer is closed while the model runs."""
    endpoint = f"{url}gradio_api/call/{name}"
    event = httpx.post(endpoint, json={"data": data}).json()["event_id"]
    with httpx.stream("GET", f"{endpoint}/{event}", timeout=60):
        until(lambda: slow)
    freed(slow)


def test_who_cancels_a_job_frees_the_model(url, slow):
    job = Client(url, verbose=False, analytics_enabled=False).submit("hello", max_new_tokens=400, api_name="/compare")
    until(lambda: "token" in slow)
    job.cancel()
    freed(slow)


def freed(steps: list[str]) -> None:
    """No request runs any more, long before it would have ended by itself."""
    until(lambda: not requests_running())
    ran = len(steps)
    time.sleep(0.2)
    assert len(steps) == ran < 400


def test_gradio_tells_what_the_frame_asks_it():
    """What app/ui/caller.py reads of Gradio is there: of a call the request, the event and the page; of an event whether it is alive."""
    assert {"request", "event_id", "blocks"} <= vars(LocalContext).keys()
    assert "alive" in Event.__init__.__code__.co_names
