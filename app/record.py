"""python -m app.record: answer every example of the page anew, with the base and the checkpoints that the flags of app.py name."""

from app.compare.recorded import FOLDER, path_of, record, to_json
from app.server import load_engine
from app.settings import Settings
from app.ui.examples import EXAMPLES


def main() -> None:
    """Record every example into assets/recorded."""
    engine = load_engine(Settings.from_command_line())
    FOLDER.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        path_of(example).write_text(to_json(record(engine, example)), encoding="utf-8")
        print(f"recorded {path_of(example).name}")


if __name__ == "__main__":
    main()
