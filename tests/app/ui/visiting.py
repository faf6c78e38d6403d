"""Somebody who asks in a test: a Caller whose connection is closed when the test says so, and requests asked without a server."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from gradio.context import LocalContext
from starlette.requests import Request

from app.ui.caller import Caller
from app.ui.frame import screens


class Visitor(Caller):
    """Somebody whose connection is closed when `leave` is called."""

    def __init__(self, session: str | None = None):
        super().__init__("somebody", None, None, None, session)
        self._left = threading.Event()

    def leave(self) -> None:
        self._left.set()

    async def is_gone(self) -> bool:
        return self._left.is_set()


async def collected(values: AsyncIterator) -> list:
    """All of them."""
    async with aclosing(values):
        return [value async for value in values]


def run(handlers, **values: object) -> list:
    """The screens of a request that nobody stops, as they came."""
    return asyncio.run(collected(screens(handlers, Visitor(), **values)))


def every_screen(handlers, **values: object) -> list:
    """All screens that a request makes; a page shows the latest one whenever it looks, so that `run` may miss some."""
    return [handlers.announce(**values), *handlers.run(**values)]


def called(function: Callable, *given: object) -> object:
    """What an async function of the frame returns where Gradio calls it for a request over HTTP whose client stays."""

    async def receive() -> None:
        await asyncio.Event().wait()

    async def call() -> object:
        LocalContext.request.set(Request({"type": "http", "headers": [], "client": ("somebody", 1)}, receive))
        LocalContext.event_id.set(None)
        LocalContext.blocks.set(None)
        return await function(*given)

    return asyncio.run(call())


def held_up(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> tuple[threading.Event, threading.Event]:
    """Make a method of a class wait; returns what is set when somebody has called it, and what lets all calls go on."""
    called, go, method = threading.Event(), threading.Event(), getattr(owner, name)

    def waiting(*given: object, **values: object) -> object:
        called.set()
        assert go.wait(30)
        return method(*given, **values)

    monkeypatch.setattr(owner, name, waiting)
    return called, go
