"""What views are made from."""

from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from msgspec import Struct

from routeproxy.ledger.question import asked
from routeproxy.ledger.usage import Question
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.web.admin import Control
from routeproxy.web.ledger_questions import LedgerQuestions
from routeproxy.web.pages.content import Choice, Choices, Words
from routeproxy.web.pages.viewer import Viewer

PERIODS: Mapping[str, str] = {
    "24h": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
    "90d": "90 days",
    "52w": "a year",
}
USUAL_PERIOD = "7d"


class Desk(Struct, frozen=True, kw_only=True):
    proxy: Proxy
    questions: LedgerQuestions
    observer: Observer
    control: Control | None
    earlier: Callable[[str], Policy] | None
    """The rules of a version that was in force; raises `NoSuchVersion`, `RulesRefused` or `OSError`."""

    @property
    def policy(self) -> Policy:
        return self.proxy.rules.policy


class Asked(Struct, frozen=True, kw_only=True):
    """What was asked for, by whom."""

    viewer: Viewer
    path: str
    """Of the view: `/-/spend`"""
    query: Mapping[str, str] = {}
    form: Mapping[str, str] = {}
    """What was sent with the form of the view."""

    @property
    def period(self) -> str:
        chosen = self.query.get("since", USUAL_PERIOD)
        return chosen if chosen in PERIODS else USUAL_PERIOD

    def question(self, by: str) -> Question:
        """Of usage in the period that was chosen, of whoever looks."""
        only = [f"team={self.viewer.team}"] if self.viewer.team is not None else []
        return asked(by, self.period, None, None, only, "UTC")

    def choices(self) -> Choices:
        return Choices(
            title="Period",
            choices=tuple(
                Choice(label, self.link(since=period), period == self.period)
                for period, label in PERIODS.items()
            ),
        )

    def link(self, **changed: str) -> str:
        """This view, asked otherwise."""
        query = {**{name: value for name, value in self.query.items() if name != "csv"}, **changed}
        return f"{self.path}?{urlencode(query)}" if query else self.path


NO_LEDGER = Words(
    title="Nothing is counted",
    text="The rules name no ledger, so nobody knows what was used. With a [ledger] table this page shows "
    "hits, costs, failures and requests.",
    tone="warn",
)
