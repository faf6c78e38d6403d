"""The state of a training on disk: whose it is, which part of it is whole, and whether a run may go on from it.

Knows folders and what makes a run; knows no Trainer.
"""

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bitune.data.batches import TokenPair
from bitune.errors import CheckpointError, ConfigError
from bitune.files import read_object
from bitune.model.bitune_model import BituneModel
from bitune.training.settings import TrainingSettings

RUN_FILE = "run.json"  # in each of the Trainer's checkpoint-N folders
_STATE = re.compile(r"checkpoint-(\d{1,18})")
_WRITTEN_LAST = "trainer_state.json"
_STATE_BYTES = 512 * 1024**2  # it has a line for every one of the log
_PARTS = ("optimizer*", "scheduler.pt", "rng_state*.pth")  # without one of them the Trainer goes on as if it had not been
# Of these a resumed run may have others: no weight depends on them.
_FREE = ("settings.save_steps", "settings.logging_steps", "settings.eval_steps")
_LENGTH = ("settings.max_steps", "settings.num_train_epochs")  # and of these where the rate does not depend on them


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
    values = {
        "base": {"id": base.id, "dtype": str(model.base.dtype), "weights": _digest(base.sha256, base.fingerprint)},
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
    if last is not None and not _has_ended(last):
        raise ConfigError(
            f"{str(last)!r} is the state of a run that did not end; go on with it by --resume (resume=True), or remove "
            f"{str(output)!r} to begin anew."
        )
    for old in _states(output):  # of a run that ended and gave its result, or that came to no state
        shutil.rmtree(old)
    return None


def write_identity(state: Path, run: Mapping[str, object]) -> None:
    """Keep whose state it is."""
    (state / RUN_FILE).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def _has_ended(state: Path) -> bool:
    trainer_state = read_object(state / _WRITTEN_LAST, CheckpointError, _STATE_BYTES)
    return trainer_state.get("global_step", 0) >= trainer_state.get("max_steps", 1)


def _check_same(state: Path, run: Mapping[str, object]) -> None:
    if not (state / RUN_FILE).is_file():
        raise ConfigError(
            f"{str(state)!r} does not say of which run it is, as it has no {RUN_FILE}; remove {str(state.parent)!r} to begin anew."
        )
    before, now = dict(_flat(read_object(state / RUN_FILE, CheckpointError))), dict(_flat(run))
    free = _FREE + (_LENGTH if now.get("settings.lr_scheduler_type") == "constant" else ())
    for name in [*now, *before]:
        if name not in free and before.get(name) != now.get(name):
            raise ConfigError(
                f"{str(state)!r} is the state of another run: {name} is {before.get(name)!r} there and {now.get(name)!r} here; resume "
                f"with the former, or remove {str(state.parent)!r} to begin anew."
            )


def _flat(values: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, values


def _check_whole(state: Path) -> None:
    """CheckpointError unless the Trainer's files are there and as they were written. Those of torch are zip files with checksums."""
    read_object(state / _WRITTEN_LAST, CheckpointError, _STATE_BYTES)
    for pattern in _PARTS:
        files = list(state.glob(pattern))
        cause = None if files else "missing"
        for file in files:
            if file.is_file() and (not zipfile.is_zipfile(file) or _broken(file)):
                cause = "damaged or cut short"
        if cause:
            raise CheckpointError(
                f"{str(state / pattern)!r} is {cause}; remove {str(state)!r} to resume from the state before it, or begin anew."
            )


def _broken(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):  # what zipfile says of a header that is none
        return True
