"""The page as text behind the # of an address: JSON, deflated, in base64url. Knows no Gradio.

A browser does not send this part of an address, so what is in it reaches no log of a server or proxy. Links of before, with their
fields in the query, are read by app/compare/link.py.
"""

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

from bitune.errors import ConfigError
from bitune.files import parse_json

VERSION = "1"
START = f"page={VERSION}."
LINK_CHARACTERS = 64 * 1024
"""Of a whole link. Browsers take more, what people paste links into often less."""
STATE_BYTES = 512 * 1024
"""Of the JSON in it: a prompt of 100,000 tokens, or what a damaged or hostile link may unpack to."""

DAMAGED = "The link is damaged or cut short, so nothing comes from it; ask for it again."


def encode(state: Mapping[str, object]) -> str:
    """`state`, plain JSON, as the text behind the #; ConfigError where that is too long for a link, or no text.

    Args:
        state: By the ids of the page's tabs, and what belongs to none.
    """
    try:
        content = json.dumps(state, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ConfigError("Something on the page holds half of a surrogate pair, which is not text; remove it.") from error
    packed = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    text = START + urlsafe_b64encode(packed.compress(content) + packed.flush()).decode("ascii").rstrip("=")
    if len(text) > LINK_CHARACTERS or len(content) > STATE_BYTES:
        raise ConfigError(
            f"What is on the page makes a link of {len(text):,} characters, and {LINK_CHARACTERS:,} are the most; shorten the prompts, or "
            "save the run as a file."
        )
    return text


def decode(fragment: str) -> dict[str, object] | None:
    """The other way.

    Args:
        fragment: What stands behind the # of an address, of whatever origin.

    Returns:
        None where it is no link of this page.

    Raises:
        ConfigError: It is one, but damaged, too large, or of another version.
    """
    name, _, value = fragment.removeprefix("#").partition("=")
    if name != "page":
        return None
    version, _, packed = value.partition(".")
    if version != VERSION and version.isdecimal():
        raise ConfigError(f"The link is of version {version[:9]}, and this page reads version {VERSION}; update the page.")
    if version != VERSION or len(fragment) > LINK_CHARACTERS:
        raise ConfigError(DAMAGED)
    try:
        unpacking = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        content = unpacking.decompress(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), STATE_BYTES + 1)
        if len(content) > STATE_BYTES or not unpacking.eof or unpacking.unused_data:
            raise ConfigError(DAMAGED)
        state = parse_json(content.decode())
    except (ValueError, zlib.error) as error:
        raise ConfigError(DAMAGED) from error
    if not isinstance(state, dict):
        raise ConfigError(DAMAGED)
    return state
