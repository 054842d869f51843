"""`routeproxy replay` as it is called, and the ledger that it reads (docs/commands.md, "replay")."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from routeproxy.cli import app
from routeproxy.ledger.rows import Batch, RequestRow
from routeproxy.ledger.sqlite import SqliteStore
from tests.ledger.rows import attempt, request

IN_FORCE = """
[ledger]
path = "usage.db"
users = "none"
[providers.echo]
[default]
targets = "echo/*"
"""
NEW = """
[providers.openai]
[providers.echo]
[teams.search]
keys = ["env:SEARCH"]
[[rules]]
name = "header"
match.headers.x-a = "1"
targets = "echo/x"
[default]
targets = "openai/gpt-5-mini"
"""
PERIOD = ("--since", "2026-11-01", "--until", "2026-12-31")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCH", "key-of-search")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    (tmp_path / "rules.toml").write_text(IN_FORCE)
    (tmp_path / "new.toml").write_text(NEW)
    return tmp_path


def written(folder: Path, rows: Sequence[RequestRow]) -> None:
    async def fill() -> None:
        store = SqliteStore(folder / "usage.db")
        await store.write(Batch(requests=[*rows]), rows[0].at)
        await store.aclose()

    asyncio.run(fill())


def replay(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["replay", "--rules", "new.toml", *arguments])
    return result.exit_code, result.stdout, result.stderr


def rows(known: int, unknown: int) -> list[RequestRow]:
    recorded = {"model": "m", "headers": {"x-a": None}}
    return [
        *(request(number, attempt(), facts=recorded, session=f"s{number}") for number in range(known)),
        *(request(1000 + number, attempt(), facts={"model": "m"}) for number in range(unknown)),
    ]


def test_the_share_that_is_undecidable_sets_the_exit_code(folder: Path) -> None:
    written(folder, rows(known=97, unknown=3))
    code, out, _ = replay("--ledger", *PERIOD)
    assert code == 0
    assert "undecidable: 3 requests (3.00%)\n  3 for `header x-a`, which was not recorded" in out
    assert replay("--ledger", *PERIOD, "--max-undecidable", "3%")[0] == 0
    assert replay("--ledger", *PERIOD, "--max-undecidable", "0.029")[0] == 1


def test_json_and_markdown_say_the_same(folder: Path) -> None:
    written(folder, rows(known=4, unknown=1))
    code, out, _ = replay("--ledger", *PERIOD, "--json")
    said = json.loads(out)
    assert (code, said["requests"], said["undecidable"]) == (
        0,
        5,
        {"requests": 1, "facts": {"header x-a": 1}},
    )
    (moved,) = said["moved"]
    assert (moved["team"], moved["from"], moved["to"]) == ("search", "openai/gpt-5", "openai/gpt-5-mini")
    assert (moved["requests"], moved["sessions"], moved["cost_before_nanousd"]) == (4, 4, 28)
    low, high = moved["cost_after_nanousd"]
    assert 0 < low < high
    _, markdown, _ = replay("--ledger", *PERIOD, "--format", "markdown")
    assert "### 5 past requests through `new.toml" in markdown
    assert "| search | openai/gpt-5 | openai/gpt-5-mini | 4 | 4 |" in markdown


def test_the_requests_are_listed_where_that_is_asked_for(folder: Path) -> None:
    written(folder, rows(known=1, unknown=0))
    _, out, _ = replay("--ledger", *PERIOD, "--list")
    assert f"req_{0:032x} of 2026-11-30T12:00:00Z" in out
    assert "  before  default: openai/gpt-5\n  after   default: openai/gpt-5-mini" in out


def test_an_empty_period_is_no_fault(folder: Path) -> None:
    written(folder, rows(known=1, unknown=0))
    code, out, _ = replay(
        "--ledger", "--since", "2026-01-01", "--until", "2026-01-02", "--max-undecidable", "0"
    )
    assert code == 0
    assert out.startswith("0 requests of the ledger")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name what to replay: either --log FILE or --ledger"),
        (("--log", "x", "--ledger"), "name what to replay: either --log FILE or --ledger"),
        (("--log", "absent.jsonl"), "absent.jsonl: No such file or directory"),
        (("--ledger", "--in-force", "new.toml"), "has no `[ledger]`"),
        (("--ledger", "--max-undecidable", "many"), "expected a share such as 1% or 0.01"),
        (("--ledger", "--tokenizer-factor", "x"), "expected a number, or a range such as 0.8-1.25"),
        (("--ledger", "--since", "yesterday"), "expected a day such as"),
    ],
)
def test_what_can_t_be_done_is_said(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    written(folder, rows(known=1, unknown=0))
    code, _, err = replay(*arguments)
    assert code == 2
    assert words in err
