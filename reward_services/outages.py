"""Saying once that the broker is away, and once that it is back."""

import structlog

from reward_services.metrics import Metrics
from shared.errors import ServiceUnavailable

log = structlog.get_logger("reward_services.broker")


class Outage:
    """What one part of a process knows of its broker.

    Attributes:
        error: why the broker cannot be asked, None while it can.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.error: ServiceUnavailable | None = None
        self._metrics = metrics

    def begin(self, error: ServiceUnavailable) -> None:
        """A call has failed."""
        if self.error is None:
            self._metrics.broker_disruptions.inc()
            log.warning("the job queue is away", error=error.message)
        self.error = error

    def end(self) -> None:
        """A call has succeeded."""
        if self.error is not None:
            log.info("the job queue is back")
        self.error = None
