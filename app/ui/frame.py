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

from app.ui.caller import Caller, Callers, Gone
from app.ui.errors import sentence
from app.ui.events import AT_ONCE, ENDPOINT, MODEL, STOPPING
from app.ui.pace import Work
from app.ui.running import Course, FromShown, OnModel, admitted

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
        """After Stop: what came of the request so far is kept. `latest` is its last screen, still running."""

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


def screens(handlers: ModelHandlers[S], caller: Caller, **values: object) -> AsyncIterator[S]:
    """The screens of a request whose place on the page is its own."""
    return Course(handlers, values).screens(caller)


def from_shown(handlers: ModelHandlers[S], caller: Caller, **values: object) -> AsyncIterator[S]:
    """The screens of a request that goes on from the one that is `shown`, among its values; `finish` and `failed` get it last."""
    return FromShown(handlers, values).screens(caller)


class StopButton(Callers):
    """A button that stops what its visitor runs. Several requests may share one.

    The request itself notices, between two screens, and shows what came so far as its last one. Gradio's own way, `cancels`, drops on
    the page what is still on its way there, and nobody knows then what the page shows: a run could end in the same moment.

    Attributes:
        button: The component.
    """

    def __init__(self, **look: object):
        """Put the button here. `look`: more arguments of gr.Button."""
        super().__init__()
        self.button = gr.Button("Stop", interactive=False, **look)
        self.button.click(None, None, self.button, js=STOPPING, **AT_ONCE)

    def update(self, *, running: bool) -> dict:
        """How it looks while something runs, or nothing."""
        return gr.update(value="Stop", interactive=running)


class ModelRequest(Generic[S]):
    """A button that runs the model, one that stops it, and where the screens of the request appear."""

    def __init__(self, start: gr.Button, stop: StopButton, outputs: Iterable[Component], show: Callable[[S], Updates]):
        """Put the request together; `wire` connects it.

        Args:
            start: The button that runs the model; cannot be pressed while a request runs.
            stop: The button that stops it.
            outputs: The components that `show` updates.
            show: A screen as updates of `outputs`.
        """
        self.start, self.stop, self.show = start, stop, show
        self.components = [*outputs, start, stop.button]

    def updates(self, screen: S) -> Updates:
        """A screen on this request's components, buttons included."""
        return {**self.show(screen), **self.buttons(running=screen.running)}

    def buttons(self, *, running: bool) -> Updates:
        """Which of the two can be pressed."""
        return {self.start: gr.update(interactive=not running), self.stop.button: self.stop.update(running=running)}

    def wire(
        self,
        handlers: ModelHandlers[S],
        inputs: Inputs,
        screens: Callable[..., AsyncIterator[S]] = screens,
        also: Iterable[Callable[..., Dependency]] = (),
    ) -> Dependency:
        """Connect Run and Stop.

        The first screen comes from the run itself: where Gradio does not take the event, nothing on the page has changed.

        Args:
            handlers: What happens.
            inputs: The components whose values a request gets, by name.
            screens: The screens of a request, where it is not alone in its place on the page or takes the line more than once.
            also: Events that run it as its button does.

        Returns:
            The listener of the run, for what a tab does after it.
        """
        proxies = handlers.admission.proxies

        async def run(**values: object) -> AsyncIterator[Updates]:
            caller = Caller.current(proxies)
            with self.stop.watching(caller):
                async with aclosing(screens(handlers, caller, **values)) as running:
                    async for screen in running:
                        yield self.updates(screen)

        def stop() -> Updates:
            stopped = self.stop.stop(Caller.current(proxies).session)
            # What is stopped has the last word itself; where nothing runs any more, the button must not go on saying that it stops.
            return dict.fromkeys((self.start, self.stop.button), gr.skip()) if stopped else self.buttons(running=False)

        listen(self.stop.button.click, stop, {}, [self.start, self.stop.button])
        for event in also:
            event(run, None, self.components, inputs_kwargs=inputs, **MODEL)
        return self.start.click(run, None, self.components, inputs_kwargs=inputs, **MODEL)


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
