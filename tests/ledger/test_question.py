"""Questions as people write them, and invoices as providers write them."""

import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from routeproxy.ledger.question import asked
from routeproxy.ledger.reconcile import Invoice, reconciled
from routeproxy.ledger.report import money
from routeproxy.ledger.sums import Sums
from routeproxy.ledger.usage import Question, Usage, UsageRow

NOW = datetime.datetime(2026, 12, 1, 10, 45, tzinfo=ZoneInfo("Europe/Berlin"))


def ends(since: str | None = None, until: str | None = None, month: str | None = None) -> tuple[str, str]:
    question = asked("team", since, until, month, (), "Europe/Berlin", NOW)
    return f"{question.since:%m-%d %H:%M}", f"{question.until:%m-%d %H:%M}"


def test_times_are_those_of_whole_hours_and_days() -> None:
    assert ends() == ("11-01 00:00", "12-02 00:00")
    assert ends("1d") == ("11-30 00:00", "12-02 00:00")
    assert ends("2w") == ("11-17 00:00", "12-02 00:00")
    assert ends("12h") == ("11-30 22:00", "12-02 00:00")
    assert ends("2026-11-05", "2026-11-07") == ("11-05 00:00", "11-07 00:00")
    assert ends(month="2026-12") == ("12-01 00:00", "01-01 00:00")
    assert ends(month="2026-02") == ("02-01 00:00", "03-01 00:00")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "teams"}, "by teams: expected some of team, label"),
        ({"by": "team:x"}, "by team:x: expected"),
        ({"since": "yesterday"}, "since yesterday: expected a day"),
        ({"since": "9999999d"}, "since 9999999d: expected a day"),
        ({"since": "800000d"}, "since 800000d"),
        ({"until": "2026-13-01"}, "until 2026-13-01: expected a day"),
        ({"month": "2026-13"}, "month 2026-13: expected one such as 2026-11"),
        ({"month": "2026-11", "since": "1d"}, "a month says both ends"),
        ({"since": "2026-12-05", "until": "2026-12-01"}, "nothing lies between"),
        ({"only": ["team"]}, "only team: expected NAME=VALUE"),
        ({"only": ["day=1"]}, "only day=1: expected NAME=VALUE"),
        ({"time_zone": "Mars/Olympus"}, "time zone Mars/Olympus: there is none"),
        ({"time_zone": "../etc/passwd"}, "there is none"),
    ],
)
def test_what_is_no_question_is_said_to_be_that(options: dict[str, object], words: str) -> None:
    usual: dict[str, object] = {
        "by": "team", "since": None, "until": None, "month": None, "only": (), "time_zone": "UTC",
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        asked(**(usual | options), now=NOW)  # type: ignore[arg-type]


def test_a_label_may_be_named() -> None:
    question = asked("label:cost_center,day", None, None, None, ["team=a=b"], "UTC", NOW)
    assert (question.columns, question.only) == (("labels", "day"), {"team": "a=b"})


# --- invoices


def read(text: str, **columns: str) -> Invoice:
    return Invoice.read(text.splitlines(keepends=True), "nov.csv", columns)


def test_columns_are_found_by_the_names_that_providers_give_them() -> None:
    for heading in ("date,model,cost", "usage_date,Model,Amount", "Date,Model Version,Cost (USD)".lower()):
        invoice = read(f"{heading}\n2026-11-01T00:00:00Z,gpt-5,$1.50\n2026-11-01,gpt-5,0.25\n")
        assert invoice.costs == {("2026-11-01", "gpt-5"): Decimal("1.75")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c\n1,2,3\n", "no column for the day; it has a, b, c; say which it is: --columns day=NAME"),
        ("date,model,cost\n", "there is no line in it"),
        ("date,model,cost\nmonday,x,1\n", "nov.csv:2: `monday` is no day"),
        ("date,model,cost\n2026-11-01,x,much\n", "nov.csv:2: `much` is no amount"),
        ("date,model,cost\n2026-11-01,x,NaN\n", "nov.csv:2: `NaN` is no amount"),
        ("date,model,cost\n2026-11-01\n", "nov.csv:2: `` is no amount|^$"),
    ],
)
def test_what_is_no_invoice_is_said_to_be_that(text: str, words: str) -> None:
    if words.endswith("|^$"):
        assert read(text).costs == {("2026-11-01", ""): Decimal(0)}
        return
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        read(text)


def test_differences_below_a_cent_agree_and_others_are_explained_as_far_as_can_be() -> None:
    def row(model: str, nanousd: int, unpriced: int = 0) -> UsageRow:
        return UsageRow(by=("2026-11-01", model), sums=Sums(cost_nanousd=nanousd, unpriced_tokens=unpriced))

    question = Question(since=NOW, until=NOW)
    rows = [row("a", 10**9), row("b", 0, 5000), row("only here", 1)]
    usage = Usage(
        question=question, rows=rows, total=UsageRow(by=(), sums=Sums()), by_source={}, late=Sums(), open=0
    )
    text = "date,model,cost\n2026-11-01,a,1.004\n2026-11-01,b,2\n2026-11-01,only there,3\n"
    differences = reconciled(usage, read(text))
    found = {each.model: (each.agrees, str(each.amount), each.words) for each in differences}
    assert found == {
        "a": (True, "0.004", ""),
        "b": (False, "2", "5,000 tokens have no price in the ledger"),
        "only here": (True, "-1E-9", "not on the invoice"),
        "only there": (False, "3", "not in the ledger: it did not come through here, or has another name"),
    }


def test_money_is_never_shown_as_less_than_it_is() -> None:
    amounts = (0, 1, 10**6, 1234567890123)
    shown = [money(UsageRow(by=(), sums=Sums(cost_nanousd=amount))) for amount in amounts]
    assert shown == ["0.00", "<0.0001", "0.0010", "1,234.57"]
