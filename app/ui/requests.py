"""A request whose screen is HTML that stands below its button: what is there before it runs, and where it cannot. Knows no gradio."""

from typing import Generic, TypeVar

from app.ui.loading import OnEngine
from app.ui.templates import empty, problem

WAITING = "Waiting for the model."

S = TypeVar("S")
On = TypeVar("On", bound=OnEngine)


class HtmlRequest(Generic[S, On]):
    """What such requests have in common of `frame.ModelHandlers`; `work`, `run` and `finish` are their own.

    Attributes:
        screen_type: Of the screens, made of `html` and `running`; whatever else they hold may be left out.
        on: Where it runs.
    """

    screen_type: type[S]

    def __init__(self, on: On):
        self.on, self.loading, self.admission = on, on.loading, on.admission

    def announce(self, **values: object) -> S:
        """At once after the button."""
        return self.waiting(WAITING)

    def waiting(self, words: str) -> S:
        """While the engine is loading, or others come first."""
        return self.screen_type(empty(words), running=True)

    def failed(self, words: str) -> S:
        """Instead of results, a sentence."""
        return self.screen_type(problem(words))
