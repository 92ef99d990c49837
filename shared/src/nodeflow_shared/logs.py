"""Structured logs on stderr: constant event names plus keys, one line per event.

Owns the format and the routing of libraries' own log records. Must not know any event.
"""

import logging
import sys
from contextlib import suppress
from io import TextIOBase
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LogFormat = Literal["console", "json"]


def get_log() -> FilteringBoundLogger:
    """Return a logger; it is configured when first used, so a module may hold one."""
    return cast(FilteringBoundLogger, structlog.get_logger())


def configure_logs(service: str, level: str, fmt: LogFormat) -> None:
    """Send every log of this process to stderr as `fmt`, with ISO UTC time and the service's name.

    `level` (a name of the logging module) holds for our events; libraries are heard from WARNING on.
    """

    def name_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        # A processor, not a context variable: gRPC runs handlers in contexts that we did not create.
        event.setdefault("service", service)
        return event

    enrich: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_service,
    ]
    render = _renderers(fmt)
    structlog.configure(
        processors=[*enrich, *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
    )
    _route_libraries(enrich, render)


class _Stderr(TextIOBase):
    """Standard error, as far as anybody reads it.

    A supervisor that dies takes the other end of the pipe along, and a line about just that must not become an error in
    the middle of what has to be done then.
    """

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def _renderers(fmt: LogFormat) -> list[Processor]:
    if fmt == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    # The default formatter prints local variables when rich is installed: too long, and it would show secrets.
    plain = structlog.dev.plain_traceback
    return [
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain, timestamp_key="time"),
    ]


def _route_libraries(enrich: list[Processor], render: list[Processor]) -> None:
    handler = logging.StreamHandler(_Stderr())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*enrich, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
