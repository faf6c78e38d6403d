"""Another base is another page, in the same process and at the same address: the one before is gone when it is loaded, or comes back."""

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Queue
from threading import Event, Thread

import httpx
import pytest
from gradio_client import Client

from app import server
from app.models.base_handlers import BaseRequest
from app.settings import Settings
from bitune.errors import BaseNotFoundError, ConfigError
from bitune.model.decoding import Decoder
from tests.app.ui.visiting import run
from tests.browser.served import tiny_folders
from tests.tiny import saved_base


@dataclass(frozen=True)
class App:
    """The app in a `thread`. `pages`: those that were opened, the last one at the end; `ended`: what it ended with."""

    pages: "Queue[server.Served]"
    ended: list[BaseException]
    thread: Thread

    def next(self) -> server.Served:
        """The page that follows, when its engine is there."""
        page = self.pages.get(timeout=60)
        assert page.loading.wait(60)
        return page


@contextmanager
def running(settings: Settings, monkeypatch, known: Event | None = None) -> Iterator[App]:
    """Serve these settings until the end of the block. `known`: set when open pages know that theirs ends; by default they need not."""
    stopping, open_page = Event(), server.open_page

    def opened(*given):
        page = open_page(*given)
        app.pages.put(page)
        return page

    def work():
        try:
            server.serve_pages(settings, stopping)
        except BaseException as error:
            app.ended.append(error)

    monkeypatch.setattr(server, "open_page", opened)
    monkeypatch.setattr(server, "FAREWELL_SECONDS", 0.2)
    if known is not None:
        monkeypatch.setattr(server, "let_pages_know", lambda stopping: known.wait(120))
    thread = Thread(target=work)
    app = App(Queue(), [], thread)
    thread.start()
    try:
        yield app
    finally:
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def settings(tmp_path):
    """`base` with its two checkpoints; `other`, of another family; `broken`, which only loading finds out."""
    folder = tiny_folders(tmp_path)
    saved_base(folder / "other", "qwen3")
    saved_base(folder / "broken", "qwen3")
    (folder / "broken" / "tokenizer.json").write_text("{}")
    sources = tuple(str(folder / name) for name in ("lora", "bitune"))
    return Settings(str(folder / "base"), sources, chosen=True, port=0, votes="off", dtype="float32")


def exchange(page, base):
    *_, last = run(BaseRequest(page.bases), source=base)
    assert "The page restarts" in last.words


def address(page):
    return f"http://127.0.0.1:{page.page.server_port}/"


def answers(page):
    """The base that answers, and the texts by variant."""
    client = Client(address(page), verbose=False, analytics_enabled=False)
    answer = client.predict("hello", max_new_tokens=3, api_name="/compare")
    return answer["base"], {name: completion["text"] for name, completion in answer["completions"].items()}


def test_the_base_before_is_gone_when_the_other_one_is_loaded_and_comes_back_with_its_checkpoints(
    settings, tmp_path, monkeypatch
):
    models, alive, load_base = [], [], server.bitune.load_base

    def load(source, dtype):
        alive.append([model() is not None for model in models])
        base = load_base(source, device="cpu", dtype=dtype)
        models.append(weakref.ref(base.model))
        return base

    monkeypatch.setattr(server.bitune, "load_base", load)
    other = str(tmp_path / "other")
    with running(settings, monkeypatch) as app:
        first = app.next()
        before = answers(first)
        assert list(before[1]) == ["base", "lora", "bitune"] and first.loading.notes == []
        exchange(first, other)
        second = app.next()
        assert address(second) == address(first)
        assert (answers(second)[0], list(answers(second)[1])) == ("other", ["base"])
        assert "Left out, as they cannot be loaded with this base: lora, bitune." in httpx.get(address(second)).text
        exchange(second, settings.base)
        third = app.next()
        assert answers(third) == before and address(third) == address(first)
    assert alive == [[], [False], [False, False]], "two bases were in memory at once"
    assert app.ended == []


def test_a_base_that_cannot_be_loaded_brings_the_one_before_back_and_the_page_says_so(settings, tmp_path, monkeypatch):
    with running(settings, monkeypatch) as app:
        exchange(app.next(), str(tmp_path / "broken"))
        failed = app.pages.get(timeout=60)
        back = app.next()
        assert "tokenizer files are damaged" in failed.loading.problem
        (note,) = back.loading.notes
        assert note.startswith(f"Back to the base {settings.base}: ") and "tokenizer files are damaged" in note
        assert "tokenizer files are damaged" in httpx.get(address(back)).text
        assert list(answers(back)[1]) == ["base", "lora", "bitune"]
        exchange(back, str(tmp_path / "other"))
        assert answers(app.next())[0] == "other"
    assert app.ended == []


