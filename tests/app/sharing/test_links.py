"""The page as text behind the # of an address: there and back, and whatever somebody else may have put there."""

import json
import zlib
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sharing.links import LINK_CHARACTERS, START, STATE_BYTES, decode, encode
from bitune.errors import ConfigError
from tests.mutations import settings, within

STATE = {"tab": "attention", "compare": {"prompt": "</script> \u4f60 #%", "variants": ["a,b", "50%"]}, "attention": {"layer": 3}}


def packed(content: bytes) -> str:
    """What a link would hold if its JSON were this."""
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return START + urlsafe_b64encode(packing.compress(content) + packing.flush()).decode().rstrip("=")


def test_there_and_back():
    text = encode(STATE)
    assert decode("#" + text) == decode(text) == STATE
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=."), (
        "nothing that a program would escape"
    )
    assert len(encode({"compare": {"prompt": "a long prompt. " * 1000}})) < 500, "long states are compressed"


@pytest.mark.parametrize("fragment", ["", "#", "#results", "#view=page=1.x"])
def test_what_is_no_link_of_this_page_is_none(fragment):
    assert decode(fragment) is None


@pytest.mark.parametrize(
    ("fragment", "words"),
    [
        ("#page=2.abc", "of version 2"),
        ("#page=", "damaged"),
        ("#page=1.", "damaged"),
        ("#page=1.\u4f60", "damaged"),
        ("#" + encode(STATE)[:-9], "damaged"),
        ("#" + encode(STATE) + "AAAA", "damaged"),
        (packed(b"[1]"), "damaged"),
        (packed(b"\xff"), "damaged"),
        (packed(b'{"a":1,"a":2}'), "damaged"),
        (packed(b'{"a":"\\ud800"}'), "damaged"),
        (packed(b'{"a":' * 100 + b"1" + b"}" * 100), "damaged"),
        (packed(b"[" * 400_000), "damaged"),
        (packed(b"0" * (STATE_BYTES + 1)), "damaged"),
        (packed(b" " * 40_000_000 + b"{}"), "damaged"),
        ("#page=1." + "A" * LINK_CHARACTERS, "damaged"),
    ],
    ids=range(15),
)
def test_a_damaged_link_is_a_sentence_at_once(fragment, words):
    with within(2), pytest.raises(ConfigError, match=words) as caught:
        decode(fragment)
    assert len(str(caught.value)) < 200


@settings(300)
@given(
    st.one_of(st.text(), st.binary().map(lambda content: START + urlsafe_b64encode(content).decode()), st.binary().map(packed))
)
def test_any_text_is_a_state_none_or_a_sentence(fragment):
    try:
        state = decode(fragment)
    except ConfigError:
        return
    assert state is None or json.loads(json.dumps(state)) == state


def test_what_is_too_long_or_no_text_is_not_made_a_link():
    with pytest.raises(ConfigError, match="65,536 are the most"):
        encode({"prompt": "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(60_000))})
    with pytest.raises(ConfigError, match="surrogate"):
        encode({"prompt": "a\ud800"})
