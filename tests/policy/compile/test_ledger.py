"""What `[ledger]`, prices, labels, roles and `[telemetry]` may say, and what is said where they may not."""

import re

import pytest

from tests.policy.asking import policy, problems

REST = '\n[providers.echo]\n[default]\ntargets = "echo/x"\n'

MISTAKES = {
    "neither": ('[ledger]\nusers = "none"\n', "neither `path` nor `url`"),
    "both": ('[ledger]\npath = "a"\nurl = "env:U"\nusers = "none"\n', "`path` and `url`"),
    "no key": ('[ledger]\npath = "a"\n', "there is no key"),
    "a literal key": ('[ledger]\npath = "a"\npseudonym_key = "abc"\n', "a key does not belong in this file"),
    "a literal address": ('[ledger]\nurl = "postgresql://a:b@c/d"\nusers = "none"\n', "does not belong"),
    "minutes": ('[ledger]\npath = "a"\nusers = "none"\nretention = "90m"\n', "`retention` can't be"),
    "sums go first": (
        '[ledger]\npath = "a"\nusers = "none"\nretention = "2y"\nrollup_retention = "1y"\n', "shorter than",
    ),
    "a price of nothing": ("[providers.echo.prices]\nx = {}\n", "this table is empty"),
    "no price": ('[providers.echo.prices]\nx = { per = "1M tokens" }\n', "no price is stated"),
    "below zero": ("[providers.echo.prices]\nx = { input = -1 }\n", "no price is that"),
    "endless": ("[providers.echo.prices]\nx = { input = inf }\n", "can't be the number inf"),
    "no number": ("[providers.echo.prices]\nx = { input = nan }\n", "can't be the number nan"),
    "euros": ('[providers.echo.prices]\nx = { currency = "EUR", input = 1 }\n', "no rate of exchange"),
    "twice the same day": (
        "[providers.echo.prices]\nx = [{ input = 1, from = 2026-01-01 }, { input = 2, from = 2026-01-01 }]\n",
        "two prices from 2026-01-01",
    ),
    "another unit": ('[providers.echo.prices]\nx = { per = "token", input = 1 }\n', "`per` can't be"),
    "all of it": ("[providers.echo]\ndiscount = 1\n", "`discount` is a part of the price"),
    "a role of a team": (
        '[teams.t]\nkeys = { key = "env:K", role = "read" }\n',
        "`role` is for keys of `\\[server\\] admin_keys`",
    ),
    "a user of an operator": (
        '[server]\nadmin_keys = { key = "env:K", user = "ann" }\n', "`user` is for keys of teams",
    ),
    "no address": ('[telemetry]\nmetrics = "9464"\n', "is no address to listen on"),
    "nowhere": ("[telemetry]\ntraces = { ratio = 0.5 }\n", "it is not said where traces go"),
    "no endpoint": ('[telemetry]\ntraces = { endpoint = "collector" }\n', "`endpoint` "),
    "recording as a duty": (
        '[[invariants]]\nname = "i"\nonly.record = "content"\n', "`record` can only be what must never be",
    ),
    "recorded what must not be": (
        '[[rules]]\nname = "r"\nmatch.headers.a = "b"\ntargets = "echo/y"\nrecord = "content"\n'
        '[[invariants]]\nname = "i"\nwhen.headers.a = "b"\nnever.record = "content"\n',
        "what is asked of it is recorded",
    ),
    "recorded beside a denial": (
        '[[rules]]\nmatch.model = "a"\ndeny = "no"\nrecord = "content"\n', "means nothing beside `deny`",
    ),
    "more than all": (
        '[telemetry]\ntraces = { endpoint = "http://c:4318/v1/traces", ratio = 2 }\n',
        "is a share of the requests",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_said_where_it_stands(name: str) -> None:
    text, words = MISTAKES[name]
    rest = REST.replace("[providers.echo]\n", "") if "[providers.echo]\n" in text else REST
    found = [problem for problem in problems(text + rest, {"K": "k"}) if problem.severity == "error"]
    assert len(found) == 1, [problem.message for problem in found]
    assert re.search(words, found[0].message), found[0].message
    assert found[0].location is not None
    assert found[0].location.line <= text.count("\n")


def test_what_it_costs_is_no_part_of_the_version() -> None:
    text = REST.replace("[providers.echo]", "[providers.echo]\n{more}")
    versions = {
        policy(text.format(more=more), {}).version
        for more in ("", "discount = 0.5", '[providers.echo.prices]\n"*" = { input = 1 }')
    }
    assert len(versions) == 1
    ledger = '[ledger]\npath = "usage.db"\nusers = "none"\n'
    assert policy(ledger + REST, {}).version == policy(REST, {}).version


def test_the_role_of_an_admin_key_is_a_part_of_the_version() -> None:
    keys = ('{ key = "env:K" }', '{ key = "env:K", role = "read" }', '{ key = "env:K", role = "operate" }')
    texts = [f"[server]\nadmin_keys = {key}\n{REST}" for key in keys]
    first, second, third = (policy(text, {"K": "k"}).version for text in texts)
    assert first == third != second


def test_left_out_the_usual_holds() -> None:
    compiled = policy(f'[ledger]\npath = "usage.db"\nusers = "none"\n{REST}', {}).ledger
    assert compiled is not None
    assert (compiled.retention, compiled.rollup_retention) == (90 * 86_400, 3 * 365 * 86_400)
    assert (compiled.spool, compiled.spool_mb, compiled.migrate) == ("usage.db-spool", 256, False)
