"""The app: python app.py [--base ID_OR_DIR] [--checkpoint DIR_OR_ID ...]. Everything it does is in the package app/."""

import sys

from app.compare.recorded import load_all
from app.page import build_page
from app.server import check_temporary_folder, load_engine, serve
from app.settings import Settings
from bitune.errors import BituneError


def main() -> None:
    """Parse, build, launch."""
    try:
        settings = Settings.from_command_line()
        check_temporary_folder()
        serve(build_page(load_engine(settings), load_all(), settings.data), settings)
    except BituneError as error:
        sys.exit(f"bitune: {error}")


if __name__ == "__main__":
    main()
