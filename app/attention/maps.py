"""Attention maps -> what crosses to the browser. Pure: numpy in, plain values out; no gradio, no model.

One *picture* is one head (or the mean over heads) of one layer: for each pass over the prompt a square over all tokens that
attend, prompt and answer together. Rows of the prompt come from the pass itself. Rows of the answer, which the last prompt
token begins, attend to a cache: to the one that the first pass alone would have left, or to the variant's own.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence

import numpy as np
from safetensors.numpy import save

from app.ui.characters import Spread
from app.ui.checks import shown
from app.ui.templates import CONTROL_PICTURES
from bitune.errors import ConfigError
from bitune.schema.results import AttentionMaps, HeadSummary
from bitune.schema.variants import BIDIRECTIONAL, CAUSAL

ANTICAUSAL = "anticausal"
MEASURES = ("look_ahead", "first_token", "distance", "entropy")
SEES = {
    CAUSAL: "each word sees the words before it",
    BIDIRECTIONAL: "each word sees the whole prompt",
    ANTICAUSAL: "each word sees the words after it",
}
LEVELS = 255
# Signs without a shape of their own are shown as their Unicode pictures; the line break keeps its usual sign.
SIGNS = CONTROL_PICTURES | {ord("\n"): "↵", ord("\t"): "→"}


def described_passes(maps: AttentionMaps) -> list[dict[str, str]]:
    """Name, attention, title and one line of words of every pass, the first one first."""
    titles = ("First reading", "Second reading") if len(maps.passes) > 1 else ("The one reading",)
    passes = []
    for name, title in zip(maps.passes, titles, strict=True):
        attention = CAUSAL if name.endswith(CAUSAL) and name != ANTICAUSAL else name
        passes.append({"name": name, "attention": attention, "title": title, "about": SEES[attention]})
    return passes


def prompt_rows(maps: AttentionMaps) -> int:
    """How many prompt tokens go through the passes: all but the last."""
    return maps.prompt_tokens - 1


def overview(maps: AttentionMaps, spread: Sequence[Spread] = ()) -> dict[str, object]:
    """What the page needs at once, whatever head is open: tokens, passes, and the measures of every head.

    `spread`: characters of several tokens. Among `pieces` each of these tokens has the character and which piece of it it is, from 1.
    """
    first = next(iter(maps.summaries.values()))
    layers, heads = first.entropy.shape
    return {
        "tokens": list(maps.tokens),
        "labels": labels(maps.tokens, spread),
        "pieces": {str(at): [one.text, at - one.start + 1] for one in spread for at in range(one.start, one.end)},
        "rows": prompt_rows(maps) + maps.answer.mixed.shape[2],
        "prompt_rows": prompt_rows(maps),
        "passes": described_passes(maps),
        "layers": layers,
        "heads": heads,
        "measures": {measure: [rounded(getattr(s, measure)) for s in maps.summaries.values()] for measure in MEASURES},
        "opened": most_telling(list(maps.summaries.values())),
    }


def rounded(values: np.ndarray) -> list:
    """An array as nested lists of short numbers."""
    return np.round(values.astype(np.float64), 4).tolist()


def most_telling(summaries: list[HeadSummary]) -> dict[str, int]:
    """The head to open first: of two passes the one that looks ahead most in the second; of one, the farthest-looking."""
    values = summaries[1].look_ahead if len(summaries) > 1 else summaries[0].distance
    layer, head = np.unravel_index(int(np.argmax(values)), values.shape)
    return {"layer": int(layer), "head": int(head)}


def first_layer(maps: AttentionMaps) -> int:
    """The layer to open first."""
    return most_telling(list(maps.summaries.values()))["layer"]


def label(token: str) -> str:
    """A token as it stands beside a map: without the space it begins with, and visible even where it is only white space."""
    written = token.translate(SIGNS)
    return written.strip(" ") or "␣" * len(written)


def labels(tokens: Sequence[str], spread: Sequence[Spread] = ()) -> list[str]:
    """Every token as it stands beside a map; a piece of a character as that character and which piece it is: `\u4f60 2/3`."""
    names = [label(token) for token in tokens]
    for one in spread:
        pieces = one.end - one.start
        names[one.start : one.end] = [f"{label(one.text)} {piece}/{pieces}" for piece in range(1, pieces + 1)]
    return names


def picture(maps: AttentionMaps, layer: int, head: int | None) -> dict[str, object]:
    """One head of one layer in every pass, for the browser; `head` None is the mean over heads."""
    return {"layer": layer, "head": head, "maps": [packed(square) for square in squares(maps, layer, head)]}


def squares(maps: AttentionMaps, layer: int, head: int | None) -> list[np.ndarray]:
    """float32 [rows, rows] for every pass: prompt tokens, then the last prompt token and the answer."""
    index, size = maps.layers.index(layer), prompt_rows(maps)
    answers = (maps.answer.first_pass, maps.answer.mixed) if len(maps.passes) > 1 else (maps.answer.mixed,)
    every_pass = []
    for prompt, answer in zip(maps.passes.values(), answers, strict=True):
        rows = answer.shape[2]
        square = np.zeros((size + rows, size + rows), np.float32)
        square[:size, :size] = one_head(prompt[index], head)
        square[size:] = one_head(answer[index], head)
        every_pass.append(square)
    return every_pass


def mean_picture(layers: Iterable[tuple[int, AttentionMaps]]) -> dict[str, object]:
    """The mean over all heads of several layers, as `picture`: each layer with the maps that hold it."""
    seen, total = [], None
    for layer, maps in layers:
        every_pass = squares(maps, layer, None)
        total = every_pass if total is None else [a + b for a, b in zip(total, every_pass, strict=True)]
        seen.append(layer)
    mean = [packed(square / len(seen)) for square in total]
    return {"layer": seen[0], "until": seen[-1], "head": None, "maps": mean}


def one_head(heads: np.ndarray, head: int | None) -> np.ndarray:
    """[heads, query, key] -> float32 [query, key]; `head` None is the mean."""
    return heads.mean(axis=0, dtype=np.float32) if head is None else heads[head].astype(np.float32)


def check_head(head: int | None, heads: int) -> None:
    """ConfigError for a head that is not there."""
    if head is not None and (type(head) is not int or not 0 <= head < heads):
        raise ConfigError(f"There is no head {shown(head)}; this base has heads 0 to {heads - 1}.")


def packed(square: np.ndarray) -> dict[str, object]:
    """A map in 8 bits: levels of its own maximum, as base64.

    The first column stands apart with a maximum of its own: most heads rest on the first token, and next to it the steps
    would be too coarse for everything else.
    """
    return {"first": levels(square[:, :1]), "rest": levels(square[:, 1:])}


def levels(values: np.ndarray) -> dict[str, object]:
    """`values` as {most, data}: a weight is most * byte / 255, bytes row by row."""
    most = float(values.max(initial=0.0))
    scaled = np.zeros(values.shape, np.uint8) if most == 0 else np.rint(values * (LEVELS / most)).astype(np.uint8)
    return {"most": round(most, 6), "data": b64encode(scaled.tobytes()).decode("ascii")}


def arrays(maps: AttentionMaps, layer: int) -> bytes:
    """All heads of one layer as a safetensors file: maps as recorded (float16), summaries of all layers, tokens in its metadata."""
    index = maps.layers.index(layer)
    values_by_name = {f"pass.{name}": values[index] for name, values in maps.passes.items()}
    values_by_name |= {"answer.first_pass": maps.answer.first_pass[index], "answer.mixed": maps.answer.mixed[index]}
    for name, summary in maps.summaries.items():
        values_by_name |= {f"summary.{name}.{measure}": getattr(summary, measure) for measure in MEASURES}
    values_by_name |= {"moved_keys": maps.moved_keys, "moved_values": maps.moved_values}
    facts = {"tokens": json.dumps(maps.tokens), "prompt_tokens": str(maps.prompt_tokens), "layer": str(layer)}
    return save({name.replace(" ", "_"): np.ascontiguousarray(values) for name, values in values_by_name.items()}, metadata=facts)


def plain(maps: AttentionMaps, layer: int, head: int | None) -> dict[str, object]:
    """For programs: one layer (one head, or all) as nested lists, with tokens and the summaries of all layers."""
    index = maps.layers.index(layer)
    kept = slice(None) if head is None else slice(head, head + 1)
    return {
        "tokens": list(maps.tokens),
        "prompt_tokens": maps.prompt_tokens,
        "layer": layer,
        "heads": list(range(next(iter(maps.passes.values())).shape[1])[kept]),
        "passes": {name: rounded(values[index][kept]) for name, values in maps.passes.items()},
        "answer": {
            "mixed": rounded(maps.answer.mixed[index][kept]),
            "first_pass": rounded(maps.answer.first_pass[index][kept]),
        },
        "summaries": {
            name: {measure: rounded(getattr(summary, measure)) for measure in MEASURES}
            for name, summary in maps.summaries.items()
        },
        "moved_keys": known(maps.moved_keys),
        "moved_values": known(maps.moved_values),
    }


def known(values: np.ndarray) -> list:
    """As `rounded`, with None where a number is not known: JSON has no nan."""
    return [[None if np.isnan(value) else value for value in row] for row in rounded(values)]


def size(maps: AttentionMaps) -> int:
    """Bytes of all maps."""
    return sum(values.nbytes for values in (*maps.passes.values(), maps.answer.mixed, maps.answer.first_pass))
