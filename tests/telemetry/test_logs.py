"""Logging: the line of a request, the day's file under several workers, and who is kept quiet."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from routeproxy.telemetry import logs
from routeproxy.telemetry.lines import JsonLines, Lines
from routeproxy.telemetry.logs import DailyFile, LineHandler, configure
from routeproxy.telemetry.request_log import RequestLog, RequestRecord, log_request, request_line


def written(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr once all lines are written."""
    logs.flush()
    return capsys.readouterr().err


NOON = datetime(2026, 11, 21, 12)
NEXT_DAY = datetime(2026, 11, 22, 0, 0, 1)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logs._install([])
    logging.captureWarnings(False)
    logging.getLogger().setLevel(level)


def record(**changes: Any) -> RequestRecord:
    known: dict[str, Any] = {
        "event": "done",
        "id": "req_1",
        "method": "POST",
        "path": "/v1/messages",
        "status": 200,
        "duration_ms": 1234.4,
        "attempts": 0,
    }
    return RequestRecord(**known | changes)


ANSWERED = {
    "model": "claude-opus-4-8",
    "rule": "default",
    "policy": "3f2a",
    "target": "openai/gpt-4.1",
    "attempts": 1,
}


# --- the line


@pytest.mark.parametrize(
    ("told", "line"),
    [
        pytest.param(
            record(**ANSWERED, stream=True, first_content_ms=210.2, input_tokens=58211, output_tokens=88),
            "POST /v1/messages 200 claude-opus-4-8 -> openai/gpt-4.1 rule=default attempts=1 time=1234ms "
            "first=210ms in=58211 out=88 stream policy=3f2a id=req_1",
            id="a streamed answer",
        ),
        pytest.param(
            record(status=401, error="authentication_error"),
            "POST /v1/messages 401 error=authentication_error attempts=0 time=1234ms id=req_1",
            id="refused before any rule",
        ),
        pytest.param(
            record(**ANSWERED, client_left=True),
            "POST /v1/messages 200 claude-opus-4-8 -> openai/gpt-4.1 rule=default attempts=1 time=1234ms "
            "client-left policy=3f2a id=req_1",
            id="the client left",
        ),
        pytest.param(
            record(rule="background work"),
            'POST /v1/messages 200 rule="background work" attempts=0 time=1234ms id=req_1',
            id="a rule of two words",
        ),
        pytest.param(
            record(rule="Grüße an alle"),
            'POST /v1/messages 200 rule="Grüße an alle" attempts=0 time=1234ms id=req_1',
            id="a rule in German",
        ),
        pytest.param(
            record(model='x"\n2026 ERROR forged'),
            r'POST /v1/messages 200 "x\"\n2026 ERROR forged" attempts=0 time=1234ms id=req_1',
            id="a model name that forges a line",
        ),
        pytest.param(
            record(path="/v1/messages?api_key=sk-secret"),
            "POST /v1/messages 200 attempts=0 time=1234ms id=req_1",
            id="a query is not shown",
        ),
    ],
)
def test_a_request_leaves_one_line(told: RequestRecord, line: str) -> None:
    assert request_line(told) == line


def test_a_request_is_logged_at_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_request(record())
    assert [(r.levelname, r.message) for r in caplog.records] == [("INFO", request_line(record()))]


