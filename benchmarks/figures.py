"""What is measured: every figure with its words and its bound, in the groups that share a process. Knows no torch."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.measures import Measured
from benchmarks.setting import Setting, Skipped
from bitune.errors import UnknownNameError

DEVELOPMENT = ("lm_eval", "playwright")
"""Packages that some groups need and the project itself does not."""


@dataclass(frozen=True)
class Figure:
    """A row of the table: `over` is measured and held against `under`, empty where `over` is a size or a time by itself.

    `bound` is the most that the project allows itself, None where nothing is promised.
    """

    name: str
    over: str
    under: str
    bound: float | None = None


@dataclass(frozen=True)
class Group:
    """Figures that are measured in one process, by the function at `place`: `module:function`.

    `on_shapes`: also of a base of random weights, which has no files. `by_default`: measured where no group is named.
    """

    name: str
    place: str
    figures: tuple[Figure, ...]
    on_shapes: bool = False
    by_default: bool = True

    @property
    def measure(self) -> Callable[[Setting], dict[str, Measured]]:
        """The function; it returns the group's figures by name, or raises `Skipped`, as this does where a package is missing."""
        module, _, function = self.place.partition(":")
        try:
            return getattr(importlib.import_module(module), function)
        except ModuleNotFoundError as error:
            if error.name not in DEVELOPMENT:
                raise
            raise Skipped(f"The package {error.name} is not installed; requirements-dev.txt has it.") from error


PLAIN = "of the base alone, plain `transformers.generate`"
FIRST = "first token of Bitune on a new prompt"

GROUPS: tuple[Group, ...] = (
    Group(
        "together",
        "benchmarks.answers:together",
        (Figure("together", "base, Bitune and LoRA together, 24 new tokens", "one after the other", 0.55),),
        on_shapes=True,
    ),
    Group(
        "step",
        "benchmarks.answers:step",
        (
            Figure("step-five", "decode step of five variants", PLAIN, 1.5),
            Figure("step-bitune", "decode step of Bitune alone", PLAIN, 1.05),
        ),
        on_shapes=True,
    ),
    Group(
        "first-token",
        "benchmarks.first_token:first_token",
        tuple(
            Figure(f"first-token-{tokens}", f"first token of Bitune, prompt of {tokens:,} tokens", PLAIN, 2.1)
            for tokens in (77, 256, 1800)
        )
        + (Figure("readings", "first token of Bitune, 256 tokens", "of its causal reading alone"),),
        on_shapes=True,
    ),
    Group(
        "from-memory",
        "benchmarks.first_token:from_memory",
        (
            Figure("rerun", "first token of the same prompt with another seed", FIRST, 0.1),
            Figure("what-if", "first token of the same prompt with other ratios", FIRST, 0.1),
            Figure("attention", "Attention after Compare", FIRST, 0.1),
        ),
        on_shapes=True,
    ),
    Group(
        "llama",
        "benchmarks.llama:five",
        (Figure("llama", "five variants together, 48 tokens each", "llama.cpp, five times the base, one after the other", 1.0),),
    ),
    Group(
        "sweep",
        "benchmarks.answers:nine_factors",
        (Figure("sweep", "a sweep of nine factors", "one answer of the same length", 2.0),),
        on_shapes=True,
    ),
    Group(
        "long-answer",
        "benchmarks.answers:long_answer",
        (Figure("long-answer", "the last 64 of 512 tokens", "the first 64, in the engine", 1.15),),
        on_shapes=True,
    ),
    Group(
        "long-answer-page",
        "benchmarks.long_answer:page",
        (Figure("long-answer-page", "the last 64 of 512 tokens", "the first 64, on the page", 1.15),),
    ),
    Group(
        "start",
        "benchmarks.start:page",
        (Figure("start", "`python app.py` until the page answers, weights cached", "`import gradio` alone", 1.5),),
    ),
    Group(
        "command-line",
        "benchmarks.start:command_line",
        (
            Figure("command-help", "`python -m bitune --help`", "", 1.0),
            Figure("command-typo", "a typo in a command", "", 1.0),
            Figure("command-path", "a checkpoint that is not there", "", 1.0),
            Figure("command-pass", "`python -c pass`", ""),
        ),
    ),
    Group(
        "memory",
        "benchmarks.memory:resident_sets",
        (
            Figure("memory", "memory of the base with four checkpoints", "of the base alone, plain transformers", 1.1),
            Figure(
                "memory-passes",
                "the same, when it remembers as many prompts as it may",
                "of the base alone, plain transformers",
                1.4,
            ),
        ),
        on_shapes=True,
    ),
    Group(
        "evaluate",
        "benchmarks.evaluation:against_harness",
        (Figure("evaluate", "`evaluate` on the base, 100 questions of four choices", "lm-eval's `hf`", 0.3),),
    ),
    Group(
        "training",
        "benchmarks.training:update",
        (
            Figure("training", "a training step of Bitune (rank 8), 8 x (128 + 8) tokens, bfloat16", "of LoRA (rank 16)", 1.6),
            Figure("training-memory", "memory of that step above the base", "of LoRA's"),
        ),
        on_shapes=True,
    ),
    Group(
        "capture",
        "benchmarks.capture:capture",
        (
            Figure("capture-layer", "a prompt's passes with one layer's attention recorded", "without"),
            Figure("capture-summary", "a prompt's passes with a summary of all layers", "without"),
            Figure("capture-memory", "a summary of all layers, 1,024 tokens: memory above the base", ""),
        ),
    ),
    Group(
        "attention-page",
        "benchmarks.attention_page:page",
        (
            Figure("map-size", "one map of a 128-token prompt, to the browser", ""),
            Figure("switch", "another head on the screen", ""),
            Figure("bertviz", "BertViz's head view of 64 tokens, drawn", ""),
        ),
    ),
    Group(
        "large",
        "benchmarks.first_token:large",
        (
            Figure("large-32", "first token of Bitune, 32 tokens", PLAIN, 1.3),
            Figure("large-256", "first token of Bitune, 256 tokens", PLAIN),
            Figure("large-2000", "first token of Bitune, 2,000 tokens", PLAIN, 2.1),
            Figure("eight", "eight variants together, 24 new tokens", "one of them", 2.0),
        ),
        on_shapes=True,
        by_default=False,
    ),
)

FIGURES: dict[str, Figure] = {figure.name: figure for group in GROUPS for figure in group.figures}


def chosen_groups(names: Iterable[str], *, shape: bool) -> list[Group]:
    """The groups of these names, of groups or of figures; without a name those measured by default.

    Args:
        shape: whether the base is one of random weights.

    Raises:
        UnknownNameError: there is no such group or figure.
    """
    names = list(names)
    if not names:
        return [group for group in GROUPS if (group.on_shapes if shape else group.by_default)]
    by_name = {name: group for group in GROUPS for name in (group.name, *(figure.name for figure in group.figures))}
    for name in names:
        if name not in by_name:
            raise UnknownNameError("figure", name, by_name)
    return [group for group in GROUPS if group in {by_name[name] for name in names}]
