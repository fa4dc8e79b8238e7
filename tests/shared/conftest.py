"""A real HTTP server whose answers are scripted, for the faults that a good service never shows."""

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest

from shared.wire import decode_batch

INFO: dict[str, Any] = {
    "name": "mean_red",
    "version": "1",
    "units": "levels",
    "direction": "maximize",
    "range": [0, 255],
    "max_batch_size": 8,
    "limits": {"max_items": 64, "max_body_bytes": 2**28, "max_pixels": 2**20},
    "needs_prompt": False,
    "schema_version": 1,
}


@dataclass(frozen=True)
class Request:
    """What arrived. `body` is empty when the answer was sent before it was read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What goes back. `raw` replaces it all; `unread` answers early, `hangs` never."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    unread: bool = False
    hangs: bool = False

    def encoded(self) -> bytes:
        """The answer as it goes over the wire."""
        if self.raw is not None:
            return self.raw
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


Step = Answer | Callable[[Request], Answer]


class ScriptedService:
    """Answers `/info` with `info`, and `/score` with the next step of `script`, then with scores.

    The score of a picture is the mean of its red channel, so that order can be checked.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] = json.loads(json.dumps(INFO))
        self.info_script: list[Answer] = []
        self.script: list[Step] = []
        self.requests: list[Request] = []
        self.port = 0
        self.connections = 0
        self.gate: threading.Event | None = None  # when given, no score leaves before it is set
        self.arrived = threading.Event()  # a request for scores is there
        self.hung_up = threading.Event()  # a client left without waiting for its answer
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    @property
    def url(self) -> str:
        """Where the service listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def scored(self) -> list[Request]:
        """The requests for scores, in the order of their arrival."""
        return [request for request in self.requests if request.path == "/score"]

    def scores(self, request: Request) -> Answer:
        """The right answer to a request for scores."""
        batch = decode_batch(request.body)
        results = [{"score": float(image[..., 0].mean())} for image in batch.images]
        return self.response(results)

    def response(self, results: list[dict[str, Any]], **changes: Any) -> Answer:
        """An answer with these results."""
        body = {
            "reward": self.info["name"],
            "version": self.info["version"],
            "units": self.info["units"],
            "direction": self.info["direction"],
            "results": results,
            "durations": {"queue_s": 0.25, "batch_wait_s": 0.5, "inference_s": 1.0},
            "request_id": f"r{len(self.scored)}",
        }
        return Answer(body=body | changes)

    def refuse(self, status: int, code: str, **kwargs: Any) -> Answer:
        """An answer with an error body."""
        body = {"code": code, "message": f"because {code}", "retryable": True, "request_id": "r9"}
        return Answer(status, body, **kwargs)

    def start(self) -> None:
        """Listen on a free port, or on `port` when it is set."""
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        """Close every connection and end the thread. Idempotent."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _listen(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        pairs = [line.partition(": ") for line in lines[1:] if line]
        headers = {name.lower(): value for name, _, value in pairs}
        step = self._next_step(path)
        length = int(headers.get("content-length", "0"))
        early = isinstance(step, Answer) and step.unread
        body = b"" if early else await reader.readexactly(length)
        request = Request(method, path, headers, body)
        self.requests.append(request)
        answer = step if isinstance(step, Answer) else step(request)
        if path == "/score":
            self.arrived.set()
            while self.gate is not None and not self.gate.is_set():
                await asyncio.sleep(0.01)
        if answer.hangs and not await reader.read(1):
            self.hung_up.set()
            return False
        writer.write(answer.encoded())
        await writer.drain()
        if early:
            await reader.readexactly(length)
        return answer.raw is None

    def _next_step(self, path: str) -> Step:
        if path == "/score":
            return self.script.pop(0) if self.script else self.scores
        if path == "/info":
            return self.info_script.pop(0) if self.info_script else Answer(body=self.info)
        return self.refuse(404, "not_found")


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    """A scripted service that is listening."""
    scripted = ScriptedService()
    scripted.start()
    yield scripted
    scripted.stop()


@pytest.fixture
def new_service() -> Iterator[Callable[[int], ScriptedService]]:
    """Starts services on given ports."""
    started = []

    def start(port: int) -> ScriptedService:
        scripted = ScriptedService()
        scripted.port = port
        scripted.start()
        started.append(scripted)
        return scripted

    yield start
    for scripted in started:
        scripted.stop()


@pytest.fixture
def drop() -> Answer:
    """The connection is closed without a word."""
    return Answer(raw=b"")


@pytest.fixture
def hang() -> Answer:
    """The request is taken and never answered."""
    return Answer(hangs=True)


@pytest.fixture
def interrupted_after() -> Callable[[threading.Event], None]:
    """Arranges a Ctrl-C for the main thread, to come once an event is set."""
    main = threading.get_ident()

    def arrange(event: threading.Event) -> None:
        def interrupt() -> None:
            event.wait()
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()

    return arrange
