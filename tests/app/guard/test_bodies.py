"""How much JSON a body holds is counted as Python's own parser would, without parsing."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.guard.answers import LONGEST, STOPPED, cut, cut_event, cut_text
from app.guard.bodies import RefusedError, check
from app.limits import Limits

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=40,
)


def levels(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max(map(levels, inner), default=0) + isinstance(value, dict | list)


def count(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, inner))


@given(VALUES, st.booleans())
def test_what_holds_less_than_the_limits_passes_and_what_has_more_levels_does_not(value, escaped):
    body = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    deep = max(levels(value), 1)
    check(body, Limits(body_levels=deep, body_values=3 * count(value) + 3))
    if levels(value) > 1:
        with pytest.raises(RefusedError, match="levels"):
            check(body, Limits(body_levels=levels(value) - 1))


@given(st.binary(max_size=200))
def test_anything_else_is_let_through_or_refused_with_a_sentence(body):
    try:
        check(body, Limits())
    except RefusedError as refused:
        assert refused.status in (400, 413) and str(refused).endswith(".")


@pytest.mark.parametrize("body", [b'"' * 10**6, b'\\"' * 10**6, b'"\\' * 10**6, b"[" * 10**6, b'{"a":' * 10**5, b'"a' * 10**6])
def test_no_body_takes_long_to_look_at(body):
    with contextlib.suppress(RefusedError):
        check(body, Limits())  # in the square of its length it would take an hour


@given(VALUES)
def test_a_cut_answer_is_short_and_still_json(value):
    body = json.dumps({"detail": value}).encode()
    if len(body) <= LONGEST:
        assert cut_text(body) is body
    assert json.loads(json.dumps(cut(value))) is not ... and len(json.dumps(cut({"detail": value}))) < 10**6
    event = b'data: {"msg": "process_completed", "success": true, "output": ' + body + b"}\n\n"
    assert cut_event(event) is event, "an answer that is no error stays as it is"


def test_the_end_of_the_server_is_told_without_its_paths():
    cancelled = (
        "Cancelled via cancel scope 7f by <Task pending coro=<RequestResponseCycle.run_asgi() running at lib/h11_impl.py:411>>"
    )
    message = {"msg": "unexpected_error", "event_id": None, "message": cancelled, "session_not_found": False, "success": False}
    told = cut_event(b"data: " + json.dumps(message, separators=(",", ":")).encode() + b"\n\n")
    assert json.loads(told.removeprefix(b"data: ")) == message | {"message": STOPPED}
    assert (
        cut_event(f"event: error\ndata: {json.dumps(cancelled)}\n\n".encode()) == f'event: error\ndata: "{STOPPED}"\n\n'.encode()
    )


def test_errors_are_cut():
    assert len(cut_text(b"x" * 10**6)) < LONGEST
    assert len(cut_text(json.dumps({"detail": [{"input": "x" * 10**6, "msg": "wrong"}]}).encode())) < LONGEST
    told = cut_event(b'data: {"msg":"process_completed","output":{"error":"' + b"x" * 10**6 + b'"},"success":false}\n\n')
    assert told.startswith(b"data: ") and told.endswith(b"\n\n") and len(told) < LONGEST
    told = cut_event(b'event: error\ndata: "' + b"x" * 10**6 + b'"\n\n')
    assert told.startswith(b'event: error\ndata: "xxx') and len(told) < LONGEST
