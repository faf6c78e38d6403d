"""Where the project's files lie that the page shows."""

from pathlib import Path

APP = Path(__file__).resolve().parent.parent
ASSETS = APP.parent / "assets"
