"""lm-eval runs Bitune: found by name, equal to `bitune evaluate` and to a brute force over the model; all offline."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from bitune import Engine, distributed, load_base
from bitune.data.batches import cut_left
from bitune.data.examples import example_of
from bitune.errors import BituneError, ConfigError
from bitune.evaluation.run import evaluate
from tests.tiny import bitune_on, saved_base

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.api.registry import get_model, model_registry
from lm_eval.tasks import TaskManager

import bitune.harness
from bitune.harness import BituneLM

ROOT = Path(__file__).parent.parent
CHOICES = [
    {"task": "t", "question": f"What is {n} and {n}?", "choices": [f"{2 * n:03}", f"a{3 * n:02}", "not"], "label": n % 3}
    for n in range(1, 12)
]
OPEN = [{"task": "t", "question": f"Say {word}", "answer": "none"} for word in ("one", "two words", "three", "", "the fifth")]
END = "</s>"


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a base, a checkpoint on it, and items as JSON Lines."""
    work = tmp_path_factory.mktemp("harness")
    saved_base(work / "base")
    bitune_on(load_base(work / "base", device="cpu"), seed=4).save_pretrained(work / "qa")
    (work / "choices.jsonl").write_text("".join(json.dumps(record) + "\n" for record in CHOICES))
    return work


@pytest.fixture(scope="module")
def engine(work) -> Engine:
    """Base and checkpoint without lm-eval."""
    engine = Engine(load_base(work / "base", device="cpu"))
    engine.add_checkpoint(work / "qa")
    return engine


@pytest.fixture(scope="module")
def known(engine) -> list[dict]:
    """Open questions, some with the very answer that the checkpoint or the base gives."""
    examples = [example_of(record) for record in OPEN]
    report = evaluate(engine.manager, engine.variants, examples, engine.base.tokenizer, max_new_tokens=5)
    answers = [report.predictions["answer"][name] for name in ("qa", "base", "qa", "base", "qa")]
    return [record | {"answer": answers[i][i] or "none"} if i < 4 else record for i, record in enumerate(OPEN)]


def arguments(work, **more: object) -> dict[str, object]:
    return {"pretrained": str(work / "qa"), "base": str(work / "base"), "device": "cpu"} | more


def model(work, **more: object) -> BituneLM:
    return BituneLM(**arguments(work, **more))


def task(name: str, file: Path, output: str, **more: object) -> dict:
    """A task over a local file, as a task's YAML says it."""
    data = {"data_files": {"test": str(file)}, "cache_dir": str(file.parent / "cache")}
    common = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", "output_type": output}
    return common | more


def choice_task(work) -> dict:
    text = "Question: {{question}}\n\nChoices:\n{{choices | join('\n')}}\n\nAnswer:"
    return task(
        "choices",
        work / "choices.jsonl",
        "multiple_choice",
        doc_to_text=text,
        doc_to_choice="choices",
        doc_to_target="label",
        metric_list=[{"metric": "acc"}],
    )


