"""How an answer ends: what its chunks say of that, and the stop reason or the failure that it amounts to."""

from collections.abc import Callable

from routeproxy.messages.events import Error, Stop, error_event
from routeproxy.messages.reply import StopDetails
from routeproxy.translate.stop_reasons import CUT_SHORT, stop_reason


class FinishState:
    def __init__(self, warn: Callable[[str], None]) -> None:
        """`warn` gets what went wrong in an answer that is usable all the same."""
        self._warn = warn
        self.finish_reason: str | None = None
        self.stop_string: str | None = None
        """The stop string that was found in the text: nothing counts after it."""
        self.reported_stop_string: str | None = None
        """The stop string that the back end found."""

    def is_cut_short(self) -> bool:
        return stop_reason(self.finish_reason) in CUT_SHORT

    def stop(self, *, has_text: bool, has_tool_use: bool, refusal: str) -> Stop | Error:
        """`has_text`, `has_tool_use`: whether the answer has such a block. `refusal`: its text, if any."""
        stopped = self.stop_string is not None and not has_tool_use
        reason = stop_reason("stop" if stopped else self.finish_reason)
        usable = has_text or has_tool_use
        if reason == "failed":
            problem = f"upstream failed: {self.finish_reason}"
            if not usable:
                return error_event("api_error", problem)
            self._warn(problem)
            reason = "end_turn"
        if refusal and reason not in CUT_SHORT:
            reason = "refusal"
        if reason == "refusal":
            return Stop(reason, stop_details=StopDetails(explanation=refusal or None))
        if reason in CUT_SHORT:
            return Stop(reason)
        if has_tool_use:
            return Stop("tool_use")
        if stop_string := self.stop_string or self.reported_stop_string:
            return Stop("stop_sequence", stop_string)
        return Stop("end_turn")
