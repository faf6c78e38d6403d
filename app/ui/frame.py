"""The frame of every tab: how a form, its buttons and the API reach the handlers, and what becomes of errors.

Inputs go to a handler by name: `{"prompt": textbox}` becomes `handler(prompt=...)`, and Gradio refuses a name that the handler does
not have when the page is built. What a handler returns are the component updates, as {component: value}. The rule for errors stands in
app/ui/errors.py; this module is the only one that applies it: handlers just raise.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from functools import wraps
from typing import Generic, Protocol, TypeVar

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.ui.errors import sentence
from app.ui.events import AT_ONCE, MODEL, STOPPING
from app.ui.loading import WAITING, Loading

LOOK_SECONDS = 0.5  # between two looks at an engine that is loading: Stop is noticed there
Inputs = Mapping[str, Component]
Updates = dict[Component, object]


class Screen(Protocol):
    """What a tab shows of a request; `running` while more is to come."""

    running: bool


S = TypeVar("S", bound=Screen)


class ModelHandlers(Protocol[S]):
    """A request that runs the model, without the page. The values of the inputs come by name; errors are raised.

    Attributes:
        loading: The engine, which may still be loading: then the frame waits for it, and `run` begins when it is there.
    """

    loading: Loading

    def waiting(self, words: str) -> S:
        """Instead of results while the engine is loading, as often as the words change."""

    def announce(self, **values: object) -> S:
        """At once after the button, not queued: the request may have to wait for others."""

    def run(self, **values: object) -> Iterator[S]:
        """In the model's queue. The last screen is not running."""

    def finish(self, latest: S) -> S:
        """After the run. Where it was cancelled, `latest` is still running: what came of it so far is kept."""

    def failed(self, words: str) -> S:
        """Instead of results, a sentence."""


def guarded(function: Callable, failed: Callable[[str], object]) -> Callable:
    """`function` with the rule for errors: what `failed` makes of the sentence stands in place of its result.

    Signature and docstring stay, since Gradio, clients and MCP tools read them.
    """

    @wraps(function)
    def call(*given: object, **values: object) -> object:
        try:
            return function(*given, **values)
        except Exception as error:
            return failed(sentence(error))

    return call


def screens(handlers: ModelHandlers[S], **values: object) -> Iterator[S]:
    """The screens of a request, which waits for the engine first. An error is the last one, and closing this closes the run."""
    try:
        while not handlers.loading.wait(LOOK_SECONDS):
            yield handlers.waiting(f"{WAITING} {handlers.loading.words}")
        with closing(handlers.run(**values)) as running:
            yield from running
    except Exception as error:
        yield handlers.failed(sentence(error))


class ModelRequest(Generic[S]):
    """A button that runs the model, perhaps one that stops it, and where the screens of the request appear.

    Stop only cancels. What comes after a run, whether it ended or was cancelled, then finds the latest screen still running and
    replaces it; were it wired to Stop itself, an update on its way would overwrite it.

    Attributes:
        latest: A visitor's latest screen, a State; None where nothing can be stopped.
    """

    def __init__(
        self,
        start: gr.Button,
        stop: gr.Button | None,
        outputs: Iterable[Component],
        show: Callable[[S], Updates],
        first: S | None = None,
    ):
        """Put the request together; `wire` connects it.

        Args:
            start: The button that runs the model; cannot be pressed while a request runs.
            stop: The button that cancels it, or None.
            outputs: The components that `show` updates.
            show: A screen as updates of `outputs`.
            first: The screen that is shown before anything has run.
        """
        self.start, self.stop, self.show = start, stop, show
        self.latest = gr.State(first) if stop else None
        self.components = [*outputs, start, *((stop, self.latest) if stop else ())]

    def updates(self, screen: S) -> Updates:
        """A screen on this request's components, buttons included."""
        updates = {**self.show(screen), self.start: gr.update(interactive=not screen.running)}
        if self.stop:
            updates |= {self.stop: gr.update(value="Stop", interactive=screen.running), self.latest: screen}
        return updates

    def wire(self, handlers: ModelHandlers[S], inputs: Inputs) -> Dependency:
        """Announce, run, finish, Stop. Returns the listener of the last step, for what a tab does after it."""

        def announce(**values: object) -> Updates:
            if not handlers.loading.ready and handlers.loading.problem is None:
                return self.updates(handlers.waiting(WAITING))
            return self.updates(handlers.announce(**values))

        def failed(words: str) -> Updates:
            return self.updates(handlers.failed(words))

        def run(**values: object) -> Iterator[Updates]:
            with closing(screens(handlers, **values)) as running:
                for screen in running:
                    yield self.updates(screen)

        def finish(latest: S) -> Updates:
            return self.updates(handlers.finish(latest))

        announced = self.start.click(guarded(announce, failed), None, self.components, inputs_kwargs=inputs, **AT_ONCE)
        running = announced.then(run, None, self.components, inputs_kwargs=inputs, **MODEL)
        if not self.stop:
            return running
        self.stop.click(None, None, self.stop, js=STOPPING, cancels=running, **AT_ONCE)
        return running.then(guarded(finish, failed), self.latest, self.components, **AT_ONCE)


def toast(words: str) -> Updates:
    """A sentence at the corner of the page, where a tab has no better place for it."""
    raise gr.Error(words, print_exception=False)


def listen(
    trigger: Callable[..., Dependency],
    handler: Callable[..., Updates],
    inputs: Inputs,
    outputs: Iterable[Component],
    failed: Callable[[str], Updates] = toast,
    **options: object,
) -> Dependency:
    """What happens on the page after `trigger`, without a request of its own to the model.

    Args:
        trigger: An event of a component, such as `button.click`.
        handler: Called with the values of `inputs` by name; may take gr.EventData or gr.Request besides.
        inputs: The components whose values it gets.
        outputs: The components that it may update.
        failed: A sentence as updates, where the handler raised.
        options: More arguments of the listener; without any it runs at once and unqueued (`events.AT_ONCE`).
    """
    return trigger(guarded(handler, failed), None, list(outputs), inputs_kwargs=inputs, **(options or AT_ONCE))


def api(function: Callable[..., dict], name: str, **options: object) -> None:
    """An endpoint for programs. Clients and MCP tools read the signature and the docstring of `function`.

    Args:
        function: Returns plain JSON. Its errors reach the caller as one sentence.
        name: Of the endpoint.
        options: More arguments of gr.api, such as `events.ONE_AT_A_TIME`.
    """
    gr.api(guarded(function, toast), api_name=name, **options)


def browser_function(method: Callable[[dict], dict]) -> Callable[[dict], dict]:
    """A method as a server function of gr.HTML, whose errors are {"problem": a sentence}.

    Gradio marks the functions that the browser may call, and a method cannot be marked.
    """
    return guarded(method, lambda words: {"problem": words})
