"""`routeproxy count`: the estimate that rules go by, for requests in files."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from routeproxy import tokens
from routeproxy.cli.count import run_count

HELLO = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
LONG = b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}' % (b"many words " * 2_000)


def counted(*files: Path, stdin: bytes = b"", **how: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = run_count(files, out=out, err=err, stdin=io.BytesIO(stdin), **how)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(name: str, body: bytes) -> Path:
    Path(name).write_bytes(body)
    return Path(name)


def test_a_file_is_counted_as_the_server_counts_it() -> None:
    long = f"{tokens.count(LONG):,}"
    assert "," in long
    assert counted(written("long.json", LONG)) == (0, f"{long}  long.json\n", "")


def test_several_files_have_a_total() -> None:
    code, out, _ = counted(written("hello.json", HELLO), written("long.json", LONG))
    hello, long = tokens.count(HELLO), tokens.count(LONG)
    width = len(f"{long:,}")
    assert code == 0
    assert out.splitlines() == [
        f"{hello:>{width}}  hello.json",
        f"{long:,}  long.json",
        f"{hello + long:,}  total",
    ]


@pytest.mark.parametrize("files", [(), (Path("-"),)], ids=["no file", "a dash"])
def test_without_a_file_the_standard_input_is_counted(files: tuple[Path, ...]) -> None:
    assert counted(*files, stdin=HELLO) == (0, f"{tokens.count(HELLO)}  -\n", "")


def test_as_json() -> None:
    code, out, _ = counted(written("hello.json", HELLO), Path("-"), stdin=HELLO, json=True)
    hello = tokens.count(HELLO)
    assert code == 0
    assert json.loads(out) == {
        "input_tokens": 2 * hello,
        "files": [{"file": "hello.json", "input_tokens": hello}, {"file": "-", "input_tokens": hello}],
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"[]", "request body must be a JSON object", id="a list"),
        pytest.param(b"", "invalid JSON: the request body is empty", id="empty"),
        pytest.param(b'{"model": ', "invalid JSON: the request body ends too early", id="cut off"),
    ],
)
def test_what_is_no_request_is_named_and_nothing_is_counted(body: bytes, message: str) -> None:
    good, bad = written("good.json", HELLO), written("bad.json", body)
    assert counted(good, bad) == (2, "", f"routeproxy: bad.json: {message}\n")
    assert counted(stdin=body) == (2, "", f"routeproxy: -: {message}\n")


@pytest.mark.parametrize(
    ("file", "message"), [("nowhere.json", "No such file or directory"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_named(file: str, message: str) -> None:
    assert counted(Path(file)) == (2, "", f"routeproxy: {file}: {message}\n")


def test_half_an_emoji_is_no_mistake() -> None:
    body = rb'{"model": "m", "messages": [{"role": "user", "content": "cut off: \ud83d"}]}'
    assert counted(stdin=body)[0] == 0
