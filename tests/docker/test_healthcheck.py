"""A container is healthy when its service is ready, and not before."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from docker import healthcheck
from tests.conftest import free_port


class Answers(BaseHTTPRequestHandler):
    """Says what `status` says, at /readyz."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b'{"status": "ready"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the test's output is for its failures."""


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    """A server where the check looks for one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    monkeypatch.setattr(healthcheck, "PORT", server.server_port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (500, 1)])
def test_what_the_service_says_counts(
    answers: type[Answers],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: int,
) -> None:
    monkeypatch.setattr(answers, "status", status)
    assert healthcheck.main() == code
    assert "ready" in capsys.readouterr().out


def test_a_service_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(healthcheck, "PORT", free_port())
    assert healthcheck.main() == 1
    assert "no answer on port" in capsys.readouterr().out
