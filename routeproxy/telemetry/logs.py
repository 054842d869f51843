"""Logging: where lines go, in which form, and which libraries keep quiet.

`LOG_LEVEL`, `LOG_FILE`, `LOG_FILE_BACKUP_COUNT` and `LOG_FILE_PATTERN` mean what they meant in older proxies.
"""

import glob
import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from routeproxy.telemetry.line_writer import (
    EXIT_SECONDS,
    DescriptorOutput,
    FileOutput,
    LineWriter,
    Output,
    TextOutput,
    counted_lines,
)
from routeproxy.telemetry.lines import JsonLines, Lines, Redacting

LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")

FORMATS: Mapping[str, Callable[[], logging.Formatter]] = {"text": Lines, "json": JsonLines}

# Below WARNING these write lines for every call, at DEBUG some of them headers and bodies: keys and prompts.
QUIET = (
    "LiteLLM",
    "LiteLLM Proxy",
    "LiteLLM Router",
    "aiohttp.access",
    "anthropic",
    "asyncio",
    "boto3",
    "botocore",
    "google",
    "hpack",
    "httpcore",
    "httpx",
    "openai",
    "urllib3",
    "uvicorn.access",
    "watchfiles",
)

_installed: "list[LineHandler]" = []


def configure(environ: Mapping[str, str]) -> None:
    """Sends all logging to stderr, and to `LOG_FILE` if set. Raises `ValueError` naming a bad variable."""
    level = (environ.get("LOG_LEVEL") or "INFO").strip().upper()
    if level not in LEVELS:
        raise ValueError(f"LOG_LEVEL is `{level}`; expected one of {', '.join(LEVELS)}")
    form = (environ.get("LOG_FORMAT") or "text").strip().lower()
    if form not in FORMATS:
        raise ValueError(f"LOG_FORMAT is `{environ['LOG_FORMAT']}`; expected one of {', '.join(FORMATS)}")
    _keep_standard_descriptors()
    handlers = []
    if name := environ.get("LOG_FILE"):
        output = _file_output(name, environ.get("LOG_FILE_PATTERN"), _backup_count(environ))
        handlers.append(LineHandler(output, "the log file", name))
    if sys.stderr is not None:
        handlers.insert(0, LineHandler(_stderr_output(), STDERR))
    _install(handlers, FORMATS[form]())
    logging.captureWarnings(True)
    logging.getLogger().setLevel(level)
    # No line of ours names them, and each is looked up for every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    quiet()


def print_banner(lines: Iterable[str]) -> None:
    """What is said at start, whatever the level: plain lines on stderr, or the same as objects."""
    for handler in _installed:
        if handler.name != STDERR:
            continue
        if isinstance(form := handler.formatter, JsonLines):
            name, level = "routeproxy.serve", logging.INFO
            records = (logging.LogRecord(name, level, __file__, 0, line.strip(), (), None) for line in lines)
            lines = [form.format(record) for record in records]
        handler.writer.put(_encoded("\n".join(lines)), time.time())


def keep_secret(secrets: Callable[[], Iterable[str]]) -> None:
    """What no traceback may show, from now on."""
    Redacting.secrets = staticmethod(secrets)


def flush(limit: float = EXIT_SECONDS) -> None:
    """Waits until what was logged is written; not for long, if nobody takes it."""
    for handler in _installed:
        handler.writer.flush(limit)


def lost_lines() -> int:
    """How many lines of the log were not written where they should be."""
    return sum(handler.writer.lost for handler in _installed)


def quiet() -> None:
    """Silences chatty libraries. Call it again after LiteLLM's late import, which adds its own handler."""
    for name in QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()
        logger.propagate = True  # Google's keeps its troubles to itself


def _install(handlers: "Iterable[LineHandler]", lines: logging.Formatter | None = None) -> None:
    """Replaces what an earlier call installed, and nothing else."""
    root = logging.getLogger()
    for old in _installed:
        root.removeHandler(old)
        old.close()
    _installed[:] = handlers
    for handler in _installed:
        handler.setFormatter(lines)
        root.addHandler(handler)


def _backup_count(environ: Mapping[str, str]) -> int:
    text = environ.get("LOG_FILE_BACKUP_COUNT") or "7"
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"LOG_FILE_BACKUP_COUNT is `{text}`; expected a whole number, 0 to keep every file")
    return int(text)


