"""The guard as ASGI, around an application that tells what it was asked: what a server and Gradio see of it."""

import asyncio
import json

import pytest

from app.guard.address import networks
from app.guard.layer import Doorkeeper, Guard
from app.limits import Limits


async def echo(scope, receive, send):
    """What arrived: path, headers and body, as JSON."""
    message = await receive() if scope["method"] == "POST" else {"body": b""}
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    told = {"path": scope["path"], "headers": headers, "body": message["body"].decode()}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def asked(path, messages=(), *, method="GET", headers=(), client=("203.0.113.9", 1), mcp=True):
    """The messages with which the guard answers a request."""
    scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "client": client}
    incoming, outgoing = list(messages) or [{"type": "http.request", "body": b"", "more_body": False}], []

    async def receive():
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message):
        outgoing.append(message)

    keeper = Doorkeeper(Limits(body_bytes=100), networks(["10.0.0.0/8"]), mcp=mcp)
    asyncio.run(Guard(echo, keeper)(scope, receive, send))
    assert not keeper.open and not keeper.working
    return outgoing


def piece(body: bytes, *, more: bool) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize(
    ("client", "written", "seen"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "1.2.3.4", "2001:db8::1"),
    ],
)
def test_gradio_sees_who_an_agent_is_when_it_asks_itself(client, written, seen):
    headers = [(b"X-Forwarded-For", written.encode()), (b"accept", b"x")]
    answer = asked("/gradio_api/mcp/", headers=headers, client=(client, 1))
    assert json.loads(answer[-1]["body"])["headers"] == {"accept": "x", "x-forwarded-for": seen}
    untouched = asked("/gradio_api/info", headers=headers, client=(client, 1))
    assert json.loads(untouched[-1]["body"])["headers"]["X-Forwarded-For"] == written


def test_agents_are_let_in_only_where_they_are_served():
    assert asked("/gradio_api/mcp/", mcp=False)[0]["status"] == 404
    assert asked("/gradio_api/mcp/sse", mcp=True)[0]["status"] == 200


def test_a_body_in_pieces_arrives_in_one():
    answer = asked("/gradio_api/cancel", [piece(b'{"a"', more=True), piece(b": 1}", more=False)], method="POST")
    assert json.loads(answer[-1]["body"])["body"] == '{"a": 1}'


@pytest.mark.parametrize("pieces", [[b"x" * 101], [b"x" * 60] * 2, [b"x"] * 101, [b"x" * 50] * 1000])
def test_one_byte_too_many_is_refused(pieces):
    messages = [piece(body, more=number < len(pieces) - 1) for number, body in enumerate(pieces)]
    start, *bodies = asked("/gradio_api/cancel", messages, method="POST")
    assert start["status"] == 413 and (b"connection", b"close") in start["headers"]
    assert "100 bytes" in json.loads(b"".join(body["body"] for body in bodies))["detail"]


@pytest.mark.parametrize("length", ["101", "-1", "1e3", "9" * 30, "", "ten"])
def test_so_is_a_length_that_is_too_large_or_none(length):
    start, *_ = asked("/gradio_api/cancel", method="POST", headers=[(b"content-length", length.encode())])
    assert start["status"] == 413


def test_nobody_is_answered_who_left():
    assert asked("/gradio_api/cancel", [piece(b"x", more=True), {"type": "http.disconnect"}], method="POST") == []


def test_there_are_no_web_sockets():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(echo, Doorkeeper(Limits()))({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
