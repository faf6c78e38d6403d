"""The guard in front of a real page: what Gradio offers beyond it is closed, and no request takes more than its share."""

import contextlib
import time

import httpx
import pytest
from gradio_client import Client

from app.guard.routes import Routes
from app.limits import Limits
from app.page import build_page
from app.server import keeper_of, serve
from app.settings import Settings
from tests.browser.served import tiny_engine

LIMITS = Limits(body_bytes=100_000, body_values=2000, seconds_body=1, connections=6, sessions=8)
HTTP = httpx.Client(timeout=60)  # one for all: making one takes longer than most requests here
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build_page(tiny_engine(tmp_path_factory.mktemp("tiny")), {})


@pytest.fixture(scope="module")
def settings():
    return Settings(port=0, limits=LIMITS, proxies=("private",))


@pytest.fixture(scope="module")
def keeper(settings):
    return keeper_of(settings)


@pytest.fixture(scope="module")
def url(page, settings, keeper):
    try:
        yield serve(page, settings, keeper)
    finally:
        page.close(verbose=False)


@pytest.fixture(scope="module")
def api(url):
    return f"{url}gradio_api/"


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False, analytics_enabled=False)


@pytest.fixture
def still_answers(client):
    """After the test, the page answers as before."""
    yield
    assert client.predict("hi", max_new_tokens=2, api_name="/compare")["completions"]["base"]["tokens"] >= 1


CLOSED = (
    "upload",
    "upload_progress?upload_id=x",
    "process_recording",
    "file=etc/passwd",
    "file=/etc/passwd",
    "file/etc/passwd",
    "file=http://127.0.0.1:1/",
    "proxy=http://127.0.0.1:1/",
    "proxy=https://user-space.hf.space/",
    "deep_link?session_hash=x",
    "stream/x/y/1/playlist.m3u8",
    "stream/x",
    "custom_component/a/client/b/c.js",
    "dev/reload",
    "runs",
    "run-history/connect",
    "vibe-edit",
    "vibe-code",
    "undo-vibe-edit",
    "vibe-starter-queries",
    "api/compare",
    "mcp/",
    "token",
    "user",
)


@pytest.mark.parametrize("path", CLOSED)
def test_what_the_page_does_not_need_is_closed(api, path):
    for ask in (lambda: HTTP.get(api + path), lambda: HTTP.post(api + path, files={"files": b"x" * 1000})):
        refused = ask()
        assert refused.status_code == 404 and refused.json()["detail"] == "There is nothing here."


@pytest.mark.parametrize(
    "path", ["monitoring", "monitoring/summary", "monitoring/key", "login", "logout", "pwa_icon/90000", "docs"]
)
def test_so_is_what_lies_beside_the_api(url, path):
    assert HTTP.get(url + path).status_code == HTTP.post(url + path).status_code == 404


@pytest.mark.parametrize(
    "path", ["assets/../../routes.py", "assets/%2e%2e/%2e%2e/routes.py", "static/..%2f..%2froutes.py", "static//etc/passwd"]
)
def test_no_path_leads_out_of_the_folders_that_are_served(url, path):
    host = httpx.URL(url)
    with httpx.Client(base_url=host) as client:
        request = client.build_request("GET", host)
        request.url = host.copy_with(raw_path=b"/" + path.encode())
        answer = client.send(request)
    assert answer.status_code in (403, 404) and "import " not in answer.text and "root:" not in answer.text


def test_what_the_page_needs_is_open(url, api):
    for address in (url, f"{url}config", f"{api}info", f"{api}openapi.json", f"{url}theme.css", f"{url}robots.txt"):
        assert HTTP.get(address).status_code == 200, address
    assert HTTP.head(url).status_code == 200
    assert HTTP.put(url).status_code == 405 and "Only GET and HEAD" in HTTP.put(url).json()["detail"]


def test_a_path_that_fits_two_patterns_is_open_with_the_methods_of_both():
    """/call/v2/NAME is also /call/NAME/ID of an endpoint called v2."""
    assert {"GET", "POST"} <= set(Routes().methods("/gradio_api/call/v2/compare"))


