"""python -m bitune: real commands on a tiny base in a folder; what is wrong is one sentence on stderr."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from bitune import BituneModel, load_base
from bitune.base.default import EMBEDDED
from bitune.cli import main
from bitune.schema.config import BituneConfig
from bitune.sets.run import run_batch
from bitune.training import trainer
from bitune.training.card import card as made_card
from tests.authors import write_reference
from tests.closeness import assert_close
from tests.tiny import bitune_on, saved_base, tiny_model

QUESTIONS = [
    {"question": f"What is {n} and {n}?", "choices": [str(2 * n), str(3 * n + 1), "none"], "label": 0} for n in range(1, 7)
]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No progress beside the sentences, however slow the machine is; test_progress.py has it."""
    monkeypatch.setattr("bitune.progress.FIRST_SECONDS", 3600.0)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a base, two checkpoints of it, one of the authors' folders, and data."""
    work = tmp_path_factory.mktemp("cli")
    saved_base(work / "base")
    bitune_on(load_base(work / "base", device="cpu")).save_pretrained(work / "qa")
    bitune_on(load_base(work / "base", device="cpu"), "lora", kind="dora").save_pretrained(work / "plain")
    write_reference(work / "reference", tiny_model(), "ia3")
    (work / "choices.jsonl").write_text("".join(json.dumps(record) + "\n" for record in QUESTIONS))
    (work / "open.jsonl").write_text(json.dumps({"question": "Why?", "answer": "Because."}) + "\n")
    return work


def run(capsys, *arguments: object) -> str:
    """What a command that succeeds prints on stdout."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments: object) -> str:
    """The one sentence of a command that fails."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert not captured.out and captured.err.startswith("bitune: ") and captured.err.count("\n") == 1, captured
    return captured.err


# --- the process ---------------------------------------------------------------------------------------------------