def test_above_info_no_line_is_even_built(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        RequestLog().request_done(None)  # type: ignore[arg-type]
    assert caplog.records == []


def entry(message: str, at: datetime = NOON) -> logging.LogRecord:
    made = logging.LogRecord("routeproxy.x", logging.INFO, __file__, 1, message, (), None)
    made.created, made.msecs = at.timestamp(), 7.0
    return made


@pytest.mark.parametrize(
    ("message", "line"),
    [
        pytest.param("ready", "ready", id="plain"),
        pytest.param("größer → 界", "größer → 界", id="any script"),
        pytest.param("two\nlines", "two\n    lines", id="the second line is indented, so it is none of ours"),
        pytest.param("\x1b[31mred\r", r"\x1b[31mred\r", id="a terminal's commands are spelled out"),
    ],
)
def test_a_message_cannot_pose_as_another_line(message: str, line: str) -> None:
    assert Lines().format(entry(message)) == f"2026-11-21 12:00:00.007 INFO    routeproxy.x: {line}"


# --- the day's file


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def write(output: DailyFile, *entries: tuple[str, datetime]) -> None:
    handler = LineHandler(output, "the log file")
    for message, at in entries:
        handler.handle(entry(message, at))
    handler.close()


@pytest.mark.parametrize(
    ("name", "pattern", "files"),
    [
        pytest.param("proxy.log", None, ["proxy.log-20261121", "proxy.log-20261122"], id="by default"),
        pytest.param(
            "proxy.log",
            "proxy-%Y-%m-%d.log",
            ["proxy-2026-11-21.log", "proxy-2026-11-22.log"],
            id="a pattern",
        ),
        pytest.param(
            "proxy-%d.%m.log", None, ["proxy-21.11.log", "proxy-22.11.log"], id="tokens in the name"
        ),
        pytest.param("%Y/%m/%d.log", None, ["2026/11/21.log", "2026/11/22.log"], id="tokens in the folder"),
        pytest.param(
            "proxy.log", "old/%Y%m%d", ["old/20261121", "old/20261122"], id="a folder for the old ones"
        ),
    ],
)
def test_midnight_begins_a_new_file(tmp_path: Path, name: str, pattern: str | None, files: list[str]) -> None:
    write(DailyFile(tmp_path / name, pattern), ("a", NOON), ("b", NOON), ("c", NEXT_DAY))
    assert [lines_of(tmp_path / file) for file in files] == [["a", "b"], ["c"]]


def test_the_name_itself_leads_to_todays_file(tmp_path: Path) -> None:
    write(DailyFile(tmp_path / "proxy.log"), ("a", NOON), ("b", NEXT_DAY))
    assert lines_of(tmp_path / "proxy.log") == ["b"]
    assert os.readlink(tmp_path / "proxy.log") == "proxy.log-20261122"


def test_an_hour_in_the_pattern_is_midnights_for_every_worker(tmp_path: Path) -> None:
    write(DailyFile(tmp_path / "proxy.log", "%Y%m%d-%H"), ("a", NOON))
    write(DailyFile(tmp_path / "proxy.log", "%Y%m%d-%H"), ("b", NOON.replace(hour=18)))
    assert lines_of(tmp_path / "20261121-00") == ["a", "b"]


def test_a_file_of_an_older_proxy_becomes_that_of_its_day(tmp_path: Path) -> None:
    (tmp_path / "proxy.log").write_text("old\n")
    yesterday = datetime(2026, 11, 20, 23).timestamp()
    os.utime(tmp_path / "proxy.log", (yesterday, yesterday))
    write(DailyFile(tmp_path / "proxy.log"), ("new", NOON))
    assert lines_of(tmp_path / "proxy.log-20261120") == ["old"]
    assert lines_of(tmp_path / "proxy.log") == ["new"]


def test_a_file_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "proxy.log").write_text("old\n")
    noon = NOON.timestamp()
    os.utime(tmp_path / "proxy.log", (noon, noon))
    (tmp_path / "proxy.log-20261121").write_text("today\n")
    write(DailyFile(tmp_path / "proxy.log"), ("new", NOON))
    assert lines_of(tmp_path / "proxy.log") == ["old"]
    assert lines_of(tmp_path / "proxy.log-20261121") == ["today", "new"]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        pytest.param(2, ["20261119", "20261120", "20261121"], id="two beside today's"),
        pytest.param(
            7, ["20261117", "20261118", "20261119", "20261120", "20261121"], id="more than there are"
        ),
        pytest.param(0, ["20261117", "20261118", "20261119", "20261120", "20261121"], id="zero keeps all"),
    ],
)
def test_old_files_are_really_deleted(tmp_path: Path, keep: int, left: list[str]) -> None:
    for day in range(17, 21):
        (tmp_path / f"proxy.log-202611{day}").touch()
    write(DailyFile(tmp_path / "proxy.log", keep=keep), ("a", NOON))
    assert sorted(path.name for path in tmp_path.glob("proxy.log-*")) == [f"proxy.log-{day}" for day in left]


