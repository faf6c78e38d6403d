"""The endpoint /sets, for programs. Signature, types and docstring are what clients and MCP tools read."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import TypedDict

from app.sets.handlers import Begun, Screen, SetHandlers
from app.sets.progress import Progress
from app.sets.request import SetRequest
from app.sets.run import answered
from app.ui.api_types import Template, WhatIfValue
from app.ui.caller import Caller, Gone
from app.ui.checks import shown
from app.ui.errors import sentence
from app.ui.frame import toast
from app.ui.running import Waiting
from app.ui.what_ifs import plain, read
from bitune.data.prompt_sets import parse_set, set_of
from bitune.errors import ConfigError
from bitune.sets.compared import Comparison, compare
from bitune.sets.rows import in_order


class SetPromptValue(TypedDict):
    """A prompt and its right answer."""

    prompt: str
    answer: str


class SetAnswerValue(TypedDict):
    """An answer of a variant; `is_right` is null where nobody says what is right."""

    text: str
    tokens: int
    finish_reason: str
    is_right: bool | None


class SetRowValue(TypedDict):
    """A prompt, `index` from 0, and an answer of each variant, `sample` from 0."""

    index: int
    sample: int
    prompt: str
    right: str | None
    answers: dict[str, SetAnswerValue]


class SetsAnswer(TypedDict):
    """What /sets returns, again and again: `rows` so far, in the order of the set; `compared` in the end; `problem`: why it ended before."""

    done: int
    total: int
    rows: list[SetRowValue]
    compared: dict | None
    settings: dict
    problem: str | None


class ForPrograms(SetHandlers):
    """A set that a program asks for: the same batches, of which nothing is drawn."""

    def begin(self, prompts: object, variants: object, what_ifs: object, **how: object) -> Iterator[Begun]:
        what_ifs = {name: {**plain(question), "colour": 0} for name, question in read(what_ifs).items()}
        names = [*self.engine.variants, *what_ifs] if variants is None else variants
        request = SetRequest(text="", variants=names, what_ifs=what_ifs, **how)
        if not isinstance(prompts, str | list):
            raise ConfigError(f"prompts must be a text or a list; got {shown(prompts)}.")
        yield self.begun(request, parse_set(prompts) if isinstance(prompts, str) else set_of(prompts))

    def running(self, progress: Progress) -> Screen:
        return Screen("", running=True, progress=progress)

    def ended(self, latest: Screen, words: str = "") -> Screen:
        return Screen("", progress=latest.progress)


def sets_function(handlers: ForPrograms) -> Callable[..., AsyncIterator[SetsAnswer]]:
    """The function behind /sets."""

    # Gradio tells clients the type of each value; of an iterator it would say nothing.
    async def sets(
        prompts: str | list[str | SetPromptValue],
        variants: list[str] | None = None,
        template: Template = "own",
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        samples: int = 1,
        what_ifs: dict[str, WhatIfValue] | None = None,
    ) -> SetsAnswer:
        """Answer a whole set of prompts with several variants, batch by batch, and compare the answers.

        Args:
            prompts: A list of texts or of {"prompt": ..., "answer": the right answer}; or one text as a file would have it: JSON Lines, CSV, or a
                prompt a line with the right answer behind a tab. A page takes so many as it was started with as --set-prompts, 200 by default,
                each counted once for every sample.
            variants: Names of the variants to run; all that are loaded if left out. The others are compared with the first.
            template: "own" puts the checkpoint's template around the prompt, "chat" the base's chat template, "none" nothing.
            max_new_tokens: Most tokens of each answer, at least 1 and at most what the page was started with as --new-tokens, 512 by default.
            temperature: 0 takes the likeliest token each time; above 0 tokens are drawn, the same draws for every variant.
            top_p: Share of the probability to draw from, above 0 and up to 1.
            seed: Start of the random draws; sample i, from 0, is drawn with seed + i.
            samples: How many answers each variant gives to each prompt; more than one needs a temperature.
            what_ifs: More variants of this request alone, as in /compare.

        Returns:
            done and total: rows; rows: of each prompt and sample the answers by variant; compared, when all are there: with 95 % intervals how
            long answers are, how often two variants give the same text, and who is right; settings: what made the answers. A client that
            iterates gets all of it anew after each batch, with compared null; others and MCP tools get the end. problem: null, or where
            something ended the set after its first rows, a sentence on it: then done is below total, rows has what was answered and compared
            is null. What ends it before any row is an error.
        """
        caller = Caller.current(handlers.admission.proxies)
        how = {"template": template, "max_new_tokens": max_new_tokens, "temperature": temperature}
        asked = {"prompts": prompts, "variants": variants, "what_ifs": what_ifs, **how}
        progress = None
        try:
            steps = answered(handlers, caller, **asked, top_p=top_p, seed=seed, samples=samples)
            async with aclosing(steps):
                async for step in steps:
                    if isinstance(step, Waiting):
                        continue
                    progress = step.progress
                    # Past Gradio's queue, as tools of MCP come, the first value is the only one that is fetched.
                    if caller.event_id is not None:
                        yield await asyncio.to_thread(as_json, progress)
            last = as_json(progress, await asyncio.to_thread(compare, progress.rows))
        except Gone:
            return
        except Exception as error:
            words = sentence(error)
            if progress is None or not progress.rows:
                toast(words)
            last = as_json(progress, problem=words)
        yield last

    return sets


def as_json(progress: Progress, compared: Comparison | None = None, problem: str | None = None) -> Mapping[str, object]:
    """A set as far as it is answered, as plain values; `problem`: what ended it there."""
    return {
        "done": len(progress.rows),
        "total": progress.total,
        "rows": [row.to_dict() for row in in_order(progress.rows)],
        "compared": None if compared is None else compared.to_dict(),
        "settings": dict(progress.facts),
        "problem": problem,
    }
