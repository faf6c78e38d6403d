"""Answers computed earlier and saved in assets/recorded, so that the first page is never empty.

`python -m app.compare.recorded` computes them anew for every example in examples.py, with the base and the checkpoints that the flags of
app.py name. Only plain values are stored: reading a recording needs no model.
"""

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from app.compare.request import CompareRequest
from app.settings import Settings
from app.ui.examples import EXAMPLES, Example
from app.ui.paths import ASSETS
from app.ui.variants import VariantView, views_of
from bitune.errors import BituneError, DataError
from bitune.schema.results import Completion, Update

FOLDER = ASSETS / "recorded"
FORMAT = 1
SPECIMEN_TOKENS = 48  # short enough that three answers fit on the first screen


@dataclass(frozen=True)
class Recording:
    """One request and its answers. `base` and `recorded`, the day, stand in the note above them."""

    base: str
    recorded: date
    request: CompareRequest
    views: dict[str, VariantView]
    update: Update


def to_json(recording: Recording) -> str:
    """The file of a recording."""
    return (
        json.dumps(
            {"format": FORMAT, **asdict(recording), "recorded": recording.recorded.isoformat()}, ensure_ascii=False, indent=1
        )
        + "\n"
    )


def from_json(content: str) -> Recording:
    """The recording in a file; DataError where it is not one of this format."""
    try:
        fields = json.loads(content)
        if fields["format"] != FORMAT:
            raise DataError(f"it has format {fields['format']!r}, this app reads format {FORMAT}")
        update = fields["update"]
        completions = {
            name: Completion(**{**values, "token_ids": tuple(values.get("token_ids", ()))})
            for name, values in update.pop("completions").items()
        }
        views = {name: VariantView(**{**view, "passes": tuple(view["passes"])}) for name, view in fields["views"].items()}
        return Recording(
            base=fields["base"],
            recorded=date.fromisoformat(fields["recorded"]),
            request=CompareRequest(**fields["request"]),
            views=views,
            update=Update(completions=completions, **update),
        )
    except (KeyError, TypeError, ValueError, AttributeError, BituneError) as error:
        raise DataError(f"This is not a recording: {error!r}. Make it again with python -m app.compare.recorded.") from error


def path_of(example: Example, folder: Path = FOLDER) -> Path:
    """Where the recording of an example lies."""
    return folder / f"{example.key}.json"


def load_all(folder: Path = FOLDER) -> dict[str, Recording]:
    """The recordings there are, by key of their example; examples without one are left out."""
    paths = {example.key: path_of(example, folder) for example in EXAMPLES}
    return {key: from_json(path.read_text(encoding="utf-8")) for key, path in paths.items() if path.exists()}


def record(engine, example: Example) -> Recording:
    """Run an example with every variant of the engine."""
    request = CompareRequest(example.prompt, tuple(engine.variants), max_new_tokens=SPECIMEN_TOKENS)
    *_, last = engine.stream(request.prompt, list(request.variants), **request.options)
    views = views_of(engine.variants, engine.checkpoints)
    return Recording(engine.base_facts.name, date.today(), request, views, last)


def main() -> None:
    """Record every example."""
    from app.server import load_engine  # loading models is for this command only; the page reads recordings without

    engine = load_engine(Settings.from_command_line())
    FOLDER.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        path_of(example).write_text(to_json(record(engine, example)), encoding="utf-8")
        print(f"recorded {path_of(example).name}")


if __name__ == "__main__":
    main()
