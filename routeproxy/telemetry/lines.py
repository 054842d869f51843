"""How a record of the log is written down: as a line for people, or as a JSON object for machines."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from routeproxy.policy.problems import visible
from routeproxy.redaction import redact


class Redacting(logging.Formatter):
    """Takes secrets out of tracebacks: what libraries say of a failure may quote anything."""

    secrets: ClassVar[Callable[[], Iterable[str]]] = tuple
    """What must not be seen, as it is now."""

    def formatException(self, ei: Any) -> str:
        return redact(super().formatException(ei), Redacting.secrets())


class Lines(Redacting):
    """A line for people. Keeps what strangers wrote from looking like a log line, or from steering a
    terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s")
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        # The console and the file show the same line: it is put together once.
        line: str | None = record.__dict__.get("line")
        if line is None:
            line = record.__dict__["line"] = super().format(record)
        return line

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        second, text = self._second
        if int(record.created) != second:
            second = int(record.created)
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = (second, text)
        return text

    def formatMessage(self, record: logging.LogRecord) -> str:
        if not record.message.isprintable():
            record.message = "\n    ".join(visible(line) for line in record.message.split("\n"))
        return super().formatMessage(record)


class LineFields(Struct, frozen=True):
    """The message of a record that is more than text: `str` of it is the line for people, and in JSON its
    fields stand beside those of every record."""

    @property
    def title(self) -> str:
        """The message in JSON, where the fields say the rest."""
        raise NotImplementedError


class JsonLine(Struct, omit_defaults=True):
    """What every object has. Those about a request have its fields besides."""

    time: str
    """`2026-11-25T22:23:28.123Z`"""
    level: str
    logger: str
    message: str
    exception: str | None = None
    """The traceback."""
    stack: str | None = None


class JsonLines(Redacting):
    """An object for machines, each on one line."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")
        self._encode = msgspec.json.Encoder().encode

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = record.__dict__.get("line")
        if line is None:
            line = record.__dict__["line"] = self._format(record)
        return line

    def _format(self, record: logging.LogRecord) -> str:
        second, text = self._second
        if int(record.created) != second:
            second = int(record.created)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        fields = record.msg if isinstance(record.msg, LineFields) else None
        shown = JsonLine(
            time=f"{text}.{int(record.msecs):03d}Z",
            level=record.levelname,
            logger=record.name,
            message=record.getMessage() if fields is None else fields.title,
            exception=self.formatException(record.exc_info) if record.exc_info else record.exc_text,
            stack=self.formatStack(record.stack_info) if record.stack_info else None,
        )
        try:
            line = self._joined(shown, fields)
        except UnicodeEncodeError:  # half an emoji
            return json.dumps(_plain(shown) | (_plain(fields) if fields is not None else {}))
        if not line.isprintable():  # what steers a terminal may stand in JSON as it is
            return json.dumps(json.loads(line))
        return line

    def _joined(self, line: JsonLine, fields: LineFields | None) -> str:
        data = self._encode(line)
        if fields is not None:
            data = data[:-1] + b"," + self._encode(fields)[1:]
        return data.decode()


def _plain(struct: Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(struct)
    return plain
