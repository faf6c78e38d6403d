"""The frame: what becomes of errors, of a request that is closed, and of inputs that a handler does not have."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import gradio as gr
import pytest

from app.ui.frame import ModelRequest, api, browser_function, listen, screens
from app.ui.loading import WAITING, Loading, OnEngine
from bitune.errors import ConfigError
from bitune.progress import doing


@dataclass(frozen=True)
class Screen:
    words: str
    running: bool = False


class Handlers(OnEngine):
    """Says the prompt letter by letter; fails where it is told to. Its engine is only waited for."""

    def __init__(self, error: Exception | None = None, loading: Loading | None = None):
        super().__init__(loading or Loading.done(object()))
        self.error = error
        self.closed = False

    def waiting(self, words: str) -> Screen:
        return Screen(words, running=True)

    def announce(self, prompt: str) -> Screen:
        return Screen("waiting", running=True)

    def run(self, prompt: str) -> Iterator[Screen]:
        try:
            for end in range(1, len(prompt)):
                yield Screen(prompt[:end], running=True)
            if self.error:
                raise self.error
            yield Screen(prompt)
        finally:
            self.closed = True

    def finish(self, latest: Screen) -> Screen:
        return Screen(latest.words)

    def failed(self, words: str) -> Screen:
        return Screen(words)


def test_a_run_gives_its_screens():
    assert list(screens(Handlers(), prompt="ab")) == [Screen("a", True), Screen("ab")]


def test_an_error_of_ours_is_the_last_screen():
    *before, last = screens(Handlers(ConfigError("The seed is 'x'.")), prompt="ab")
    assert (before, last) == ([Screen("a", True)], Screen("The seed is 'x'."))


def test_any_other_error_goes_to_the_log(caplog):
    *_, last = screens(Handlers(RuntimeError("secret")), prompt="ab")
    assert "RuntimeError" in last.words
    assert "secret" not in last.words
    assert "secret" in caplog.text


def test_closing_the_screens_closes_the_run():
    handlers = Handlers()
    running = screens(handlers, prompt="abc")
    next(running)
    running.close()
    assert handlers.closed


def test_a_request_waits_for_the_engine_says_so_and_then_runs():
    loading = Loading()
    handlers = Handlers(loading=loading)
    running = screens(handlers, prompt="ab")
    with doing("Loading the base"):
        assert next(running) == Screen(f"{WAITING} Loading the base ...", True)
    assert next(running).words.startswith(WAITING)
    loading.finish(object())
    assert list(running) == [Screen("a", True), Screen("ab")]


def test_a_request_that_waits_can_be_stopped_and_fails_with_the_loading():
    loading = Loading()
    stopped, failing = screens(Handlers(loading=loading), prompt="ab"), screens(Handlers(loading=loading), prompt="ab")
    next(stopped), next(failing)
    stopped.close()
    loading.fail("The base 'x' is damaged.")
    assert list(failing) == [Screen("The base 'x' is damaged.")]


def called(blocks: gr.Blocks, number: int):
    """The function that Gradio calls for a listener."""
    return blocks.fns[number].fn


def test_a_request_is_announced_run_and_finished_and_stop_cancels_the_run():
    with gr.Blocks() as blocks:
        prompt, start, stop, words = gr.Textbox(), gr.Button(), gr.Button(), gr.HTML()
        request = ModelRequest(start, stop, [words], lambda screen: {words: screen.words}, Screen(""))
        request.wire(Handlers(), {"prompt": prompt})
    announced = called(blocks, 0)(prompt="ab")
    assert announced[words] == "waiting"
    assert announced[start]["interactive"] is False
    assert announced[stop]["interactive"] is True
    *_, last = called(blocks, 1)(prompt="ab")
    assert last[request.latest] == Screen("ab")
    assert last[start]["interactive"] is True
    (cancelling,) = [fn for fn in blocks.fns.values() if fn.cancels]
    assert cancelling.cancels == [1], "Stop cancels the run"
    finished = next(fn for fn in blocks.fns.values() if fn.inputs == [request.latest])
    assert finished.fn(Screen("a", running=True))[start]["interactive"] is True
    assert blocks.fns[1].concurrency_id == "model"
    assert not blocks.fns[0].queue


def test_while_the_engine_is_loading_a_request_is_announced_as_waiting():
    loading = Loading()
    with gr.Blocks() as blocks:
        prompt, start, words = gr.Textbox(), gr.Button(), gr.HTML()
        request = ModelRequest(start, None, [words], lambda screen: {words: screen.words})
        request.wire(Handlers(loading=loading), {"prompt": prompt})
    announced = called(blocks, 0)(prompt="ab")
    assert (announced[words], announced[start]["interactive"]) == (WAITING, False)
    loading.finish(object())
    assert called(blocks, 0)(prompt="ab")[words] == "waiting"


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


def test_what_the_browser_asks_for_is_answered_in_any_case():
    def answer(question: dict) -> dict:
        return {"answer": question["key"]}

    assert browser_function(answer)({"key": 1}) == {"answer": 1}
    assert "KeyError" in browser_function(answer)({})["problem"]
