"""ZeroGPU: each request is one call in another process, plain values cross, and nothing is expected of a worker that is gone."""

import json
import os
import pickle
import re
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from app.attention import handlers as attention
from app.attention.handlers import AttentionHandlers
from app.compare.handlers import CompareHandlers
from app.ui.loading import Loading
from app.ui.runner import Runner
from app.zero import NoGpuError, WorkerRunner, decorator
from bitune.cancellation import Cancelled, cancellable
from bitune.errors import ConfigError, PromptError, UnknownNameError
from tests.browser.conftest import browser  # noqa: F401
from tests.browser.served import METHODS, tiny_engine
from tests.browser.visitor import ANSWERS, ended, run, visit
from tests.closeness import assert_close
from tests.hosting.apps import started, tiny_flags
from tests.hosting.workers import Call, in_worker

ROOT = Path(__file__).parent.parent.parent
# Python 3.12 warns of every fork of a process with threads; ZeroGPU forks such a process.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return tiny_engine(tmp_path_factory.mktemp("tiny"))


class Gpu:
    """`spaces.GPU` in this process: decorated functions run in workers, and `calls` tells of them."""

    def __init__(self):
        self.calls: list[Call] = []

    def __call__(self, task, *, duration):
        def call(*arguments, **named):
            self.calls.append(Call(duration(*arguments, **named)))
            return in_worker(task, self.calls[-1], arguments, named)

        return call


@pytest.fixture
def gpu():
    return Gpu()


@pytest.fixture
def runner(engine, gpu):
    return WorkerRunner(engine, gpu)


# --- what crosses -----------------------------------------------------------------------------------------------------


def test_every_request_is_one_call_and_answers_as_in_this_process(engine, gpu, runner):
    here, names = Runner(engine), list(engine.variants)
    *_, there_last = runner.stream("hello", names, max_new_tokens=6)
    *_, here_last = here.stream("hello", names, max_new_tokens=6)
    assert {name: of.text for name, of in there_last.completions.items()} == {n: o.text for n, o in here_last.completions.items()}
    *_, points = runner.sweep("hello", "bitune", max_new_tokens=3)
    assert [point.completion.text for point in points] == [
        point.completion.text for point in list(here.sweep("hello", "bitune", max_new_tokens=3))[-1]
    ]
    assert points[0].log_probability is not None
    there_maps, here_maps = (one.attention("hello", "bitune", [1, 2], template="none") for one in (runner, here))
    for name in here_maps.passes:
        assert_close(there_maps.passes[name], here_maps.passes[name])
    there_moved, here_moved = (one.moved("hello", ["bitune", "lora"], "none") for one in (runner, here))
    assert list(there_moved) == list(here_moved)
    assert_close(there_moved["bitune"][0], here_moved["bitune"][0])
    answers = {name: completion.token_ids for name, completion in here_last.completions.items()}
    there_found, here_found = (one.part("hello", names, answers) for one in (runner, here))
    assert_close(there_found.scores["base"]["bitune"].log_probabilities, here_found.scores["base"]["bitune"].log_probabilities)
    *_, gone_on = runner.go_on("hello", "bitune", answers["bitune"][:2], max_new_tokens=4)
    assert gone_on["bitune"].token_ids == answers["bitune"]
    answer = there_last["bitune"].token_ids
    (*_, there_effects), (*_, here_effects) = (list(one.mixing_effects("hello", "bitune", answer)) for one in (runner, here))
    assert there_effects.measured == here_effects.measured
    assert_close(there_effects.tokens, here_effects.tokens, size=abs(here_effects.log_probability))
    there_lens, here_lens = (one.lens("hello", ["base", "bitune"], answer, 1) for one in (runner, here))
    for one, other in zip(there_lens, here_lens, strict=True):
        assert (one.variant, one.cache, one.token) == (other.variant, other.cache, other.token)
        assert_close(one.probabilities, other.probabilities)
    assert [call.ended for call in gpu.calls] == ["end"] * 8
    assert len({call.worker for call in gpu.calls}) == 8 and os.getpid() not in {call.worker for call in gpu.calls}


