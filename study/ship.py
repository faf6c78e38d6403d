"""A finished run -> a checkpoint folder for visitors: prompt template, facts about its training, and a model card.

A card compares with the other runs of its setting, so it is written anew when there are more of them.
"""

from dataclasses import replace
from pathlib import Path

from bitune.checkpoints.folder import CARD_FILE, Checkpoint, read, write
from bitune.errors import ConfigError
from study.plan import ALL_QUESTIONS, RANKED, RESULTS, SETTINGS, Run, Setting
from study.run import checkpoint_of
from study.table import REFERENCE, evidence, name_of, read_results, rows_of

SHIPPED = Path(__file__).parent.parent / "assets" / "checkpoints"


def ship(run: Run, state: Path, output: Path, results: Path = RESULTS) -> None:
    """Write the checkpoint that `run` left in `state` to `output`, with the accuracies of its whole row in the card.

    ConfigError for a run that has no result, CheckpointError where its checkpoint is not in `state`.
    """
    setting, all_results = SETTINGS[run.setting], read_results(results)
    result = _by_name(all_results).get(run.name)
    if result is None:
        raise ConfigError(f"{run.name} has no result in {results}; run it first, with --only {run.name}.")
    checkpoint = read(checkpoint_of(run, state))
    training = {
        "data": {"sources": [f"{name}.train.jsonl" for name in setting.train], "examples": result["examples"]},
        "settings": result["settings"],
        "trainable_parameters": result["trainable_parameters"],
        "initial_mixing_alpha": run.initial_mixing_alpha,
        "train_loss": round(result["train_loss"], 6),
        "run": run.name,
    }
    config = replace(checkpoint.config, prompt_template=setting.template, training=training)
    checkpoint = replace(checkpoint, config=config)
    (Path(output) / CARD_FILE).unlink(missing_ok=True)  # the study's own, also one from before a checkpoint knew its card
    write(replace(checkpoint, card=card(run, result, all_results, checkpoint)), output)


def cards(folder: Path = SHIPPED, results: Path = RESULTS) -> dict[Path, str]:
    """The cards of the study's checkpoints in `folder`, as they should be: {file: text}. Others are left out."""
    all_results = read_results(results)
    by_name, texts = _by_name(all_results), {}
    for shipped in sorted(folder.iterdir()):
        checkpoint = read(shipped)
        result = by_name.get(checkpoint.config.training.get("run"))
        if result is not None:
            run = Run(**result["run"])
            texts[shipped / CARD_FILE] = card(run, result, all_results, checkpoint)
    return texts


def _by_name(results: list[dict]) -> dict[str, dict]:
    return {Run(**result["run"]).name: result for result in results}


def card(run: Run, result: dict, all_results: list[dict], checkpoint: Checkpoint) -> str:
    """The model card, every number from the results."""
    setting = SETTINGS[run.setting]
    rows = rows_of(setting, all_results)
    by_name = {row["name"]: row for row in evidence(setting, rows)["rows"]}
    row = by_name[name_of(run)]
    others = [
        name
        for name in ("Base", REFERENCE, "Bitune")
        if name in by_name and (name, by_name[name]["seeds"]) != (row["name"], [run.seed])
    ]
    return _CARD.format(
        title=f"{name_of(run)}, {setting.title.lower()}",
        kind=f"{name_of(run)} ({_parts(run, checkpoint)}; {result['trainable_parameters']:,} trained numbers, kept in bfloat16)",
        text=setting.text,
        licence=setting.licence,
        examples=result["examples"],
        sources=", ".join(f"{name}.train.jsonl" for name in setting.train),
        prompt=setting.max_prompt_tokens,
        answer=setting.max_answer_tokens,
        validation=setting.validation,
        name=run.name,
        steps=result["settings"]["max_steps"],
        batch=setting.batch_size,
        rates=_rates(run, checkpoint),
        seed=run.seed,
        loss=result["train_loss"],
        commands="\n".join(_command(limit, setting) for limit in dict.fromkeys(setting.limits.values())),
        table=_table(setting, result, run, by_name, others),
        paired=""
        if row["minus"] is None
        else _PAIRED.format(
            name=row["name"],
            reference=row["against"],
            pairs="over all seeds, paired by item and seed" if len(row["seeds"]) > 1 else "one seed, paired by item",
            **_percent(row["minus"]["average"]),
        ),
        all_questions=_all_questions(run, all_results),
    )


