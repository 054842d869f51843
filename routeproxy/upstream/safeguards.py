"""Auto mode for targets that don't judge tool uses themselves: another target is asked for a verdict on each,
once, with the conversation, and the end of the answer carries what it says.

What can't be judged is `unavailable`, with the reason; a verdict is never made up. There is no fallback and
no second try. The target is asked through the guard, like any other.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import NamedTuple

import msgspec
from msgspec import Raw

from routeproxy.exchange import AttemptRecord, Call, Exchange, Inbound
from routeproxy.messages.errors import ApiError
from routeproxy.messages.events import Event, MessageDelta, accumulate
from routeproxy.messages.relayed import read_message
from routeproxy.messages.reply import Message
from routeproxy.messages.request import OLDEST_VERSION, Envelope
from routeproxy.messages.safeguards import (
    Available,
    Evaluated,
    Reason,
    SafeguardResult,
    Unavailable,
    Verdict,
    asked_check,
)
from routeproxy.observe import Observer
from routeproxy.output import Output, Relayed
from routeproxy.policy.safeguards import Safeguards
from routeproxy.translate.safeguards import (
    ToolUse,
    UnreadableVerdicts,
    read_verdicts,
    tool_uses_of,
    verdicts_request,
)
from routeproxy.upstream.failover import ToolUseCheck, Upstreams
from routeproxy.upstream.failures import KEY_FAILURES, InvariantBroken, Kind, UpstreamFailure, not_a_message
from routeproxy.upstream.keys import Keys, needed_key

log = logging.getLogger("routeproxy.upstream.safeguards")

LONG_BODY = 2**17
"""Bytes. The conversation in a larger one is put together in a thread."""

_thread = ThreadPoolExecutor(1, "safeguards")


class Refusal(NamedTuple):
    """How a client hears of a failure."""

    reason: Reason
    of_check: bool
    """Of the whole check, which clients take for final; else of each tool use, so that they try again."""


REFUSALS: Mapping[Kind, Refusal] = {
    "rate_limit": Refusal("rate_limited", True),
    "context_overflow": Refusal("input_too_long", False),  # after which the client compacts
    "overloaded": Refusal("error", False),
    "server_error": Refusal("error", False),
    "connection": Refusal("error", False),
    "timeout_connect": Refusal("timeout", False),
    "timeout_first_token": Refusal("timeout", False),
    "timeout_idle": Refusal("timeout", False),
    "timeout_total": Refusal("timeout", False),
    "content_policy": Refusal("refused", False),
    "auth": Refusal("error", True),
    "not_found": Refusal("error", True),
    "invalid_request": Refusal("error", True),
    "capability": Refusal("error", True),
}
"""By the failure of the target that was to judge."""


class NoVerdict(Exception):
    """Why nothing was judged, in words for clients and operators."""

    def __init__(self, kind: str, words: str, refusal: Refusal, operator_words: str | None = None) -> None:
        """`kind` is what logs call it; `operator_words` are for operators alone."""
        super().__init__(words)
        self.kind = kind
        self.words = words
        self.operator_words = operator_words or words
        self.refusal = refusal


class SafeguardChecks:
    """The checks of all requests."""

    def __init__(self, upstreams: Upstreams, keys: Keys, observer: Observer) -> None:
        self._upstreams = upstreams
        self._keys = keys
        self._observer = observer
        self._reported: set[str] = set()
        """The targets, of one version of the rules, whose tool uses nobody judges."""
        self._version = ""

    def check_of(self, call: Call) -> ToolUseCheck | None:
        """The check that the answer to `call` needs: none where nobody asked for one, where the target gets
        the client's own request for it, or where the rules name nobody."""
        exchange, decision = call.exchange, call.exchange.decision
        if "safeguards" not in exchange.body.members or call.target.provider.speaks_messages:
            return None
        asked = asked_check(bytes(exchange.body.fields["safeguards"]))
        if asked is None or decision is None:
            return None
        if decision.safeguards is None:
            self._report_unjudged(call)
            return None
        return _Check(
            call, decision.safeguards, asked.classifier_context, self._upstreams, self._keys, self._observer
        )

    def _report_unjudged(self, call: Call) -> None:
        """Once for each target and version of the rules."""
        exchange, target = call.exchange, call.target.name
        if exchange.policy.version != self._version:
            self._version, self._reported = exchange.policy.version, set()
        if target in self._reported or exchange.decision is None:
            return
        self._reported.add(target)
        log.warning(
            "auto mode: a client wants its tool uses judged, %s can't, and rule `%s` of version %s names "
            "nobody who could: Claude Code will refuse every call that needs the check. Write `safeguards = "
            '"provider/model"` in the rules, or start clients with CLAUDE_CODE_AUTO_MODE_SERVER=0: then they '
            "check by ordinary requests, which rules can route",
            target,
            exchange.decision.rule,
            exchange.policy.version,
        )