def test_so_does_an_error_that_nobody_foresaw(settings, tmp_path, monkeypatch, caplog):
    load_base = server.bitune.load_base

    def load(source, dtype):
        if source.endswith("other"):
            raise RuntimeError("secret")
        return load_base(source, device="cpu", dtype=dtype)

    monkeypatch.setattr(server.bitune, "load_base", load)
    with running(settings, monkeypatch) as app:
        exchange(app.next(), str(tmp_path / "other"))
        app.pages.get(timeout=60)
        (note,) = app.next().loading.notes
    assert "could not be loaded (RuntimeError)" in note and "secret" not in note and "secret" in caplog.text


def test_an_answer_that_is_being_written_ends(settings, tmp_path, monkeypatch):
    forward = Decoder.next_logits

    def slow(self):
        time.sleep(0.03)
        return forward(self)

    monkeypatch.setattr(Decoder, "next_logits", slow)
    with running(settings, monkeypatch) as app:
        first = app.next()
        client = Client(address(first), verbose=False, analytics_enabled=False)
        job = client.submit("hello", max_new_tokens=40, api_name="/compare")
        while first.bases.admission.counts != (1, 0):
            time.sleep(0.01)
        exchange(first, str(tmp_path / "other"))
        assert job.result(60)["base"] == "base"
        assert answers(app.next())[0] == "other"


def test_the_first_base_that_cannot_be_loaded_ends_the_app(settings, tmp_path, monkeypatch):
    with running(Settings(str(tmp_path / "broken"), port=0, votes="off"), monkeypatch) as app:
        app.pages.get(timeout=60)
    assert "tokenizer files are damaged" in str(app.ended[0])


def fails(monkeypatch, *times: tuple[str, int]) -> list[str]:
    """Let bases of these names fail to load at these times, counted from 1; returns the names of all that are loaded, as they are."""
    load_base, loaded = server.bitune.load_base, []

    def load(source, dtype):
        name = source.rpartition("/")[2]
        loaded.append(name)
        if (name, loaded.count(name)) in times:
            raise BaseNotFoundError(f"{name} is gone for a moment.")
        return load_base(source, device="cpu", dtype=dtype)

    monkeypatch.setattr(server.bitune, "load_base", load)
    return loaded


def test_a_base_that_does_not_come_back_at_once_is_loaded_once_more(settings, tmp_path, monkeypatch):
    loaded = fails(monkeypatch, ("other", 1), ("base", 2))
    with running(settings, monkeypatch) as app:
        exchange(app.next(), str(tmp_path / "other"))
        other, once, twice = app.pages.get(timeout=60), app.pages.get(timeout=60), app.next()
        assert not other.loading.ready and not once.loading.ready
        assert twice.loading.notes == [
            f"Back to the base {settings.base}: other is gone for a moment.",
            f"The base {settings.base} is loaded once more: base is gone for a moment.",
        ]
        assert list(answers(twice)[1]) == ["base", "lora", "bitune"] and address(twice) == address(other)
    assert (loaded, app.ended) == (["base", "other", "base", "base"], [])


def test_where_the_base_before_does_not_come_back_the_first_one_does(settings, tmp_path, monkeypatch):
    loaded = fails(monkeypatch, ("broken", 1), ("other", 2))
    with running(settings, monkeypatch) as app:
        exchange(app.next(), str(tmp_path / "other"))
        exchange(app.next(), str(tmp_path / "broken"))
        for _ in ("broken", "other"):
            app.pages.get(timeout=60)
        assert answers(app.next())[0] == "base"
    assert (loaded, app.ended) == (["base", "other", "broken", "other", "base"], [])


def test_where_none_of_them_comes_back_the_app_ends_with_why(settings, tmp_path, monkeypatch):
    loaded = fails(monkeypatch, ("other", 1), ("base", 2), ("base", 3))
    with running(settings, monkeypatch) as app:
        exchange(app.next(), str(tmp_path / "other"))
        *_, last = (app.pages.get(timeout=60) for _ in range(3))
    assert last.loading.problem == "base is gone for a moment."
    assert loaded == ["base", "other", "base", "base"] and "base is gone" in str(app.ended[0])


@pytest.mark.parametrize("seconds", [30, 0])
def test_the_address_of_the_page_before_is_asked_for_again_for_a_while(settings, tmp_path, monkeypatch, seconds):
    serve, times = server.serve, []

    def taken(page, wanted, keeper):
        times.append(wanted.port)
        if len(times) in (2, 3):
            raise ConfigError("somebody else listens there")
        return serve(page, wanted, keeper)

    monkeypatch.setattr(server, "serve", taken)
    monkeypatch.setattr(server, "ADDRESS_SECONDS", seconds)
    monkeypatch.setattr(server, "AGAIN_SECONDS", 0.05)
    with running(settings, monkeypatch) as app:
        first = app.next()
        exchange(first, str(tmp_path / "other"))
        if seconds:
            second = app.next()
            assert answers(second)[0] == "other" and address(second) == address(first)
        else:
            app.thread.join(60)
    assert len(set(times[1:])) == 1 and len(times) == (4 if seconds else 2)
    assert [str(error) for error in app.ended] == ([] if seconds else ["somebody else listens there"])
