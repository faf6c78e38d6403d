"""Strategies that damage files as people and disks do: JSON, JSON Lines, safetensors and plain bytes. Know no bitune.

Each takes the content of a file that is well and gives that of one that may not be; `within` ends a case that hangs.
"""

import contextlib
import json
import signal
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping

import hypothesis
from hypothesis import HealthCheck
from hypothesis import strategies as st

# Hypothesis keeps files of its own beside the tests otherwise, also without a database.
hypothesis.configuration.set_hypothesis_home_dir(tempfile.mkdtemp(prefix="hypothesis-"))

BUSY = 10  # times as long may a case take on a machine that does something else meanwhile

# JSON texts, not values: some can be written and not be held.
NUMBERS = [
    "0",
    "1",
    "-1",
    "2",
    "4",
    "3.5",
    "-0.0",
    "1e-320",
    "1e-45",
    "1e38",
    "1e39",
    "1e308",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
]
NUMBERS += ["1000000000", "9223372036854775808", "1" + "0" * 400, "1" + "0" * 5000]
TEXTS = ['""', '"4"', '"0.01"', '"NaN"', '"causal"', '"q_proj"', '"all-linear"', '"a b"', '"../x"', '"a\\u0000b"', '"\\ud800"']
TEXTS += ['"' + "a" * 100_000 + '"', '"{prompt}"', '"{prompt}{prompt}"', '"LORA"', '"IA3"', '"none"', '"\\u2028"', '"\u4e2d"']
PATTERNS = [
    '"("',
    '".*"',
    '".*q_proj"',
    '"(.*)*x"',
    '"(\\\\w+\\\\.?)+:"',
    '"[["',
    '"a{99999999999}"',
    '"(?:q|v)_proj"',
    '"' + "(" * 2000 + '"',
]
OTHERS = [
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[[]]",
    '["q_proj"]',
    '{"a": 1}',
    '{"q_proj": 2}',
    "[1, 2]",
    '["q_proj", 3]',
    '[""]',
]
OTHERS += ["[" * 500 + "]" * 500, "[" * 100_000 + "]" * 100_000, '{"a":' * 70 + "1" + "}" * 70, '{"a": 1, "a": 2}']
OTHERS += [
    "[" + ", ".join(f'"m{i}"' for i in range(30_000)) + "]",
    "{" + ", ".join(f'"m{i}": 2' for i in range(2_000)) + "}",
    "",
    "x",
]
VALUES = [*NUMBERS, *TEXTS, *PATTERNS, *OTHERS]
_CHARACTERS = "aB0_.-*{}()[]\\ \n\t\u00e4\u4e2d"  # a fixed few: Hypothesis takes seconds to list all of Unicode
_PLACE = "\x01here\x01"


def settings(examples: int) -> hypothesis.settings:
    """The same cases in every run; how long one may take says `within`, not Hypothesis."""
    return hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """AssertionError where the block takes longer, and not because the machine was busy with others meanwhile; main thread only."""
    begun, used = time.monotonic(), time.process_time()

    def stop(*_):
        if time.process_time() - used < seconds and time.monotonic() - begun < BUSY * seconds:
            signal.setitimer(signal.ITIMER_REAL, seconds / 4)
            return
        raise AssertionError(f"it hangs: longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths of all values inside a JSON value, itself included."""
    found = [path]
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += _places(inner, (*path, key))
    return found


@st.composite
def changed_value(draw, value: object) -> str:
    """The JSON text of a value of which something was replaced, removed, doubled or added."""
    path = draw(st.sampled_from(_places(value)))
    value = json.loads(json.dumps(value))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    text = draw(
        st.sampled_from(VALUES)
        | st.floats().map(json.dumps)
        | st.integers().map(str)
        | st.text(_CHARACTERS, max_size=8).map(json.dumps)
    )
    action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "add"])) if path else "add"
    if action == "remove":
        del holder[path[-1]]
    elif action == "double" and isinstance(path[-1], str):
        holder[_PLACE] = holder[path[-1]]
        return json.dumps(value).replace(json.dumps(_PLACE), json.dumps(path[-1]))
    elif action == "add" and isinstance(value, dict):
        value[draw(st.sampled_from(["extra", "", "__metadata__", "use_dora", "\u00e4"]))] = _PLACE
    elif path:
        holder[path[-1]] = _PLACE
    else:
        return text
    return json.dumps(value).replace(json.dumps(_PLACE), text)