@pytest.mark.usefixtures("still_answers")
@pytest.mark.parametrize("said", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(api, said):
    sent = 0

    def pieces():
        nonlocal sent
        for _ in range(1000):
            sent += 50_000
            yield b"x" * 50_000

    length = {"content-length": str(50_000_000)} if said else {}
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # the connection ends in the middle
        answer = HTTP.post(f"{api}call/compare", content=pieces(), headers=JSON | length)
        assert answer.status_code == 413 and "larger than 100,000 bytes" in answer.json()["detail"]
    assert sent <= 40_000_000, "what the layer reads of a refused body, and what the two sockets hold"


@pytest.mark.usefixtures("still_answers")
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"data": [' + b"[" * 90_000, 413, "more than"),
        (b'{"data": ' + b"[" * 200 + b"]" * 200 + b"}", 413, "more than 16 levels"),
        (b'{"data": [' + b"1," * 40_000 + b"1]}", 413, "more than 2,000 values"),
        (b'{"data": [' + b'"\\"' * 20_000, 422, ""),
        ('{"data": ["hi"]}'.encode("utf-16"), 400, "UTF-8"),
        ('{"data": ["hi"]}'.encode("utf-32"), 400, "UTF-8"),
        (b'{"data": [' + b"9" * 90_000 + b"]}", 400, ""),
    ],
)
@pytest.mark.parametrize("path", ["call/compare", "run/compare", "queue/join", "component_server", "cancel"])
def test_json_that_would_take_more_memory_than_it_has_bytes_is_refused(api, path, body, status, words):
    answer = HTTP.post(api + path, content=body, headers=JSON)
    assert 400 <= answer.status_code < 500 and (answer.status_code == status or not words)
    assert words in answer.text and len(answer.text) < 3000 and "Traceback" not in answer.text


def test_a_body_that_does_not_come_is_not_waited_for(api):
    def slowly():
        yield b'{"data": ['
        time.sleep(2)
        yield b"]}"

    answer = HTTP.post(f"{api}call/compare", content=slowly(), headers=JSON)
    assert answer.status_code == 408 and "not complete after 1 seconds" in answer.json()["detail"]


def test_files_are_refused_where_gradio_would_take_them_beside_json(api):
    fields = {"component_id": "1", "session_hash": "x", "fn_name": "picture"}
    answer = HTTP.post(f"{api}component_server", data=fields, files={"file": b"x" * 1000})
    assert answer.status_code == 415 and answer.json()["detail"] == "This page takes no files; send JSON."


@pytest.mark.usefixtures("still_answers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_error_repeats_all_that_was_sent(api, page):
    long = "<script>" * 10_000
    for body in (
        {"data": long},
        {"data": [long, [long], long]},
        {"data": [long], "fn_index": long},
        {"data": ["hi", None, long]},
        {"data": [long] * 2, "session_hash": long[:100], "fn_index": 0},
    ):
        for path in ("call/compare", "run/compare", "queue/join", "component_server"):
            answer = HTTP.post(api + path, json=body, timeout=60)
            assert len(answer.text) < 6000, (path, len(answer.text))
            event = answer.json().get("event_id") if answer.headers["content-type"] == "application/json" else None
            if event and path == "call/compare":
                with HTTP.stream("GET", f"{api}{path}/{event}", timeout=60) as events:
                    told = "".join(events.iter_text())
                assert told.startswith("event: error") and len(told) < 6000
    choices = next(fn for fn in page.fns.values() if any(block.get_block_name() == "radio" for block in fn.inputs))
    data = [long] * len(choices.inputs)
    body = {"data": data[:1] + ["x"] * (len(data) - 1), "fn_index": choices._id, "session_hash": "echo"}
    answer = HTTP.post(f"{api}run/predict", json=body, timeout=60)
    assert answer.status_code >= 400 and len(answer.text) < 6000


def test_a_direct_post_cannot_pass_by_the_queue(api, page):
    """Endpoints are not queued by Gradio: a direct POST passes the admission, as tests/app/test_crowd.py shows."""
    queued = [fn for fn in page.fns.values() if fn.queue]
    assert queued
    for fn in queued:
        refused = HTTP.post(f"{api}run/predict", json={"data": [None] * len(fn.inputs), "fn_index": fn._id, "session_hash": "x"})
        assert refused.status_code == 404 and "join the queue" in refused.json()["detail"]


def test_an_address_holds_only_so_many_connections_and_others_do_not_notice(api, keeper):
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(headers={"x-forwarded-for": "198.51.100.7"}))
        for number in range(LIMITS.connections):
            assert stack.enter_context(client.stream("GET", f"{api}heartbeat/held{number}")).status_code == 200
        refused = client.get(f"{api}info")
        assert refused.status_code == 429 and "6 requests open" in refused.json()["detail"]
        assert HTTP.get(f"{api}info", headers={"x-forwarded-for": "198.51.100.8"}).status_code == 200
    until = time.monotonic() + 20
    while "198.51.100.7" in keeper.open and time.monotonic() < until:
        time.sleep(0.05)
    assert "198.51.100.7" not in keeper.open, "closed connections are given back"


