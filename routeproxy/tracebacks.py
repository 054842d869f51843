"""Errors that outlive the calls in which they were raised."""

from collections.abc import Iterator


def forget_tracebacks(error: BaseException) -> None:
    """Lets go what `error` came through, and what caused it. A traceback holds the frames of all calls, and
    their variables: the request's body in every form that it had. An error that one of them holds in turn
    would keep them all until the garbage collector has gone through everything, which is rare."""
    for known in tuple(_chain(error)):
        known.__traceback__ = known.__cause__ = known.__context__ = None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        known = pending.pop()
        if known is None or id(known) in seen:
            continue
        seen.add(id(known))
        yield known
        pending += [known.__cause__, known.__context__]
        if isinstance(known, BaseExceptionGroup):
            pending += known.exceptions
