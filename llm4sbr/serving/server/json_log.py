"""Log of the server: one JSON object a line on stderr."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

_LEVELS = {"info": 20, "warning": 30, "error": 40}


class JsonLog(logging.Handler):
    """Writes events as JSON lines; a handler of `logging` for the messages of libraries.

    Args:
        level: Least level.
        stream: Where to write; by default stderr.
    """

    def __init__(self, level: str = "info", stream: TextIO | None = None) -> None:
        super().__init__(_LEVELS[level])
        self.stream = stream
        self.requests = self.level <= _LEVELS["info"]

    def always(self, event: str, **fields: Any) -> None:
        """Log an event of every level, such as the start."""
        self._write("info", event, fields, always=True)

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of normal operation."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what a person should know."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what a person should act on."""
        self._write("error", event, fields)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message of a library; its exception goes with it."""
        level = "error" if record.levelno >= 40 else "warning" if record.levelno >= 30 else "info"
        fields: dict[str, Any] = {"source": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["stack"] = "".join(traceback.format_exception(record.exc_info[1]))
        self._write(level, "library", fields)

    def _write(self, level: str, event: str, fields: dict[str, Any], *, always: bool = False) -> None:
        if not always and _LEVELS[level] < self.level:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = msgspec.json.encode({"time": now, "level": level, "event": event, **fields}, enc_hook=str)
        try:
            stream = self.stream or sys.stderr
            stream.write(line.decode() + "\n")  # one call: lines of several threads do not mix
            stream.flush()
        except (OSError, ValueError):  # a closed or full log changes no answer
            pass
