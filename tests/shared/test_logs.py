"""One logging setup: where lines go, what they look like, and that nothing is logged twice."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shared.logs import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_where_no_person_reads() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    structlog.get_logger("api").info("request", status=200, prompt="größe")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "api",
        "status": 200,
        "prompt": "größe",
    }


def test_one_readable_line_on_a_terminal() -> None:
    stream = Terminal()
    configure_logging(stream=stream)
    structlog.get_logger("api").info("request", status=200)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "request" in text
    assert "status" in text
    assert "\x1b[" in text


def test_the_form_can_be_chosen() -> None:
    stream = Terminal()
    configure_logging(stream=stream, as_json=True)
    structlog.get_logger().info("hello")
    assert lines(stream)[0]["event"] == "hello"


def test_libraries_log_in_the_same_form() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    logging.getLogger("some.library").warning("lost %d of %d", 1, 2)
    logging.getLogger("uvicorn.error").info("started")
    assert [line["event"] for line in lines(stream)] == ["lost 1 of 2", "started"]


def test_uvicorn_loses_its_own_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    access = logging.getLogger("uvicorn.access")
    access.addHandler(logging.StreamHandler(sys.stdout))  # as uvicorn sets it up for itself
    access.propagate = False
    stream = io.StringIO()
    configure_logging(stream=stream)
    access.info("GET /livez")
    assert [line["event"] for line in lines(stream)] == ["GET /livez"]
    assert capsys.readouterr().out == ""


def test_everything_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(stream=sys.stderr)
    structlog.get_logger().info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "hello" in captured.err


def test_the_level_holds_for_all() -> None:
    stream = io.StringIO()
    configure_logging("warning", stream=stream)
    structlog.get_logger("a").info("no")
    logging.getLogger("b").info("no")
    structlog.get_logger("a").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ValueError, match="log level 'loud' is unknown"):
        configure_logging("loud")


def test_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    configure_logging(stream=second)
    structlog.get_logger().info("hello")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_a_request_id_is_on_every_line_of_its_context() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().info("one")
        logging.getLogger("library").warning("two")
    structlog.get_logger().info("three")
    assert [line.get("request_id") for line in lines(stream)] == ["r1", "r1", None]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_traceback_shows_no_local_variables(stream: io.StringIO) -> None:
    configure_logging(stream=stream)
    api_key = "s3cret"
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "boom" in stream.getvalue()
    assert api_key not in stream.getvalue()


def test_each_request_of_httpx_is_no_line() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    logging.getLogger("httpx").info("HTTP Request: POST http://localhost:8001/score")
    assert stream.getvalue() == ""
