"""What happens when another base is asked for from the page. Knows no Gradio; errors are raised.

A base is not exchanged under a page that runs: kept maps, runs on open pages, what-ifs and readings know it by the name `base` alone. So here
is only what comes before: everything that can be refused is refused, its files are fetched, and then nobody is let in any more. The page itself
ends, and the next one begins with the other base, in app/server.py.
"""

from collections.abc import Generator, Iterator
from functools import partial

from app.models.handlers import LoadRequest, ModelsHandlers, Screen, alone, in_thread_with_progress
from app.models.sources import MAX_SOURCE
from app.ui.templates import empty
from bitune.base.local import EMBEDDED, check_base
from bitune.cancellation import check, current
from bitune.errors import BaseNotFoundError, ConfigError
from bitune.files import local_path

RESTARTS = "The page restarts with the base {base} and comes back by itself."
NOTHING_CHANGED = "Stopped; the base stays as it is."


class BaseHandlers:
    """Another base for the page of these checkpoints."""

    def __init__(self, models: ModelsHandlers, source: str, dtype: str = "auto"):
        """Nothing is loaded here.

        Args:
            models: What loads its checkpoints: one thing at a time is loaded, whichever it is.
            source: What the base that is loaded was loaded from.
            dtype: In what a base is loaded.
        """
        self.models, self.source, self.dtype = models, source, dtype
        self.loading, self.admission = models.loading, models.admission
        self.wanted: str | None = None  # the next page's; set once, when everything is there

    def check(self, source: object) -> str:
        """The source; raises what its form and the files on this disk tell to be wrong."""
        text = source.strip() if isinstance(source, str) else ""
        if not text:
            raise BaseNotFoundError(f"No base is named; write a folder, a .gguf file, a Hub id or {EMBEDDED.name}.")
        if len(text) > MAX_SOURCE:
            raise BaseNotFoundError(
                f"The base's name has {len(text):,} characters; a Hub id or a path has at most {MAX_SOURCE:,}."
            )
        if not text.isprintable():
            raise BaseNotFoundError(f"The base's name {text!r} holds what cannot be seen; write it again.")
        check_base(text)
        if self.is_loaded(text):
            raise ConfigError(f"The base {text} is the one that is loaded; name another.")
        return text

    def is_loaded(self, source: str) -> bool:
        """Whether both name the same: one text, or one path on this disk."""
        paths = [local_path(name, BaseNotFoundError) for name in (source, self.source)]
        return source == self.source or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))

    def load(self, source: object) -> Generator[Screen, None, str]:
        """Look whether it can be loaded, fetch its files, and let nobody in any more; returns its name."""
        source = self.check(source)
        with alone(self.models.others) as waiting:
            yield from waiting
            self.admission.check_open()
            commit = yield from in_thread_with_progress(partial(self.look, source), f"Looking for {source}")
            yield from in_thread_with_progress(partial(self.fetch, commit), f"Fetching {source}")
            check(current())  # Stop has said that the base stays
            self.wanted = source
            self.admission.close(RESTARTS.format(base=source))
        return source

    def look(self, source: str) -> str:
        """The source with the commit that was looked at, as `fetch_base` takes it.

        Raises what its config and the headers of its files tell to be wrong, and ConfigError where it does not fit into the memory that is
        free once the loaded base has gone.
        """
        from bitune.base.preview import preview  # imports torch, and the page opens before that
        from bitune.memory import check_room

        found = preview(source)
        device = self.loading.engine.base.model.device
        check_room(f"The base {source}", found.numbers * self.bytes_a_number(), device, self.given_back())
        return found.commit

    def bytes_a_number(self) -> int:
        """Of its weights, while it is loaded: what is kept in 8 bits is read in 32."""
        import torch

        from bitune.base.devices import choose_dtype

        dtype = choose_dtype(self.dtype, self.loading.engine.base.model.device)
        return (torch.float32 if dtype == torch.int8 else dtype).itemsize

    def given_back(self) -> int:
        """How many bytes are free when the base that is loaded has gone; at most what this process has written to, where it runs on a CPU."""
        from bitune.memory import written_bytes

        base, parameters = self.loading.engine.base, self.loading.engine.base_facts.parameters
        size = parameters * (1 if base.dtype == "int8" else base.model.dtype.itemsize)
        written = None if base.model.device.type == "cuda" else written_bytes()
        return size if written is None else min(size, written)

    def fetch(self, commit: str) -> None:
        """What is not on this disk yet, with all that its files tell to be wrong."""
        from bitune.base.sources import fetch_base

        fetch_base(commit)


class BaseRequest(LoadRequest):
    """Load another base, as app/ui/frame.py runs it."""

    def __init__(self, handlers: BaseHandlers):
        self.handlers, self.loading, self.admission = handlers, handlers.loading, handlers.admission

    def announce(self, source: object) -> Screen:
        return Screen(empty("Looking for it."), running=True)

    def work(self, source: object) -> None:
        """The model does not run, so it takes no place in the line; what is wrong with the words is said at once."""
        self.handlers.check(source)

    def run(self, source: object) -> Iterator[Screen]:
        base = yield from self.handlers.load(source)
        yield Screen(empty(RESTARTS.format(base=base)))

    def finish(self, latest: Screen) -> Screen:
        return Screen(empty(self.admission.closed or NOTHING_CHANGED))  # it may have been too late for Stop
