"""python -m app.record: answer every example of the page anew and read the first one for Attention.

It takes the base and the checkpoints that the flags of app.py name.
"""

import sys

from app.checks import check_sources
from app.settings import Settings
from bitune.flags import status_of
from bitune.progress import doing


def record_all() -> None:
    """Record every example and a map into assets/recorded."""
    settings = Settings.from_command_line()
    check_sources(settings)
    with doing("Importing gradio"):
        from app.attention import recorded as attention
        from app.compare.recorded import FOLDER, path_of, record, to_json
        from app.server import load_engine
        from app.ui.examples import EXAMPLES

    engine = load_engine(settings)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        with doing(f"Answering {example.title}"):
            path_of(example).write_text(to_json(record(engine, example)), encoding="utf-8")
        print(f"recorded {path_of(example).name}")
    with doing("Reading for the first map"):
        attention.PATH.write_text(attention.to_json(attention.record(engine)), encoding="utf-8")
    print(f"recorded {attention.PATH.name}")


if __name__ == "__main__":
    sys.exit(status_of("bitune", record_all))