def open_task(work, file: Path) -> dict:
    return task(
        "open",
        file,
        "generate_until",
        doc_to_text="Question: {{question}}\n\nAnswer:",
        doc_to_target="answer",
        generation_kwargs={"until": [END], "max_gen_toks": 5, "do_sample": False},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        filter_list=[{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    )


def run(work, tasks: list, **more: object) -> dict:
    given = {"model": "bitune", "model_args": arguments(work), "batch_size": 3, "bootstrap_iters": 0} | more
    return lm_eval.simple_evaluate(tasks=tasks, task_manager=TaskManager(include_defaults=False), **given)


def ask(kind: str, *pairs: tuple) -> list[Instance]:
    return [Instance(kind, {}, pair, 0) for pair in pairs]


# --- found ------------------------------------------------------------------------------------------------------------


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


def python(*command: object, **environment: str) -> subprocess.CompletedProcess:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | offline | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_importing_it_is_enough_and_needed():
    done = python("-c", IMPORTS)
    assert done.returncode == 0, done.stderr[-2000:]


# --- equal to bitune evaluate -----------------------------------------------------------------------------------------


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


# --- log-likelihoods --------------------------------------------------------------------------------------------------


def brute(engine, context: list[int], answer: list[int]) -> tuple[float, bool]:
    """Of one answer, by the model's own forward."""
    with torch.no_grad():
        logits = engine._models["qa"](torch.tensor([context]), torch.tensor([answer])).logits[0]
    value = logits.log_softmax(-1)[range(len(answer)), answer].sum().item()
    return value, logits.argmax(-1).tolist() == answer


def check(engine, lm, pairs: list[tuple[str, str]], tokens: list[tuple[list[int], list[int]]]) -> None:
    values = lm.loglikelihood(ask("loglikelihood", *pairs), disable_tqdm=True)
    for (value, greedy), pair in zip(values, tokens, strict=True):
        expected, expected_greedy = brute(engine, *pair)
        assert value == pytest.approx(expected, abs=1e-3) and greedy == expected_greedy


def test_log_likelihoods_equal_a_brute_force(work, engine):
    """Many continuations of one context (more than are scored together), no context, a space at its end, its own BOS."""
    ids = engine.base.tokenizer.encode
    pairs = [("A question:", f" answer {n}") for n in range(20)] + [("Another", " one"), ("", "Bare"), ("", "Bare too")]
    spaced = [("Ends so: ", "it"), (" \n", "white")]
    tokens = [(ids(context) or [256], ids(answer)) for context, answer in pairs]
    tokens += [(ids("Ends so:"), ids(" it")), ([256], ids(" \nwhite"))]
    assert ids("<s>Hi")[0] == 256
    all_pairs = [*pairs, *spaced, ("<s>Hi", " you")]
    check(engine, model(work), all_pairs, [*tokens, (ids("<s>Hi"), ids(" you"))])


def test_continuations_share_a_context_but_not_without_end(work, monkeypatch):
    questions = []
    keep = bitune.harness.score
    monkeypatch.setattr(bitune.harness, "score", lambda *given: questions.extend(given[2]) or keep(*given))
    pairs = [(context, f" {n}") for n in range(20) for context in ("One", "Two", "")]
    model(work).loglikelihood(ask("loglikelihood", *pairs), disable_tqdm=True)
    assert sorted(len(question.choices) for question in questions) == [1] * 20 + [4, 4, 16, 16]


def test_what_the_model_would_say_is_greedy(work, engine):
    context = engine.base.tokenizer.encode("Why?")
    greedy_ids = []
    for _ in range(3):
        with torch.no_grad():
            logits = engine._models["qa"](torch.tensor([context]), torch.tensor([[*greedy_ids, 0]])).logits
        greedy_ids.append(int(logits[0, -1].argmax()))
    lm = model(work)
    assert [
        greedy for _, greedy in lm._loglikelihood_tokens([(None, context, greedy_ids), (None, context, greedy_ids[::-1] + [3])])
    ] == [
        True,
        False,
    ]


def test_long_contexts_lose_their_beginning_but_not_their_bos(work, engine):
    ids = engine.base.tokenizer.encode
    lm = model(work, max_length="12")
    pairs = [("abcdefghijklmnopqrstuvwxyz", " yes"), ("<s>abcdefghijklmnopqrstuvwxyz", " no"), ("abc", " or")]
    tokens = [(ids("rstuvwxyz"), ids(" yes")), ([256, *ids("rstuvwxyz")], ids(" no")), (ids("abc"), ids(" or"))]
    check(engine, lm, pairs, tokens)
    assert cut_left(ids(pairs[1][0]), 10, 256) == tokens[1][0]
    with pytest.raises(ConfigError, match="continuation of 13 tokens"):
        lm.loglikelihood(ask("loglikelihood", ("a", "0123456789012")), disable_tqdm=True)


def test_a_tokenizer_that_adds_a_bos_adds_one(work):
    """As Llama's: one BOS in front of a context without, none beside one that a chat template wrote."""
    from tokenizers.processors import TemplateProcessing

    lm = model(work)
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    plain = lm.tokenizer("you", add_special_tokens=False).input_ids
    for context in ("Hi", "<s>Hi"):
        prompt, answer = lm._encode_pair(context, "you")
        assert prompt == [256, *lm.tokenizer("Hi", add_special_tokens=False).input_ids] and answer == plain
    assert lm._encode_pair(" ", "you")[0] == [256]


def test_rolling_equals_a_plain_loop(work, engine):
    """Every token once, in windows of 20: the first after the BOS, the others after one token, the last after all that fit."""
    lm = model(work, max_length=20, batch_size=2)
    texts = ["short", "x" * 20, "A text of fifty-three tokens, which are bytes as they go", ""]
    totals = lm.loglikelihood_rolling(ask("loglikelihood_rolling", *((text,) for text in texts)), disable_tqdm=True)
    for text, value in zip(texts, totals, strict=True):
        tokens, expected, done = engine.base.tokenizer.encode(text), 0.0, 0
        while done < len(tokens):
            part = tokens[done : done + 20]
            context = [256] if done == 0 else tokens[done + len(part) - 21 : done]
            expected += brute(engine, context, part)[0]
            done += len(part)
        assert value == pytest.approx(expected, abs=1e-3)


# --- generation -------------------------------------------------------------------------------------------------------


def generate(lm, contexts: list[str], **settings: object) -> list[str]:
    return lm.generate_until(ask("generate_until", *((context, settings) for context in contexts)), disable_tqdm=True)


def test_answers_end_before_the_first_stop_string(work):
    """Of a batch each row for itself; all of what was said without one is known."""
    lm = model(work)
    contexts = ["One", "And two", "A third, longer", "4"]
    whole = generate(lm, contexts, max_gen_toks=12, until=END)
    stops = [next(c for c in text[3:] if c.isascii() and c.isprintable()) for text in whole[:2]]
    cut = generate(lm, contexts, max_gen_toks=12, until=stops)
    for text, full in zip(cut, whole, strict=True):
        cut = min([full.find(stop) for stop in stops if stop in full], default=len(full))
        assert text == full[:cut]
    assert sum(a != b for a, b in zip(cut, whole, strict=True)) >= 2


def test_stopping_saves_steps(work, monkeypatch):
    lm = model(work)
    whole = generate(lm, ["One"], max_gen_toks=12)[0]
    steps = []
    forward = lm._manager.model.forward
    monkeypatch.setattr(lm._manager.model, "forward", lambda *a, **k: steps.append(1) or forward(*a, **k))
    stop = next(c for c in whole if c.isascii())
    assert generate(lm, ["One"], max_gen_toks=12, until=[stop]) == [whole[: whole.index(stop)]]
    assert len(steps) < 12 - 1


def test_settings_of_several_tasks_and_sampling(work):
    lm = model(work, batch_size=2)
    greedy = generate(lm, ["One", "Two"], max_gen_toks=4)
    mixed = [("One", {"max_gen_toks": 4}), ("Two", {"max_gen_toks": 2}), ("Two", {"max_gen_toks": 4})]
    assert lm.generate_until(ask("generate_until", *mixed), disable_tqdm=True)[::2] == greedy
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(generate(lm, ["One", "Two"], max_gen_toks=9, do_sample=True, temperature=1.5))
    assert drawn[0] == drawn[1] != drawn[2]
    assert generate(lm, ["One", "Two"], max_gen_toks=4, do_sample=False, temperature=0.0, num_beams=1) == greedy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beams": 3}, "num_beams is 3"),
        ({"top_kk": 3}, "Did you mean 'top_k'"),
        ({"do_sample": True, "temperature": 0}, "temperature is 0"),
        ({"max_gen_toks": 512}, "An answer of 512 tokens leaves no room"),
    ],
)
def test_what_generation_cannot_do_is_refused(work, settings, words):
    with pytest.raises(BituneError, match=words):
        generate(model(work), ["One"], **settings)


