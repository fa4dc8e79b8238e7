"""Receiving a large request body straight into its place.

uvicorn hands a body on in pieces of at most 256 KB, each copied four times and each a turn of the
event loop: 0.35 ms of CPU more for a picture of 512×512. Here the event loop reads from the socket
into the buffer, while uvicorn's own protocol stands aside. An application finds `receive_into` in
its scope, as an extension of ASGI named `RECEIVE_INTO`.
"""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

RECEIVE_INTO = "reward_services.receive_into"
SCRATCH_BYTES = 64 * 1024


async def receive_into(
    protocol: HttpToolsProtocol, cycle: RequestResponseCycle, buffer: memoryview
) -> bool:
    """Receive the whole body of a request. When cancelled, the rest of it is read and dropped.

    Args:
        protocol: of the connection.
        cycle: the request, of whose body nothing has been asked for yet.
        buffer: as long as its Content-Length says.

    Returns:
        Whether the body came; if not, the client went away.
    """
    if cycle.disconnected or protocol.transport.is_closing():
        return False
    start = len(cycle.body)
    buffer[:start] = cycle.body
    cycle.body = bytearray()
    if not cycle.more_body:
        return True
    cycle.message_event.clear()
    if cycle.waiting_for_100_continue:
        cycle.waiting_for_100_continue = False
        protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return await _BodyReceiver(protocol, cycle, buffer[start:]).receive()


class _BodyReceiver(asyncio.BufferedProtocol):
    """In the place of `protocol` until the rest of a body, as long as `buffer`, has come."""

    def __init__(
        self, protocol: HttpToolsProtocol, cycle: RequestResponseCycle, buffer: memoryview
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._rest: memoryview | None = buffer
        self._left = len(buffer)
        self._end = asyncio.Event()

    async def receive(self) -> bool:
        """See `receive_into`."""
        self._cycle.flow.resume_reading()
        self._take_over(self)
        try:
            await self._end.wait()
        finally:
            # From now on the buffer belongs to somebody else, or to nobody.
            self._rest = None
        return self._left == 0

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        """Where the event loop is to write what it reads next."""
        del sizehint
        if self._rest is None:
            return bytearray(min(self._left, SCRATCH_BYTES))
        return self._rest

    def buffer_updated(self, nbytes: int) -> None:
        """The event loop has read so many bytes."""
        # An answer may have been given before the body came.
        self._protocol._unset_keepalive_if_required()
        self._left -= nbytes
        if self._rest is not None:
            self._rest = self._rest[nbytes:]
        if self._left == 0:
            self._give_back()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went away."""
        self._protocol.connection_lost(exc)
        self._end.set()

    def pause_writing(self) -> None:
        """As of uvicorn's protocol."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """As of uvicorn's protocol."""
        self._protocol.resume_writing()

    def _give_back(self) -> None:
        # The old parser waits for the rest of the body.
        self._protocol.parser = httptools.HttpRequestParser(self._protocol)
        self._protocol.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._cycle.more_body = False
        self._take_over(self._protocol)
        self._end.set()

    def _take_over(self, protocol: asyncio.BaseProtocol) -> None:
        transport = self._protocol.transport
        # uvloop looks at the kind of protocol only when reading begins.
        transport.pause_reading()
        transport.set_protocol(protocol)
        transport.resume_reading()