class _Check:
    """The check of one answer. It holds the conversation until the answer is over."""

    def __init__(
        self,
        call: Call,
        safeguards: Safeguards,
        context: Raw,
        upstreams: Upstreams,
        keys: Keys,
        observer: Observer,
    ) -> None:
        self._exchange = call.exchange
        self._safeguards = safeguards
        self._context = context
        self._upstreams = upstreams
        self._keys = keys
        self._observer = observer
        self._body = call.exchange.body
        # The exchange lets the text go with the first content, and the guard may still have to look at it.
        self._facts = copy(call.exchange.facts)
        self._events: list[Event] = []

    def split(self, output: Output) -> tuple[Output, Output | None]:
        content = output.content
        if isinstance(content, Message):
            return Output((), False), output
        if not isinstance(content, list | tuple):
            return output, None
        end = next((place for place, event in enumerate(content) if isinstance(event, MessageDelta)), None)
        self._events += content
        if end is None:
            return output, None
        return Output(content[:end], output.commits), Output(content[end:], output.commits)

    async def judge(self, end: Output, limit: float) -> Output:
        if isinstance(end.content, Message):
            results = await self._results(end.content, limit)
            return Output(msgspec.structs.replace(end.content, safeguard_results=results), end.commits)
        answer = accumulate(self._events)
        assert isinstance(answer, Message)
        assert isinstance(end.content, list | tuple)
        delta, *rest = end.content
        results = await self._results(answer, limit)
        stop = msgspec.structs.replace(delta.delta, safeguard_results=results)
        return Output([msgspec.structs.replace(delta, delta=stop), *rest], end.commits)

    async def _results(self, answer: Message, limit: float) -> tuple[SafeguardResult, ...]:
        tool_uses, cut = tool_uses_of(answer)
        if not tool_uses:
            return (SafeguardResult(Available(cut)),)
        record = self._exchange.begin_safeguards(self._safeguards.target)
        self._observer.attempt_started(self._exchange, record)
        try:
            status = await self._status(record, answer, tool_uses, cut, limit)
        except BaseException:
            record.let_go = True
            raise
        finally:
            record.ended = time.perf_counter()
            self._observer.attempt_ended(self._exchange, record)
        return (SafeguardResult(status),)

    async def _status(
        self,
        record: AttemptRecord,
        answer: Message,
        tool_uses: list[ToolUse],
        cut: Mapping[str, Verdict],
        limit: float,
    ) -> Available | Unavailable:
        """What becomes of the check; `cut` are the tool uses that nobody is asked about."""
        refusal: Refusal | None = None
        try:
            judged = await self._ask(record, answer, tool_uses, limit)
        except NoVerdict as failure:
            refusal, record.failure = failure.refusal, failure.kind
            unavailable = Unavailable(refusal.reason, failure.words)
            judged = {use.id: unavailable for use in tool_uses}
            request_id, target = self._exchange.request_id, record.target.name
            words = failure.operator_words
            log.warning("%s %s gave no verdicts (%s): %s", request_id, target, failure.kind, words)
        verdicts = {**judged, **cut}
        record.verdicts = _tally(verdicts)
        return unavailable if refusal is not None and refusal.of_check else Available(verdicts)

    async def _ask(
        self, record: AttemptRecord, answer: Message, tool_uses: list[ToolUse], limit: float
    ) -> dict[str, Verdict]:
        """Raises `NoVerdict`."""
        target, timeouts = record.target, record.target.timeouts
        stated = [each for each in (timeouts.first_token, timeouts.total) if each is not None]
        seconds = min(self._safeguards.timeout, limit, *stated)
        key = next(iter(self._keys.of(target.provider)), None)
        try:
            async with asyncio.timeout(seconds):
                exchange = await self._own_exchange(answer, tool_uses)
                try:
                    reply = await self._send(Call(target, key, exchange))
                finally:
                    record.usage, record.tokens = exchange.usage, exchange.tokens
                    record.served_model = exchange.served_model
            return read_verdicts(reply, [use.id for use in tool_uses])
        except TimeoutError:
            words = f"{target.name} gave no verdict within {max(seconds, 0):.3g} s"
            raise NoVerdict("timeout", words, Refusal("timeout", False)) from None
        except UnreadableVerdicts as problem:
            refusal = Refusal(problem.reason, False)
            raise NoVerdict("unreadable", f"{target.name}: {problem}", refusal) from None
        except UpstreamFailure as failure:
            if key is not None and failure.kind in KEY_FAILURES:
                self._keys.refused(target.provider, key)  # the next request begins with another
            failure.redact((*self._keys.of(target.provider), *target.provider.secret_values))
            words = f"failed ({failure.kind})" if failure.quotes_back_end else failure.message
            logged = words if failure.quotes_back_end else failure.operator_message
            raise NoVerdict(
                failure.kind,
                f"{target.name}: {words}",
                REFUSALS[failure.kind],
                operator_words=f"{target.name}: {logged}",
            ) from None
        except InvariantBroken as refused:
            raise NoVerdict(
                "invariant", f"{target.name}: {refused.message}", Refusal("error", True)
            ) from None
        except ApiError as refused:  # this conversation can't be put to this target
            raise NoVerdict(
                refused.type, f"{target.name}: {refused.message}", Refusal("error", True)
            ) from None
        except Exception:
            # The answer itself is whole: it goes out, and its tool uses are not run.
            log.exception("%s: this is a bug in routeproxy", self._exchange.request_id)
            words = f"{target.name}: routeproxy failed on its verdicts; the log says why"
            raise NoVerdict("bug", words, Refusal("error", False)) from None

    async def _own_exchange(self, answer: Message, tool_uses: list[ToolUse]) -> Exchange:
        """The request for verdicts, with the facts of the request that it is part of: what invariants say of
        that holds for this too."""
        model, fields = self._safeguards.target.model, self._body.fields
        if len(self._body.text) <= LONG_BODY:
            body = verdicts_request(model, fields, self._context, answer, tool_uses)
        else:
            loop, arguments = asyncio.get_running_loop(), (model, fields, self._context, answer, tool_uses)
            body = await loop.run_in_executor(_thread, verdicts_request, *arguments)
        inbound = self._exchange.inbound
        exchange = Exchange(
            Inbound(body=body, headers=_headers(inbound), team=inbound.team), self._exchange.policy
        )
        exchange.request_id = self._exchange.request_id
        exchange.decision, exchange.facts = self._exchange.decision, self._facts
        exchange.envelope = Envelope(model, Raw(b"[]"))
        return exchange

    async def _send(self, call: Call) -> Message:
        needed_key(call)
        replies: list[Message] = []

        async def take(output: Output) -> None:
            if isinstance(output.content, Relayed):
                replies.append(_read(output.content, call))
            elif isinstance(output.content, Message):
                replies.append(output.content)

        await self._upstreams.of(call.target.provider).send(call, take)
        if not replies:
            words = f"the back end {call.target.provider.name} answered with nothing"
            raise UpstreamFailure("connection", words)
        return replies[-1]


def _read(relayed: Relayed, call: Call) -> Message:
    try:
        return read_message(relayed.data)
    except ApiError:
        raise not_a_message(call.target.provider.name) from None


def _headers(inbound: Inbound) -> dict[str, tuple[str, ...]]:
    """The client's, for what a provider forwards of them, without what they say of the client's own
    request."""
    headers = {name: values for name, values in inbound.headers.items() if not name.startswith("anthropic-")}
    betas = [beta.strip() for line in inbound.headers.get("anthropic-beta", ()) for beta in line.split(",")]
    if logins := tuple(beta for beta in betas if beta.startswith("oauth-")):
        headers["anthropic-beta"] = logins
    return headers | {"anthropic-version": (OLDEST_VERSION,)}


def _tally(verdicts: Mapping[str, Verdict]) -> dict[str, int]:
    tally: dict[str, int] = {}
    for verdict in verdicts.values():
        word = verdict.outcome if isinstance(verdict, Evaluated) else "unavailable"
        tally[word] = tally.get(word, 0) + 1
    return tally
