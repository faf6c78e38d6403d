"""python -m app.record: answer every example of the page anew, with the base and the checkpoints that the flags of app.py name."""

import sys

from app.checks import check_sources
from app.settings import Settings
from bitune.flags import status_of
from bitune.progress import doing


def record_all() -> None:
    """Record every example into assets/recorded."""
    settings = Settings.from_command_line()
    check_sources(settings)
    with doing("Importing gradio"):
        from app.compare.recorded import FOLDER, path_of, record, to_json
        from app.server import load_engine
        from app.ui.examples import EXAMPLES

    engine = load_engine(settings)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        with doing(f"Answering {example.title}"):
            path_of(example).write_text(to_json(record(engine, example)), encoding="utf-8")
        print(f"recorded {path_of(example).name}")


if __name__ == "__main__":
    sys.exit(status_of("bitune", record_all))