def test_as_a_process_an_error_is_one_line_and_a_status(work):
    command = [sys.executable, "-m", "bitune", "inspect", str(work / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("bitune: There is no checkpoint folder") and done.stderr.count("\n") == 1


# --- inspect, convert ----------------------------------------------------------------------------------------------


def test_inspect_shows_method_adapters_and_ratios(work, capsys):
    out = run(capsys, "inspect", work / "qa").splitlines()
    assert out[:3] == ["base      base", "method    bitune", "template  None"]
    assert out[3].startswith("adapter   causal: LORA, ") and out[4].startswith("adapter   bidirectional: LORA, ")
    model = BituneModel.from_pretrained(work / "qa", base=tiny_model())
    for line, key, value in zip(out[6:], *model.mixing_ratios(), strict=True):
        assert line.split()[1:] == [f"{key:.3f}", f"{value:.3f}"]
    plain = run(capsys, "inspect", work / "plain")
    assert "method    lora" in plain and "alpha" not in plain
    assert "method    lora" in run(capsys, "inspect", work / "plain" / "causal"), "a plain PEFT folder"


def test_convert_writes_a_checkpoint_that_runs(work, capsys, tmp_path):
    out = run(capsys, "convert", "--base", work / "base", "--device", "cpu", work / "reference", tmp_path / "converted")
    assert out == f"saved {tmp_path / 'converted'}\n"
    assert "IA3" in run(capsys, "inspect", tmp_path / "converted")
    expected = BituneModel.from_reference(work / "reference", base=tiny_model())
    converted = BituneModel.from_pretrained(tmp_path / "converted", base=tiny_model())
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(converted(ids[:, :12], ids[:, 12:]).logits, expected(ids[:, :12], ids[:, 12:]).logits)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for target, words in ((tmp_path / "mine", "and not empty"), (tmp_path / "mine" / "notes.txt", "notes.txt' is a file")):
        said = refused(capsys, "convert", "--base", work / "base", work / "reference", target)
        assert f"{words}; choose an empty or new folder" in said
    for source, words in (
        (work / "nowhere", "There is no folder"),
        (work / "plain" / "causal", "causal' is a plain PEFT adapter"),
        (work / "plain", "plain' is a Bitune checkpoint already"),
        (work / "base", "has no pass_type"),
    ):
        assert words in refused(capsys, "convert", "--base", work / "base", source, tmp_path / "new"), source
    assert "base' is a base model" in refused(capsys, "inspect", work / "base")
    assert "config.json is missing" in refused(capsys, "convert", "--base", work / "base", tmp_path / "mine", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- generate, evaluate --------------------------------------------------------------------------------------------


def test_generate_prints_every_variant_from_one_prompt(work, capsys):
    common = ["generate", "--base", work / "base", "--device", "cpu", "--max-new-tokens", 6]
    out = run(capsys, *common, "--checkpoint", work / "qa", "--checkpoint", work / "plain", "Hello there")
    heads = [line for line in out.splitlines() if line.startswith("--- ")]
    assert [head.split(" (")[0] for head in heads] == ["--- base", "--- qa", "--- plain"]
    answers = [part.partition("\n")[2] for part in out.split("--- ")[1:]]
    assert len(set(answers)) == 3
    alone = run(capsys, *common, "Hello there", "--template", "chat")
    assert alone.startswith("--- base (6 tokens, length)\n") and alone.count("---") == 1
    drawn = [run(capsys, *common, "Hello there", "--temperature", 1.5, "--seed", seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base", "{work}/nothing", "Hi"], "no folder or .gguf file"),
        (["--base", "{work}/qa", "Hi"], "is a Bitune checkpoint"),
        (["--base", "{work}/base", "--checkpoint", "{work}/nothing", "Hi"], "no checkpoint folder"),
        (["--base", "{work}/base", "--checkpoint", "{work}", "Hi"], "bitune_config.json is missing"),
        (["--base", "{work}/base", "--checkpoint", "{work}/reference", "Hi"], "python -m bitune convert"),
        (["--base", "{work}/base", "--checkpoint", "{work}/qa", "--checkpoint", "{work}/qa", "Hi"], "already there"),
        (["--base", "{work}/base", ""], "prompt is empty"),
        (["--base", "{work}/base", "x" * 600], "tokens and the model reads 512"),
        (["--base", "{work}/base", "--max-new-tokens", "0", "Hi"], "max_new_tokens is 0"),
        (["--base", "{work}/base", "--temperature", "-1", "Hi"], "temperature is -1"),
        (["--base", "{work}/base", "--top-p", "2", "Hi"], "top_p is 2"),
        (["--base", "{work}/base", "--device", "tpu", "Hi"], "device"),
    ],
)
def test_generate_says_what_is_wrong(arguments, words, work, capsys):
    assert words in refused(capsys, "generate", *(argument.format(work=work) for argument in arguments))


def test_int8_goes_with_every_command_that_answers(work, capsys, tmp_path):
    options = ["--base", work / "base", "--device", "cpu", "--dtype", "int8", "--checkpoint", work / "qa"]
    assert "--- qa (" in run(capsys, "generate", *options, "--max-new-tokens", 2, "Hi")
    run(capsys, "evaluate", *options, "--data", work / "choices.jsonl", "--limit", 1, "--output", tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["settings"]["dtype"] == "int8"


def test_evaluate_scores_every_variant_and_writes_a_report(work, capsys, tmp_path):
    options = ["--base", work / "base", "--device", "cpu", "--checkpoint", work / "qa"]
    data = ["--data", work / "choices.jsonl", "--limit", 5, "--output", tmp_path / "report.json"]
    counted, *lines = run(capsys, "evaluate", *options, *data).splitlines()
    assert counted == "choices.jsonl: 5 of 6 items"
    shown = [(measure, name) for measure in ("acc", "acc_norm", "acc_token") for name in ("base", "qa")]
    assert [tuple(line.split()[:3]) for line in lines] == [("choices.jsonl", *pair) for pair in shown]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["settings"]["limit"] == 5 and written["settings"]["dtype"] == "float32"
    report = written["sets"][str(work / "choices.jsonl")]
    assert [item["right"] for item in report["items"]] == [0] * 5
    for (measure, name), line in zip(shown, lines, strict=True):
        scored = report["measures"][measure][name]
        right = sum(predicted == 0 for predicted in scored["predictions"])
        assert scored["accuracy"]["mean"] == right / 5 and f" {100 * right / 5:.1f} (" in line
        assert ("minus base" in line) == (name == "qa")
    gap = report["measures"]["acc"]["qa"]["minus"]["base"]
    assert gap["low"] <= gap["mean"] <= gap["high"]


def test_evaluate_generates_open_answers(work, capsys):
    _, line = run(capsys, "evaluate", "--base", work / "base", "--data", work / "open.jsonl", "--max-new-tokens", 2).splitlines()
    assert line.split()[:3] == ["open.jsonl", "answer", "base"]


def test_checkpoints_whose_folders_end_alike_are_told_apart(work, capsys, tmp_path):
    shutil.copytree(work / "qa", tmp_path / "qa")
    checkpoints = ["--checkpoint", work / "qa", "--checkpoint", tmp_path / "qa"]
    out = run(capsys, "generate", "--base", work / "base", *checkpoints, "--max-new-tokens", 1, "Hi")
    assert "--- qa (" in out and f"--- {tmp_path / 'qa'} (" in out


def test_evaluate_averages_over_sets(work, capsys, tmp_path):
    records = (work / "choices.jsonl").read_text().splitlines()
    (tmp_path / "other.jsonl").write_text("\n".join(records[:2]))
    data = ["--data", work / "choices.jsonl", "--data", tmp_path / "other.jsonl", "--output", tmp_path / "report.json"]
    checkpoints = ["--checkpoint", work / "qa", "--checkpoint", work / "plain"]
    lines = run(capsys, "evaluate", "--base", work / "base", *checkpoints, *data).splitlines()
    assert {"choices.jsonl: 6 of 6 items", "other.jsonl: 2 of 2 items"} <= set(lines)
    report = json.loads((tmp_path / "report.json").read_text())
    sets = [scored["measures"]["acc"] for scored in report["sets"].values()]
    base, qa, plain = [line for line in lines if line.startswith("average of 2") and " acc " in line]
    assert f" {100 * sum(scored['base']['accuracy']['mean'] for scored in sets) / 2:.1f} (" in base and "minus" not in base
    assert "minus base: " in qa and "minus qa" not in qa
    mean = sum(scored["plain"]["minus"]["qa"]["mean"] for scored in sets) / 2
    assert f"minus qa: {100 * mean:+5.1f} (" in plain and "minus base: " in plain
    average = report["averages"]["acc"]
    assert average["sets"] == 2
    assert_close(average["variants"]["plain"]["minus"]["qa"]["mean"], mean)
    assert_close(average["variants"]["qa"]["accuracy"]["mean"], sum(scored["qa"]["accuracy"]["mean"] for scored in sets) / 2)


def test_evaluate_says_what_is_wrong(work, capsys, tmp_path):
    base = ["evaluate", "--base", work / "base", "--device", "cpu", "--data"]
    mixed = (work / "open.jsonl").read_text() + (work / "choices.jsonl").read_text()
    (tmp_path / "mixed.jsonl").write_text(mixed)
    assert "mixed.jsonl holds questions with choices and open ones" in refused(capsys, *base, tmp_path / "mixed.jsonl")
    short, same = ["--max-prompt-tokens", 2, "--max-answer-tokens", 1], work / "choices.jsonl"
    assert "and --max-prompt-tokens 2 leave none;" in refused(capsys, *base, same, *short[:2])
    assert "and --max-prompt-tokens 2 and --max-answer-tokens 1 leave none;" in refused(
        capsys, *base, work / "open.jsonl", *short
    )
    assert f"and --leave-out {same} leave none;" in refused(capsys, *base, same, "--leave-out", same)
    assert "given twice" in refused(capsys, *base, work / "choices.jsonl", "--data", work / "choices.jsonl")
    assert "There is no file" in refused(capsys, *base, work / "nothing.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"question": "x"\n')
    assert "broken.jsonl, line 1" in refused(capsys, *base, tmp_path / "broken.jsonl")


def test_a_report_that_cannot_be_written_is_said_before_anything_runs(work, capsys, tmp_path):
    arguments = [
        "evaluate",
        "--base",
        work / "base",
        "--data",
        work / "choices.jsonl",
        "--output",
        tmp_path / "no" / "report.json",
    ]
    assert f"there is no folder '{tmp_path / 'no'}'" in refused(capsys, *arguments)
    assert "is a folder; name a file" in refused(capsys, *arguments[:-1], tmp_path)


def test_a_report_replaces_reports_and_nothing_else(work, capsys, tmp_path):
    (tmp_path / "data.jsonl").write_text((work / "open.jsonl").read_text())
    (tmp_path / "other.json").write_text('{"a": 1}')
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("data.jsonl")
    evaluate = ["evaluate", "--base", work / "base", "--data", tmp_path / "data.jsonl", "--max-new-tokens", 1, "--output"]
    before = sorted(tmp_path.iterdir())
    for name, words in [
        ("data.jsonl", "is no report of an evaluation, and one would replace it; name a new file"),
        ("link", "data.jsonl' is no report"),
        ("other.json", "is no report"),
        ("pipe", "is a pipe, a device or a socket"),
    ]:
        assert words in refused(capsys, *evaluate, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "data.jsonl").read_text() == (work / "open.jsonl").read_text()
    report = tmp_path / "report.json"
    report.write_text("")
    (tmp_path / "report.json.part").write_text("mine")
    run(capsys, *evaluate, report)
    first = report.read_text()
    run(capsys, *evaluate, report)
    assert report.read_text() == first and set(json.loads(first)) == {"settings", "sets", "averages"}
    assert (tmp_path / "report.json.part").read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == sorted([*before, report, tmp_path / "report.json.part"])


def test_compare_answers_a_file_and_goes_on_with_it(work, capsys, tmp_path, monkeypatch):
    (tmp_path / "set.csv").write_text("question,answer\nWhy?,because\nWhat is one and one?,2\nAnd who?,\n")
    common = ["compare", "--base", work / "base", "--device", "cpu", "--max-new-tokens", 5, "--checkpoint", work / "qa"]
    common += [tmp_path / "set.csv", "--batch-size", 1, "--output", tmp_path / "rows.jsonl"]
    out = run(capsys, *common, "--csv", tmp_path / "rows.csv").splitlines()
    assert (
        out[0] == "3 prompts, 2 of them with a right answer" and out[1].startswith("base ") and out[3].startswith("qa and base ")
    )
    head, *rows = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert head["settings"]["prompts"] == 3 and head["settings"]["variants"]["qa"] and len(rows) == 3
    assert len((tmp_path / "rows.csv").read_text().splitlines()) >= 4
    for row in rows:
        said = run(capsys, "generate", *common[1:9], row["prompt"])
        for name, answer in row["answers"].items():
            assert f"--- {name} ({answer['tokens']} tokens, {answer['finish_reason']})\n{answer['text']}\n" in said
    whole = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(whole[:2]) + whole[2][:30])
    asked = []
    monkeypatch.setattr("bitune.sets.run.run_batch", lambda *given: asked.append(given[4].indices) or run_batch(*given))
    assert run(capsys, *common, "--resume").splitlines() == out
    assert len(asked) == 2 and sorted((tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)) == sorted(whole)
    assert "is there already; go on with it by --resume" in refused(capsys, *common)
    assert main([*map(str, common), "--resume", "--max-new-tokens", "6"]) == 1
    assert "were made with max_new_tokens 5, and now it is 6; give the same settings" in capsys.readouterr().err


def test_compare_draws_samples(work, capsys, tmp_path):
    (tmp_path / "set.txt").write_text("Why?\nWho?\n")
    common = ["compare", "--base", work / "base", "--device", "cpu", "--max-new-tokens", 3, tmp_path / "set.txt"]
    assert run(capsys, *common, "--temperature", 1, "--samples", 3).splitlines()[0] == "2 prompts, 6 answers of each variant"
    assert run(capsys, *common, "--limit", 1).splitlines()[0] == "1 prompts"


# --- train ---------------------------------------------------------------------------------------------------------


def train(work, output, *more: object) -> list[object]:
    few = ["--max-steps", 3, "--per-device-train-batch-size", 2, "--rank", 2, "--logging-steps", 1, "--max-prompt-tokens", 96]
    return [
        "train",
        "--base",
        work / "base",
        "--device",
        "cpu",
        "--data",
        work / "choices.jsonl",
        "--output",
        output,
        *few,
        *more,
    ]


@pytest.mark.parametrize(
    ("more", "method"),
    [
        ([], "bitune"),
        (["--method", "lora", "--peft", "dora"], "lora"),
        (["--peft", "ia3", "--parameterization", "relu"], "bitune"),
    ],
)
def test_train_writes_a_checkpoint_that_moved_and_says_so(more, method, work, capsys, tmp_path):
    out = run(capsys, *train(work, tmp_path / "trained", "--template", "Q: {prompt}\nA:", "--validation", 2, *more))
    assert out.startswith("4 examples to train on, 2 to validate; 0 prompts cut, 0 dropped\n")
    assert f"saved {tmp_path / 'trained'}: " in out and "loss" in out
    config = json.loads((tmp_path / "trained" / "bitune_config.json").read_text())
    assert config["base"]["id"] == "base" and config["prompt_template"] == "Q: {prompt}\nA:"
    assert config["training"]["data"] == {"sources": ["choices.jsonl"], "examples": 4, "validation": 2}
    assert f"method    {method}\n" in run(capsys, "inspect", tmp_path / "trained")
    log = [json.loads(line) for line in (tmp_path / "trained" / "training_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3]
    model = BituneModel.from_pretrained(tmp_path / "trained", base=load_base(work / "base", device="cpu"))
    moved = [value for key, value in model.manager.weights("causal").items() if "lora_B" in key or "ia3_l" in key]
    assert any((value != value.new_tensor(1.0 if "ia3" in more else 0.0)).any() for value in moved)
    assert "--- trained" in run(
        capsys, "generate", "--base", work / "base", "--checkpoint", tmp_path / "trained", "--max-new-tokens", 2, "Hi"
    )


def test_train_in_16_bits_saves_small_and_resumes(work, capsys, tmp_path):
    first = train(
        work, tmp_path / "trained", "--bf16", "--save-dtype", "bfloat16", "--save-steps", 2, "--lr-scheduler-type", "constant"
    )
    run(capsys, *first)
    weights = load_file(tmp_path / "trained" / "causal" / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert (tmp_path / "trained.state" / "checkpoint-2").is_dir()
    longer = [5 if argument == 3 else argument for argument in first]
    run(capsys, *longer, "--resume")
    log = (tmp_path / "trained" / "training_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4, 5]


def test_train_says_what_is_wrong_before_it_trains(work, capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    new = tmp_path / "new"
    for arguments, words in [
        (train(work, tmp_path / "mine"), "choose an empty or new folder"),
        (train(work, new, "--dtype", "int8"), "--dtype int8 is for answers"),
        (train(work, new, "--template", "no place"), "{prompt}"),
        (train(work, new, "--targets", "q_prj"), "'q_proj'"),
        (train(work, new, "--rank", 0), "rank is 0"),
        (train(work, new, "--theta-init", 0), "theta_init is 0"),
        (train(work, new, "--learning-rate", 0), "learning_rate is 0"),
        (train(work, new, "--learning-rate", "inf"), "learning_rate is inf"),
        (train(work, new, "--num-train-epochs", "inf"), "num_train_epochs is inf"),
        (train(work, new, "--seed", -1), "seed is -1"),
        (train(work, new, "--seed", 10**30), "seed is 1000000000000000000000000000000"),
        (train(work, new, "--dropout", 1.5), "dropout is 1.5"),
        (train(work, new, "--lora-alpha", "nan"), "alpha is nan"),
        (
            train(work, new, "--peft", "ia3", "--dropout", 0.1),
            "IA3 does not use the dropout 0.1; leave it out, or choose lora or dora",
        ),
        (train(work, new, "--peft", "ia3", "--lora-alpha", 4), "IA3 does not use the LoRA alpha 4.0"),
        (train(work, new, "--validation", "inf"), "validation part of inf"),
        (train(work, new, "--validation", 2.5), "validation part of 2.5"),
        (train(work, new, "--data", work / "nothing.jsonl"), "There is no file"),
        (
            train(work, new, "--max-answer-tokens", 1),
            "None of the 6 examples to train on has an answer of at most 1 tokens, its end token included; give a larger "
            "--max-answer-tokens.",
        ),
    ]:
        assert main([str(argument) for argument in arguments]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("bitune: ") and captured.err.count("\n") == 1, captured.err
        assert words in captured.err and "saved" not in captured.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_train_saves_where_it_says_however_the_folder_is_written(work, capsys, tmp_path, monkeypatch):
    """A slash at its end, its own name as `.`, `~`, a link: all are the folder, and its state lies beside it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("here", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    monkeypatch.chdir(tmp_path / "here")
    for output, folder in {
        f"{tmp_path}/slash/": "slash",
        ".": "here",
        "~/home": "home",
        "../up/./x/..": "up",
        f"{tmp_path / 'link'}": "target",
        f"{tmp_path}/deep/er": "deep/er",
        f"{tmp_path}/space ": "space ",
    }.items():
        out = run(capsys, *train(work, output))
        assert f"saved {output}: " in out
        assert (tmp_path / folder / "bitune_config.json").is_file(), output
        assert (tmp_path / f"{folder}.state" / "checkpoint-3").is_dir(), output
        assert not list((tmp_path / folder).glob("*.state")) and not (tmp_path / folder / ".state").exists()


def test_a_relative_output_is_meant_from_where_the_command_started(work, capsys, tmp_path, monkeypatch):
    (tmp_path / "start").mkdir()
    monkeypatch.chdir(tmp_path / "start")
    train_it = trainer.train

    def elsewhere(*arguments, **named):
        monkeypatch.chdir(tmp_path)
        return train_it(*arguments, **named)

    monkeypatch.setattr(trainer, "train", elsewhere)
    run(capsys, *train(work, "mine"))
    assert (tmp_path / "start" / "mine" / "bitune_config.json").is_file()


def test_nothing_is_trained_that_cannot_be_saved(work, capsys, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a base was loaded")

    monkeypatch.setattr("bitune.commands.load_base", never)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "mine")
    before = sorted(tmp_path.rglob("*"))
    folders = [
        tmp_path / "file",
        tmp_path / "file" / "below",
        f"{tmp_path}/file/",
        ".",
        "..",
        "/",
        "/proc/new",
        tmp_path / ("x" * 252),
    ]
    for output in [*folders, "a\0b", "~nobody-of-this-name/x"]:
        refused(capsys, *train(work, output))
        refused(capsys, "convert", "--base", work / "base", work / "reference", output)
    files = [tmp_path / "file" / "report.json", tmp_path / "mine", ".", "/proc/report.json", tmp_path / ("x" * 252), "a\0b"]
    for output in files:
        refused(capsys, "evaluate", "--base", work / "base", "--data", work / "choices.jsonl", "--output", output)
    assert sorted(tmp_path.rglob("*")) == before


def test_resume_takes_no_other_runs_weights(work, capsys, tmp_path):
    command = train(work, tmp_path / "trained")
    run(capsys, *command)
    first = (tmp_path / "trained" / "bitune_config.json").read_text()
    out = refused_with_output(capsys, *command, "--learning-rate", 0.5, "--resume")
    assert "--learning-rate is 0.001 there and 0.5 here" in out
    out = refused_with_output(capsys, *command, "--learning-rate", 0.5, "--seed", 3, "--rank", 4, "--validation", 2, "--resume")
    for words in ("--learning-rate is", "here; and 1 more; resume", "--rank is 2 there and 4", "--lora-alpha is 4 there and 8"):
        assert out.count(words) == 1, out
    assert "settings." not in out and "adapters." not in out and "data." not in out
    (tmp_path / "other.jsonl").write_text((work / "choices.jsonl").read_text().replace("none", "nothing"))
    other = [tmp_path / "other.jsonl" if argument == work / "choices.jsonl" else argument for argument in command]
    assert "what the examples hold (--data, " in refused_with_output(capsys, *other, "--resume")
    assert "--initial-mixing-alpha is 0.5 there and 0.2" in refused_with_output(
        capsys, *command, "--initial-mixing-alpha", 0.2, "--resume"
    )
    # The same weights under the same name, but other epsilons and positions.
    edited = shutil.copytree(work / "base", tmp_path / "base")
    for changes, words in (
        ({"rms_norm_eps": 0.1}, "rms_norm_eps of the base's config is 1e-06 there and 0.1 here"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}},
            "rope_parameters.factor of the base's config is None there and 8.0 here",
        ),
    ):
        config = json.loads((work / "base" / "config.json").read_text())
        (edited / "config.json").write_text(json.dumps(config | changes))
        other = [edited if argument == work / "base" else argument for argument in command]
        assert words in refused_with_output(capsys, *other, "--resume")
    assert (tmp_path / "trained" / "bitune_config.json").read_text() == first
    run(capsys, *command, "--resume")


def test_resume_says_where_there_was_nothing_to_resume_and_where_nothing_was_left_to_train(work, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new, ended = "there is no state in 'trained.state' to go on from: training from the start", "the run had ended"
    out = run(capsys, *train(work, "trained"), "--resume")
    assert new in out and ended not in out
    out = run(capsys, *train(work, "trained"), "--resume")
    assert (
        "the run had ended with the state in 'trained.state': nothing more was trained\nsaved trained: " in out and new not in out
    )
    out = run(capsys, *train(work, "trained"))
    assert new not in out and ended not in out
    assert "bitune: 'trained.state/checkpoint-3' is the state" in refused_with_output(
        capsys, *train(work, "trained"), "--seed", 5, "--resume"
    )


def refused_with_output(capsys, *arguments: object) -> str:
    """The one sentence of a command that fails after it has said what it read."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("bitune: ") and captured.err.count("\n") == 1 and "saved" not in captured.out
    return captured.err


def test_train_writes_a_model_card_and_keeps_one_that_somebody_wrote(work, capsys, tmp_path):
    command = train(work, tmp_path / "trained", "--validation", 2)
    out = run(capsys, *command)
    card = ModelCard.load(tmp_path / "trained" / "README.md")
    assert card.data.library_name == "bitune" and "bitune" in card.data.tags
    config = json.loads((tmp_path / "trained" / "bitune_config.json").read_text())
    facts = config["training"]
    assert f"on the held-out records {facts['eval_loss']:.4f}" in out
    log = [json.loads(line) for line in (tmp_path / "trained" / "training_log.jsonl").read_text().splitlines()]
    assert round(log[-1]["eval_loss"], 6) == facts["eval_loss"]
    for part in ("# bitune on base", "`choices.jsonl`", "4 examples", f"| {facts['eval_loss']} |", "`learning_rate` 0.001"):
        assert part in card.text
    # The base was read from a folder: its name alone is nothing that load_base takes.
    assert 'bitune.load_base("PATH_OF_THE_BASE")' in card.text and "--base PATH_OF_THE_BASE" in card.text
    assert "`PATH_OF_THE_BASE` is where the base `base` lies" in card.text
    kept = BituneConfig.from_dict(config)
    for named, words in (({"id": "some/model", "revision": "abc"}, "some/model@abc"), ({"id": EMBEDDED.name}, EMBEDDED.name)):
        text = made_card(replace(kept, base=replace(kept.base, **named)))
        assert f'load_base("{words}")' in text and f"--base {words} " in text and "PATH_OF" not in text
    run(capsys, *command, "--learning-rate", 0.5)
    again = (tmp_path / "trained" / "README.md").read_text()
    assert "`learning_rate` 0.5" in again and "`learning_rate` 0.001" not in again, "nobody had edited the older one"
    (tmp_path / "trained" / "README.md").write_text("# mine\n")
    run(capsys, *command)
    assert (tmp_path / "trained" / "README.md").read_text() == "# mine\n"
