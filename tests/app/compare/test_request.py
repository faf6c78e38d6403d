"""What the page checks before the engine does, and requests that come in a link."""

import pytest

from app.compare.request import MAX_NEW_TOKENS, CompareRequest, from_query
from app.settings import DEFAULT_BASE, Settings, shipped_checkpoints
from bitune.errors import ConfigError

VARIANTS = ("base", "qa")


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
    with pytest.raises(ConfigError, match=f"at most {MAX_NEW_TOKENS}"):
        CompareRequest(prompt="hi", variants=["base"], max_new_tokens=MAX_NEW_TOKENS + 1)


def test_a_link_fills_in_what_it_names():
    query = {"prompt": "hi", "variants": "qa,ghost", "template": "none", "temperature": "0.5", "seed": "7", "__theme": "dark"}
    variants = ("qa", "ghost")  # the page says which of them is not here
    assert from_query(query, VARIANTS) == CompareRequest(prompt="hi", variants=variants, template="none", temperature=0.5, seed=7)


def test_a_link_that_names_no_variant_takes_all_and_one_that_names_others_takes_none():
    assert from_query({"prompt": "hi"}, VARIANTS).variants == VARIANTS
    assert from_query({"prompt": "hi", "variants": ""}, VARIANTS).variants == VARIANTS
    assert from_query({"prompt": "hi", "variants": "ghost"}, VARIANTS).variants == ("ghost",)


def test_commas_in_names_are_encoded_in_a_link():
    assert from_query({"prompt": "hi", "variants": "a%2Cb,50%25"}, ("a,b", "a", "b", "50%")).variants == ("a,b", "50%")


def test_no_prompt_no_link():
    assert from_query({"temperature": "1"}, VARIANTS) is None


BROKEN = [
    ({"seed": "x"}, "The link says seed='x', which is not a number"),
    ({"max_new_tokens": "1e3"}, "which is not a number"),
    ({"temperature": ""}, "which is not a number"),
    ({"template": "mine"}, "which is not among"),
    ({"seed": "9" * 30}, "which is above 9007199254740991"),
    ({"seed": str(2**53)}, "which is above 9007199254740991"),
    ({"seed": "9" * 5000}, "which has too many digits"),
    ({"seed": "-1"}, "which is below 0"),
    ({"temperature": "nan"}, "temperature is nan; it must be"),
    ({"temperature": "inf"}, "temperature is inf; it must be"),
    ({"top_p": "0"}, "top_p is 0"),
    ({"top_p": "nan"}, "top_p is nan"),
    ({"max_new_tokens": "0"}, "max_new_tokens is 0"),
    ({"max_new_tokens": "100000"}, "at most 512"),
]


@pytest.mark.parametrize(("query", "words"), BROKEN, ids=[str(query)[:40] for query, _ in BROKEN])
def test_a_broken_link_is_a_sentence(query, words):
    with pytest.raises(ConfigError) as caught:
        from_query({"prompt": "hi", **query}, VARIANTS)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


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
