"""Serving an ASGI application on a port that is taken first, opened last and closed gently."""

import asyncio
import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from reward_services.http_protocol import BoundedProtocol
from reward_services.readiness import Phase, Readiness
from reward_services.settings import ServiceSettings, SettingsError

log = structlog.get_logger("reward_services.http")


class DrainingServer(uvicorn.Server):
    """Turns /readyz to 503 first, and stops accepting connections `drain_delay_s` later.

    In between, balancers learn to send work elsewhere. A second signal skips the delay, and so
    does Ctrl-C; Ctrl-C again breaks off the requests in flight.

    Args:
        app: the application.
        settings: how long draining takes.
        readiness: whose phase is set.
        on_drain: called once when a signal has come. The port then stays open for health checks
            until somebody sets `should_exit`, or a second signal comes.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServiceSettings,
        readiness: Readiness,
        on_drain: Callable[[], None] | None = None,
    ) -> None:
        # Starting and stopping are logged here, in one line each.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        )
        super().__init__(config)
        self._readiness = readiness
        self._on_drain = on_drain
        self._delay_s = settings.drain_delay_s if on_drain is None else math.inf
        self._stop_at = math.inf
        self._saying: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, and only then say so."""
        await super().startup(sockets)
        for listener in sockets or []:
            url = address(listener)
            log.info("listening", url=url)
            self._saying = asyncio.create_task(self._say_when_ready(url))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, and let requests in flight end."""
        if self._saying is not None:
            self._saying.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. Unlike uvicorn's own, ends the process with exit code 0."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        elif sig == signal.SIGINT or self._readiness.phase is Phase.DRAINING:
            self.should_exit = True
        self._readiness.phase = Phase.DRAINING
        self._stop_at = min(self._stop_at, time.monotonic() + self._delay_s)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to stop accepting connections."""
        if self._on_drain is not None and self._readiness.phase is Phase.DRAINING:
            self._on_drain()
            self._on_drain = None
        self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter)

    async def _say_when_ready(self, url: str) -> None:
        await self._readiness.opened.wait()
        log.info("ready", url=url)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process on the event loop that uvicorn prefers."""
    factory = uvicorn.Config(app="").get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def bind(host: str, port: int) -> socket.socket:
    """Take a port without opening it yet; 0 takes a free one.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {_url(host, port)}: {error.strerror}; "
            "choose another --port or --host"
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """Where a bound socket is reached."""
    return _url(*listener.getsockname()[:2])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
