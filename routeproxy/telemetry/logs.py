"""Logging: where lines go, in which form, and which libraries keep quiet.

`LOG_LEVEL`, `LOG_FILE`, `LOG_FILE_BACKUP_COUNT` and `LOG_FILE_PATTERN` mean what they meant in older proxies.
"""

import glob
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from io import FileIO
from pathlib import Path

from routeproxy.telemetry.lines import JsonLines, Lines

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

_installed: list[logging.Handler] = []


def configure(environ: Mapping[str, str]) -> None:
    """Sends all logging to stderr, and to `LOG_FILE` if set. Raises `ValueError` naming a bad variable."""
    level = (environ.get("LOG_LEVEL") or "INFO").strip().upper()
    if level not in LEVELS:
        raise ValueError(f"LOG_LEVEL is `{level}`; expected one of {', '.join(LEVELS)}")
    form = (environ.get("LOG_FORMAT") or "text").strip().lower()
    if form not in FORMATS:
        raise ValueError(f"LOG_FORMAT is `{environ['LOG_FORMAT']}`; expected one of {', '.join(FORMATS)}")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if name := environ.get("LOG_FILE"):
        handlers.append(_file_handler(name, environ.get("LOG_FILE_PATTERN"), _backup_count(environ)))
    _install(handlers, FORMATS[form]())
    logging.captureWarnings(True)
    logging.getLogger().setLevel(level)
    # No line of ours names them, and each is looked up for every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    quiet()


def print_banner(lines: Iterable[str]) -> None:
    """What is said at start, whatever the level: plain lines on stderr, or the same as objects."""
    form = _installed[0].formatter if _installed else None
    if isinstance(form, JsonLines):
        name, level = "routeproxy.serve", logging.INFO
        records = (logging.LogRecord(name, level, __file__, 0, line.strip(), (), None) for line in lines)
        lines = [form.format(record) for record in records]
    print("\n".join(lines), file=sys.stderr, flush=True)


def quiet() -> None:
    """Silences chatty libraries. Call it again after LiteLLM's late import, which adds its own handler."""
    for name in QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()
        logger.propagate = True  # Google's keeps its troubles to itself


def _install(handlers: Iterable[logging.Handler], lines: logging.Formatter | None = None) -> None:
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


def _file_handler(name: str, pattern: str | None, keep: int) -> logging.Handler:
    path = Path(name)
    if path.exists() and not path.is_file():
        return logging.FileHandler(path)  # a pipe or a device: nothing to rotate
    return DailyFile(path, pattern or None, keep)


# --- the file

TOKEN = re.compile(r"%[A-Za-z]")


class DailyFile(logging.Handler):
    """Appends to a file that is named after the day, and deletes those of days long past.

    Renaming at midnight, as `TimedRotatingFileHandler` does, loses lines once two workers do it. Here nobody
    renames anything: each worker opens the day's file by itself and appends with one write a line, which the
    system keeps whole. `LOG_FILE` itself is a link to the day's file, so that `tail -F` finds it.
    """

    def __init__(self, path: Path, pattern: str | None = None, keep: int = 7) -> None:
        """`keep` counts the files beside the day's own; 0 keeps all."""
        super().__init__()
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
        self._file: FileIO | None = None
        self._until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._file is None or record.created >= self._until:
                self._file = self._open(datetime.fromtimestamp(record.created))
            self._file.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self.acquire()
        try:
            if self._file is not None:
                self._file.close()
                self._file = None
        finally:
            self.release()
        super().close()

    def _open(self, now: datetime) -> FileIO:
        # Midnight's name, whoever opens it: an hour in the pattern must not give each worker its own file.
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        path, link = Path(day.strftime(self._pattern)), Path(day.strftime(self._link))
        path.parent.mkdir(parents=True, exist_ok=True)
        if link != path:
            with suppress(OSError):  # a convenience, not for every file system
                self._point(link, path)
        file = FileIO(path, "a")
        if self._file is not None:
            self._file.close()
        self._until = (day + timedelta(days=1)).timestamp()
        self._delete_before(day)
        return file

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
