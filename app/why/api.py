"""What programs ask of the section: answers with what every variant gives to their tokens, and an answer that goes on otherwise.

Knows no gradio; errors are raised.
"""

from collections.abc import Callable, Sequence

from app.ui.api_types import Earlier, GoOnAnswer, PartingAnswer, Template, TurnValue, WhatIfValue
from app.ui.checks import Names, shown
from app.ui.loading import OnEngine
from app.ui.pace import Work
from app.ui.what_ifs import read
from app.why.run import Asked
from app.why.tokens import last_of, reading_work, writing_work
from app.why.tokens_html import as_json
from bitune.errors import ConfigError
from bitune.schema.conversation import RECOMPUTE
from bitune.schema.generation import GenerationSettings

Ask = Callable[..., Asked]
"""Makes a request of what arrives over HTTP, as /compare does; raises what is wrong with it."""


class WhyApi:
    """The endpoints on one engine."""

    def __init__(self, on: OnEngine, ask: Ask):
        self.on, self.loading, self.admission, self.ask = on, on.loading, on.admission, ask

    def request(self, variants: Names | None, what_ifs: object, **asked: object) -> Asked:
        """What was asked; all variants where none is named."""
        named = [*self.on.engine.variants, *read(what_ifs)] if variants is None else variants
        request = self.ask(variants=named, what_ifs=what_ifs, **asked)
        GenerationSettings(request.options["max_new_tokens"])  # so that what is counted is a number
        return request

    def parting_work(self, variants: Names | None, what_ifs: object, **asked: object) -> Work:
        """The answers, and all of them once more for each variant, as long as they may become."""
        request = self.request(variants, what_ifs, **asked)
        new_tokens = request.options["max_new_tokens"]
        work = reading_work(self.on, request, {name: range(new_tokens) for name in request.variants})
        return Work(work.prompt_tokens, work.passes, new_tokens, work.variants)

    def parting(
        self,
        prompt: str,
        variants: list[str] | None = None,
        template: Template = "own",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        what_ifs: dict[str, WhatIfValue] | None = None,
        history: list[TurnValue] | None = None,
        earlier: Earlier = RECOMPUTE,
    ) -> PartingAnswer:
        """Answer one prompt with several variants, and say token by token where the answers part and how likely each variant finds each.

        Args:
            prompt: What the model reads.
            variants: Names of the variants to run; all that are loaded if left out.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            max_new_tokens: Most tokens to write, at least 1 and at most what the page was started with as --new-tokens, 512 by default.
            temperature: Of the answers alone, as top_p and seed are: the probabilities are those at temperature 1.
            top_p: Share of the probability to draw from, above 0 and up to 1.
            seed: Start of the random draws.
            what_ifs: More variants of this request alone, as in /compare.
            history: The turns before, as in /compare.
            earlier: How the turns before are read, as in /compare.

        Returns:
            answers, with the tokens of each; parting, for each two answers the first token, counted from 0, that is another one;
            scores[answer][variant] with the log-probability of the whole answer, of a token on average and of each token, how many tokens
            were likelier, and the 8 likeliest at each step as [id, log-probability]; texts of the ids; counted, what counts in a sum.
        """
        asked = {"prompt": prompt, "template": template, "max_new_tokens": max_new_tokens, "temperature": temperature}
        request = self.request(variants, what_ifs, **asked, top_p=top_p, seed=seed, history=history, earlier=earlier)
        names, options = list(request.variants), request.options
        last = last_of(self.on.runner.stream(request.prompt, names, **options))
        answers = {name: completion.token_ids for name, completion in last.completions.items()}
        reading = {name: options[name] for name in ("template", "what_ifs", "history", "earlier")}
        found = self.on.runner.part(request.prompt, names, answers, **reading)
        return as_json(found, request.prompt, self.on.engine.base_facts.name)

    def go_on_work(self, variant: str, begun: object, what_ifs: object, **asked: object) -> Work:
        """One variant that reads its prompt and writes."""
        request = self.request([variant], what_ifs, **asked)
        return writing_work(self.on, request, variant, len(token_ids(begun)))

    def go_on(
        self,
        prompt: str,
        variant: str,
        begun: list[int],
        template: Template = "own",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        what_ifs: dict[str, WhatIfValue] | None = None,
        history: list[TurnValue] | None = None,
        earlier: Earlier = RECOMPUTE,
    ) -> GoOnAnswer:
        """Let one variant go on from the beginning of an answer that it need not have written itself.

        Args:
            prompt: What the model reads.
            variant: Who goes on.
            begun: Token ids of the beginning, as /parting has them, at least one.
            template: As in /compare.
            max_new_tokens: Most tokens behind the beginning; limits as in /compare.
            temperature: As in /compare.
            top_p: As in /compare.
            seed: As in /compare; the draws of the beginning count as drawn.
            what_ifs: As in /compare.
            history: As in /compare.
            earlier: As in /compare.

        Returns:
            text, which begins with the beginning; begun, the beginning's own text; tokens behind it; token_ids of all; finish_reason.
        """
        asked = {"prompt": prompt, "template": template, "max_new_tokens": max_new_tokens, "temperature": temperature}
        request = self.request([variant], what_ifs, **asked, top_p=top_p, seed=seed, history=history, earlier=earlier)
        ids = token_ids(begun)
        updates = self.on.runner.go_on(request.prompt, variant, ids, **request.options)
        completion = last_of(updates)[variant]
        return {
            "variant": variant,
            "text": completion.text,
            "begun": self.on.engine.base.tokenizer.decode(ids, skip_special_tokens=True),
            "tokens": completion.tokens,
            "token_ids": list(completion.token_ids),
            "finish_reason": completion.finish_reason,
        }


def token_ids(value: object) -> Sequence[int]:
    """A list of ids, whole numbers that JSON made floats among them; ConfigError for anything else. Whether there are such tokens says the engine."""
    if not isinstance(value, list) or not all(isinstance(token, int | float) and token == token // 1 for token in value):
        raise ConfigError(f"begun must be a list of token ids; got {shown(value)}.")
    return [int(token) for token in value]
