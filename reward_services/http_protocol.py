"""HTTP/1.1 as uvicorn speaks it, with a bound on everything that is not a body.

Bodies are measured by the routes. Heads, trailers and chunk extensions never reach a route before
they are complete, and uvicorn collects them without end: a client without a key could fill the
memory with one header.
"""

from functools import partial

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from reward_services.body_receiver import RECEIVE_INTO, receive_into

MOST_HEAD_BYTES = 64 * 1024
"""As much as the parser may swallow without a head becoming complete or a body going on."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection; answers 400 and closes when a head becomes too long."""

    _barren = 0  # bytes since anything last came of them

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; called by the event loop."""
        self._barren += len(data)
        super().data_received(data)
        if self._barren > MOST_HEAD_BYTES and not self.transport.is_closing():
            message = f"The head of the request has more than {MOST_HEAD_BYTES} bytes."
            self.logger.warning(message)
            self.send_400_response(message)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._barren = 0
        super().on_headers_complete()
        receive = partial(receive_into, self, self.cycle)
        self.scope["extensions"] = {RECEIVE_INTO: {"receive_into": receive}}

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._barren = 0
        super().on_body(body)