def _all_questions(run: Run, all_results: list[dict]) -> str:
    """The part of the card on all test questions; nothing until they are measured."""
    setting = next((setting for setting in ALL_QUESTIONS.values() if setting.of == run.setting), None)
    again = setting and replace(run, setting=setting.name)
    result = again and _by_name(all_results).get(again.name)
    if not result:
        return ""
    rows = evidence(setting, rows_of(setting, all_results))["rows"]
    by_name = {row["name"]: row for row in rows}
    others = [name for name in by_name if name != name_of(run)]
    table = _table(setting, result, again, by_name, others)
    minus = by_name[name_of(run)]["minus"]
    paired = (
        ""
        if minus is None
        else _PAIRED.format(name=name_of(run), reference=REFERENCE, pairs="paired by item", **_percent(minus["average"]))
    )
    return _ALL_QUESTIONS.format(prompt=setting.max_prompt_tokens, table=table, paired=paired)


def _parts(run: Run, checkpoint: Checkpoint) -> str:
    adapters = f"{len(checkpoint.adapters)} adapter{'s' if len(checkpoint.adapters) > 1 else ''}"
    rank = f" of rank {run.rank}" if run.peft in RANKED else ""
    theta = "" if checkpoint.theta is None else f", {sum(len(t) for t in checkpoint.theta)} mixing coefficients"
    return adapters + rank + theta


def _command(limit: int, setting: Setting) -> str:
    """Of all tasks with that limit, so that their average is printed too."""
    prompt, answer = setting.max_prompt_tokens, setting.max_answer_tokens
    options = (
        f"--max-prompt-tokens {prompt} --max-answer-tokens {answer} --max-new-tokens {answer} --dtype bfloat16 --batch-size 16"
    )
    data = "".join(f" --data {task}.test.jsonl" for task, most in setting.limits.items() if most == limit)
    seen = "".join(f" --leave-out {name}.train.jsonl" for name in setting.train)
    return f"    python -m bitune evaluate --checkpoint HERE{data} --limit {limit} {options}{seen}"


def _rates(run: Run, checkpoint: Checkpoint) -> str:
    theta = f", theta's {run.mixing_learning_rate:g}" if None not in (run.mixing_learning_rate, checkpoint.theta) else ""
    scale = ", LoRA alpha 2 x rank" if run.peft in RANKED else ""
    return f"learning rate {run.learning_rate:g}{theta}, linear decay after 10 % warm-up{scale}"


def _table(setting: Setting, result: dict, run: Run, by_name: dict, others: list[str]) -> str:
    tasks = [*setting.limits, *(["average"] if len(setting.limits) > 1 else [])]
    (this,) = evidence(setting, rows_of(setting, [result]))["rows"]
    lines = ["| | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for name, row in [("this checkpoint", this), *((f"{n}, {_seeds(by_name[n])}", by_name[n]) for n in others)]:
        cells = ["{mean:.1f} ({low:.1f} to {high:.1f})".format(**_percent(row["accuracy"][task])) for task in tasks]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _seeds(row: dict) -> str:
    count = len(row["seeds"])
    return "untrained" if not count else f"{count} seed{'s' if count > 1 else ''}"


def _percent(values: dict) -> dict[str, float]:
    return {key: 100 * values[key] for key in ("mean", "low", "high")}


_PAIRED = """
{name} minus {reference}, {pairs}: {mean:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}).
"""
_ALL_QUESTIONS = """
## On all test questions

Measured in float32, prompts of up to {prompt:,} tokens, without those that stand in the training files (`python -m study all`).

{table}
{paired}"""
_CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: en
tags: [bitune, peft]
---

# {title}

{kind} for the Q4_1 GGUF of SmolLM2-135M-Instruct, dequantized: the default base of this project.

## Data

{text} {examples:,} examples of {sources}: those with prompts of at most {prompt} and answers of at most {answer} tokens, {validation} held out
for validation. {licence}

## Training

    python -m study run --data DATA --only {name} --results AGAIN
    python -m study ship {name} OUTPUT

{steps} updates of {batch} examples, {rates}, seed {seed}, bfloat16.
Mean training loss: {loss:.4f}. `training_log.jsonl` has the course.

## Held-out accuracy

In percent with 95 % intervals (bootstrap over items, and over seeds where there are several), in bfloat16; choices by summed
log-likelihood, open answers by greedy generation; the first items of each test file whose prompt has at most {prompt} tokens, without
those whose answer has more than {answer}, as it could not be generated, and without prompts that stand in the training files too, be it
with choices in another order. This gives the line of this checkpoint again:

{commands}

{table}
{paired}{all_questions}"""
