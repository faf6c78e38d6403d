"""Another base from the page: what is refused before anything is closed, and what is then there for the page that follows."""

import asyncio
import json
import shutil
from html import unescape

import pytest
from transformers import AutoModelForCausalLM, MambaConfig, T5Config, T5ForConditionalGeneration

from app.limits import Limits
from app.models.base_handlers import BaseHandlers, BaseRequest
from app.models.handlers import LoadRequest, ModelsHandlers
from app.settings import Settings
from app.ui.admission import Admission, Refused
from app.ui.frame import screens
from app.ui.pace import Work
from bitune import Engine, memory
from bitune.base import preview as previews
from tests.app.models.test_models import hub_of
from tests.app.ui.test_running import until
from tests.app.ui.visiting import Visitor, collected, held_up, run
from tests.browser.served import tiny_folders
from tests.hub import COMMIT
from tests.tiny import saved_base, tiny_base, tiny_model

ROOM = 10**9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`base` with `lora` and `bitune`; `other`, a base of another family; three that cannot be one."""
    folder = tiny_folders(tmp_path_factory.mktemp("tiny"))
    saved_base(folder / "other", "qwen3")
    T5ForConditionalGeneration(T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(
        folder / "t5"
    )
    mamba = MambaConfig(vocab_size=32, hidden_size=8, state_size=4, num_hidden_layers=1)
    AutoModelForCausalLM.from_config(mamba).save_pretrained(folder / "mamba")
    shutil.copytree(folder / "other", folder / "damaged")
    (folder / "damaged" / "model.safetensors").write_bytes(b"damaged")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def bases(folder, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: ROOM)
    engine = Engine(tiny_base())
    engine.add_checkpoint(folder / "lora")
    return BaseHandlers(ModelsHandlers(engine), str(folder / "base"))


def ask(bases, source):
    *_, last = run(BaseRequest(bases), source=source)
    return unescape(last.words)


def test_what_there_is_to_load_is_said_to_all_and_nobody_is_let_in_any_more(folder, bases):
    assert bases.models.state() == {"version": 0, "ends": None}
    words = ask(bases, f" {folder / 'other'} ")
    assert "The page restarts with the base" in words and bases.wanted == str(folder / "other")
    assert bases.models.state()["ends"] in words
    for asked in (
        lambda: ask(bases, str(folder / "other")),
        lambda: run(LoadRequest(bases.models), source="x", name="")[-1].words,
    ):
        assert "The page restarts with the base" in asked()


@pytest.mark.parametrize("work", ["look", "fetch"])
def test_stop_leaves_the_base(folder, bases, monkeypatch, work):
    begun, go = held_up(monkeypatch, BaseHandlers, work)

    async def visit():
        visitor = Visitor()
        asking = asyncio.create_task(collected(screens(BaseRequest(bases), visitor, source=str(folder / "other"))))
        await until(begun.is_set)
        visitor.stopped = True
        *_, last = await asking
        assert bases.models.others.locked(), "nothing else is loaded while its files are still read"
        go.set()
        await until(lambda: not bases.models.others.locked())
        return last

    assert "the base stays as it is" in asyncio.run(visit()).words
    assert bases.wanted is None and bases.admission.closed is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "No base is named"),
        (3, "No base is named"),
        ("x" * 2000, "has 2,000 characters"),
        ("a\x00b", "holds what cannot be seen"),
        ("{folder}/nothing", "There is no folder or .gguf file"),
        ("{folder}/nothing.gguf", "There is no file"),
        ("{folder}/lora", "is a Bitune checkpoint"),
        ("{folder}/empty", "has no config.json"),
        ("{folder}/base", "is the one that is loaded"),
        ("{folder}/other/../base", "is the one that is loaded"),
        ("{folder}/damaged", "damaged or cut short"),
        ("{folder}/t5", "cannot run as a causal language model"),
        ("{folder}/mamba", "without an ordinary key/value cache"),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(folder, bases, source, words):
    source = source.format(folder=folder) if isinstance(source, str) else source
    assert words in ask(bases, source)
    assert bases.wanted is None and bases.admission.closed is None
    assert "restarts" in ask(bases, str(folder / "other")), "and the next one is taken"


def test_a_config_that_promises_a_billion_layers_is_refused_before_they_are_built(folder, bases, tmp_path):
    shutil.copytree(folder / "other", tmp_path / "many")
    config = json.loads((tmp_path / "many" / "config.json").read_text())
    (tmp_path / "many" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**9}))
    assert "num_hidden_layers" in ask(bases, str(tmp_path / "many")) and bases.wanted is None


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("int8", 4)])
def test_one_that_does_not_fit_beside_what_the_old_one_gives_back_is_refused(folder, bases, monkeypatch, dtype, width):
    numbers = sum(parameter.numel() for parameter in tiny_model("qwen3").state_dict().values())
    bases.dtype, needed, old = dtype, width * numbers, 1000
    monkeypatch.setattr(memory, "written_bytes", lambda: old)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - old - 1)
    words = ask(bases, str(folder / "other"))
    assert f"takes about {memory.spoken(needed)} of memory" in words and "0.001 MB that are given back before" in words
    assert bases.wanted is None
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - old)
    assert "restarts" in ask(bases, str(folder / "other"))


def test_what_is_only_mapped_from_files_is_not_counted_twice(bases, monkeypatch):
    assert bases.given_back() == 4 * bases.loading.engine.base_facts.parameters
    monkeypatch.setattr(memory, "written_bytes", lambda: 7)
    assert bases.given_back() == 7


def test_of_a_repository_the_config_and_the_headers_are_read_first(folder, bases, tmp_path, monkeypatch):
    with hub_of(monkeypatch, tmp_path, other=folder / "other", t5=folder / "t5", lora=folder / "lora") as hub:
        monkeypatch.setattr(memory, "free_bytes", lambda device: -(10**6))
        assert "The base user/other takes about" in ask(bases, "user/other")
        monkeypatch.setattr(memory, "free_bytes", lambda device: ROOM)
        assert "cannot run as a causal language model" in ask(bases, "user/t5")
        assert "there is no such public model" in ask(bases, "user/nothing")
        assert "has no safetensors weights" in ask(bases, "user/lora")
        assert not list((tmp_path / "hub").rglob("*.safetensors")) and bases.wanted is None
        assert "restarts" in ask(bases, "user/other") and bases.wanted == "user/other"
        assert any(COMMIT in request for request in hub.requests)
    assert [path.name for path in (tmp_path / "hub").rglob("*.safetensors")] == ["model.safetensors"]
    assert previews.preview("user/other").weights.folder.name == COMMIT, "of what is all here the Hub is not asked"


def test_it_waits_for_a_checkpoint_that_is_being_loaded(folder, bases, monkeypatch):
    reading, go = held_up(monkeypatch, ModelsHandlers, "fetch")

    async def visit():
        loading = screens(LoadRequest(bases.models), Visitor(), source=str(folder / "bitune"), name="")
        first = asyncio.create_task(collected(loading))
        await until(reading.is_set)
        found = []
        async for screen in screens(BaseRequest(bases), Visitor(), source=str(folder / "other")):
            found.append(screen.words)
            if "this one comes next" in screen.words:
                go.set()
        return (await first)[-1], found

    first, found = asyncio.run(visit())
    assert first.loaded == "bitune" and any("comes next" in words for words in found) and "restarts" in found[-1]


def test_who_waits_in_line_is_told_and_what_runs_goes_on():
    admission = Admission(Limits(running=1))
    runs, waits = admission.enter("a"), admission.enter("b")
    runs.want(Work(1, 1, 1, 1))
    waits.want(Work(1, 1, 1, 1))
    admission.close("The page restarts.")
    for asked in (waits.words, lambda: admission.enter("c")):
        with pytest.raises(Refused, match="The page restarts"):
            asked()
    runs.leave(ended=True)
    assert not waits.admitted.done() and admission.counts == (0, 1)


def test_strangers_exchange_nothing():
    assert Settings().exchanges and not Settings(host="0.0.0.0", loading="on").exchanges and not Settings(loading="off").exchanges


def test_checkpoints_come_back_with_their_base():
    first = Settings("a", ("x",), chosen=True)
    other = first.with_base("b")
    assert (other.base, other.checkpoints, other.chosen) == ("b", ("x",), False) and first.with_base("a") is first
