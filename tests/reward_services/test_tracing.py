"""Traces: nothing when off; when on, a real service sends them to a real receiver."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from reward_services.tracing import Tracing
from shared.images import encode_png
from tests.conftest import ServiceProcess

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

FLAT = """
class Flat:
    name, version, max_batch_size, needs_prompt = "flat", "1", 8, False

    def score(self, items):
        return [1.0 for _ in items]
"""


@pytest.mark.parametrize("traceparent", [TRACEPARENT, ""])
def test_without_traces_a_callers_context_is_still_handed_on(traceparent: str) -> None:
    with Tracing().request("POST /score", traceparent) as trace:
        trace.note({"status": 200})
        assert trace.traceparent == traceparent


@pytest.mark.parametrize("nonsense", ["x", TRACEPARENT + "\n", TRACEPARENT.upper(), "0" * 2000])
def test_nonsense_is_not_handed_on(nonsense: str) -> None:
    with Tracing().request("POST /score", nonsense) as trace:
        assert trace.traceparent == ""


class Receiver(BaseHTTPRequestHandler):
    """The part of an OpenTelemetry collector that a service talks to."""

    spans: ClassVar[list[tuple[str, Span]]] = []

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans.extend((names["service.name"], span) for span in scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def collector() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_request_and_its_batch_are_spans_of_the_callers_trace(
    collector: str, start_service: Callable[..., ServiceProcess]
) -> None:
    variables = {
        "REWARD_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    service = start_service("flat_reward:Flat", FLAT, **variables)
    png = encode_png(np.zeros((4, 4, 3), np.uint8))
    headers = {"traceparent": TRACEPARENT, "X-Request-Id": "traced"}
    files = {"images": ("x.png", png)}
    assert httpx.post(f"{service.url}/score", files=files, headers=headers).status_code == 200
    httpx.get(f"{service.url}/livez")
    service.stop()

    spans = {span.name: span for name, span in Receiver.spans if name == "flat"}
    assert set(spans) == {"POST /score", "batch", "score"}
    request, batch, job = spans["POST /score"], spans["batch"], spans["score"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert (job.trace_id.hex(), job.parent_span_id) == (TRACE, request.span_id)
    assert [link.span_id for link in batch.links] == [request.span_id]
    assert [link.span_id for link in job.links] == [batch.span_id]
    facts = {each.key: each.value for each in request.attributes}
    assert facts["request_id"].string_value == "traced"
    assert facts["http.response.status_code"].int_value == 200


def test_tracing_without_the_extra_says_what_to_install() -> None:
    code = (
        "import os, sys\n"
        "sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None\n"
        "os.environ['REWARD_TRACING'] = 'true'\n"
        "sys.argv[1:] = ['serve', 'jpeg_compressibility', '--port', '0']\n"
        "from reward_services.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ddpo-reward-services[otel]" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
