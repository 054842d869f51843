"""Logging: where lines go, which libraries keep quiet, and the one line that each request leaves.

`LOG_LEVEL`, `LOG_FILE`, `LOG_FILE_BACKUP_COUNT` and `LOG_FILE_PATTERN` mean what they meant in older proxies.
"""

import glob
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct

from routeproxy.exchange import Exchange
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.policy.verify.diff import compare_policies

LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"

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

requests = logging.getLogger("routeproxy.requests")
reloads = logging.getLogger("routeproxy.policy.live")

_installed: list[logging.Handler] = []


def configure(environ: Mapping[str, str]) -> None:
    """Sends all logging to stderr, and to `LOG_FILE` if set. Raises `ValueError` naming a bad variable."""
    level = (environ.get("LOG_LEVEL") or "INFO").strip().upper()
    if level not in LEVELS:
        raise ValueError(f"LOG_LEVEL is `{level}`; expected one of {', '.join(LEVELS)}")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if name := environ.get("LOG_FILE"):
        handlers.append(_file_handler(name, environ.get("LOG_FILE_PATTERN"), _backup_count(environ)))
    _install(handlers)
    logging.getLogger().setLevel(level)
    # No line of ours names them, and each is looked up for every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    quiet()


def quiet() -> None:
    """Silences chatty libraries. Call it again after LiteLLM's late import, which adds its own handler."""
    for name in QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()
        logger.propagate = True  # Google's keeps its troubles to itself


def _install(handlers: Iterable[logging.Handler]) -> None:
    """Replaces what an earlier call installed, and nothing else."""
    root = logging.getLogger()
    for old in _installed:
        root.removeHandler(old)
        old.close()
    _installed[:] = handlers
    lines = Lines(FORMAT)
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


class Lines(logging.Formatter):
    """Keeps what strangers wrote from looking like a log line, or from steering a terminal."""

    _second = (0, "")

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
            record.message = "\n    ".join(_visible(line) for line in record.message.split("\n"))
        return super().formatMessage(record)


def _visible(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


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


# --- a request's line


class ReloadLog(Observer):
    """What became of each reload, what the new rules change, and who asked for it."""

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        for warning in after.warnings:
            reloads.warning("%s", warning)
        if before.version == after.version:
            reloads.info("the rules were read again: nothing changed in version %s", after.version)
            return
        lines = [f"version {after.version} replaces {before.version}", *compare_policies(before, after)]
        reloads.info("the rules were reloaded: %s", "\n".join(lines))
        for name in SETTLED_AT_START:
            if getattr(before.server, name) != getattr(after.server, name):
                reloads.warning("[server] %s changed: it takes effect at the next start", name)

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        reloads.error(
            "the rules were not reloaded, version %s stays in force:\n%s", in_force.version, problem
        )

    def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
        reloads.info("%s with admin key %s: %s", action, key_name, outcome)


SETTLED_AT_START = ("host", "port", "cors_origins", "signing_key")
"""Settings of `[server]` that a reload does not change."""


class RequestLog(Observer):
    """A line for each request."""

    def request_done(self, exchange: Exchange) -> None:
        log_request(request_record(exchange))


class RequestRecord(Struct, frozen=True, kw_only=True):
    """What a line says about a request: names, sizes and times."""

    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    ttft_ms: float | None = None
    """To the first content; `None` if none came."""
    client_model: str | None = None
    """The model that the client asked for."""
    team: str | None = None
    rule: str | None = None
    version: str | None = None
    provider: str | None = None
    model: str | None = None
    """The model that answered."""
    attempts: int = 0
    error_type: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    stream: bool = False
    client_left: bool = False
    judge: str | None = None
    """The target that was asked to judge the tool uses of the answer."""
    verdicts: Mapping[str, int] = {}
    """How many of each it came to."""


def request_record(exchange: Exchange) -> RequestRecord:
    """What the log tells about a request: names, sizes and times; nothing of prompts or keys."""
    input_tokens, output_tokens = exchange.input_and_output_tokens()
    judged = exchange.safeguards
    first_content_at, decision, target = exchange.first_content_at, exchange.decision, exchange.target
    ttft = None if first_content_at is None else first_content_at - exchange.started
    return RequestRecord(
        request_id=exchange.request_id,
        method="POST",
        path=exchange.inbound.path,
        status=exchange.status,
        duration_ms=(time.perf_counter() - exchange.started) * 1000,
        ttft_ms=None if ttft is None else ttft * 1000,
        client_model=exchange.envelope.model if exchange.envelope else None,
        team=exchange.inbound.team,
        rule=decision.rule if decision else None,
        version=exchange.policy.version,
        provider=target.provider.name if target else None,
        model=target.model if target else None,
        attempts=len(exchange.attempts),
        error_type=exchange.error,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        stream=exchange.stream,
        client_left=exchange.client_left,
        judge=judged.target.name if judged else None,
        verdicts=judged.verdicts if judged else {},
    )


def log_request(record: RequestRecord) -> None:
    """One line at INFO; costs next to nothing above it."""
    if requests.isEnabledFor(logging.INFO):
        requests.handle(_Line(request_line(record)))


class _Line(logging.LogRecord):
    """What `requests.info(message)` would make, which looks up who called it, where that file lies and what
    it is called: three times the work of the line itself."""

    _same: ClassVar[dict[str, Any]] = vars(
        requests.makeRecord(requests.name, logging.INFO, __file__, 0, "", (), None)
    )

    def __init__(self, message: str) -> None:
        now, same = time.time(), self._same
        self.__dict__.update(
            same,
            msg=message,
            created=now,
            msecs=float(int(now % 1 * 1000)),
            relativeCreated=same["relativeCreated"] + (now - same["created"]) * 1000,
        )


def request_line(record: RequestRecord) -> str:
    """`POST /v1/messages 200 claude-opus-4-8 -> openai/gpt-4.1 rule=default attempts=1 time=812ms …`"""
    words = [record.method, _word(record.path.partition("?")[0]), str(record.status)]
    if record.client_model is not None:
        words.append(_word(record.client_model))
    if record.provider is not None:
        words.append(f"-> {_word(f'{record.provider}/{record.model}')}")
    if record.team is not None:
        words.append(f"team={_word(record.team)}")
    if record.rule is not None:
        words.append(f"rule={_word(record.rule)}")
    if record.error_type is not None:
        words.append(f"error={_word(record.error_type)}")
    words.append(f"attempts={record.attempts} time={record.duration_ms:.0f}ms")
    if record.ttft_ms is not None:
        words.append(f"first={record.ttft_ms:.0f}ms")
    if record.input_tokens is not None:
        words.append(f"in={record.input_tokens}")
    if record.output_tokens is not None:
        words.append(f"out={record.output_tokens}")
    if record.judge is not None:
        words.append(f"judge={_word(record.judge)}")
        words += [f"{verdict}={count}" for verdict, count in record.verdicts.items()]
    if record.stream:
        words.append("stream")
    if record.client_left:
        words.append("client-left")
    if record.version is not None:
        words.append(f"policy={_word(record.version)}")
    words.append(f"id={record.request_id}")
    return " ".join(words)


PLAIN = re.compile(r"[\w./:@+*\[\]-]+", re.ASCII)


@lru_cache(1024)
def _word(text: str) -> str:
    """`text` so that it can neither end its word nor its line."""
    if PLAIN.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
