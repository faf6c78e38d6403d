"""The app: python app.py [--base ID_OR_DIR] [--checkpoint DIR_OR_ID ...]. Everything it does is in the package app/."""

import sys

from app.checks import check
from app.settings import Settings
from bitune.errors import BituneError
from bitune.progress import doing


def main() -> None:
    """Parse, check, and only then import what takes seconds."""
    try:
        settings = Settings.from_command_line()
        check(settings)
        print(f"Opening the page; {settings.base} is loaded meanwhile.", flush=True)
        with doing("Importing gradio"):
            from app.server import run

        run(settings)
    except BituneError as error:
        sys.exit(f"bitune: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
