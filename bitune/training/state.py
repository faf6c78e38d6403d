"""The state of a training on disk: whose it is, which part of it is whole, and whether a run may go on from it.

Knows folders and what makes a run; knows no Trainer.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bitune.data.batches import TokenPair
from bitune.errors import CheckpointError, ConfigError, shown
from bitune.files import read_object
from bitune.model.bitune_model import BituneModel
from bitune.outputs import from_here
from bitune.training.settings import TrainingSettings

RUN_FILE = "run.json"  # in each of the Trainer's checkpoint-N folders, written when all others are there
_FILES = "files"  # in it: SHA-256 of every other file
_STATE = re.compile(r"checkpoint-(\d{1,18})")
_WRITTEN_LAST = "trainer_state.json"
_STATE_BYTES = 512 * 1024**2  # it has a line for every one of the log
_NAMES = (
    "_name_or_path",
    "transformers_version",
    "dtype",
)  # in a base's config: no forward depends on them, or `identity` has them
# Of these a resumed run may have others: no weight depends on them.
_FREE = ("settings.save_steps", "settings.logging_steps", "settings.eval_steps")
_LENGTH = ("settings.max_steps", "settings.num_train_epochs")  # and of these where the rate does not depend on them

_SHOWN = 5  # differences to another run, at most
# What the parts of `identity` are called in an error; a setting is called by its flag. First those whose values say nothing to a person.
_DIGESTS = {
    "base.weights": "the base's weights (--base)",
    "data.content": "what the examples hold (--data, --limit, --validation, --max-prompt-tokens, --seed)",
    "data.validation_content": "what the held-out examples hold (--data, --validation, --max-prompt-tokens, --seed)",
    "method.passes": "--method",
    "method.answers_with": "--method",
}
_CALLED = {
    "base.id": "the base's name (--base)",
    "base.dtype": "the base's dtype (--dtype, --bf16)",
    "data.examples": "the number of examples (--data, --limit, --validation, --max-answer-tokens)",
    "data.validation": "the number of held-out examples (--validation)",
    "processes": "the number of processes",
    "initial_mixing_alpha": "--initial-mixing-alpha",
    "mixing": "--method's mixing",
    "mixing.theta_init": "--theta-init",
    "mixing.parameterization": "--parameterization",
    "adapters.peft_type": "--peft",
    "adapters.use_dora": "DoRA (--peft)",
    "adapters.r": "--rank",
    "adapters.lora_alpha": "--lora-alpha",
    "adapters.lora_dropout": "--dropout",
    "adapters.target_modules": "--targets",
}


def identity(
    model: BituneModel,
    settings: TrainingSettings,
    pairs: Sequence[TokenPair],
    validation: Sequence[TokenPair],
    processes: int,
    about: Mapping[str, object],
) -> dict[str, object]:
    """What a run must have in common with the state that it goes on from, as plain JSON values."""
    config = model.bitune_config
    base = config.base
    # The same weights under another rope factor or epsilon are another model.
    settings_of_base = json.loads(model.base.config.to_json_string(use_diff=False))
    values = {
        "base": {
            "id": base.id,
            "dtype": str(model.base.dtype),
            "weights": _digest(base.sha256, base.fingerprint),
            "config": {name: value for name, value in settings_of_base.items() if name not in _NAMES},
        },
        "method": {"passes": [asdict(each) for each in config.passes], "answers_with": config.answer_adapter},
        "mixing": None if config.mixing is None else asdict(config.mixing),
        "adapters": {slot: model.manager.config(name).to_dict() for slot, name in model.names.items()},
        "data": {
            "examples": len(pairs),
            "content": _digest(*((pair.prompt_ids, pair.answer_ids) for pair in pairs)),
            "validation": len(validation),
            "validation_content": _digest(*((pair.prompt_ids, pair.answer_ids) for pair in validation)),
        },
        "settings": asdict(settings),
        "processes": processes,
    }
    return json.loads(json.dumps(values | dict(about), default=sorted))  # PEFT's configs hold sets


def _digest(*values: object) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value).encode())
    return digest.hexdigest()[:12]


def last_checkpoint(output: Path) -> Path | None:
    """The newest complete checkpoint-N of a run; the Trainer writes trainer_state.json last."""
    return next((state for state in reversed(_states(output)) if (state / _WRITTEN_LAST).is_file()), None)


def _states(output: Path) -> list[Path]:
    """Every checkpoint-N, the newest last."""
    numbered = [(int(found[1]), state) for state in output.glob("checkpoint-*") if (found := _STATE.fullmatch(state.name))]
    return [state for _, state in sorted(numbered)]


def begin(output: Path, run: Mapping[str, object], *, resume: bool) -> Path | None:
    """What a run does first with its folder.

    Args:
        output: the folder of states, there or not.
        run: what identifies the run, as `identity` has it.
        resume: go on from what an earlier start of this very run has left.

    Returns:
        The state to go on from, checked; None to begin at the beginning, without any older state.

    Raises:
        ConfigError: the state is another run's, or of one that did not end and is not to be resumed.
        CheckpointError: the state is damaged.
    """
    last = last_checkpoint(output)
    if last is not None and resume:
        _check_same(last, run)
        _check_whole(last)
        return last
    if last is not None:
        _check_whole(last)  # it says itself whether the run ended
        if not _has_ended(last):
            raise ConfigError(
                f"{from_here(last)!r} is the state of a run that did not end; go on with it by --resume (resume=True), or remove "
                f"{from_here(output)!r} to begin anew."
            )
    for old in _states(output):  # of a run that ended and gave its result, or that came to no state
        shutil.rmtree(old)
    return None


def seal(state: Path, run: Mapping[str, object]) -> None:
    """Keep whose state it is and what its files hold, when all of them are written."""
    files = {str(file.relative_to(state)): _hash_of(file) for file in sorted(state.rglob("*")) if file.is_file()}
    (state / RUN_FILE).write_text(json.dumps({**run, _FILES: files}, indent=1) + "\n", encoding="utf-8")


def _hash_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _has_ended(state: Path) -> bool:
    trainer_state = read_object(state / _WRITTEN_LAST, CheckpointError, _STATE_BYTES)
    return trainer_state.get("global_step", 0) >= trainer_state.get("max_steps", 1)


def _read_run(state: Path) -> dict[str, object]:
    """What `seal` wrote."""
    try:
        return read_object(state / RUN_FILE, CheckpointError)
    except FileNotFoundError:
        raise ConfigError(
            f"{from_here(state)!r} does not say of which run it is, as it has no {RUN_FILE}, which is written last; remove it to resume from "
            f"the state before it, or {from_here(state.parent)!r} to begin anew."
        ) from None


def _check_same(state: Path, run: Mapping[str, object]) -> None:
    written = _read_run(state)
    written.pop(_FILES, None)
    before, now = dict(_flat(written)), dict(_flat(run))
    free = _FREE + (_LENGTH if now.get("settings.lr_scheduler_type") == "constant" else ())
    others = [name for name in dict.fromkeys([*now, *before]) if name not in free and before.get(name) != now.get(name)]
    if others:
        said = list(dict.fromkeys(_difference(name, before.get(name), now.get(name)) for name in _telling(others)))
        more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
        raise ConfigError(
            f"{from_here(state)!r} is the state of another run: {'; '.join(said[:_SHOWN])}{more}; resume with what was there, or remove "
            f"{from_here(state.parent)!r} to begin anew."
        )


def _telling(others: Sequence[str]) -> list[str]:
    """Of the differing names those that are no mere consequence of another one."""
    if "method.passes" in others or "method.answers_with" in others:  # slots and mixing come with it
        others = [name for name in others if not name.startswith(("adapters.", "mixing", "initial_mixing_alpha"))]
    if kinds := [name for name in others if name.endswith(".peft_type")]:  # another kind has other settings
        others = [name for name in others if name in kinds or not name.startswith("adapters.")]
    counts = {"data.content": "data.examples", "data.validation_content": "data.validation"}
    return [name for name in others if counts.get(name) not in others]


def _difference(name: str, before: object, now: object) -> str:
    """One part of a sentence, which names flags in place of `identity`'s keys."""
    part, _, rest = name.partition(".")
    if name in _DIGESTS:
        return f"{_DIGESTS[name]} is another"
    if part == "adapters":  # the first name is the slot's
        name = f"adapters.{rest.partition('.')[2]}"
    if part == "settings":
        called = f"--{rest.replace('_', '-')}"
    else:
        called = _CALLED.get(name) or f"{name.removeprefix(part + '.').removeprefix('config.')} of the {part}'s config"
    return f"{called} is {shown(before)} there and {shown(now)} here"


def _flat(values: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, values


def _check_whole(state: Path) -> None:
    """CheckpointError unless every file is as it was written: the Trainer goes on without one that is missing, or with another run's."""
    files = _read_run(state).get(_FILES)
    if not isinstance(files, dict):
        raise CheckpointError(
            f"{from_here(state / RUN_FILE)!r} does not say what the files beside it held; remove {from_here(state.parent)!r} to begin anew."
        )
    for name, digest in files.items():
        file = state / name
        if file.is_file() and _hash_of(file) == digest:
            continue
        cause = "not what this run wrote: damaged, edited or of another run" if file.is_file() else "missing"
        raise CheckpointError(
            f"{from_here(file)!r} is {cause}; remove {from_here(state)!r} to resume from the state before it, or "
            f"{from_here(state.parent)!r} to begin anew."
        )
