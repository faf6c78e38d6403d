"""Every figure is measured once, in a few tokens of a tiny model: that it runs, not what it gives."""

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import llama
from benchmarks.answers import last_and_first
from benchmarks.bases import Prompts, open_base, open_engine, plain_model, prepare
from benchmarks.figures import FIGURES, GROUPS, Group, chosen_groups
from benchmarks.measures import Measured
from benchmarks.setting import Setting, Skipped
from bitune.errors import UnknownNameError
from tests.closeness import assert_close
from tests.tiny import saved_base, tiny_tokenizer

BROWSER = ("attention-page", "long-answer-page")


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    """A tiny base in a folder, and what the figures load."""
    folder = tmp_path_factory.mktemp("benchmarks")
    saved_base(folder / "base")
    made = Setting(folder, str(folder / "base"), threads=1, rounds=1, quick=True)
    prepare(made)
    return made


@pytest.fixture(scope="module")
def shape(tmp_path_factory) -> Setting:
    """Random weights in a tiny shape."""
    made = Setting(tmp_path_factory.mktemp("shape"), "shape:tiny", threads=1, rounds=1, quick=True)
    prepare(made)
    return made


def check(group: Group, setting: Setting) -> None:
    figures = group.measure(setting)
    assert set(figures) == {figure.name for figure in group.figures}
    for name, figure in figures.items():
        assert isinstance(figure, Measured), name
        assert 0 <= figure.least <= figure.median <= figure.most and math.isfinite(figure.most), name
        assert figure.rounds >= 1 and (figure.unit or figure.median == pytest.approx(figure.over / figure.under, rel=1)), name


ON_A_BASE = [group for group in GROUPS if group.by_default and group.name != "llama"]


@pytest.mark.parametrize(
    "group",
    [pytest.param(one, id=one.name, marks=[pytest.mark.browser] if one.name in BROWSER else []) for one in ON_A_BASE],
)
def test_a_group_gives_its_figures(group, setting):
    check(group, setting)


@pytest.mark.parametrize("group", [one for one in GROUPS if one.name in ("large", "step")], ids=lambda one: one.name)
def test_random_weights_in_a_shape_give_them_too(group, shape):
    assert group.on_shapes
    check(group, shape)


def test_llama_cpp_is_left_out_with_a_sentence(setting, tmp_path, monkeypatch):
    with pytest.raises(Skipped, match="--llama"):
        llama.five(setting)
    monkeypatch.setattr(shutil, "which", lambda program: "node")
    with pytest.raises(Skipped, match="not installed in"):
        llama.five(replace(setting, llama=tmp_path))
    (tmp_path / "node_modules" / "node-llama-cpp").mkdir(parents=True)
    with pytest.raises(Skipped, match="no GGUF file"):
        llama.five(replace(setting, llama=tmp_path))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(Skipped, match="no `node`"):
        llama.five(replace(setting, llama=tmp_path))


def test_figures_and_groups_have_names_of_their_own():
    assert sum(len(group.figures) for group in GROUPS) == len(FIGURES)
    assert len({group.name for group in GROUPS}) == len(GROUPS)
    assert all(figure.bound is None or figure.bound > 0 for figure in FIGURES.values())


def test_groups_are_chosen_by_their_name_or_that_of_a_figure():
    assert [group.name for group in chosen_groups(["rerun", "step", "what-if"], shape=False)] == ["step", "from-memory"]
    everything = {group.name for group in chosen_groups([], shape=False)}
    of_shapes = {group.name for group in chosen_groups([], shape=True)}
    assert "large" in of_shapes - everything and "start" in everything - of_shapes
    with pytest.raises(UnknownNameError, match="together"):
        chosen_groups(["togeter"], shape=False)


@pytest.mark.parametrize("of", ["setting", "shape"])
def test_both_sides_run_the_same_weights(of, request):
    setting = request.getfixturevalue(of)
    engine, plain = open_engine(setting), plain_model(setting)
    assert list(engine.variants) == ["base", "bitune", "lora", "bitune-2", "lora-2"]
    prompt = Prompts(engine.base.tokenizer).new(9)
    ids = engine.base.tokenizer(prompt, return_tensors="pt")["input_ids"]
    assert_close(engine.base.model(ids).logits, plain(ids).logits)
    (last,) = list(engine.stream(prompt, ["bitune"], template="none", max_new_tokens=20))[-1].completions.values()
    assert last.tokens == 20 and last.finish_reason == "length"


def test_a_group_whose_package_is_missing_is_left_out_with_a_sentence(monkeypatch):
    group = next(group for group in GROUPS if group.name == "evaluate")
    monkeypatch.delitem(sys.modules, "benchmarks.evaluation", raising=False)
    monkeypatch.setitem(sys.modules, "benchmarks.bases", None)
    with pytest.raises(ModuleNotFoundError, match="benchmarks.bases"):
        _ = group.measure
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(Skipped, match="lm_eval is not installed"):
        _ = group.measure


def test_a_shape_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="gemma-2b"):
        open_base(Setting(Path(tmp_path), "shape:gemma"))


def test_prompts_have_the_length_asked_for_and_no_beginning_in_common():
    tokenizer = tiny_tokenizer()
    prompts = Prompts(tokenizer)
    texts = [prompts.new(length) for length in (1, 7, 64, 64, 64)]
    assert [len(tokenizer(text)["input_ids"]) for text in texts] == [1, 7, 64, 64, 64]
    assert len({text[:12] for text in texts[2:]}) == 3


def test_the_ends_of_an_answer_are_timed_between_updates():
    arrivals = [(10.0, 0), (11.0, 1), (11.5, 1), (15.0, 5), (20.0, 5), (24.0, 8), (30.0, 10)]
    assert last_and_first(arrivals, 10, 2) == (6.0, 2.0)
    assert last_and_first([(0.0, 0), (4.0, 4), (12.0, 8)], 8, 2) == (4.0, 2.0)
