"""OpenTelemetry traces of requests and of batches, off unless asked for.

A request is one span, and its jobs carry that span's `traceparent` through the queue. A batch is a
span too. It may hold jobs of several requests, and a span has one parent, so it links to all of
them, and each job is a child of its request.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reward_services.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

TRACEPARENT = "traceparent"
"""Header of the W3C Trace Context recommendation."""

_VALID = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Facts = Mapping[str, str | int | float | bool]


@dataclass(slots=True)
class RequestTrace:
    """The span of one request, or what stands for it while traces are off.

    Attributes:
        traceparent: what the request's jobs carry on; "" for none.
    """

    traceparent: str
    _span: "Span | None" = None

    def note(self, facts: Facts) -> None:
        """Add attributes to the span."""
        if self._span is not None:
            self._span.set_attributes(facts)


class Tracing:
    """The spans of one process.

    Args:
        provider: where spans go; without one nothing is recorded, but a caller's `traceparent`
            still reaches the worker.
    """

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("reward_services")

    @contextmanager
    def request(self, name: str, traceparent: str) -> Iterator[RequestTrace]:
        """A span for one request, below the caller's span where it sent one."""
        caller = traceparent if _VALID.fullmatch(traceparent) else ""
        if self._tracer is None:
            yield RequestTrace(caller)
            return
        from opentelemetry import trace

        context, kind = _context(caller), trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(name, context, kind) as span:
            yield RequestTrace(_traceparent(span), span)

    @contextmanager
    def batch(self, traceparents: Sequence[str], facts: Facts) -> Iterator[None]:
        """A span for one batch, and one for each of its jobs that has a `traceparent`."""
        if self._tracer is None:
            yield
            return
        from opentelemetry import trace

        parents = [_context(each) for each in traceparents if each]
        spans = [trace.get_current_span(context).get_span_context() for context in parents]
        started = time.time_ns()
        links = [trace.Link(each) for each in spans]
        with self._tracer.start_as_current_span("batch", links=links, attributes=facts) as batch:
            yield
        link = trace.Link(batch.get_span_context())
        for context in parents:
            span = self._tracer.start_span("score", context, links=[link], start_time=started)
            span.end()

    def close(self) -> None:
        """Send what has not been sent."""
        if self._provider is not None:
            self._provider.shutdown()


def open_tracing(enabled: bool, service: str) -> Tracing:
    """Traces over OTLP/HTTP; where to is said by the standard OTEL_* variables.

    Raises:
        SettingsError: the extra `otel` is not installed.
    """
    if not enabled:
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"REWARD_TRACING needs {error.name}: pip install 'ddpo-reward-services[otel]'"
        ) from None
    # Given here, a name would go before the one in the environment.
    names = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(names))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _context(traceparent: str) -> "Context":
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent})


def _traceparent(span: "Span") -> str:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span))
    return carrier.get(TRACEPARENT, "")
