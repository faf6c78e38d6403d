"""More than one turn in Compare, without the page: what is asked next, from what stands on the screen. Knows no gradio."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from markupsafe import Markup

from app.compare.handlers import NOT_ANSWERED, CompareHandlers, Screen
from app.compare.request import MAX_LINKED_SEED, CompareRequest
from app.ui.errors import sentence
from app.ui.pace import Work
from app.ui.templates import render
from app.ui.variants import VariantView
from bitune.errors import BituneError, ConfigError
from bitune.schema.conversation import ALTERNATING, RECOMPUTE, Turn

NOTHING_TO_GO_ON = "There are no answers to go on from; press Run first."
SAME_AGAIN = "At temperature 0 every seed gives the same answers; choose a temperature above 0 under “Length and sampling”, then press Regenerate."
WAYS = {
    RECOMPUTE: "read again with the question, as one prompt (recompute)",
    ALTERNATING: "kept as they were mixed; the question is read on top (alternating)",
}
UNTESTED = "The paper's appendix proposes both ways; its authors tested neither."
Asked = Callable[..., CompareRequest]


def can_go_on(screen: Screen) -> bool:
    """Whether a conversation can go on from what is shown: answers that have come to an end, and whose names are known; or the turns of one
    that a link has brought."""
    if screen.request is None or screen.running or screen.blind:
        return False
    return screen.update is not None or bool(screen.request.history)


def turns_in(screen: Screen) -> tuple[Turn, ...]:
    """The conversation on the screen, its last answers included where there are any."""
    if screen.update is None:
        return screen.request.history
    answers = {name: completion.text for name, completion in screen.update.completions.items()}
    return (*screen.request.history, Turn(screen.request.prompt, answers))


def follow_up(shown: Screen, question: str, kept: int | None, earlier: str, **sampling: object) -> CompareRequest:
    """The request of a further question, or of one that was edited.

    Args:
        shown: The screen with the answers before.
        question: What is asked.
        kept: How many turns of the conversation stay, where a question of it is asked anew; None for all.
        earlier: How turns before the question are read.
        sampling: Length and sampling as they stand on the page now.
    """
    return replace(shown.request, prompt=question, history=turns_in(shown)[:kept], earlier=earlier, **sampling)


def again(shown: Screen, **sampling: object) -> CompareRequest:
    """The request on the screen with the next seed; ConfigError where a seed changes nothing."""
    if sampling["temperature"] == 0:
        raise ConfigError(SAME_AGAIN)
    return replace(shown.request, **{**sampling, "seed": (shown.request.seed + 1) % (MAX_LINKED_SEED + 1)})


def questions_in(screen: Screen) -> list[str]:
    """All questions of the conversation on the screen, the last one included."""
    return [*(turn.prompt for turn in screen.request.history), screen.request.prompt]


class GoingOn:
    """A button that goes on from the answers on the screen, for `frame.from_shown`. Whatever keeps it from answering is a note beside them:
    they are the conversation, and nothing else holds it."""

    def __init__(self, compare: CompareHandlers, asked: Asked):
        """`asked` makes the request from the screen and the fields, by name."""
        self.compare, self.asked = compare, asked
        self.loading, self.admission = compare.loading, compare.admission

    def announce(self, shown: Screen, what_ifs: Mapping[str, Mapping], **fields: object) -> Screen:
        """At once after the button."""
        try:
            request = self.request(shown, **fields)
        except BituneError as error:
            return replace(shown, note=sentence(error))
        what_ifs = coloured(request, what_ifs)
        return replace(self.compare.announce(request.variants, what_ifs), request=request, views=shown.views)

    def work(self, shown: Screen, what_ifs: Mapping[str, Mapping], **fields: object) -> Work | None:
        """What is asked of the model; nothing where `run` will only say why."""
        try:
            request = self.request(shown, **fields)
            return self.compare.work(request.variants, prompt=request.prompt, **{**request.options, "what_ifs": request.what_ifs})
        except BituneError:
            return None

    def run(self, shown: Screen, what_ifs: Mapping[str, Mapping], **fields: object) -> Iterator[Screen]:
        """As a run of Compare, of the variants that are on the screen."""
        try:
            request = self.request(shown, **fields)
            options = {**request.options, "what_ifs": coloured(request, what_ifs)}
            yield from self.compare.run(request.prompt, request.variants, reference=shown.reference, wish=shown.wish, **options)
        except BituneError as error:  # before a token was written, or instead of any more
            yield replace(shown, note=sentence(error))

    def request(self, shown: Screen, **fields: object) -> CompareRequest:
        """What is asked; ConfigError where nothing is there to go on from."""
        if not can_go_on(shown):
            raise ConfigError(NOTHING_TO_GO_ON)
        return self.asked(shown, **fields)

    def waiting(self, words: str) -> Screen:
        """While the engine is loading, or others come first."""
        return self.compare.waiting(words)

    def finish(self, latest: Screen | None, shown: Screen) -> Screen:
        """After a run that was cancelled; `shown` where not a token of it had come."""
        if latest is None or latest.update is None:
            return replace(shown, note=NOT_ANSWERED)
        return self.compare.finish(latest)

    def failed(self, words: str, latest: Screen | None, shown: Screen) -> Screen:
        """A note beside what was there before."""
        return replace(shown, note=words)


def coloured(request: CompareRequest, what_ifs: Mapping[str, Mapping]) -> dict[str, dict]:
    """The what-ifs of a request with their colours on the page; one that was taken away meanwhile has the first."""
    return {name: {**question, "colour": what_ifs.get(name, {}).get("colour", 0)} for name, question in request.what_ifs.items()}


def story(screen: Screen) -> Markup | str:
    """The turns before the answers, and the question that they answer; nothing where that is the first one."""
    request = screen.request
    if request is None or not request.history:
        return ""
    turns = [(turn.prompt, [(view_of(name, screen), text) for name, text in turn.answers.items()]) for turn in request.history]
    return render(
        "compare/conversation.html",
        turns=turns,
        question=request.prompt,
        way=WAYS[request.earlier],
        untested=UNTESTED,
        running=screen.running,
    )


def view_of(name: str, screen: Screen) -> VariantView:
    """How a variant is called and coloured in the turns before."""
    return screen.views.get(name) or VariantView(name, "", (), 0)
