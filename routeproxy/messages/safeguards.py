"""`safeguards` of a request, and the verdicts that its answer carries: how Claude Code has tool uses checked
in auto mode (beta `dangerous-tool-use`). Seen in Claude Code 2.1.332; no SDK has types for it yet.

A reason is one of the API's own words, since clients act on them and show no others; what is behind it stands
in `explanation`.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from routeproxy.messages.decoding import UNREADABLE

DANGEROUS_TOOL_USE = "dangerous_tool_use"

Reason = Literal["timeout", "error", "rate_limited", "refused", "input_too_long", "truncated"]
"""Why there is no verdict. Of a whole check, clients know `error`, which they take for final, `rate_limited`
and `input_too_long`; of one tool use all but `rate_limited`. After `input_too_long` of a tool use Claude Code
compacts its conversation."""


class Evaluated(Struct, frozen=True, tag="evaluated"):
    """A verdict on one tool use."""

    outcome: Literal["flagged", "not_flagged"]
    explanation: str | UnsetType = UNSET


class Unavailable(Struct, frozen=True, tag="unavailable"):
    """There is no verdict: on one tool use, or on any of an answer."""

    reason: Reason
    explanation: str


Verdict = Evaluated | Unavailable


class Available(Struct, frozen=True, tag="available"):
    """The tool uses were judged, each by itself."""

    tool_uses: Mapping[str, Verdict]
    """By id."""


class SafeguardResult(Struct, frozen=True, tag=DANGEROUS_TOOL_USE):
    status: Available | Unavailable


class Safeguard(Struct, frozen=True):
    """One entry of a request's `safeguards`."""

    type: str
    classifier_context: Raw = Raw(b"null")
    """An object: what the client knows of where the tools run, and its user's own rules."""


_safeguards = msgspec.json.Decoder(tuple[Safeguard, ...])


def asked_check(safeguards: bytes) -> Safeguard | None:
    """The check of dangerous tool uses that `safeguards` of a request asks for; `None` where it asks for
    none."""
    try:
        entries = _safeguards.decode(safeguards)
    except UNREADABLE:
        return None
    return next((entry for entry in entries if entry.type == DANGEROUS_TOOL_USE), None)
