"""Two replicas of the page behind nginx, with the configuration in deploy/: a visitor stays on one; where one is killed, the other goes on."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import expect

from tests.browser.conftest import browser  # noqa: F401
from tests.browser.visitor import ANSWERS, ended, run, visit
from tests.hosting.apps import ROOT, App, free_port, started, tiny_flags

JOIN, CALL = "/gradio_api/queue/join", "/gradio_api/call/compare"
DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
PORTS = ("7861", "7862")  # of the replicas in deploy/replicas.conf
BOTH = 40  # visitors, after whom both replicas have been visited: all on one has a probability of 2 in 2**40


@dataclass(frozen=True)
class Site:
    """What visitors see, and what nginx has noted down."""

    address: str
    replicas: dict[str, App]
    log: Path

    def places(self, path: str) -> list[str]:
        """Which replica has answered each request for `path`, in order: the last of those that were tried."""
        lines = re.findall(rf" {re.escape(path)} .* at (.+)$", self.log.read_text(), re.MULTILINE)
        return [line.split(", ")[-1] for line in lines]

    def last_place(self, path: str, count: int) -> str:
        """Of the request number `count` for `path`, once nginx has noted it down: it does so after the answer was read."""
        end = time.monotonic() + 30
        while len(places := self.places(path)) < count:
            assert time.monotonic() < end, f"nginx has noted {places} for {path}"
            time.sleep(0.01)
        return places[count - 1]


def configured(folder: Path, replicas: list[App]) -> int:
    """deploy/ in `folder`, with ports that are free here in place of its own; the one to visit."""
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    assert text.count("listen 8080;") == 1
    (folder / "nginx.conf").write_text(text.replace("listen 8080;", f"listen 127.0.0.1:{port};"))
    text = (DEPLOY / "replicas.conf").read_text()
    for written, replica in zip(PORTS, replicas, strict=True):
        assert text.count(f"127.0.0.1:{written}") == 1
        text = text.replace(f"127.0.0.1:{written}", replica.address.removeprefix("http://"))
    (folder / "replicas.conf").write_text(text)
    return port


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    if NGINX is None:
        pytest.skip("nginx is not installed; on Debian and Ubuntu: apt install nginx")
    folder = tmp_path_factory.mktemp("site")
    flags = tiny_flags(folder / "tiny")
    with ExitStack() as running:
        replicas = [running.enter_context(started([*flags, "--proxies=127.0.0.1"], {})) for _ in PORTS]
        port = configured(folder, replicas)
        log = running.enter_context((folder / "log").open("w"))
        command = [NGINX, "-p", str(folder), "-c", "nginx.conf"]
        proxy = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        running.callback(proxy.wait, 30)
        running.callback(proxy.terminate)
        address = f"http://127.0.0.1:{port}"
        wait_for(address, proxy, folder / "log")
        yield Site(address, {replica.address.removeprefix("http://"): replica for replica in replicas}, folder / "log")


def wait_for(address: str, proxy: subprocess.Popen, log: Path) -> None:
    """Until somebody listens at `address`."""
    end = time.monotonic() + 30
    while time.monotonic() < end and proxy.poll() is None:
        try:
            httpx.get(address)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nginx does not answer:\n{log.read_text()}")


class Visitor:
    """Opens the page and keeps its cookie, as a browser does; asks as programs do, in two requests."""

    def __init__(self, site: Site):
        self.site, self.http = site, httpx.Client(base_url=site.address, timeout=60)
        self.http.get("/").raise_for_status()

    def ask(self, tokens: int = 2) -> str:
        """The number of a request that now waits in the queue of a replica."""
        asked = self.http.post(CALL, json={"data": ["hello", ["base"], "none", tokens, 0, 1, 0, None, None, "recompute"]})
        return asked.raise_for_status().json()["event_id"]

    def answer(self, event: str) -> dict:
        """What came of it, which only that replica knows."""
        text = self.http.get(f"{CALL}/{event}").raise_for_status().text
        assert "event: complete" in text, text
        return json.loads(re.findall(r"^data: (.*)$", text, re.MULTILINE)[-1])[0]

    def visit(self) -> str:
        """Ask and listen; the replica on which all of it happened."""
        asked = len(self.site.places(CALL))
        event = self.ask()
        asking = self.site.last_place(CALL, asked + 1)
        assert self.answer(event)["completions"]["base"]["tokens"] == 2
        assert asking == self.site.last_place(f"{CALL}/{event}", 1)
        return asking


def visitors_of_both(site: Site) -> dict[str, Visitor]:
    """A visitor of each replica."""
    found = {}
    for _ in range(BOTH):
        visitor = Visitor(site)
        found.setdefault(visitor.visit(), visitor)
        if len(found) == len(site.replicas):
            return found
    raise AssertionError(f"of {BOTH} visitors all were sent to {list(found)}")


def test_a_visitor_stays_on_one_replica(site):
    visitors = visitors_of_both(site)
    assert set(visitors) == set(site.replicas)
    for _ in range(3):
        assert {place: visitor.visit() for place, visitor in visitors.items()} == {place: place for place in visitors}
    (cookie,) = (cookie for cookie in next(iter(visitors.values())).http.cookies.jar if cookie.name == "bitune_visitor")
    assert re.fullmatch(r"[0-9a-f]{32}", cookie.value), "says nothing about the visitor"
    again = httpx.get(site.address, cookies={"bitune_visitor": "mine"})
    assert "set-cookie" not in again.headers, "whoever has one keeps it"


def test_a_program_that_keeps_no_cookies_stays_by_its_address(site):
    client = Client(site.address, verbose=False, analytics_enabled=False)
    for _ in range(3):
        assert client.predict("hello", ["base"], max_new_tokens=2, api_name="/compare")["completions"]["base"]["tokens"] == 2


@pytest.mark.browser
def test_where_one_replica_is_killed_the_other_goes_on(site, browser):  # noqa: F811
    visitors = visitors_of_both(site)
    for page in visit(browser, site.address, "desktop", "light"):
        run(page, "hello")
        ended(page)
        killed = site.last_place(JOIN, 1)
        (kept,) = set(site.replicas) - {killed}
        long = visitors[kept].ask(tokens=300)
        site.replicas[killed].process.kill()
        site.replicas[killed].process.wait()
        assert visitors[killed].visit() == kept, "a visitor of the replica that is gone"
        assert visitors[kept].answer(long)["completions"]["base"]["tokens"] > 0, "a request that ran meanwhile"
        assert visitors[kept].visit() == kept
        joined = len(site.places(JOIN))
        run(page, "hello again")
        ended(page)
        expect(page.locator(ANSWERS)).to_have_count(3)
        assert site.last_place(JOIN, joined + 1) == kept
