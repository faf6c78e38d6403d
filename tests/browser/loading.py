"""The page as `python app.py` opens it: served before its engine is loaded, and a real loading that goes on when it is told to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest

from app import server
from app.compare.recorded import load_all
from app.page import build_page
from app.settings import Settings
from app.ui.loading import Loading
from bitune.errors import BituneError
from tests.browser.served import METHODS, tiny_folders


@dataclass(frozen=True)
class Held:
    """A page whose base is not read before `go` is set. `loader` runs `server.load`; `raised` is what ended it."""

    address: str
    settings: Settings
    loading: Loading
    go: Event
    loader: Thread
    raised: list[BituneError]

    def release(self) -> None:
        """Let the base be read, and wait until the engine is there or has failed."""
        self.go.set()
        self.loader.join(60)
        assert not self.loader.is_alive()


@contextmanager
def held(folder: Path, monkeypatch: pytest.MonkeyPatch, *, base: str = "base") -> Iterator[Held]:
    """Serve the page of the tiny base and its checkpoints in `folder`."""
    tiny_folders(folder)
    go, raised, read = Event(), [], server.bitune.load_base

    def load_base(source: str, dtype: str):
        assert go.wait(60)
        return read(source, device="cpu", dtype=dtype)

    monkeypatch.setattr(server.bitune, "load_base", load_base)
    settings = Settings(str(folder / base), tuple(str(folder / method) for method in METHODS), chosen=True, port=0)
    loading = Loading(settings.checkpoints)
    page = build_page(loading, load_all())

    def load() -> None:
        try:
            server.load(loading, server.PagePlan(settings))
        except BituneError as error:
            raised.append(error)

    loader = Thread(target=load)
    try:
        address = server.serve(page, settings)
        loader.start()
        try:
            yield Held(address, settings, loading, go, loader, raised)
        finally:
            go.set()
            loader.join(60)
    finally:
        page.close()
