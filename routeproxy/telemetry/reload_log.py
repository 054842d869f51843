"""What the log says of reloads."""

import logging

from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.policy.verify.diff import compare_policies

log = logging.getLogger("routeproxy.policy.live")


class ReloadLog(Observer):
    """What became of each reload, what the new rules change, and who asked for it."""

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        for warning in after.warnings:
            log.warning("%s", warning)
        if before.version == after.version:
            log.info("the rules were read again: nothing changed in version %s", after.version)
            return
        lines = [f"version {after.version} replaces {before.version}", *compare_policies(before, after)]
        log.info("the rules were reloaded: %s", "\n".join(lines))
        for name in SETTLED_AT_START:
            if getattr(before.server, name) != getattr(after.server, name):
                log.warning("[server] %s changed: it takes effect at the next start", name)

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        log.error("the rules were not reloaded, version %s stays in force:\n%s", in_force.version, problem)

    def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
        log.info("%s with admin key %s: %s", action, key_name, outcome)


SETTLED_AT_START = ("host", "port", "cors_origins", "signing_key")
"""Settings of `[server]` that a reload does not change."""