def test_a_batch_of_a_set_is_one_call_too(engine, gpu, runner):
    there, here = (one.batch(["hello", "and you?"], ["base", "bitune"], max_new_tokens=4) for one in (runner, Runner(engine)))
    assert [{name: one.text for name, one in of.items()} for of in there] == [
        {name: one.text for name, one in of.items()} for of in here
    ]
    assert [call.ended for call in gpu.calls] == ["end"]


def test_the_seconds_asked_for_follow_from_the_request(engine, gpu, runner):
    for tokens, names in ((1, ["base"]), (64, ["base"]), (64, list(engine.variants)), (512, ["base"])):
        runner.stream("hello", names, max_new_tokens=tokens).close()
        with closing(runner.stream("hello", names, max_new_tokens=tokens)) as updates:
            next(updates)
    seconds = [call.seconds for call in gpu.calls]
    assert len(seconds) == 4, "what is closed before it begins costs nothing"
    assert seconds == sorted(set(seconds)) and seconds[0] <= 10 and seconds[-1] <= 60, "60 s is what ZeroGPU takes by itself"


def test_what_cannot_run_costs_no_call(engine, gpu, runner):
    with pytest.raises(PromptError, match="empty"):
        runner.stream("", ["base"], max_new_tokens=4)
    with pytest.raises(UnknownNameError, match="ghost"):
        runner.stream("hello", ["ghost"], max_new_tokens=4)
    assert gpu.calls == []


def test_an_error_with_a_sentence_crosses_and_another_is_named(engine, gpu, runner, monkeypatch):
    with pytest.raises(UnknownNameError, match="no variant called 'ghost'"):
        runner.attention("hello", "ghost", [0])
    monkeypatch.setattr(engine.manager, "eval_turn", None)  # as seen by the worker, which is forked after this
    with pytest.raises(NoGpuError, match="TypeError"):
        runner.attention("hello", "base", [0])
    assert [call.ended for call in gpu.calls] == ["end", "TypeError"]


def test_errors_are_pickled_with_their_sentence():
    error = UnknownNameError("variant", "gost", ["ghost"])
    crossed = pickle.loads(pickle.dumps(error))
    assert type(crossed) is UnknownNameError and str(crossed) == str(error) and "'ghost'" in str(crossed)


def test_closing_a_run_ends_its_worker(gpu, runner):
    updates = runner.stream("hello", ["base"], max_new_tokens=400)
    next(updates)
    updates.close()
    assert gpu.calls[0].ended == "closed" and not Path(f"/proc/{gpu.calls[0].worker}").exists()


def test_handlers_run_the_model_through_the_runner_alone():
    runs = re.compile(r"\bengine\.(stream|attention|log_probabilities)\(")
    found = {
        path.relative_to(ROOT / "app").as_posix() for path in (ROOT / "app").rglob("*.py") if runs.search(path.read_text("utf-8"))
    }
    assert found == {"ui/runner.py", "zero.py", "compare/recorded.py", "attention/recorded.py"}, (
        "on ZeroGPU the page's own process has no GPU"
    )


def test_a_request_that_is_cancelled_ends_its_worker(gpu, runner):
    cancelled = Event()
    with cancellable(cancelled), pytest.raises(Cancelled):
        for _ in runner.stream("hello", ["base"], max_new_tokens=400):
            cancelled.set()
    assert gpu.calls[0].ended == "closed" and not Path(f"/proc/{gpu.calls[0].worker}").exists()


# --- the handlers -----------------------------------------------------------------------------------------------------


def test_screens_are_those_of_one_process(engine, gpu, runner):
    chosen = {"prompt": "hello", "variants": list(METHODS), "max_new_tokens": 6}
    (*_, there), (*_, here) = (
        list(CompareHandlers(loading, {}).run(**chosen)) for loading in (Loading.done(engine, runner), Loading.done(engine))
    )
    assert there.latest_run.answers == here.latest_run.answers and there.prompts == here.prompts and not there.running
    assert len(gpu.calls) == 1


