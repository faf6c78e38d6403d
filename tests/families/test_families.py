"""Every family that transformers lists as a causal language model is refused with the reason, or equals the libraries. See docs/families.md."""

import re

import pytest
from huggingface_hub.errors import StrictDataclassError

from tests.families.page import MADE_WITH, PAGE
from tests.families.subjects import tiny_model
from tests.families.sweep import sweep
from tests.families.tiny_configs import FAMILIES, NOT_TINY

QUICK = ("bloom", "gpt2", "gemma3_text", "mamba")
long = pytest.mark.long


@pytest.mark.filterwarnings("ignore")  # some families warn about kernels and settings of their own
@pytest.mark.parametrize("family", [pytest.param(name, marks=() if name in QUICK else long) for name in FAMILIES])
def test_a_family_gives_what_the_libraries_give_or_is_refused(family):
    row = sweep(family)
    assert set(row.equal.values()) <= {"equal", "refused"}, row.line
    assert [name for name, found in row.equal.items() if found == "refused"] in ([], ["maps"])
    if row.verdict == "refused":
        assert re.fullmatch(r"\S.{20,}", row.reason)
    if MADE_WITH in PAGE.read_text(encoding="utf-8"):
        (published,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{family}` |"))
        assert published == row.line, "the page is out of date: python -m tests.families"


@long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", NOT_TINY)
def test_what_was_not_tried_cannot_be_built(family):
    with pytest.raises((AttributeError, ImportError, StrictDataclassError)):
        tiny_model(family)


def test_the_page_has_a_row_for_each_family_of_the_version_that_it_names():
    text = PAGE.read_text(encoding="utf-8")
    assert re.search(r"\btransformers \d+\.\d+\.\d+\b", text)
    rows = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert len(set(rows)) == len(rows) > 100
    if MADE_WITH in text:
        assert rows == list(FAMILIES)
