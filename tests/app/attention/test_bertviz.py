"""BertViz as a document: the same numbers as its own Python hands over, no address, nothing that ends the script; and its limits."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from app.attention import bertviz as frames
from app.attention.maps import labels
from bitune.errors import ConfigError, UnknownNameError
from bitune.schema.results import AnswerMaps, AttentionMaps, HeadSummary
from tests.closeness import assert_close

HOSTILE = ("</script><img src=x onerror=alert(1)>", " ${1+1}", "{{7*7}}", "<!--", "&amp;", "\u2028", "語", "\n")


def made(layers: int = 2, heads: int = 3, tokens: tuple[str, ...] = HOSTILE) -> AttentionMaps:
    """Random maps of two passes over all but the last token."""
    size = len(tokens) - 1
    weights = np.random.default_rng(0).random((2, layers, heads, size, size), np.float32).astype(np.float16)
    passes = dict(zip(("causal", "bidirectional"), weights, strict=True))
    answer = AnswerMaps(np.zeros((layers, heads, 1, size + 1), np.float16), np.zeros((layers, heads, 1, size + 1), np.float16))
    moved = np.zeros((layers, size), np.float32)
    summaries = {name: HeadSummary.empty(layers, heads) for name in passes}
    return AttentionMaps(tuple(range(layers)), passes, summaries, answer, moved, moved, tokens, len(tokens))


def large(layers: int, heads: int, size: int) -> AttentionMaps:
    """Maps of so many tokens, without the memory for them."""
    maps = made(1, 1, ("a", "b"))
    values = np.broadcast_to(np.float16(0.5), (layers, heads, size, size))
    return replace(
        maps, layers=tuple(range(layers)), passes={"causal": values}, tokens=("a",) * (size + 1), prompt_tokens=size + 1
    )


def framed(
    maps: AttentionMaps, view: str, pass_name: str, layer: int, head: int | None = None, dark: bool = False
) -> dict[str, str]:
    """The frame, with the labels that the maps beside it have."""
    return frames.frame(maps, labels(maps.tokens), view, pass_name, frames.Look(layer, head, dark))


def parameters(document: str) -> dict:
    """What the drawing gets."""
    found = re.findall(r"const params = (\{.*\});", document)
    assert len(found) == 1
    return json.loads(found[0])


@pytest.mark.parametrize("view", frames.VIEWS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # BertViz leaves its files open
def test_the_drawing_gets_what_bertviz_itself_would_give_it(view):
    import bertviz  # here, since it brings a notebook along

    maps = made(tokens=("a", " b", "c", "d"))
    own = {"head": bertviz.head_view, "model": bertviz.model_view}[view]
    options = {"layer": 1, "heads": [2]} if view == "head" else {"display_mode": "light"}
    attention = [torch.from_numpy(layer[None].astype(np.float64)) for layer in maps.passes["bidirectional"]]
    theirs = parameters(own(attention, ["a", "b", "c"], html_action="return", **options).data)
    ours = parameters(framed(maps, view, "bidirectional", 1, 2)["html"])
    assert ours.pop("root_div_id") and theirs.pop("root_div_id")
    (ours_attention,), (theirs_attention,) = ours.pop("attention"), theirs.pop("attention")
    assert_close(ours_attention.pop("attn"), theirs_attention.pop("attn"), allowed=2e-4)  # ours with four digits
    assert ours_attention == theirs_attention
    assert ours == theirs


@pytest.mark.parametrize("view", frames.VIEWS)
def test_it_is_dark_where_the_page_is(view):
    light, dark = (framed(made(), view, "causal", 0, dark=dark)["html"] for dark in (False, True))
    assert "color-scheme: dark" in dark and "color-scheme: dark" not in light
    assert parameters(dark).get("display_mode") == ("dark" if view == "model" else None)


@pytest.mark.parametrize("view", frames.VIEWS)
def test_tokens_cannot_leave_the_script(view):
    html = framed(made(), view, "causal", 0)["html"]
    assert "<img" not in html
    assert html.count("</script>") == 4, "one for each of ours"
    assert HOSTILE[0] in parameters(html)["attention"][0]["left_text"]


@pytest.mark.parametrize("view", frames.VIEWS)
def test_nothing_comes_from_the_net(view):
    html = framed(made(), view, "causal", 0)["html"]
    assert "default-src 'none'" in html
    assert "cdnjs" not in html
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", html)


def test_the_head_view_takes_all_layers_up_to_64_tokens_of_the_default():
    assert frames.layers_that_fit(large(30, 9, 64), "head", 7) == list(range(30))
    assert frames.layers_that_fit(large(30, 9, 80), "head", 7) == [7]
    assert frames.layers_that_fit(large(30, 9, 128), "head", 7) == [7]
    assert frames.layers_that_fit(large(30, 9, 200), "head", 7) == []


def test_the_model_view_takes_as_many_layers_as_can_be_drawn():
    assert frames.layers_that_fit(large(30, 9, 32), "model", 7) == list(range(30))
    kept = frames.layers_that_fit(large(30, 9, 64), "model", 7)
    assert len(kept) == 8
    assert 7 in kept
    assert kept == list(range(kept[0], kept[0] + 8))
    for layer in (0, 29):
        assert layer in frames.layers_that_fit(large(30, 9, 64), "model", layer)


def test_beyond_the_limits_are_words():
    answer = framed(large(30, 9, 200), "head", "causal", 3)
    assert list(answer) == ["words"]
    assert "360,000" in answer["words"]
    assert "layer 3 only" in framed(large(30, 9, 80), "head", "causal", 3)["words"]
    assert "one token only" in framed(made(tokens=("a",)), "head", "causal", 0)["words"]


def test_what_is_not_there_is_refused():
    with pytest.raises(UnknownNameError, match="view"):
        framed(made(), "neuron", "causal", 0)
    with pytest.raises(UnknownNameError, match="reading"):
        framed(made(), "head", "anticausal", 0)
    with pytest.raises(ConfigError, match="Layer 9"):
        framed(made(), "head", "causal", 9)


def test_another_bertviz_is_refused(monkeypatch):
    monkeypatch.setattr(frames, "packaged", lambda distribution, path: "something else")
    with pytest.raises(ConfigError, match="requirements.txt"):
        framed(made(), "head", "causal", 0)