@st.composite
def changed_bytes(draw, content: bytes) -> bytes:
    """Bytes cut, overwritten, inserted, or all replaced."""
    at = draw(st.integers(0, len(content)))
    new = draw(st.binary(max_size=12) | st.sampled_from([b"\xef\xbb\xbf", b"\x00" * 40, b"\xff\xfe", b"}", b'"', b"\n", b"{}"]))
    kind = draw(st.sampled_from(["cut", "overwrite", "insert", "front", "all"]))
    if kind == "cut":
        return content[:at]
    if kind == "overwrite":
        return content[:at] + new + content[at + len(new) :]
    return {"insert": content[:at] + new + content[at:], "front": new + content, "all": new}[kind]


@st.composite
def changed_json(draw, content: bytes) -> bytes:
    """A JSON file with one value changed, or as bytes."""
    if draw(st.integers(0, 7)) == 0:
        return draw(changed_bytes(content))
    return draw(changed_value(json.loads(content))).encode()


@st.composite
def changed_lines(draw, content: bytes) -> bytes:
    """A file of JSON Lines with one line changed, removed or doubled, or as bytes."""
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    kind = draw(st.sampled_from(["value", "value", "value", "bytes", "remove", "double"]))
    if kind == "bytes":
        return draw(changed_bytes(content))
    new = {"remove": [], "double": [lines[at]] * 2}
    put = [draw(changed_value(json.loads(lines[at]))).encode()] if kind == "value" else new[kind]
    return b"\n".join([*lines[:at], *put, *lines[at + 1 :]]) + b"\n"


_DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "F4", "X"]
_SPECIAL = [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00", b"\x00\x00\x00\x00"]  # float32


@st.composite
def changed_safetensors(draw, content: bytes) -> bytes:
    """A safetensors file with its header, the header's length, its numbers or its bytes changed."""
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8:start]), content[start:]
    kind = draw(st.sampled_from(["value", "value", "value", "dtype", "shape", "name", "number", "length", "bytes"]))
    if kind == "bytes":
        return draw(changed_bytes(content))
    if kind == "length":
        return struct.pack("<Q", draw(st.integers(0, 2**64 - 1) | st.integers(0, 2 * len(content)))) + content[8:]
    if kind == "number":
        at = 4 * draw(st.integers(0, len(data) // 4 - 1))
        return content[: start + at] + draw(st.sampled_from(_SPECIAL) | st.binary(min_size=4, max_size=4)) + data[at + 4 :]
    if kind == "value":
        text = draw(changed_value(header))
    else:
        name = draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))
        if kind == "dtype":
            header[name]["dtype"] = draw(st.sampled_from(_DTYPES))
        elif kind == "shape":
            shape = header[name]["shape"]
            header[name]["shape"] = draw(st.sampled_from([shape[::-1], [*shape, 1], [0, *shape], shape[1:], [2**62, *shape]]))
        else:
            other = draw(st.sampled_from([name + "x", "", "theta_k", name.replace("0", "9"), name.replace("lora_A", "lora_B")]))
            header[other] = header.pop(name)
        text = json.dumps(header)
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


_BY_KIND = {".json": changed_json, ".jsonl": changed_lines, ".safetensors": changed_safetensors}


@st.composite
def changed_files(draw, files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """One or two files of a folder changed: path -> new content, None for one that is gone.

    `files`: path -> content, of the kinds .json, .jsonl, .safetensors; any other kind is changed as bytes.
    """
    names = draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True))
    changed = {}
    for name in names:
        strategy = _BY_KIND.get("." + name.rpartition(".")[2], changed_bytes)
        changed[name] = None if draw(st.integers(0, 29)) == 0 else draw(strategy(files[name]))
    return changed
