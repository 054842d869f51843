"""The kinds of failure: what the table in the module's docstring says is so."""

from typing import get_args

from routeproxy.policy.decide import USUAL_FAILURES, FailureKind
from routeproxy.upstream import failures
from routeproxy.upstream.failures import STATUS_OF_KIND, UpstreamFailure

TABLE = [
    (kind, int(status), retried == "yes", falls_back)
    for kind, status, retried, falls_back in (
        line.split(maxsplit=3) for line in (failures.__doc__ or "").splitlines() if line.startswith("    ")
    )
    if status.isdigit()
]


def falls_back(kind: str) -> str:
    if kind not in get_args(FailureKind):
        return "never"
    return "yes" if kind in USUAL_FAILURES else "if a rule says so"


def test_the_table_in_the_docstring_is_true() -> None:
    assert sorted(TABLE) == sorted(
        (kind, status, UpstreamFailure(kind, "").retryable, falls_back(kind))
        for kind, status in STATUS_OF_KIND.items()
    )
