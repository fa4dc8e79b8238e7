"""The numbers of the latest epoch on a port of their own, for Prometheus to fetch during a run."""

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from trainer.stops import ConfigError, RunStopped

PREFIX = "ddpo_"


class MetricsExporter:
    """Serves one gauge per metric from its construction on. Use as a context manager.

    Args:
        host, port: where to listen.
        run: name of the run, the label of every series.
        meanings: name of a metric → what it is. `METRIC/REWARD` is shown as METRIC with the label
            `reward`.

    Raises:
        RunStopped: the address cannot be listened on, or the package is not installed.
    """

    def __init__(self, host: str, port: int, run: str, meanings: Mapping[str, str]) -> None:
        # Imported late: a run without Prometheus does without the package.
        try:
            from prometheus_client import CollectorRegistry, Gauge, start_http_server
        except ModuleNotFoundError:
            raise RunStopped(
                "tracking.prometheus_port needs prometheus-client: pip install prometheus-client, "
                "or remove the setting"
            ) from None
        registry = CollectorRegistry()
        known: dict[str, Gauge] = {}
        self._gauges = {}
        for name, meaning in meanings.items():
            metric, _, reward = name.partition("/")
            labels = {"run": run} | ({"reward": reward} if reward else {})
            if metric not in known:
                known[metric] = Gauge(f"{PREFIX}{metric}", meaning, [*labels], registry=registry)
            self._gauges[name] = known[metric].labels(**labels)
        # A number that has not been measured is not zero.
        self.show({})
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"tracking.prometheus_port {port} on {host} cannot be listened on "
                f"({error.strerror}); choose another"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def show(self, record: Mapping[str, float | None]) -> None:
        """Show the numbers of an epoch in place of those before; what is missing is NaN."""
        for name, gauge in self._gauges.items():
            value = record.get(name)
            gauge.set(math.nan if value is None else value)