def _keep_standard_descriptors() -> None:
    """What is closed at start would else be the number of a socket or a file, for whoever writes to stderr
    by its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _stderr_output() -> Output:
    try:
        return DescriptorOutput(sys.stderr.fileno())
    except (io.UnsupportedOperation, AttributeError):  # a test's
        return TextOutput(sys.stderr)


def _file_output(name: str, pattern: str | None, keep: int) -> Output:
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"LOG_FILE is `{name}`, a folder; expected a file")
    if path.exists() and not path.is_file():
        return FileOutput(path)  # a pipe or a device: nothing to rotate
    return DailyFile(path, pattern or None, keep)


STDERR = "stderr"


class LineHandler(logging.Handler):
    """Writes records to an output, and keeps nobody who logs something waiting."""

    def __init__(self, output: Output, name: str, where: object = None) -> None:
        super().__init__()
        self.name = name
        self.writer = LineWriter(output, name, where, gap_line=self._gap_line)

    def emit(self, record: logging.LogRecord) -> None:
        if record.__dict__.get("about") is self.writer:
            return  # that nothing can be written there, is for the others
        try:
            self.writer.put(_encoded(self.format(record)), record.created)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Python's own writes to stderr, and waits for it."""
        failed = f"a line could not be put together: {record.msg!r} with {record.args!r}"
        level, name = record.levelno, record.name
        plain = logging.LogRecord(name, level, record.pathname, record.lineno, failed, (), record.exc_info)
        with suppress(Exception):
            self.writer.put(_encoded(self.format(plain)), record.created)

    def flush(self) -> None:
        self.writer.flush(self._patience())

    def close(self) -> None:
        self.writer.close(self._patience())
        super().close()

    def _patience(self) -> float:
        # An exit flushes, and then closes: it waits once for what nobody takes.
        return 0 if self.writer.is_stalled else EXIT_SECONDS

    def _gap_line(self, lines: int) -> bytes:
        missing = counted_lines(lines, "was dropped here", "were dropped here")
        text = f"{missing}: {self.name} was not read fast enough"
        record = logging.LogRecord("routeproxy.serve", logging.WARNING, __file__, 0, text, (), None)
        return _encoded(self.format(record))


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


# --- the file

TOKEN = re.compile(r"%[A-Za-z]")


class DailyFile(FileOutput):
    """Appends to a file that is named after the day, and deletes those of days long past.

    Renaming at midnight, as `TimedRotatingFileHandler` does, loses lines once two workers do it. Here nobody
    renames anything: each worker opens the day's file by itself and appends whole lines with one write, which
    the system keeps whole. `LOG_FILE` itself is a link to the day's file, so that `tail -F` finds it.
    """

    def __init__(self, path: Path, pattern: str | None = None, keep: int = 7) -> None:
        """`keep` counts the files beside the day's own; 0 keeps all."""
        super().__init__(path)
        dated = TOKEN.search(str(path)) is not None
        self._link = str(path)
        self._pattern = str(
            path if dated and not pattern else path.parent / (pattern or f"{path.name}-%Y%m%d")
        )
        if not TOKEN.search(self._pattern):
            raise ValueError(
                f"LOG_FILE_PATTERN is `{pattern}`; expected a date in it, as in `{path.name}-%Y%m%d`"
            )
        self._keep = keep
        self.until = 0.0

    def open(self, created: float) -> None:
        if self._descriptor >= 0 and created < self.until:
            return
        # Midnight's name, whoever opens it: an hour in the pattern must not give each worker its own file.
        day = datetime.fromtimestamp(created).replace(hour=0, minute=0, second=0, microsecond=0)
        path, link = Path(day.strftime(self._pattern)), Path(day.strftime(self._link))
        path.parent.mkdir(parents=True, exist_ok=True)
        if link != path:
            with suppress(OSError):  # a convenience, not for every file system
                self._point(link, path)
        self._open(path)
        self.until = (day + timedelta(days=1)).timestamp()
        self._delete_before(day)

    def _point(self, link: Path, path: Path) -> None:
        if link.exists() and not link.is_symlink():
            # An older proxy's file becomes that of its day. A hard link, unlike a rename, replaces nothing.
            written = datetime.fromtimestamp(link.stat().st_mtime).replace(hour=0, minute=0, second=0)
            os.link(link, written.strftime(self._pattern))
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.symlink_to(os.path.relpath(path, link.parent))
        fresh.replace(link)

    def _delete_before(self, today: datetime) -> None:
        if not self._keep:
            return
        for pattern in {self._pattern, self._link}:
            names = glob.glob(TOKEN.sub("*", glob.escape(pattern)))
            dated = ((day, name) for name in names if (day := _day(name, pattern)) and day < today)
            for _, name in sorted(dated, reverse=True)[self._keep :]:
                with suppress(OSError):  # another worker was faster
                    os.unlink(name)


def _day(name: str, pattern: str) -> datetime | None:
    """The day in a file's name. `None`: not one that this pattern made, so not ours to delete."""
    try:
        day = datetime.strptime(name, pattern)
    except ValueError:
        return None
    return day if day.strftime(pattern) == name else None
