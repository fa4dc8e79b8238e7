"""One logging setup for every process: lines for a person on a terminal, JSON for a machine.

Everything goes to stderr, also what libraries log, so that stdout stays for results.

    configure_logging("INFO")
    log = structlog.get_logger()
    log.info("request", status=200, items=8)
"""

import logging
import sys
from typing import TextIO

import structlog

_HANDLER_NAME = "shared.logs"


def configure_logging(
    level: str = "INFO", *, as_json: bool | None = None, stream: TextIO | None = None
) -> None:
    """Send structlog and the standard library's loggers to one stream. May be called again.

    Args:
        level: lowest level shown, DEBUG to CRITICAL.
        as_json: one JSON object per line; by default unless the stream is a terminal.
        stream: stderr by default.

    Raises:
        ValueError: no such level.
    """
    out = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level!r} is unknown: use DEBUG, INFO, WARNING or ERROR")
    as_json = not out.isatty() if as_json is None else as_json
    shared_steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared_steps,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.name = _HANDLER_NAME
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_steps, processors=_last_steps(as_json, out.isatty())
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.name == _HANDLER_NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    _quiet_libraries()


def _last_steps(as_json: bool, colors: bool) -> list[structlog.typing.Processor]:
    """From an event to the text of its line."""
    drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if as_json:
        return [
            drop_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    return [
        drop_meta,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=0,
            # The rich one prints local variables, keys and passwords among them.
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _quiet_libraries() -> None:
    """Let uvicorn log through the root, leave httpx's line per request out."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
