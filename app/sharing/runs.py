"""Saved runs that come back, read within limits. Knows no Gradio."""

from app.compare.recorded import Recording, from_json
from app.ui.checks import shown
from bitune.errors import DataError

RUN_BYTES = 2**20
"""Of a saved run, below what the page reads of any request (app/limits.py). One of five variants with 512 tokens each has 0.1 MB."""


def open_run(content: object) -> Recording:
    """The run in the text of a file that somebody dropped on the page; DataError where it is none, or too large."""
    if not isinstance(content, str):
        raise DataError(f"A saved run is a text; got {shown(content)}.")
    if len(content) > RUN_BYTES or len(content.encode("utf-8", "surrogatepass")) > RUN_BYTES:
        raise DataError(f"The file is larger than {RUN_BYTES // 2**20} MB, so it is no saved run of this page; choose another.")
    try:
        return from_json(content)
    except DataError as error:
        raise DataError(f"The file is no saved run of this page: {error}. Choose another, or save the run again.") from error
