"""Connections on which no request comes end, and those that bring one do not: on a real server."""

import asyncio
import socket
import threading
import time

import httpx
import pytest
import uvicorn

from app.guard.address import networks
from app.guard.heads import bound_heads

SECONDS = 1.0
MOST = 5


async def app(scope, receive, send):
    """Reads the body, waits if it is asked to, and answers how many bytes it had."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * SECONDS)
    await send({"type": "http.response.body", "body": str(size).encode()})


def served(proxies: tuple = ()):
    """(server, thread, port), with heads bounded."""
    config = uvicorn.Config(app, port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    config.load()
    bound_heads(config, MOST, proxies, SECONDS)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    return server, thread, server.servers[0].sockets[0].getsockname()[1]


@pytest.fixture
def port():
    server, thread, port = served()
    yield port
    server.should_exit = True
    thread.join(30)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\n"])
def test_a_connection_without_a_whole_head_is_closed(port, sent):
    with connected(port) as one:
        one.sendall(sent)
        assert one.recv(100) == b""


def test_more_bytes_of_a_head_win_no_time(port):
    with connected(port) as one:
        one.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for _ in range(100):
                one.sendall(b"x: y\r\n")
                time.sleep(SECONDS / 5)


def test_so_many_of_one_address_and_others_are_answered_meanwhile(port):
    waiting = [connected(port) for _ in range(MOST)]
    with connected(port) as another:
        assert another.recv(100) == b"", "at once, not after the seconds"
        for one in waiting:
            one.close()
    assert httpx.post(f"http://127.0.0.1:{port}/", content=b"abc").text == "3"


def test_a_proxy_may_have_more():
    server, thread, port = served(networks(["127.0.0.1"]))
    waiting = [connected(port) for _ in range(MOST)]
    assert httpx.get(f"http://127.0.0.1:{port}/").text == "0"
    for one in waiting:
        one.close()
    server.should_exit = True
    thread.join(30)


def test_a_slow_body_and_a_slow_answer_have_their_time(port):
    with connected(port) as one:
        one.sendall(b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na")
        time.sleep(2 * SECONDS)
        one.sendall(b"b")
        received = b""
        while not received.endswith(b"0\r\n\r\n") and (more := one.recv(1000)):
            received += more
        assert b"200 OK" in received and b"\r\n2\r\n" in received
        one.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")  # the connection is still there, for a while
        assert b"200 OK" in one.recv(1000)
        one.sendall(b"GET / HT")
        while one.recv(1000):
            pass


def test_uvicorn_makes_connections_by_its_config_and_they_tell_whether_a_request_is_here():
    """What app/guard/heads.py relies on: `http_protocol_class` of a config; `connections`, `client` and `cycle` of a connection."""
    config, made = uvicorn.Config(app, port=0, log_level="warning", lifespan="off"), []
    config.load()

    class Seen(config.http_protocol_class):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(self)

    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    config.http_protocol_class = Seen  # as serve does, when the server runs
    with connected(server.servers[0].sockets[0].getsockname()[1]) as one:
        one.sendall(b"GET /slow HT")
        time.sleep(0.2)
        assert len(made) == 1, "uvicorn takes the class of its connections from elsewhere: no connection would be bounded"
        (seen,) = made
        assert seen in seen.connections and seen.client[0] == "127.0.0.1", "who else is connected is told otherwise"
        assert seen.cycle is None, "a connection without a whole head would count as a request"
        one.sendall(b"TP/1.1\r\nhost: a\r\n\r\n")
        time.sleep(0.2)
        assert seen.cycle is not None and not seen.cycle.response_complete, "a slow answer would be cut off"
        received = b""
        while not received.endswith(b"0\r\n\r\n") and (more := one.recv(1000)):
            received += more
        assert seen.cycle.response_complete, "a connection whose answer is complete would stay for ever"
    server.should_exit = True
    thread.join(30)
