"""lm-eval finds Bitune by name, and its results are those of `bitune evaluate`; chat, cache and wrong arguments."""

import json
import tomllib
from importlib.metadata import EntryPoint

import pytest
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import get_model, model_registry

from bitune import distributed
from bitune.data.examples import example_of
from bitune.errors import BituneError, ConfigError
from bitune.evaluation.run import evaluate
from bitune.harness import BituneLM
from tests.harness.items import CHOICES
from tests.harness.tasks import ROOT, arguments, choice_task, model, open_task, python, run


def test_the_registry_finds_it_beside_lm_evals_own():
    assert get_model("bitune") is BituneLM
    assert "hf" in model_registry


def test_the_entry_point_is_the_class():
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lm_eval.models"]
    assert list(points) == ["bitune"]
    assert EntryPoint("bitune", points["bitune"], "lm_eval.models").load() is BituneLM


IMPORTS = """
import sys
import bitune
assert "lm_eval" not in sys.modules, "bitune alone brings lm-eval"
sys.modules["lm_eval"] = None  # as if it were not installed
try:
    import bitune.harness
except bitune.ConfigError as error:
    assert "bitune[evaluate]" in str(error)
else:
    raise AssertionError("nothing was said")
del sys.modules["lm_eval"]
import bitune.harness
from lm_eval.api.registry import get_model
assert get_model("bitune") is bitune.harness.BituneLM
"""


def test_importing_it_is_enough_and_needed():
    done = python("-c", IMPORTS)
    assert done.returncode == 0, done.stderr[-2000:]


def test_arguments_may_be_a_string_and_win_over_flags(work):
    """As on the command line, whose batch size lm-eval hands over beside them."""
    text = ",".join(f"{key}={value}" for key, value in arguments(work, batch_size=2).items())
    written, given = (run(work, [choice_task(work)], model_args=args) for args in (text, arguments(work)))
    assert written["results"]["choices"] == given["results"]["choices"]
    assert BituneLM.create_from_arg_string(text, {"batch_size": 3, "device": "cuda:0"}).batch_size == 2


@pytest.mark.parametrize("name", ["qa", "base"])
def test_choices_are_those_of_evaluate(work, engine, name):
    args = arguments(work) if name == "qa" else {"base": str(work / "base"), "device": "cpu", "pretrained": ""}
    results = run(work, [choice_task(work)], model_args=args)
    examples = [example_of(record) for record in CHOICES]
    report = evaluate(engine.manager, {name: engine.variants[name]}, examples, engine.base.tokenizer, batch_size=4)
    best = []
    for sample, example in zip(results["samples"]["choices"], examples, strict=True):
        assert [tuple(pair) for pair in sample["arguments"]] == [(example.prompt, choice) for choice in example.choices]
        values = [value for ((value, _),) in sample["resps"]]
        best.append(values.index(max(values)))
    assert tuple(best) == report.predictions["acc"][name]
    assert results["results"]["choices"]["acc,none"] == report.accuracy("acc", name).mean
    assert len(set(best)) > 1


@pytest.mark.parametrize("name", ["qa", "base"])
def test_open_answers_are_those_of_evaluate(work, engine, known, name, tmp_path):
    (tmp_path / "open.jsonl").write_text("".join(json.dumps(record) + "\n" for record in known))
    args = arguments(work) | ({} if name == "qa" else {"pretrained": None})
    results = run(work, [open_task(work, tmp_path / "open.jsonl")], model_args=args)
    examples = [example_of(record) for record in known]
    report = evaluate(engine.manager, {name: engine.variants[name]}, examples, engine.base.tokenizer, max_new_tokens=5)
    answers = tuple(sample["resps"][0][0].strip() for sample in results["samples"]["open"])
    assert answers == report.predictions["answer"][name]
    exact = [text == record["answer"] for text, record in zip(answers, known, strict=True)]
    assert [sample["exact_match"] for sample in results["samples"]["open"]] == exact
    assert results["results"]["open"]["exact_match,none"] == report.accuracy("answer", name).mean == sum(exact) / 5
    assert 0 < sum(exact) < 5


def test_chat_templates_are_the_bases(work):
    results = run(work, [choice_task(work)], apply_chat_template=True, limit=2)
    (context, _), *_ = results["samples"]["choices"][0]["arguments"]
    assert context.startswith("<user>Question: What is 1 and 1?") and context.endswith("<answer>")
    lm = model(work)
    assert lm.tokenizer_name.endswith("base") and "/" not in lm.tokenizer_name
    lm.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        lm.apply_chat_template([{"role": "user", "content": "Hi"}])


def test_lm_evals_cache_gives_the_same(work, tmp_path):
    first, second = (run(work, [choice_task(work)], use_cache=str(tmp_path / "kept")) for _ in range(2))
    assert [s["resps"] for s in second["samples"]["choices"]] == [
        [[list(pair) for pair in resps] if isinstance(resps[0], list) else resps for resps in s["resps"]]
        for s in first["samples"]["choices"]
    ]


def test_several_processes_share_no_cache(work, monkeypatch):
    lm = model(work)
    monkeypatch.setattr(distributed, "count", lambda: 2)
    with pytest.raises(ConfigError, match="2 processes"):
        lm.set_cache_hook(CacheHook(None))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"pretrained": "{work}/nothing"}, "no checkpoint folder"),
        ({"base": "{work}/nothing"}, "no folder"),
        ({"batch_size": "auto"}, "batch_size is 'auto'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_length": 513}, "reads 512 tokens"),
        ({"dtype": "float7"}, "dtype"),
        ({"device": "tpu"}, "device"),
        ({"batchsize": 4}, "Did you mean 'batch_size'"),
    ],
)
def test_wrong_arguments_are_explained(work, more, words):
    more = {key: value.format(work=work) if isinstance(value, str) else value for key, value in more.items()}
    with pytest.raises(BituneError, match=words):
        run(work, [choice_task(work)], model_args=arguments(work) | more, batch_size=None)


def test_the_base_is_the_one_that_the_checkpoint_names(work, monkeypatch):
    monkeypatch.chdir(work)  # the checkpoint says "base"
    assert BituneLM(pretrained="qa", device="cpu")._variant.passes[0].adapter is not None
