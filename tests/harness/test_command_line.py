"""`python -m bitune.harness` as a person starts it, over one process and two."""

import json
import subprocess
from pathlib import Path

from tests.closeness import assert_close
from tests.harness.tasks import arguments, choice_task, open_task, python, run


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
            responses, wanted_responses = [value for (value,) in sample["resps"]], [value for (value,) in wanted["resps"]]
            if name == "choices":
                assert_close([float(value) for value, _ in responses], [value for value, _ in wanted_responses])
                responses, wanted_responses = (
                    [str(is_greedy) for _, is_greedy in each] for each in (responses, wanted_responses)
                )
            assert responses == wanted_responses


def test_the_command_line_says_what_is_wrong_in_one_sentence(work, tmp_path):
    done = command(work, tmp_path, pretrained=str(work / "nothing"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("bitune: There is no checkpoint folder")
