"""When each rule last took a request, out of the sums: to the hour, or for long periods to the day."""

import datetime
from collections.abc import Mapping

from routeproxy.ledger.schema import SUM_TABLES
from routeproxy.ledger.store import Store
from routeproxy.ledger.sums import Period

BY_HOUR = datetime.timedelta(days=8)
"""Up to so long a period the hours are looked at: there are few of them."""


async def last_hits(
    store: Store, since: datetime.datetime, until: datetime.datetime
) -> Mapping[str, datetime.datetime]:
    """By rule, the beginning of the last hour (or day) in which it took one, within this time. Raises
    `LedgerUnavailable`."""
    period: Period = "hour" if until - since <= BY_HOUR else "day"
    began = store.dialect.sum_seconds.format("max(s.began)")
    sql = (
        f"SELECT g.rule, {began} FROM {SUM_TABLES[period]} s JOIN groups g ON g.id = s.group_id "
        "WHERE s.began >= :since AND s.began < :until AND s.requests > 0 GROUP BY g.rule"
    )
    time = store.dialect.sum_time
    values = {"since": time(since.timestamp()), "until": time(until.timestamp())}
    return {
        rule: datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
        for rule, seconds in await store.query(sql, values)
    }
