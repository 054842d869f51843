"""What happens is told once, to whoever listens: logs and the decision log, later metrics, traces and a
ledger.

An observer is called in the step in which something happens, so it must not wait for anything. One that fails
costs nobody an answer: the failure is logged, and the others are still told.
"""

import logging
from collections.abc import Callable, Sequence

from routeproxy.exchange import AttemptRecord, Exchange, SmallRequest
from routeproxy.policy.decide import Policy

log = logging.getLogger("routeproxy.observe")


class Observer:
    """Hears nothing; an observer of something overrides what it wants to hear."""

    def request_started(self, exchange: Exchange) -> None:
        """Somebody who may ask has begun to send a request: its body is still to come."""

    def request_decided(self, exchange: Exchange) -> None:
        """The rules have said what becomes of the request, and nobody was asked yet."""

    def attempt_started(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        """A target is about to be asked: for an answer, or for verdicts on the tool uses of one
        (`attempt.purpose`)."""

    def first_content(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        """The first words of the model are about to go out. Only now, and not later, the text of the request
        can still be looked at."""

    def attempt_ended(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        """The target has answered in full, failed, or was let go because the client left. `attempt` has its
        times, its failure and its usage."""

    def request_done(self, exchange: Exchange) -> None:
        """The last byte of the answer is written, or the client is gone."""

    def small_request_started(self, request: SmallRequest) -> None:
        """An operator, whose request may take its time, was let in."""

    def small_request_done(self, request: SmallRequest) -> None:
        """A request that is no exchange was answered, or its client is gone."""

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        """`after` is in force. Both may be of one version: other things than the rules may have changed."""

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        """What is on disk was not taken, for this reason, in words for an operator."""

    def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
        """Somebody with an admin key of this name did something: `reload`, `rollback`, or `view` of users or
        sessions."""


class Observers(Observer):
    """Tells several observers, each of them only what it listens to."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._request_started = _listeners(observers, "request_started")
        self._request_decided = _listeners(observers, "request_decided")
        self._attempt_started = _listeners(observers, "attempt_started")
        self._first_content = _listeners(observers, "first_content")
        self._attempt_ended = _listeners(observers, "attempt_ended")
        self._request_done = _listeners(observers, "request_done")
        self._small_request_started = _listeners(observers, "small_request_started")
        self._small_request_done = _listeners(observers, "small_request_done")
        self._reload_succeeded = _listeners(observers, "reload_succeeded")
        self._reload_failed = _listeners(observers, "reload_failed")
        self._admin_action = _listeners(observers, "admin_action")

    def request_started(self, exchange: Exchange) -> None:
        _tell(self._request_started, exchange)

    def request_decided(self, exchange: Exchange) -> None:
        _tell(self._request_decided, exchange)

    def attempt_started(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        _tell(self._attempt_started, exchange, attempt)

    def first_content(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        _tell(self._first_content, exchange, attempt)

    def attempt_ended(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        _tell(self._attempt_ended, exchange, attempt)

    def request_done(self, exchange: Exchange) -> None:
        _tell(self._request_done, exchange)

    def small_request_started(self, request: SmallRequest) -> None:
        _tell(self._small_request_started, request)

    def small_request_done(self, request: SmallRequest) -> None:
        _tell(self._small_request_done, request)

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        _tell(self._reload_succeeded, before, after)

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        _tell(self._reload_failed, in_force, problem)

    def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
        _tell(self._admin_action, action, key_name, outcome)


Listener = Callable[..., None]


def _listeners(observers: Sequence[Observer], event: str) -> tuple[Listener, ...]:
    """The methods of those that listen to `event`."""
    deaf = getattr(Observer, event)
    return tuple(getattr(one, event) for one in observers if getattr(type(one), event) is not deaf)


def _tell(listeners: tuple[Listener, ...], *what: object) -> None:
    for listener in listeners:
        try:
            listener(*what)
        except Exception:
            log.exception("an observer failed: %s", listener.__qualname__)
