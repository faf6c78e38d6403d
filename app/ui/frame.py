"""The frame of every tab: how a form, its buttons and the API reach the handlers, and what becomes of errors.

Inputs go to a handler by name: `{"prompt": textbox}` becomes `handler(prompt=...)`, and Gradio refuses a name that the handler does
not have when the page is built. What a handler returns are the component updates, as {component: value}. The rule for errors stands in
app/ui/errors.py; this module is the only one that applies it: handlers just raise.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from functools import partial, wraps
from typing import Generic, Protocol, TypeVar

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.ui.caller import Caller, Gone
from app.ui.errors import sentence
from app.ui.events import AT_ONCE, ENDPOINT, MODEL, STOPPING
from app.ui.pace import Work
from app.ui.running import OnModel, Waiting, admitted

Inputs = Mapping[str, Component]
Updates = dict[Component, object]


class Screen(Protocol):
    """What a tab shows of a request; `running` while more is to come."""

    running: bool


S = TypeVar("S", bound=Screen)
T = TypeVar("T")


class ModelHandlers(OnModel, Protocol[S]):
    """A request that runs the model, without the page. The values of the inputs come by name; errors are raised."""

    def announce(self, **values: object) -> S:
        """At once after the button, where the engine is there."""

    def work(self, **values: object) -> Work | None:
        """How much is asked for, in a thread; None where the model will not run. Raises what `run` would raise at once."""

    def waiting(self, words: str) -> S:
        """Instead of results while the engine is loading or others come first, as often as the words change."""

    def run(self, **values: object) -> Iterator[S]:
        """In a thread of its own, once it may. The last screen is not running."""

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


async def screens(handlers: ModelHandlers[S], caller: Caller, **values: object) -> AsyncIterator[S]:
    """The screens of a request, from the first second on. An error is the last one, and closing this ends the request."""
    try:
        if handlers.loading.ready:
            yield handlers.announce(**values)
        running = admitted(handlers, caller, partial(handlers.work, **values), partial(handlers.run, **values))
        async with aclosing(running) as steps:
            async for step in steps:
                yield handlers.waiting(step.words) if isinstance(step, Waiting) else step
    except Gone:
        return
    except Exception as error:
        yield handlers.failed(sentence(error))


class ModelRequest(Generic[S]):
    """A button that runs the model, one that stops it, and where the screens of the request appear.

    Stop only cancels. What comes after a run, whether it ended or was cancelled, then finds the latest screen still running and
    replaces it; were it wired to Stop itself, an update on its way would overwrite it.

    Attributes:
        latest: What is kept of a visitor's latest screen, a State.
    """

    def __init__(
        self,
        start: gr.Button,
        stop: gr.Button,
        outputs: Iterable[Component],
        show: Callable[[S], Updates],
        first: S,
        kept: Callable[[S], S] = lambda screen: screen,
    ):
        """Put the request together; `wire` connects it.

        Args:
            start: The button that runs the model; cannot be pressed while a request runs.
            stop: The button that cancels it.
            outputs: The components that `show` updates.
            show: A screen as updates of `outputs`.
            first: The screen that is shown before anything has run.
            kept: What of a screen lies on the server for each visitor, as much as `finish` needs of one that is running.
        """
        self.start, self.stop, self.show, self.kept = start, stop, show, kept
        self.latest = gr.State(first)
        self.components = [*outputs, start, stop, self.latest]

    def updates(self, screen: S) -> Updates:
        """A screen on this request's components, buttons included."""
        return {**self.show(screen), **self.buttons(running=screen.running), self.latest: self.kept(screen)}

    def buttons(self, *, running: bool) -> Updates:
        """Which of the two can be pressed."""
        return {
            self.start: gr.update(interactive=not running),
            self.stop: gr.update(value="Stop", interactive=running),
        }

    def wire(self, handlers: ModelHandlers[S], inputs: Inputs) -> Dependency:
        """Run, finish, Stop. Returns the listener of the last step, for what a tab does after it.

        The first screen comes from the run itself: where Gradio does not take the event, nothing on the page has changed.
        """

        async def run(**values: object) -> AsyncIterator[Updates]:
            async with aclosing(screens(handlers, Caller.current(handlers.admission.proxies), **values)) as running:
                async for screen in running:
                    yield self.updates(screen)

        def finish(latest: S) -> Updates:
            if latest.running:
                return self.updates(handlers.finish(latest))
            # Nothing is left to show; but a run that was stopped before the server had its first screen must not leave Run disabled.
            return {**dict.fromkeys(self.components, gr.skip()), **self.buttons(running=False)}

        def failed(words: str) -> Updates:
            return self.updates(handlers.failed(words))

        running = self.start.click(run, None, self.components, inputs_kwargs=inputs, **MODEL)
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
    """An endpoint for programs that does not run the model. Clients and MCP tools read the signature and the docstring of `function`.

    Args:
        function: Returns plain JSON. Its errors reach the caller as one sentence.
        name: Of the endpoint.
        options: More arguments of gr.api.
    """
    gr.api(guarded(function, toast), api_name=name, **options)


def model_api(function: Callable[..., dict], name: str, on: OnModel, work: Callable[..., Work | None]) -> None:
    """An endpoint for programs that runs the model, as `api`.

    Args:
        on: Where it runs.
        work: What a call asks for, with the arguments of `function` by name; None where the model will not run.
    """
    signature = inspect.signature(function)

    @wraps(function)
    async def call(*given: object, **values: object) -> dict:
        bound = signature.bind(*given, **values)
        bound.apply_defaults()
        return await answer(on, partial(work, **bound.arguments), partial(function, **bound.arguments), toast)

    gr.api(call, api_name=name, **ENDPOINT)


def browser_function(method: Callable[[dict], dict], on: OnModel, work: Callable[[dict], Work | None]) -> Callable:
    """A method as a server function of gr.HTML, whose errors are {"problem": a sentence}.

    Gradio marks the functions that the browser may call, and a method cannot be marked.

    Args:
        on: Where it runs.
        work: What a question asks for; None where the answer is there already.
    """

    @wraps(method)
    async def call(question: dict) -> dict:
        return await answer(on, partial(work, question), partial(method, question), lambda words: {"problem": words})

    return call


async def answer(on: OnModel, work: Callable[[], Work | None], compute: Callable[[], T], failed: Callable[[str], T]) -> T | None:
    """What `compute` returns, once it may run; what `failed` makes of a sentence where it raised; None for somebody who has gone.

    Args:
        on, work: As in `running.admitted`.
        compute: Called in a thread.
        failed: Gets the sentence.
    """

    def once() -> Iterator[T]:
        yield compute()

    value = None
    try:
        async with aclosing(admitted(on, Caller.current(on.admission.proxies), work, once)) as steps:
            async for step in steps:
                value = step
    except Gone:
        return None
    except Exception as error:
        return failed(sentence(error))
    return value