def test_only_files_of_the_pattern_are_deleted(tmp_path: Path) -> None:
    others = [
        "proxy.log-2026111",
        "proxy.log-notes",
        "proxy.log-20261301",
        "proxy.log-20200101.gz",
        "other.log-20200101",
    ]
    for name in [*others, "proxy.log-20200101", "proxy.log-20200102"]:
        (tmp_path / name).touch()
    write(DailyFile(tmp_path / "proxy.log", keep=1), ("a", NOON))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*others, "proxy.log-20200102", "proxy.log-20261121", "proxy.log"]
    )


WORKER = """
import logging, sys
from datetime import datetime, timedelta
from pathlib import Path
from routeproxy.telemetry.logs import DailyFile, LineHandler

folder, worker = Path(sys.argv[1]), sys.argv[2]
handler = LineHandler(DailyFile(folder / "proxy.log", keep=1), "the log file")
start = datetime(2026, 11, 18, 23)
for n in range(1000):
    record = logging.LogRecord("x", logging.INFO, "", 0, f"{worker} {n} " + "x" * 9000, (), None)
    record.created = (start + timedelta(minutes=2 * n)).timestamp()
    handler.handle(record)
    if n % 100 == 0:
        handler.flush()
handler.close()
"""


def test_workers_share_the_files_over_midnight_and_lose_nothing(tmp_path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(n)]) for n in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    files = sorted(path for path in tmp_path.iterdir() if not path.is_symlink())
    assert [path.name for path in files] == ["proxy.log-20261119", "proxy.log-20261120"]
    whole = re.compile(r"(\d) (\d+) x{9000}")
    seen = [whole.fullmatch(line) for path in files for line in lines_of(path)]
    assert None not in seen
    # The 30 lines of the first evening went with its file.
    assert sorted((m[1], int(m[2])) for m in seen if m) == [
        (str(w), n) for w in range(4) for n in range(30, 1000)
    ]


def test_half_an_emoji_can_be_logged(tmp_path: Path) -> None:
    write(DailyFile(tmp_path / "proxy.log"), ("x\ud83d", NOON))
    assert lines_of(tmp_path / "proxy.log") == [r"x\ud83d"]


# --- setting up


def test_lines_go_to_stderr_and_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure({"LOG_FILE": str(tmp_path / "logs" / "proxy.log")})
    logging.getLogger("routeproxy.serve").info("listening")
    text = written(capsys)
    assert (tmp_path / "logs" / "proxy.log").read_text() == text
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    routeproxy\.serve: listening\n", text)


def test_setting_up_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure({})
    configure({})
    logging.getLogger("routeproxy").info("once")
    assert written(capsys).count("once") == 1


