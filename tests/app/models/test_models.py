"""Checkpoints from the page: found, measured, put on the base, taken away; what is refused leaves nothing, and who waits is told."""

import asyncio
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from html import unescape

import pytest

from app.compare.handlers import CompareHandlers
from app.limits import Limits
from app.models.handlers import LOOK_SECONDS, LoadRequest, ModelsHandlers, UnloadRequest
from app.models.sources import checked_name, checked_source
from app.ui.admission import Admission
from app.ui.frame import screens
from app.ui.loading import Loading
from app.ui.variants import views_of
from app.votes.ballot import Ballot
from app.votes.candidates import candidates
from bitune import CheckpointError, ConfigError, Engine, UnknownNameError, memory
from bitune.adapters.layers import adapter_layers
from bitune.cancellation import Cancelled, cancellable
from bitune.checkpoints.folder import hub_checkpoint
from tests.app.ui.test_running import until
from tests.app.ui.visiting import Visitor, collected, held_up, run
from tests.browser.served import TEMPLATE, tiny_folders
from tests.hub import COMMIT, Hub, running_hub
from tests.tiny import bitune_on, tiny_base

ASKED = {"prompt": "hello", "template": "own", "max_new_tokens": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`base`, `lora` and `bitune`; `other` is another Bitune checkpoint of the base, `foreign` one of another base."""
    folder = tiny_folders(tmp_path_factory.mktemp("tiny"))
    model = bitune_on(tiny_base(), seed=7, prompt_template=TEMPLATE)
    model.save_pretrained(folder / "other")
    foreign = bitune_on(tiny_base("gpt_neox"))
    foreign.save_pretrained(folder / "foreign")
    return folder


@pytest.fixture
def engine(folder):
    engine = Engine(tiny_base())
    engine.add_checkpoint(folder / "lora")
    return engine


@pytest.fixture
def handlers(engine):
    return ModelsHandlers(engine)


def load(handlers, source, name=""):
    return [text_of(screen) for screen in run(LoadRequest(handlers), source=str(source), name=name)]


def text_of(screen):
    """The screen with its words as a person reads them."""
    return replace(screen, words=unescape(screen.words))


def unload(handlers, name):
    return run(UnloadRequest(handlers), name=name)


def state(engine):
    """All that a load may change: names, adapters, and the layers that PEFT puts in."""
    return list(engine.variants), list(engine.manager.names), len(adapter_layers(engine.base.model))


@contextmanager
def hub_of(monkeypatch, tmp_path, **repositories):
    """A Hub with these folders as user/NAME, and an empty cache."""
    from huggingface_hub import constants

    files = {
        f"user/{name}": {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for name, folder in repositories.items()
    }
    with running_hub(Hub(files)) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield hub


def test_a_folder_becomes_a_variant_that_answers(folder, engine, handlers):
    version, before = handlers.version(), engine.variants["lora"]
    *first, last = load(handlers, folder / "bitune")
    assert all(screen.running for screen in first) and last.loaded == "bitune" and "bitune is loaded" in last.words
    assert list(engine.variants) == ["base", "lora", "bitune"] and engine.variants["lora"] == before
    assert handlers.version() > version and "Unload bitune" in handlers.listing()
    *_, answer = run(CompareHandlers(engine, {}), variants=["base", "bitune"], **ASKED)
    assert list(answer.texts) == ["base", "bitune"]


def test_it_answers_as_one_that_was_loaded_at_the_start(folder, handlers, engine):
    load(handlers, folder / "bitune", "mine")
    other = Engine(tiny_base())
    other.add_checkpoint(folder / "bitune", name="mine")
    (*_, here), (*_, there) = (one.stream("hello", ["mine"], max_new_tokens=8) for one in (engine, other))
    assert here.completions["mine"].token_ids == there.completions["mine"].token_ids


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "No checkpoint is named"),
        ("{folder}/nothing", "There is no checkpoint folder"),
        ("{folder}/base", "is a base model"),
        ("{folder}/foreign", "The checkpoint was trained on"),
        ("{folder}/damaged", "is damaged or cut short"),
        ("{folder}/empty", "bitune_config.json is missing"),
        ("x" * 2000, "has 2,000 characters"),
    ],
)
def test_what_the_start_refuses_is_refused_here_and_leaves_nothing(folder, engine, handlers, source, words):
    (folder / "empty").mkdir(exist_ok=True)
    damaged = folder / "damaged" / "causal"
    damaged.mkdir(parents=True, exist_ok=True)
    for name in ("bitune_config.json", "mixing.safetensors", "causal/adapter_config.json"):
        (folder / "damaged" / name).write_bytes((folder / "bitune" / name).read_bytes())
    (damaged / "adapter_model.safetensors").write_bytes(
        (folder / "bitune" / "causal" / "adapter_model.safetensors").read_bytes()[:500]
    )
    before, version = state(engine), handlers.version()
    *_, last = load(handlers, source.format(folder=folder))
    assert words in last.words and 'role="alert"' in last.words and last.loaded is None
    assert state(engine) == before and handlers.version() == version
    assert load(handlers, folder / "bitune")[-1].loaded == "bitune", "and the next one is loaded"


def test_what_does_not_fit_into_memory_is_refused_with_both_numbers(folder, engine, handlers, monkeypatch):
    before = state(engine)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    *_, last = load(handlers, folder / "bitune")
    numbers = sum(value.numel() for name in ("causal", "bidirectional") for value in _weights(folder / "bitune" / name).values())
    assert f"takes about {memory.spoken(8 * numbers)} of memory and 0.001 MB are free here" in last.words
    assert state(engine) == before


def _weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_an_error_that_nobody_foresaw_leaves_nothing_either(folder, engine, handlers, monkeypatch, caplog):
    before = state(engine)

    def broken(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(Engine, "_register", broken)
    *_, last = load(handlers, folder / "bitune")
    assert "RuntimeError" in last.words and "secret" not in last.words and "secret" in caplog.text
    assert state(engine) == before


def test_names(folder, engine, handlers):
    assert load(handlers, folder / "bitune", "qa")[-1].loaded == "qa"
    assert "A variant called 'qa' is already there" in load(handlers, folder / "other", "qa")[-1].words
    assert "A variant called 'base' is already there" in load(handlers, folder / "other", "base")[-1].words
    unload(handlers, "qa")
    before = state(engine)
    refused = load(handlers, folder / "other", "qa")[-1].words
    assert "another checkpoint's name" in refused and state(engine) == before, "what stands on pages was said by the first"
    assert load(handlers, folder / "bitune", "qa")[-1].loaded == "qa", "the same one may come back"


@pytest.mark.parametrize("name", [3, "x" * 300, "two\nlines", "\x00"])
def test_what_is_no_name(name):
    with pytest.raises(ConfigError):
        checked_name(name)


def test_there_are_at_most_so_many(folder, engine):
    handlers = ModelsHandlers(engine, Admission(Limits(loaded_checkpoints=2)))
    load(handlers, folder / "bitune")
    assert "2 checkpoints are loaded, as many as may be at once" in load(handlers, folder / "other")[-1].words


def test_unloading_waits_for_requests_that_hold_it_and_says_so(folder, engine, handlers):
    load(handlers, folder / "bitune")
    variant, version = engine.variants["bitune"], handlers.version()

    async def visit():
        with engine.manager.hold(variant.adapters):
            going, found = screens(UnloadRequest(handlers), Visitor(), name="bitune"), []
            async for screen in going:
                found.append(screen)
                if "have ended that still answer with it" in screen.words:
                    break
            assert "bitune" not in engine.variants, "nobody new finds it"
            assert set(variant.adapters) <= set(engine.manager.names), "and who runs it has it"
            await until(lambda: handlers.version() > version)
        found += [screen async for screen in going]
        return found

    *_, last = asyncio.run(visit())
    assert "bitune is unloaded" in last.words and not last.running
    assert not set(variant.adapters) & set(engine.manager.names)


def test_a_request_that_runs_ends_with_what_it_began(folder, engine, handlers):
    load(handlers, folder / "bitune")
    with engine.stream("hello", ["bitune"], max_new_tokens=40) as session:
        next(session)
        gone = threading.Thread(target=unload, args=(handlers, "bitune"))
        gone.start()
        *_, last = session
        assert last.completions["bitune"].finish_reason in ("length", "stop")
    gone.join(30)
    assert not gone.is_alive() and "bitune" not in engine.variants


def test_who_leaves_does_not_keep_it_from_going(folder, engine, handlers):
    load(handlers, folder / "bitune")
    adapters = engine.variants["bitune"].adapters

    async def visit():
        visitor = Visitor()
        with engine.manager.hold(adapters):
            asking = asyncio.create_task(collected(screens(UnloadRequest(handlers), visitor, name="bitune")))
            await until(lambda: "bitune" not in engine.variants)
            visitor.leave()
            await asking
        await until(lambda: not set(adapters) & set(engine.manager.names))

    asyncio.run(visit())


def test_only_what_is_there_is_unloaded(handlers):
    for name in ("base", "nothing", None):
        assert "There is no checkpoint that can be unloaded here" in unload(handlers, name)[-1].words


def test_two_visitors_load_one_after_the_other(folder, engine, handlers, monkeypatch):
    reading, go = held_up(monkeypatch, ModelsHandlers, "fetch")

    async def visit():
        first = asyncio.create_task(collected(screens(LoadRequest(handlers), Visitor(), source=str(folder / "bitune"), name="")))
        await until(reading.is_set)
        found = []
        async for screen in screens(LoadRequest(handlers), Visitor(), source=str(folder / "other"), name=""):
            found.append(screen)
            if "this one comes next" in screen.words:
                go.set()
        return (await first)[-1], found

    first, second = asyncio.run(visit())
    assert first.loaded == "bitune" and second[-1].loaded == "other" and any("comes next" in screen.words for screen in second)
    assert list(engine.variants) == ["base", "lora", "bitune", "other"]


def test_stop_loads_nothing(folder, engine, handlers, monkeypatch):
    before, reading, go, ended = state(engine), threading.Event(), threading.Event(), threading.Event()
    add = Engine.add_checkpoint

    def slow(self, *given, **options):
        reading.set()
        assert go.wait(30)
        try:
            return add(self, *given, **options)
        finally:
            ended.set()

    monkeypatch.setattr(Engine, "add_checkpoint", slow)

    async def visit():
        visitor = Visitor()
        asking = asyncio.create_task(collected(screens(LoadRequest(handlers), visitor, source=str(folder / "bitune"), name="")))
        await until(reading.is_set)
        visitor.stopped = True
        *_, last = await asking
        go.set()
        await until(ended.is_set)
        await until(lambda: state(engine) == before)
        return last

    assert "nothing was loaded" in asyncio.run(visit()).words


@pytest.mark.parametrize("end", ["stop", "leave"])
def test_the_next_one_is_loaded_when_what_was_stopped_is_really_over(folder, engine, monkeypatch, end):
    reading, go = held_up(monkeypatch, Engine, "add_checkpoint")
    handlers = ModelsHandlers(engine, Admission(Limits(per_address=2)))

    def asked(visitor, source):
        return collected(screens(LoadRequest(handlers), visitor, source=str(source), name=""))

    async def visit():
        first, second = Visitor(), Visitor()
        stopped = asyncio.create_task(asked(first, folder / "bitune"))
        await until(reading.is_set)
        first.stopped = end == "stop"
        if end == "leave":
            first.leave()
        seen = await asyncio.wait_for(stopped, 5)
        assert end == "leave" or "nothing was loaded" in seen[-1].words, "at once, whatever is still read"
        assert handlers.admission.counts == (0, 1), "it counts as theirs until nothing is read any more"
        reading.clear()
        following = asyncio.create_task(asked(second, folder / "other"))
        await until(lambda: handlers.admission.counts == (0, 2))
        await asyncio.sleep(3 * LOOK_SECONDS)
        assert not reading.is_set(), "two are read at once, and measured by the same free memory"
        assert "As many requests from your address" in (await asked(Visitor(), folder / "other"))[-1].words
        go.set()
        last = (await following)[-1]
        await until(lambda: handlers.admission.counts == (0, 0))
        return last

    assert asyncio.run(visit()).loaded == "other"
    assert list(engine.variants) == ["base", "lora", "other"]


def test_a_hub_repository_is_measured_before_it_is_downloaded(folder, engine, handlers, tmp_path, monkeypatch):
    with hub_of(monkeypatch, tmp_path, qa=folder / "bitune") as hub:
        monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
        *_, last = load(handlers, "user/qa")
        assert "The checkpoint user/qa takes about" in last.words and "0.001 MB are free" in last.words
        assert not list((tmp_path / "hub").rglob("*.safetensors")), "nothing large was fetched"
        monkeypatch.undo()
    with hub_of(monkeypatch, tmp_path, qa=folder / "bitune") as hub:
        *screens, last = load(handlers, "user/qa")
        assert last.loaded == "qa" and any(COMMIT in request for request in hub.requests), "both times of the same commit"
        assert "A variant called 'qa' is already there" in load(handlers, "user/qa")[-1].words
        assert "there is no such public model" in load(handlers, "user/nothing")[-1].words


def test_of_a_repository_only_what_is_read_is_fetched(folder, engine, handlers, tmp_path, monkeypatch):
    full = tmp_path / "full"
    shutil.copytree(folder / "bitune", full)
    for name in ("junk.safetensors", "checkpoint-1/adapter_model.safetensors", "junk.json"):
        (full / name).parent.mkdir(exist_ok=True)
        (full / name).write_bytes(b"{}")
    with hub_of(monkeypatch, tmp_path, full=full):
        assert load(handlers, "user/full")[-1].loaded == "full"
    fetched = {path.relative_to(tmp_path / "hub").parts[-1] for path in (tmp_path / "hub").rglob("*") if path.is_symlink()}
    assert "junk.safetensors" not in fetched and "junk.json" not in fetched and "mixing.safetensors" in fetched
    assert not list((tmp_path / "hub").rglob("checkpoint-1"))


def test_a_damaged_repository_is_called_by_its_name_and_not_by_a_folder_here(folder, engine, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    model = bitune_on(tiny_base(), seed=3)
    model.save_pretrained(broken)
    (broken / "mixing.safetensors").write_bytes(b"x" * 100)
    with hub_of(monkeypatch, tmp_path, broken=broken):
        *_, last = load(ModelsHandlers(engine, folders=False), "user/broken")
    assert "user/broken/mixing.safetensors is damaged" in last.words and str(tmp_path) not in last.words


def test_a_header_that_is_damaged_on_the_hub_is_a_sentence(folder, handlers, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    shutil.copytree(folder / "bitune", broken)
    (broken / "causal" / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with hub_of(monkeypatch, tmp_path, broken=broken):
        *_, last = load(handlers, "user/broken")
    assert "one of its files is damaged" in last.words


def test_a_download_that_nobody_wants_any_more_ends(folder, tmp_path, monkeypatch):
    stopped = threading.Event()
    stopped.set()
    with hub_of(monkeypatch, tmp_path, qa=folder / "bitune"), cancellable(stopped), pytest.raises(Cancelled):
        hub_checkpoint("user/qa")


@pytest.mark.parametrize(
    "source",
    ["/etc", "..", "../x", "~/x", "user/name/more", "a\b", "./user/x", "user", "C:/x", "user/..", "user/x@../../y", "a/b@"],
)
def test_a_public_page_takes_hub_ids_alone(source):
    with pytest.raises(CheckpointError, match="no Hub id"):
        checked_source(source, folders=False)


def test_a_folder_that_is_called_like_a_repository_is_not_read_in_public(folder, engine, tmp_path, monkeypatch):
    (tmp_path / "user").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert load(ModelsHandlers(engine), "user/bitune")[-1].loaded == "bitune", "the person at this computer names it so"
    unload(ModelsHandlers(engine), "bitune")
    with hub_of(monkeypatch, tmp_path):
        *_, last = load(ModelsHandlers(engine, folders=False), "user/bitune")
    assert "no such public model" in last.words and "bitune" not in engine.variants


def test_in_public_what_the_start_has_loaded_stays(folder, engine, handlers):
    public = ModelsHandlers(engine, folders=False)
    assert "Unload lora" not in public.listing() and "Unload lora" in handlers.listing()
    assert "can be unloaded here" in unload(public, "lora")[-1].words and "lora" in engine.variants


def test_colours_stay_while_others_come_and_go(folder, engine, handlers):
    load(handlers, folder / "bitune")
    load(handlers, folder / "other")
    before = views_of(engine)
    unload(handlers, "bitune")
    assert views_of(engine)["other"].colour == before["other"].colour
    load(handlers, folder / "bitune")
    assert len({view.colour for view in views_of(engine).values()}) == 4


def test_a_vote_on_what_is_gone_is_refused(folder, engine, handlers):
    load(handlers, folder / "bitune")
    ballot = Ballot("run", "hello", "own", {}, {"base": "a", "bitune": "b"}, False, {})
    assert candidates(engine, ballot)[1].kind == "checkpoint"
    unload(handlers, "bitune")
    with pytest.raises(UnknownNameError, match="bitune"):
        candidates(engine, ballot)


def test_nothing_is_listed_before_the_engine_is_there(engine):
    loading = Loading(["a/lora"])
    handlers = ModelsHandlers(loading)
    assert handlers.version() is None and "bt-models" not in handlers.listing() and 'data-version="None"' in handlers.shown()
    loading.finish(engine)
    assert handlers.version() == 0 and "Unload lora" in handlers.listing()
