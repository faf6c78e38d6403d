"""What the page checks before the engine does, and requests that come in a link."""

import pytest

from app.compare.link import Link, from_query
from app.compare.request import MAX_NEW_TOKENS, CompareRequest
from app.settings import DEFAULT_BASE, Settings, shipped_checkpoints
from app.ui.validation import as_far_as_valid
from bitune.errors import ConfigError


def test_whole_numbers_may_come_as_floats():
    request = CompareRequest(prompt="hi", variants=["base"], max_new_tokens=8.0, seed=3.0)
    assert (request.max_new_tokens, request.seed) == (8, 3)
    assert isinstance(request.max_new_tokens, int)
    assert request.variants == ("base",)


def test_numbers_that_make_no_sense_are_left_for_the_engine():
    assert CompareRequest(prompt="hi", variants=["base"], max_new_tokens="many", seed=float("nan")).max_new_tokens == "many"


@pytest.mark.parametrize("variants", ["base", None, 3, {"base": 1}, [["base"]], ["base", None]])
def test_variants_must_be_names(variants):
    with pytest.raises(ConfigError, match="list of names"):
        CompareRequest(prompt="hi", variants=variants)


def test_the_page_has_a_limit_of_its_own():
    with pytest.raises(ConfigError, match=f"no page allows more than {MAX_NEW_TOKENS:,}"):
        CompareRequest(prompt="hi", variants=["base"], max_new_tokens=MAX_NEW_TOKENS + 1)


def linked(query: dict[str, str]) -> tuple[Link, list[str]]:
    """The fields that such an address fills in, and what is said of the others."""
    return as_far_as_valid(Link, from_query({"prompt": "hi", **query}), "The link")


def test_a_link_fills_in_what_it_names():
    query = {"variants": "qa,ghost", "template": "none", "temperature": "0.5", "seed": "7", "__theme": "dark"}
    variants = ["qa", "ghost"]  # the page says which of them is not here
    assert linked(query) == (Link(prompt="hi", variants=variants, template="none", temperature=0.5, seed=7), [])


def test_a_link_that_names_no_variant_leaves_the_choice():
    assert linked({})[0].variants is None
    assert linked({"variants": ""})[0].variants is None
    assert linked({"variants": "ghost"})[0].variants == ["ghost"]


def test_commas_in_names_are_encoded_in_a_link():
    assert linked({"variants": "a%2Cb,50%25"})[0].variants == ["a,b", "50%"]


def test_no_prompt_no_link():
    assert from_query({"temperature": "1"}) is None


BROKEN = [
    ({"seed": "x"}, "The link says seed='x', which is not a number"),
    ({"max_new_tokens": "1e3"}, "which is not a number"),
    ({"temperature": ""}, "which is not a number"),
    ({"template": "mine"}, "which is not among"),
    ({"seed": "9" * 30}, "which is above 9007199254740991"),
    ({"seed": str(2**53)}, "which is above 9007199254740991"),
    ({"seed": "9" * 5000}, "which has too many digits"),
    ({"seed": "-1"}, "which is below 0"),
    ({"temperature": "nan"}, "temperature='nan', which is not a number"),
    ({"temperature": "inf"}, "temperature='inf', which is not a number"),
    ({"temperature": "2.5"}, "which is above 2.0"),
    ({"top_p": "0"}, "which is below 0.05"),
    ({"top_p": "nan"}, "top_p='nan', which is not a number"),
    ({"max_new_tokens": "0"}, "which is below 1"),
    ({"max_new_tokens": "100000"}, "which is above 8192"),
    ({"variants": "x" * 300}, "which is longer than 200 characters"),
    ({"variants": ",".join(["x"] * 100_000)}, "which has more than 64 entries"),
]


@pytest.mark.parametrize(("query", "words"), BROKEN, ids=[str(query)[:40] for query, _ in BROKEN])
def test_what_is_broken_in_a_link_is_a_sentence_and_the_rest_is_restored(query, words):
    link, (sentence,) = linked({"template": "none", **query})
    assert words in sentence
    assert len(sentence) < 200
    assert link.prompt == "hi"
    assert link.template == (None if "template" in query else "none")


def test_flags_come_before_the_environment():
    environment = {
        "BITUNE_BASE": "other",
        "BITUNE_DTYPE": "int8",
        "BITUNE_CHECKPOINTS": "a/b,c",
        "GRADIO_SERVER_PORT": "8000",
        "GRADIO_MCP_SERVER": "True",
    }
    settings = Settings.from_command_line([], environment)
    assert (settings.base, settings.checkpoints, settings.port, settings.mcp) == ("other", ("a/b", "c"), 8000, True)
    assert settings.chosen and settings.dtype == "int8"
    flags = ["--base", "mine", "--dtype", "float32", "--checkpoint", "x", "--checkpoint", "y", "--host", "0.0.0.0", "--port", "1"]
    settings = Settings.from_command_line(flags, environment)
    assert settings.dtype == "float32"
    assert (settings.base, settings.checkpoints, settings.host, settings.port) == ("mine", ("x", "y"), "0.0.0.0", 1)


def test_without_a_word_the_default_base_and_what_is_shipped():
    settings = Settings.from_command_line([], {})
    assert settings == Settings(DEFAULT_BASE, shipped_checkpoints())
    assert not settings.chosen


def test_a_port_is_a_port():
    with pytest.raises(ConfigError, match="65535"):
        Settings(port=70000)
