"""A decision's targets, tried in order: keys, retries, fallback, time. The first content that goes out commits: after it a failure is an
`error` event, never a silent switch and never a fake end (design.md, "One request")."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import NamedTuple, Protocol

from routeproxy.exchange import Call, Exchange, Part
from routeproxy.messages.events import error_event, frame
from routeproxy.policy.decide import Decision, Provider, Target
from routeproxy.upstream.failures import LONGEST_RETRY_AFTER, TRANSIENT, Kind, UpstreamFailure, key_missing
from routeproxy.upstream.keys import Keys
from routeproxy.upstream.local import refusal


class Upstream(Protocol):
    """One way of speaking to back ends. Leaving `send`'s context lets the back end go, at once and whatever state it is in."""

    def send(self, call: Call) -> AbstractAsyncContextManager[AsyncIterator[Part]]:
        """The answer in parts. Raises `UpstreamFailure`, here or between parts."""

    async def count_tokens(self, call: Call) -> bytes | None:
        """The back end's own count, as the body of an answer; None where it has none."""


class Upstreams(Protocol):
    def of(self, provider: Provider) -> Upstream: ...


class _Tried(NamedTuple):
    target: Target
    failure: UpstreamFailure


async def answer(exchange: Exchange, upstreams: Upstreams, keys: Keys) -> AsyncIterator[Part]:
    """The parts of the first answer that a target gives. Raises the `UpstreamFailure` to show when none does."""
    decision = exchange.decision
    assert decision is not None
    deadline = asyncio.get_running_loop().time() + decision.deadline if decision.deadline else None
    tried: list[_Tried] = []
    for target in decision.targets:
        for attempt in range(1, decision.retry.attempts + 1):
            for key in _keys_to_try(target, keys):
                exchange.begin_attempt(target)
                try:
                    call = Call(target, key, exchange)
                    async with aclosing(_attempt(call, upstreams.of(target.provider), deadline)) as parts:
                        async for part in parts:
                            yield part
                    return
                except UpstreamFailure as failure:
                    if exchange.first_content_at is not None:
                        exchange.error = failure.type
                        yield Part(frame(error_event(failure.type, failure.message, exchange.request_id)), True)
                        return
                    tried.append(_Tried(target, failure))
                    if failure.kind not in ("auth", "rate_limit"):
                        break
                    keys.refused(target.provider)
            failure = tried[-1].failure
            if attempt == decision.retry.attempts or failure.kind not in TRANSIENT:
                break
            wait = failure.retry_after or decision.retry.backoff * 2 ** (attempt - 1)
            if wait > LONGEST_RETRY_AFTER or _passed(deadline, wait):
                break
            await asyncio.sleep(wait)
        if not _may_fall_back(decision, tried[-1].failure.kind) or _passed(deadline):
            break
    last = _verdict(tried)
    exchange.target = last.target
    exchange.relayed = list(last.failure.relay.headers) if last.failure.relay else []
    if last.failure.kind == "content_policy" and last.failure.relay is None:
        yield refusal(exchange, last.failure.message)
        return
    raise last.failure


def _keys_to_try(target: Target, keys: Keys) -> list[str | None]:
    """`None` stands for no key: needed by none, or not set (which is the attempt's failure to report)."""
    return [*keys.of(target.provider)] or [None]


def needed_key(call: Call) -> str | None:
    """The key of this attempt; raises failure `auth` when the provider wants one and it is not set."""
    provider = call.target.provider
    if call.key is None and provider.keys and all(secret.kind != "none" for secret in provider.keys):
        where = " or ".join(f"{secret.kind}:{secret.name}" for secret in provider.keys)
        raise key_missing(provider.name, where)
    return call.key


def _passed(deadline: float | None, wait: float = 0.0) -> bool:
    return deadline is not None and asyncio.get_running_loop().time() + wait >= deadline


def _may_fall_back(decision: Decision, kind: Kind) -> bool:
    # `total` is the time that the whole answer may take: another target would not make it shorter.
    return decision.fallback.enabled and kind in decision.fallback.on


def _verdict(tried: list[_Tried]) -> _Tried:
    """What the client gets to see: the first failure that is worth a retry, with the shortest wait, else the last one."""
    transient = [one for one in tried if one.failure.kind in TRANSIENT]
    if not transient:
        return tried[-1]
    chosen = transient[0]
    waits = [one.failure.retry_after for one in transient if one.failure.retry_after is not None]
    if chosen.failure.retry_after is not None and chosen.failure.relay is None:
        chosen.failure.headers = {**chosen.failure.headers, "retry-after": f"{min(*waits, 60.0):g}"}
    return chosen


async def _attempt(call: Call, upstream: Upstream, deadline: float | None) -> AsyncIterator[Part]:
    """One target, once, within its times. What comes before the content is held back, since another target may still answer."""
    exchange, timeouts = call.exchange, call.target.timeouts
    loop = asyncio.get_running_loop()
    started = loop.time()
    total_at = started + timeouts.total if timeouts.total else None
    limits: list[tuple[float, Kind]] = [(started + timeouts.connect + timeouts.first_token, "timeout_first_token")]
    if total_at is not None:
        limits.append((total_at, "timeout_total"))
    if deadline is not None:
        limits.append((deadline, "timeout_first_token"))
    until, kind = min(limits)
    held: list[bytes] = []
    needed_key(call)
    try:
        async with asyncio.timeout_at(until) as clock, upstream.send(call) as parts:
            async for part in parts:
                if exchange.first_content_at is None:
                    held.append(part.data)
                    if not part.commits:
                        continue
                    exchange.first_content_at = time.perf_counter()
                    part = Part(b"".join(held), True)
                if part.data:
                    clock.reschedule(None)  # a client that reads slowly is not the back end's fault
                    yield part
                until, kind = loop.time() + timeouts.idle, "timeout_idle"
                if total_at is not None and total_at < until:
                    until, kind = total_at, "timeout_total"
                clock.reschedule(until)
    except TimeoutError:
        if not clock.expired():
            raise
        raise _too_late(call.target.provider.name, kind, until - started) from None
    if exchange.first_content_at is None:
        raise UpstreamFailure("connection", f"the back end {call.target.provider.name} answered with nothing")


def _too_late(provider: str, kind: Kind, seconds: float) -> UpstreamFailure:
    words = {
        "timeout_first_token": f"gave no token within {seconds:g} s",
        "timeout_idle": "went silent in the middle of its answer",
        "timeout_total": f"did not finish within {seconds:g} s",
    }
    return UpstreamFailure(kind, f"the back end {provider} {words[kind]}")
