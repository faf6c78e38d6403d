"""The frame: what becomes of errors, of a request that is closed, and of inputs that a handler does not have."""

import asyncio
import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass

import gradio as gr
import pytest

from app.limits import Limits
from app.ui.admission import Admission
from app.ui.frame import ModelRequest, StopButton, api, listen, model_api, screens
from app.ui.loading import WAITING, Loading, OnEngine
from app.ui.pace import Work
from bitune.cancellation import check, current
from bitune.errors import ConfigError
from bitune.progress import doing
from tests.app.ui import visiting
from tests.app.ui.test_running import until
from tests.app.ui.visiting import Visitor, collected, run


@dataclass(frozen=True)
class Screen:
    words: str
    running: bool = False


class Handlers(OnEngine):
    """Says the prompt letter by letter; fails where it is told to. Its engine is only waited for."""

    def __init__(self, error: Exception | None = None, loading: Loading | None = None, endless: bool = False):
        super().__init__(loading or Loading.done(object()))
        self.error, self.endless = error, endless
        self.began = self.closed = False

    def waiting(self, words: str) -> Screen:
        return Screen(words, running=True)

    def announce(self, prompt: str) -> Screen:
        return Screen("waiting", running=True)

    def work(self, prompt: str) -> Work:
        if not prompt:
            raise ConfigError("The prompt is empty.")
        return Work(len(prompt))

    def run(self, prompt: str) -> Iterator[Screen]:
        self.began = True
        try:
            for end in range(1, len(prompt)):
                yield Screen(prompt[:end], running=True)
            while self.endless:
                time.sleep(0.005)
                check(current())
                yield Screen(prompt, running=True)
            if self.error:
                raise self.error
            yield Screen(prompt)
        finally:
            self.closed = True

    def finish(self, latest: Screen) -> Screen:
        return Screen(latest.words)

    def failed(self, words: str) -> Screen:
        return Screen(words)


def test_a_run_is_announced_and_gives_its_screens():
    *_, last = run(Handlers(), prompt="ab")
    assert last == Screen("ab")
    assert run(Handlers(), prompt="ab")[0] == Screen("waiting", True)


def test_an_error_of_ours_is_the_last_screen():
    *_, last = run(Handlers(ConfigError("The seed is 'x'.")), prompt="ab")
    assert last == Screen("The seed is 'x'.")


def test_any_other_error_goes_to_the_log(caplog):
    *_, last = run(Handlers(RuntimeError("secret")), prompt="ab")
    assert "RuntimeError" in last.words
    assert "secret" not in last.words
    assert "secret" in caplog.text


def test_what_is_wrong_is_known_before_anybody_waits():
    handlers = Handlers()
    *_, last = run(handlers, prompt="")
    assert last == Screen("The prompt is empty.")
    assert not handlers.began


def test_closing_the_screens_closes_the_run():
    handlers = Handlers(endless=True)

    async def visit() -> None:
        running = screens(handlers, Visitor(), prompt="abc")
        assert [await anext(running) for _ in range(2)][-1].running
        await running.aclose()
        await until(lambda: handlers.closed)

    asyncio.run(visit())


def test_who_has_gone_is_shown_nothing_more():
    handlers, visitor = Handlers(endless=True), Visitor()

    async def visit() -> None:
        running = screens(handlers, visitor, prompt="abc")
        await anext(running), await anext(running)
        visitor.leave()
        assert all(screen.running for screen in await collected(running))
        await until(lambda: handlers.closed)

    asyncio.run(visit())


def test_a_request_waits_for_the_engine_says_so_and_then_runs():
    loading = Loading()
    handlers = Handlers(loading=loading)

    async def visit() -> None:
        running = screens(handlers, Visitor(), prompt="ab")
        with doing("Loading the base"):
            assert await anext(running) == Screen(f"{WAITING} Loading the base ...", True)
        loading.finish(object())
        assert (await collected(running))[-1] == Screen("ab")

    asyncio.run(visit())


def test_a_request_that_waits_fails_with_the_loading():
    loading = Loading()

    async def visit() -> None:
        failing = screens(Handlers(loading=loading), Visitor(), prompt="ab")
        await anext(failing)
        loading.fail("The base 'x' is damaged.")
        assert (await collected(failing))[-1] == Screen("The base 'x' is damaged.")

    asyncio.run(visit())


def test_who_cannot_be_served_is_told_so_instead_of_results():
    handlers = Handlers()
    handlers.admission = Admission(Limits(per_address=1))
    handlers.admission.enter(Visitor().visitor)
    assert "from your address" in run(handlers, prompt="ab")[-1].words


def called(blocks: gr.Blocks, number: int):
    """The function that Gradio calls for a listener."""
    return blocks.fns[number].fn


