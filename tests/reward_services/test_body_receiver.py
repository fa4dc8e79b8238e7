"""Large bodies on real connections, on the event loop of uvicorn's choice and on Python's own."""

import asyncio
import hashlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reward_services.http_protocol import BoundedProtocol
from reward_services.metrics import Metrics
from reward_services.request_body import DIRECT_BYTES, ByteBudget, receive_body

BODY = np.random.default_rng(0).integers(0, 256, 4 * DIRECT_BYTES + 7).astype(np.uint8).tobytes()
MOST = 2 * len(BODY)


class Echo:
    """An application that answers with the hash of what it received."""

    def __init__(self) -> None:
        self.budget = ByteBudget(MOST, Metrics("echo").inflight_bytes)
        self.gone = threading.Event()
        self.waiting = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        patience = float(request.headers.get("patience", 30))
        try:
            with self.budget.share() as share:
                self.waiting.set()
                async with asyncio.timeout(patience):
                    body = await receive_body(request, MOST, share)
            response = Response(digest(body))
        except ClientDisconnect:
            self.gone.set()
            return
        except TimeoutError:
            response = Response(status_code=408)
        await response(scope, receive, send)


def digest(body: bytes | memoryview) -> str:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}"


class EchoServer:
    """The application behind this project's protocol, in a thread."""

    def __init__(self, loop: str) -> None:
        self.app = Echo()
        self._listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            self.app, http=BoundedProtocol, lifespan="off", log_config=None, loop=loop
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def connect(self) -> socket.socket:
        return socket.create_connection(self._listener.getsockname(), timeout=30)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with EchoServer(request.param) as running:
        yield running


def head(size: int, *lines: str) -> bytes:
    return "\r\n".join(
        ["POST / HTTP/1.1", "host: x", f"content-length: {size}", *lines, "", ""]
    ).encode()


def answer(connection: socket.socket) -> tuple[int, str]:
    """Status and body of the next answer; nothing of the one after it is read."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += connection.recv(1) or pytest.fail(f"closed after {received!r}")
    lines = received.decode().lower().split("\r\n")
    (length,) = [int(line.split(":")[1]) for line in lines if line.startswith("content-length")]
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(lines[0].split()[1]), body.decode()


@pytest.mark.parametrize("size", [0, 1, DIRECT_BYTES - 1, DIRECT_BYTES, len(BODY)])
@pytest.mark.parametrize("piece", [999, 70_000, 10**9])
def test_bodies_of_all_sizes_in_all_pieces(server: EchoServer, size: int, piece: int) -> None:
    """Several on one connection, so that each has to end where the next begins."""
    with server.connect() as connection:
        for _ in range(3):
            message = head(size) + BODY[:size]
            for start in range(0, len(message), piece):
                connection.sendall(message[start : start + piece])
            assert answer(connection) == (200, digest(BODY[:size]))


def test_requests_one_after_the_other_without_waiting(server: EchoServer) -> None:
    sizes = [len(BODY), 5, DIRECT_BYTES, 0, len(BODY) - 1]
    with server.connect() as connection:
        everything = b"".join(head(size) + BODY[:size] for size in sizes)
        sending = threading.Thread(target=connection.sendall, args=(everything,))
        sending.start()
        assert [answer(connection) for _ in sizes] == [(200, digest(BODY[:n])) for n in sizes]
        sending.join()


def test_a_client_that_waits_to_be_asked(server: EchoServer) -> None:
    with server.connect() as connection:
        connection.sendall(head(len(BODY), "expect: 100-continue"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert answer(connection) == (200, digest(BODY))


@pytest.mark.parametrize("sent", [0, 10, DIRECT_BYTES + 1])
def test_a_client_that_leaves(server: EchoServer, sent: int) -> None:
    server.app.gone.clear()
    server.app.waiting.clear()
    with server.connect() as connection:
        connection.sendall(head(len(BODY)) + BODY[:sent])
        assert server.app.waiting.wait(30)
    assert server.app.gone.wait(30)
    with server.connect() as connection:
        connection.sendall(head(len(BODY)) + BODY)
        assert answer(connection) == (200, digest(BODY))


@pytest.mark.parametrize("sent", [0, DIRECT_BYTES + 1])
def test_what_comes_too_late_is_dropped_and_the_connection_goes_on(
    server: EchoServer, sent: int
) -> None:
    with server.connect() as connection:
        connection.sendall(head(len(BODY), "patience: 0.05") + BODY[:sent])
        assert answer(connection)[0] == 408
        connection.sendall(BODY[sent:])
        connection.sendall(head(len(BODY)) + BODY)
        assert answer(connection) == (200, digest(BODY))
