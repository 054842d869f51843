"""What a replay found, as a table, as Markdown for a pull request, or as JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from routeproxy.ledger.report import aligned
from routeproxy.replay.costs import USUAL_FACTOR, Factor
from routeproxy.replay.replay import Replayed, Sums, Way

MOST_SHOWN = 30
"""Ways that a table shows."""
HEADINGS = ("team", "from", "to", "requests", "sessions", "USD before", "USD after", "")
TEXTS = {0, 1, 2, 7}


class Heading(Struct, frozen=True, kw_only=True):
    """What was replayed through what."""

    requests: str
    """Where they came from: `decisions.jsonl`, `the ledger, since 2026-11-17`"""
    rules: str
    """`new.toml 0123456789ab`"""
    factor: Factor = USUAL_FACTOR
    knows_caches: bool
    """Whether the requests tell what came from a cache."""


def text_report(found: Replayed, heading: Heading, *, names: bool = False) -> str:
    lines = [f"{counted(found.requests)} of {heading.requests}, through {heading.rules}", ""]
    lines += [*undecidable(found), ""]
    if found.moved:
        lines += aligned([HEADINGS, *_rows(found)], TEXTS)
        lines += [*_more_ways(found), ""]
    lines += [*_summary(found), "", *_breaches(found), *_windows(found), "", *_assumptions(heading)]
    if names and found.changes:
        lines.append("")
        lines += [*changed_requests(found)]
    return "\n".join(lines)


def short_report(found: Replayed) -> Iterator[str]:
    """Without costs."""
    yield from undecidable(found)
    yield f"decided otherwise: {found.changed:,} of {counted(found.requests)}"
    yield from _breaches(found)


def changed_requests(found: Replayed) -> Iterator[str]:
    """The requests that come out otherwise, three lines each."""
    for change in found.changes:
        yield f"{change.id} of {change.time}"
        yield f"  before  {change.before}"
        yield f"  after   {change.after}"
    if found.changed > len(found.changes):
        yield f"and {found.changed - len(found.changes):,} more"


def markdown_report(found: Replayed, heading: Heading) -> str:
    """For a comment on a pull request."""
    lines = [f"### {counted(found.requests, 'past request')} through `{heading.rules}`", ""]
    lines += [f"Requests of {heading.requests}.", "", f"**{next(undecidable(found))}**"]
    lines += [f"- {line}" for line in [*undecidable(found)][1:]]
    if found.moved:
        lines += ["", f"| {' | '.join(HEADINGS)} |", "|---|---|---|---:|---:|---:|---:|---|"]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in _rows(found)]
        lines += [*_more_ways(found)]
    lines += ["", *(f"- {line}" for line in (*_summary(found), *_breaches(found), *_windows(found)))]
    assumed = (f"- {line}" for line in _assumptions(heading))
    lines += ["", "<details><summary>What the costs assume</summary>", "", *assumed, "", "</details>"]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def json_report(found: Replayed, heading: Heading) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "of": heading.requests,
        "rules": heading.rules,
        "undecidable": {"requests": found.not_decided, "facts": dict(found.undecidable)},
        "unreadable": found.unreadable,
        "moved": [
            {"team": way.team or None, "from": way.before, "to": way.after, **_numbers(sums)}
            for way, sums in _ways(found)
        ],
        "stayed": {**_numbers(found.stayed), "by_another_rule_or_with_others_to_follow": found.other_rule},
        "total": _numbers(found.total),
        "invariants_broken": dict(found.broken),
        "not_judged": found.not_judged,
        "context_overflows": dict(found.overflowing),
        "context_may_overflow": dict(found.tight),
        "context_unknown": dict(found.unknown_windows),
        "tokenizer_factor": [heading.factor.low, heading.factor.high],
        "assumptions": [*_assumptions(heading)],
        "changed": found.changed,
        "changes": [
            {"request": change.id, "time": change.time, "before": change.before, "after": change.after}
            for change in found.changes
        ],
    }


def _numbers(sums: Sums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "sessions": len(sums.sessions),
        "cost_before_nanousd": sums.before,
        "cost_after_nanousd": [sums.after_low, sums.after_high],
        "requests_in_no_sum": sums.unpriced,
    }


def _ways(found: Replayed) -> list[tuple[Way, Sums]]:
    return sorted(found.moved.items(), key=lambda item: (-item[1].requests, item[0]))


def _rows(found: Replayed) -> Iterator[Sequence[str]]:
    for way, sums in _ways(found)[:MOST_SHOWN]:
        without = f"{sums.unpriced:,} in no sum" if sums.unpriced else ""
        cells = (
            f"{sums.requests:,}",
            f"{len(sums.sessions):,}",
            _dollars(sums.before),
            _range(sums),
            without,
        )
        yield (way.team or "–", way.before, way.after, *cells)


def _more_ways(found: Replayed) -> Iterator[str]:
    if len(found.moved) > MOST_SHOWN:
        rest = sum(sums.requests for _, sums in _ways(found)[MOST_SHOWN:])
        yield f"and {rest:,} requests in {len(found.moved) - MOST_SHOWN:,} more ways"


def undecidable(found: Replayed) -> Iterator[str]:
    """The first line says how many."""
    share = found.not_decided / found.requests if found.requests else 0
    yield f"undecidable: {counted(found.not_decided)} ({share:.2%})"
    for fact, count in found.undecidable.most_common():
        yield f"  {count:,} for `{fact}`, which was not recorded"
    if found.unreadable:
        yield f"  {found.unreadable:,} can't be read"


def _summary(found: Replayed) -> Iterator[str]:
    total, moved = found.total, sum(sums.requests for sums in found.moved.values())
    yield f"{moved:,} move, {found.stayed.requests:,} stay where they were"
    if found.other_rule:
        yield f"{found.other_rule:,} of these are taken by another rule, or have other targets to follow"
    yield f"in all {_dollars(total.before)} USD before, {_range(total)} after"
    if total.unpriced:
        yield f"in no sum are {counted(total.unpriced)}, whose cost is not known before, after, or both"


def _breaches(found: Replayed) -> Iterator[str]:
    for name, count in found.broken.most_common():
        yield f"INVARIANT BROKEN: `{name}`, by {counted(count)}"
    if not found.broken:
        yield "no request would break an invariant"
    if found.not_judged:
        yield f"of {found.not_judged:,} it can't be told whether an invariant speaks of them"


def _windows(found: Replayed) -> Iterator[str]:
    for name, count in found.overflowing.most_common():
        yield f"{count:,} would not fit into the context window of {name}"
    for name, count in found.tight.most_common():
        yield f"{count:,} may not fit into the context window of {name}"
    if unknown := _listed(found.unknown_windows):
        yield f"not known is the context window of {unknown}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(sorted(counts))


def _assumptions(heading: Heading) -> Iterator[str]:
    yield "assumed: answers of the same length, by the first target that is asked"
    yield f"assumed: another model makes {heading.factor.words} tokens of one (--tokenizer-factor)"
    if heading.knows_caches:
        yield "assumed: a session that moves loses its prompt cache once, a request without one perhaps"
        yield "where a model has no price for its cache, what goes through it is priced as input"
    else:
        yield "a decision log tells of no cache and no cost: all input is priced as input, before and after"


def counted(number: int, what: str = "request") -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _range(sums: Sums) -> str:
    low, high = _dollars(sums.after_low), _dollars(sums.after_high)
    return low if low == high else f"{low} to {high}"


def _dollars(nanousd: int) -> str:
    return f"{nanousd / 10**9:,.4f}"