@pytest.mark.parametrize("level", ["warning", "WARNING", " Warning "])
def test_the_level_is_the_variables(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure({"LOG_LEVEL": level})
    logging.getLogger("routeproxy").info("hidden")
    logging.getLogger("routeproxy").warning("shown")
    assert "hidden" not in (err := written(capsys))
    assert "shown" in err


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL is `LOUD`; expected one of CRITICAL, ERROR, WARNING, INFO, DEBUG"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT is `xml`; expected one of text, json"),
        ({"LOG_FILE": "x", "LOG_FILE_BACKUP_COUNT": "-1"}, "LOG_FILE_BACKUP_COUNT is `-1`"),
        (
            {"LOG_FILE": "x", "LOG_FILE_PATTERN": "old.log"},
            "LOG_FILE_PATTERN is `old.log`; expected a date in it",
        ),
    ],
)
def test_a_bad_variable_is_named_with_what_is_valid(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        configure(environ)


def test_a_pipe_is_written_to_as_it_is() -> None:
    configure({"LOG_FILE": "/dev/null"})
    logging.getLogger("routeproxy").info("gone")
    assert not list(Path("/dev").glob("null-*"))


@pytest.mark.parametrize("name", logs.QUIET)
def test_libraries_below_warning_are_never_heard(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger(name).addHandler(logging.StreamHandler(sys.stderr))  # as LiteLLM does
    configure({"LOG_LEVEL": "DEBUG"})
    logging.getLogger(name).info("a prompt")
    logging.getLogger(name).warning("trouble")
    err = written(capsys)
    assert "a prompt" not in err
    assert err.count("trouble") == 1


def test_a_requests_line_is_a_record_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    """A handler of somebody else's finds what it looks for."""
    with caplog.at_level(logging.INFO, "routeproxy.requests"):
        log_request(record())
        logging.getLogger("routeproxy.requests").info(caplog.messages[0])
    ours, pythons = (vars(one) for one in caplog.records)
    assert ours.keys() == pythons.keys()
    assert str(ours["msg"]) == pythons["msg"]
    for name in ("created", "msecs", "relativeCreated"):
        assert type(ours[name]) is type(pythons[name])
    for name in ("created", "relativeCreated"):
        assert 0 <= pythons[name] - ours[name] < 10_000
    assert abs(ours["relativeCreated"] - (ours["created"] - logging._startTime) * 1000) < 50  # type: ignore[attr-defined]


# --- in JSON


def objects(text: str) -> list[dict[str, Any]]:
    """One for each line; what differs from run to run is checked and taken away."""
    found = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one.pop("time"))
    return found


@pytest.mark.parametrize("form", ["json", "JSON", " Json "])
def test_each_line_is_an_object(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure({"LOG_FORMAT": form, "LOG_FILE": str(tmp_path / "proxy.log")})
    logging.getLogger("routeproxy.serve").info("two\nlines, %s", "größer\x1b[31m")
    log_request(record(**ANSWERED, team="a b", key="laptop", stream=True, input_tokens=0))
    log_request(record(path="/a\n{}", status=404, error="not_found_error"))
    text = written(capsys)
    assert text == (tmp_path / "proxy.log").read_text()
    serve = {"level": "INFO", "logger": "routeproxy.serve", "message": "two\nlines, größer\x1b[31m"}
    request = {"level": "INFO", "logger": "routeproxy.requests", "event": "done", "id": "req_1"}
    assert objects(text) == [
        serve,
        request
        | {"message": "POST /v1/messages 200", "method": "POST", "path": "/v1/messages", "status": 200}
        | ANSWERED
        | {"team": "a b", "key": "laptop", "duration_ms": 1234.4, "input_tokens": 0, "stream": True},
        request
        | {"message": 'POST "/a\\n{}" 404', "method": "POST", "path": "/a\n{}", "status": 404}
        | {"error": "not_found_error", "attempts": 0, "duration_ms": 1234.4},
    ]


@pytest.mark.parametrize("text", ["half \ud83d", "\u009b31m", "\u2028", "\u202e", "\x7f"])
def test_an_object_holds_any_text_and_steers_no_terminal(text: str) -> None:
    line = JsonLines().format(entry(text))
    assert json.loads(line)["message"] == text
    assert line.isprintable()


def test_an_exception_is_a_field_whoever_logs_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure({"LOG_FORMAT": "json"})
    for name in ("routeproxy.web.app", "uvicorn.error", "asyncio", "LiteLLM"):
        try:
            raise ZeroDivisionError("by zero\nindeed")
        except ZeroDivisionError:
            logging.getLogger(name).exception("it failed")
    for one, name in zip(
        found := objects(written(capsys)),
        ["routeproxy.web.app", "uvicorn.error", "asyncio", "LiteLLM"],
        strict=True,
    ):
        assert one.pop("exception").endswith("ZeroDivisionError: by zero\nindeed")
        assert one == {"level": "ERROR", "logger": name, "message": "it failed"}
    assert len(found) == 4


def test_warnings_and_what_asyncio_says_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure({"LOG_FORMAT": "json"})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("an old way", DeprecationWarning, stacklevel=1)
    loop = asyncio.new_event_loop()
    loop.call_exception_handler({"message": "nobody asked", "exception": ValueError("odd")})
    loop.close()
    warned, asyncios = objects(written(capsys))
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING")
    assert "DeprecationWarning: an old way" in warned["message"]
    assert (asyncios["logger"], asyncios["message"]) == ("asyncio", "nobody asked")
    assert "ValueError: odd" in asyncios["exception"]