def test_no_more_sessions_are_kept_than_the_limit(api, page):
    unqueued = next(fn for fn in page.fns.values() if not fn.queue and fn.fn and not fn.inputs)
    for number in range(3 * LIMITS.sessions):
        HTTP.post(f"{api}run/predict", json={"data": [], "fn_index": unqueued._id, "session_hash": f"s{number}"})
    assert 1 < len(page.app.state_holder.session_data) <= LIMITS.sessions + 1


@pytest.mark.usefixtures("still_answers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_files_and_addresses_in_a_payload_are_neither_read_nor_asked(api, tmp_path):
    (tmp_path / "secret.txt").write_text("a local secret")
    files = [
        {"path": str(tmp_path / "secret.txt"), "meta": {"_type": "gradio.FileData"}},
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "x", "url": "http://127.0.0.1:1/", "meta": {"_type": "gradio.FileData"}},
        {"url": "http://169.254.169.254/latest/meta-data", "meta": {"_type": "gradio.FileData"}},
    ]
    for file in files:
        for data in ([file], ["hi", [file]], ["hi", None, "own", 2, 0, 1, 0, {"x": file}, None, "recompute"], ["hi", None, file]):
            event = HTTP.post(f"{api}call/compare", json={"data": data}).json()["event_id"]
            told = HTTP.get(f"{api}call/compare/{event}", timeout=60).text
            assert told.startswith("event: error") and "a local secret" not in told and "root:" not in told


@pytest.mark.usefixtures("still_answers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_private_events_with_crafted_values_break_nothing(api, page):
    crafted = (None, "x", -1, 1e308, [], {}, {"__type__": "update", "value": "x"}, [["a"]], {"path": "/etc/passwd"})
    answers = []
    for fn in [fn for fn in page.fns.values() if not fn.queue and fn.fn]:
        for value in crafted:
            body = {"data": [value] * len(fn.inputs), "fn_index": fn._id, "session_hash": "crafted"}
            answers.append(HTTP.post(f"{api}run/predict", json=body, timeout=60))
    assert len(answers) > 100
    for answer in answers:
        assert "root:" not in answer.text and "Traceback" not in answer.text and "site-packages" not in answer.text
    assert {answer.status_code for answer in answers} <= {200, 400, 422, 500}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_gradio_does_not_catch_is_a_sentence(api):
    body = {"data": 1, "component_id": 10**9, "session_hash": "a", "fn_name": "x"}
    answer = HTTP.post(f"{api}component_server", json=body)
    assert answer.status_code == 500 and answer.json()["detail"].startswith("This request failed; the log of the app")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"prompt": "hi", "promt": "hi"},
            "This endpoint has no argument 'promt'; the arguments of each endpoint are in docs/api.md.",
        ),
        ({"max_new_tokens": 3}, "The argument 'prompt' is missing; the arguments of each endpoint are in docs/api.md."),
    ],
)
def test_a_call_with_other_arguments_than_the_endpoint_has_is_refused_with_their_names(api, body, words):
    answer = HTTP.post(f"{api}call/v2/compare", json=body)
    assert answer.status_code == 422 and answer.json() == {"detail": words, "error": words}


def test_nothing_new_is_let_in_at_the_end(api, keeper):
    keeper.ending = True
    try:
        refused = HTTP.post(f"{api}call/compare", json={"data": ["hi"]})
        assert refused.status_code == 503 and "being stopped" in refused.json()["detail"]
    finally:
        keeper.ending = False