def test_another_layer_is_shown_when_the_worker_that_read_is_gone(engine, gpu, runner, monkeypatch):
    monkeypatch.setattr(attention, "RESULT_BYTES", 0)  # as for a long prompt, of which only opened layers are kept
    here, there = AttentionHandlers(Loading.done(engine)), AttentionHandlers(Loading.done(engine, runner))
    read = [list(one.run(variant="bitune", prompt="hello"))[-1].value for one in (here, there)]
    layer, opened = (read[1]["opened"]["layer"] + 1) % there.layers, len(gpu.calls)
    assert opened == 1 and read[0]["picture"] == read[1]["picture"]
    assert not any(Path(f"/proc/{call.worker}").exists() for call in gpu.calls)
    questions = [{"key": value["key"], "layer": layer, "head": 0} for value in read]
    assert here.picture(questions[0]) == there.picture(questions[1])
    assert len(gpu.calls) == opened + 1
    there.picture(questions[1] | {"head": 1})
    assert len(gpu.calls) == opened + 1, "the page keeps the layer"


# --- the decorator ----------------------------------------------------------------------------------------------------


def test_elsewhere_nothing_is_decorated(monkeypatch):
    assert decorator({}) is None and decorator({"SPACES_ZERO_GPU": "false"}) is None
    monkeypatch.setitem(sys.modules, "spaces", None)
    with pytest.raises(ConfigError, match="pip install spaces"):
        decorator({"SPACES_ZERO_GPU": "true"})


# --- the whole page ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A page whose model runs in workers alone."""

    address: str
    log: Path

    def calls(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zero")
    paths = os.pathsep.join([str(ROOT / "tests" / "hosting" / "stand_in"), str(ROOT)])
    variables = {"SPACES_ZERO_GPU": "true", "PYTHONPATH": paths, "STAND_IN_LOG": str(folder / "calls")}
    with started(tiny_flags(folder), variables) as app:
        yield Page(app.address, folder / "calls")


def test_programs_get_the_answers_of_one_process(page, engine):
    client = Client(page.address, verbose=False, analytics_enabled=False)
    before = len(page.calls())
    answer = client.predict("hello", max_new_tokens=6, api_name="/compare")
    *_, last = engine.stream("hello", list(engine.variants), max_new_tokens=6)
    assert {name: of["text"] for name, of in answer["completions"].items()} == {n: o.text for n, o in last.completions.items()}
    assert client.predict("hello", "bitune", api_name="/attention")["variant"] == "bitune"
    assert client.predict(prompt="hello", api_name="/mixing")["bitune"]["moved_keys"]
    with pytest.raises(AppError, match="The prompt is empty"):
        client.predict("", api_name="/compare")
    assert [call["ended"] for call in page.calls()[before:]] == ["end"] * 3
    assert all(call["known"] for call in page.calls())


@pytest.mark.browser
def test_a_visitor_does_on_it_what_the_tabs_offer(page, browser):  # noqa: F811
    for tab in visit(browser, page.address, "desktop", "light"):
        run(tab, "hello")
        ended(tab)
        expect(tab.locator(ANSWERS)).to_have_count(3)
        before = len(page.calls())
        tab.get_by_role("tab", name="Attention").click()
        for _ in range(300):  # it reads what comes from Compare by itself
            if len(page.calls()) > before:
                break
            tab.wait_for_timeout(100)
        expect(tab.locator("#bt-read-attention")).to_be_enabled()
        tab.locator('#bt-attention [data-layer="3"][data-head="2"]').click()
        expect(tab.locator("#bt-attention .bt-map canvas").first).to_be_visible()
        tab.get_by_role("tab", name="Mixing").click()
        tab.locator("#bt-measure").click()
        expect(tab.locator("#bt-moved")).to_contain_text("Keys moved")
        tab.locator("#bt-sweep-run").click()
        expect(tab.locator("#bt-sweep tr").nth(9)).to_be_visible()
        expect(tab.locator("#bt-sweep-run")).to_be_enabled()
        assert [call["ended"] for call in page.calls()[before:]] == ["end"] * 3
    assert all(call["known"] for call in page.calls()), "or the visitor's share is not found"