@pytest.fixture
def wired():
    """A request on a page that nobody opened: its blocks, itself, and where its words and button are."""
    with gr.Blocks() as blocks:
        prompt, start, stop, words = gr.Textbox(), gr.Button(), StopButton(), gr.HTML()
        request = ModelRequest(start, stop, [words], lambda screen: {words: screen.words})
        request.wire(Handlers(endless=True), {"prompt": prompt})
    return blocks, request, words


def test_the_buttons_follow_the_screens(wired):
    blocks, request, words = wired
    announced = request.updates(Handlers().announce("ab"))
    assert announced[words] == "waiting"
    assert announced[request.start]["interactive"] is False
    assert announced[request.stop.button]["interactive"] is True
    assert request.updates(Screen("ab"))[request.start]["interactive"] is True
    assert not [fn for fn in blocks.fns.values() if fn.cancels], "Gradio drops what is on its way to the page"
    run = next(fn for fn in blocks.fns.values() if fn.types_generator)
    assert run.concurrency_limit is None, "the admission decides who runs, not Gradio's queue"


def test_stop_ends_what_runs_in_its_own_session_with_what_came_so_far(wired):
    _, request, _ = wired
    own, other, handlers = Visitor("mine"), Visitor("another"), Handlers(endless=True)

    async def visit() -> None:
        with request.stop.watching(own), request.stop.watching(other):
            running, beside = (screens(handlers, caller, prompt="abc") for caller in (own, other))
            while (await anext(running)).words != "abc":
                pass
            await anext(beside)
            assert request.stop.stop("mine")
            assert (await collected(running))[-1] == Screen("abc"), "the last screen is that of `finish`"
            assert (await anext(beside)).running
            await beside.aclose()
        assert not request.stop.stop("mine"), "nothing runs any more"

    asyncio.run(visit())


def test_stop_in_a_line_ends_the_waiting(wired):
    _, request, _ = wired
    visitor, handlers = Visitor("mine"), Handlers()
    handlers.admission = Admission(Limits(running=1))
    first = handlers.admission.enter("another")
    first.want(Work(1))

    async def visit() -> None:
        with request.stop.watching(visitor):
            waiting = screens(handlers, visitor, prompt="ab")
            assert [await anext(waiting) for _ in range(2)][-1].running
            request.stop.stop("mine")
            *_, last = await collected(waiting)
            assert not last.running and not handlers.began
        assert handlers.admission.counts == (1, 0)

    asyncio.run(visit())


def test_a_name_that_the_handler_does_not_have_is_refused_when_the_page_is_built():
    def handler(prompt: str) -> dict:
        return {}

    with gr.Blocks():
        button, box = gr.Button(), gr.Textbox()
        listen(button.click, handler, {"prompt": box}, [box])
        with pytest.raises(ValueError, match="promt"):
            listen(button.click, handler, {"promt": box}, [box])


def test_a_listener_shows_its_error_where_it_has_a_place_or_at_the_corner():
    def handler() -> dict:
        raise ConfigError("Fill in both layers.")

    with gr.Blocks() as blocks:
        button, note = gr.Button(), gr.HTML()
        listen(button.click, handler, {}, [note], lambda words: {note: words})
        listen(button.click, handler, {}, [note])
    assert called(blocks, 0)() == {note: "Fill in both layers."}
    with pytest.raises(gr.Error, match="Fill in both layers"):
        called(blocks, 1)()


def test_an_endpoint_keeps_signature_and_docstring_and_raises_a_sentence():
    class Endpoint:
        def double(self, number: int, name: str = "x") -> dict:
            """Twice the number."""
            if number < 0:
                raise ConfigError(f"number is {number}.")
            return {name: 2 * number}

    with gr.Blocks() as blocks:
        api(Endpoint().double, "double")
    call = called(blocks, 0)
    assert call(3) == {"x": 6}
    assert list(inspect.signature(call).parameters) == ["number", "name"]
    assert call.__doc__ == "Twice the number."
    with pytest.raises(gr.Error, match="number is -1"):
        call(-1)


def test_an_endpoint_that_runs_the_model_keeps_signature_and_docstring_too():
    def double(number: int, name: str = "x") -> dict:
        """Twice the number."""
        return {name: 2 * number}

    with gr.Blocks() as blocks:
        model_api(double, "double", OnEngine(object()), lambda number, name: Work(number))
    call = called(blocks, 0)
    assert visiting.called(call, 3) == {"x": 6}
    assert list(inspect.signature(call).parameters) == ["number", "name"]
    assert call.__doc__ == "Twice the number."
    assert not blocks.fns[0].queue, "so that a tool of MCP knows the connection of who asks"
