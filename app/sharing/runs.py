"""Saved runs that come back, read within limits. Knows no Gradio."""

from app.compare.recorded import Recording, from_json
from app.ui.checks import shown
from bitune.errors import DataError

RUN_BYTES = 2**20
"""Of a saved run, below what the page reads of any request (app/limits.py). One of five variants with 512 tokens each has 0.1 MB."""
FORMAT = '"bitune run"'
"""In the text of every saved run, and of one that is damaged."""
OPEN_ANOTHER = "Open a .json file that “Save run” has made."


def open_run(content: object, name: str = "") -> Recording:
    """The run in the text of a file that somebody dropped on the page; DataError where it is none, or too large.

    `name`: of the file, for the sentence that refuses it; empty where it is not known.
    """
    file = shown(name) if name else "This"
    if not isinstance(content, str):
        raise DataError(f"{file} is not a saved run, which would be text. {OPEN_ANOTHER}")
    if len(content) > RUN_BYTES or len(content.encode("utf-8", "surrogatepass")) > RUN_BYTES:
        raise DataError(f"{file} is not a saved run: it is larger than {RUN_BYTES // 2**20} MB. {OPEN_ANOTHER}")
    try:
        return from_json(content)
    except DataError as error:
        if FORMAT not in content:
            raise DataError(f"{file} is not a saved run. {OPEN_ANOTHER}") from error
        raise DataError(
            f"{file} is a saved run, but it is damaged, was changed, or comes from another version of this page. {OPEN_ANOTHER}"
        ) from error