# --- chat, cache, processes, errors -----------------------------------------------------------------------------------


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


# --- the command line -------------------------------------------------------------------------------------------------


def command(work, folder: Path, launcher: tuple = (), **more: str) -> subprocess.CompletedProcess:
    """lm-eval's command line as a person starts it, on both tasks as YAML files (JSON is YAML)."""
    for name, content in (("choices", choice_task(work)), ("open", open_task(work, work / "open.jsonl"))):
        (folder / f"{name}.yaml").write_text(json.dumps(content))
    args = ",".join(f"{key}={value}" for key, value in (arguments(work) | more).items())
    given = ["--model", "bitune", "--model_args", args, "--batch_size", 3, "--include_path", folder, "--tasks", "choices,open"]
    output = ["--output_path", folder / "out", "--log_samples"]
    return python("-m", *launcher, "bitune.harness", *given, *output, ACCELERATE_USE_CPU="true")


def test_the_command_line_gives_the_same_over_two_processes(work, known, tmp_path):
    (work / "open.jsonl").write_text("".join(json.dumps(record) + "\n" for record in known))
    done = command(work, tmp_path, ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("|choices|") == 1, "one table, of one process"
    (file,) = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]
    tasks = [choice_task(work), open_task(work, work / "open.jsonl")]
    expected = run(work, tasks)
    for name, metric in (("choices", "acc,none"), ("open", "exact_match,none")):
        assert results[name][metric] == expected["results"][name][metric]
        (file,) = (tmp_path / "out").rglob(f"samples_{name}_*.jsonl")
        samples = [json.loads(line) for line in file.read_text().splitlines()]
        for sample, wanted in zip(samples, expected["samples"][name], strict=True):
            # lm-eval writes numbers as text
            responses = [value if name == "open" else [float(value[0]), value[1] == "True"] for (value,) in sample["resps"]]
            assert responses == [value if name == "open" else pytest.approx(value, abs=1e-5) for (value,) in wanted["resps"]]


def test_the_command_line_says_what_is_wrong_in_one_sentence(work, tmp_path):
    done = command(work, tmp_path, pretrained=str(work / "nothing"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bitune: There is no checkpoint folder")
