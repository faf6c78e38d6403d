"""HTML from jinja2 templates with autoescape. Templates lie beside the code of their room: `render("mixing/table.html", ...)`."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_APP = Path(__file__).resolve().parent.parent

environment = Environment(
    loader=FileSystemLoader(_APP),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt name is an error, not a gap in the page
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)


def render(template: str, **values: object) -> str:
    """The HTML of a template.

    Args:
        template: Path below `app/`, such as `compare/answers.html`.
        values: What the template names. Plain text is escaped; HTML that is ours comes as `markupsafe.Markup`.

    Returns:
        HTML that is safe to show.
    """
    return environment.get_template(template).render(values)
