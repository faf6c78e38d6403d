"""HTML from jinja2 templates with autoescape. Templates lie beside the code of their room: `render("mixing/table.html", ...)`.

Pieces that every tab uses are macros in ui/macros.html: a template imports them, Python calls `chip`, `empty`, ... of this module.
"""

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.ui.paths import APP

# Control characters have no shape of their own and some swallow their neighbours: they are shown as their Unicode pictures.
CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def faithful(text: str) -> str:
    """Model text as a template shows it: exactly this text, control characters made visible. Autoescape does the rest."""
    return text.translate(CONTROL_PICTURES)


def amount(number: int) -> str:
    """A large number as people say it: 134,515,008 is 135M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def count(number: int, thing: str) -> str:
    """`3 checkpoints`, `1 checkpoint`, `no checkpoint`."""
    return f"{number or 'no'} {thing}{'s' if number > 1 else ''}"


environment = Environment(
    loader=FileSystemLoader(APP),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt name is an error, not a gap in the page
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)
environment.filters |= {"faithful": faithful, "amount": amount, "count": count}


def render(template: str, **values: object) -> Markup:
    """The HTML of a template.

    Args:
        template: Path below `app/`, such as `compare/answers.html`.
        values: What the template names. Plain text is escaped; HTML that is ours comes as `markupsafe.Markup`.

    Returns:
        HTML that is safe to show.
    """
    return Markup(environment.get_template(template).render(values))


# The macros as functions: what they take and draw stands in ui/macros.html.
_macros = environment.get_template("ui/macros.html").module
chip, empty, problem = _macros.chip, _macros.empty, _macros.problem
heading, introduction = _macros.heading, _macros.introduction
