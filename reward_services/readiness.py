"""Whether a service takes work: from loading to ready, then draining, then closed."""

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from shared.errors import Draining, NotReady


class Phase(Enum):
    """The life of a service; it only goes forward."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """/readyz says no, so that balancers turn away, but what still comes is scored."""
    CLOSED = "closed"


@dataclass(slots=True)
class Readiness:
    """The phase of one process, shared by its server and its API.

    Attributes:
        phase: where in its life it is.
        opened: set from the first time that it was ready.
    """

    phase: Phase = Phase.LOADING
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> None:
        """Become ready, unless it was already or is past that."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.READY
        self.opened.set()

    def close(self) -> None:
        """Take nothing any more."""
        self.phase = Phase.CLOSED

    def require_open(self) -> None:
        """Let a request to score pass.

        Raises:
            NotReady, Draining: 503.
        """
        if self.phase is Phase.LOADING:
            raise NotReady("the reward is still loading: try again soon", retry_after=2)
        if self.phase is Phase.CLOSED:
            raise Draining("the service is shutting down: try again soon", retry_after=2)

    def require_ready(self) -> None:
        """Answer a balancer.

        Raises:
            NotReady, Draining: 503, as soon as the service is to shut down.
        """
        if self.phase is Phase.DRAINING:
            raise Draining("the service is shutting down", retry_after=2)
        self.require_open()
