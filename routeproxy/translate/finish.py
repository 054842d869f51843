"""How an answer ends: what its chunks say of that, and the stop reason or the failure that it amounts to. An
answer is never better than they say: no word, or one that nobody knows, is a failure."""

from typing import Any

from routeproxy.messages.events import Error, Stop, error_event
from routeproxy.messages.reply import StopDetails
from routeproxy.translate.stop_reasons import CUT_SHORT, STOP_REASONS, later_finish_reason, stop_reason
from routeproxy.translate.stream_errors import CLOSED_EARLY, NO_CALL

_LONGEST_WORD = 64


class FinishState:
    def __init__(self) -> None:
        self.finish_reason: Any = None
        """The back end's word."""
        self.stop_string: str | None = None
        """The stop string that was found in the text: nothing counts after it."""
        self.reported_stop_string: str | None = None
        """The stop string that the back end found."""

    def add(self, finish_reason: Any) -> None:
        self.finish_reason = later_finish_reason(self.finish_reason, finish_reason)

    def is_cut_short(self) -> bool:
        return stop_reason(self.finish_reason) in CUT_SHORT

    def is_refusal(self) -> bool:
        return stop_reason(self.finish_reason) == "refusal"

    def is_unfinished(self) -> bool:
        return self.is_cut_short() or self.is_refusal()

    def failure(self, *, has_tool_use: bool) -> Error | None:
        """Why the answer is none, whatever came of it."""
        if self._is_stopped(has_tool_use):
            return None
        match stop_reason(self.finish_reason):
            case None:
                return error_event("api_error", CLOSED_EARLY)
            case "failed":
                return error_event("api_error", _failed_words(self.finish_reason))
        return None

    def stop(self, *, has_tool_use: bool, refusal: str) -> Stop | Error:
        """Of an answer without a `failure`. `has_tool_use`: whether it has such a block. `refusal`: its text,
        if any."""
        reason = "end_turn" if self._is_stopped(has_tool_use) else stop_reason(self.finish_reason)
        if refusal and reason not in CUT_SHORT:
            reason = "refusal"
        if reason == "refusal":
            return Stop(reason, stop_details=StopDetails(explanation=refusal or None))
        if reason == "max_tokens" or reason == "model_context_window_exceeded":
            return Stop(reason)
        if has_tool_use:
            return Stop("tool_use")
        if reason == "tool_use":
            return error_event("api_error", NO_CALL)
        if reason == "pause_turn":
            return Stop(reason)
        if stop_string := self.stop_string or self.reported_stop_string:
            return Stop("stop_sequence", stop_string)
        return Stop("end_turn")

    def _is_stopped(self, has_tool_use: bool) -> bool:
        return self.stop_string is not None and not has_tool_use


def _failed_words(finish_reason: Any) -> str:
    word = str(finish_reason).strip()[:_LONGEST_WORD]
    if word.lower() in STOP_REASONS:
        return f"upstream failed: {word}"
    return f"upstream ended its answer with a finish reason that is not known: {word}"
