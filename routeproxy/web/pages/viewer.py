"""Who looks at the page, and what they may see of it."""

from msgspec import Struct

from routeproxy.web.auth import Caller


class Viewer(Struct, frozen=True):
    caller: Caller

    @property
    def is_operator(self) -> bool:
        """Nobody needs a key: whoever runs the server looks."""
        return self.caller.is_operator

    @property
    def team(self) -> str | None:
        """Whose part is seen; `None`: all of it."""
        return self.caller.team

    @property
    def reads_rules(self) -> bool:
        return self.is_operator or self.caller.may("read")

    @property
    def reads_usage(self) -> bool:
        return self.is_operator or self.team is not None or self.caller.may("usage")

    @property
    def reads_requests(self) -> bool:
        return self.is_operator or self.team is not None or self.caller.may("audit")

    @property
    def reads_people(self) -> bool:
        """Users and sessions."""
        return self.is_operator or self.caller.may("audit")

    @property
    def may_explain(self) -> bool:
        return self.is_operator or self.caller.may_explain

    @property
    def words(self) -> str:
        if self.is_operator:
            return "no key is needed here"
        if self.team is not None:
            return f"team {self.team}"
        return f"{self.caller.key_name or 'admin'} ({self.caller.role})"
