"""What a fuzzer is made of: inputs to begin with, a way to change one, a check that all of them pass."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from random import Random
from typing import NamedTuple

SURFACES: Mapping[str, Sequence[str]] = {
    "bodies": (
        "routeproxy.messages",
        "routeproxy.translate",
        "routeproxy.tokens",
        "routeproxy.policy.content",
        "routeproxy.policy.facts",
        "routeproxy.upstream.chat",
        "routeproxy.upstream.params",
    ),
    "http": ("routeproxy.web", "routeproxy.proxy", "routeproxy.messages", "routeproxy.encodings"),
    "rules": ("routeproxy.policy", "routeproxy.sources", "routeproxy.migrate.environment"),
    "streams": (
        "routeproxy.messages",
        "routeproxy.translate",
        "routeproxy.upstream.chat",
        "routeproxy.upstream.errors",
        "routeproxy.upstream.http.sse",
        "routeproxy.upstream.messages",
    ),
}
"""Each surface is a module here. With what is looked at while it is fuzzed: the packages whose branches guide
the fuzzer."""

FOUND = Path(__file__).parent / "found"
"""A folder a surface: inputs that broke a law once. They are tests, and fuzzing begins with them."""


class Surface(NamedTuple):
    seeds: Sequence[bytes]
    mutate: Callable[[bytes, Random], bytes]
    """Another input like this one."""
    check: Callable[[bytes], object]
    """Raises whatever shows that a law is broken; `BrokenLaw` where nothing else does."""


class BrokenLaw(AssertionError):
    """The law, and what of the input breaks it."""


@contextmanager
def logged(*names: str) -> Iterator[list[logging.LogRecord]]:
    """What the loggers of these names say meanwhile, which nobody else hears."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield records
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            logger.removeHandler(handler)


def surface(name: str) -> Surface:
    found: Surface = import_module(f"tests.fuzz.{name}").SURFACE
    return found


def found_inputs(name: str) -> list[Path]:
    return sorted(path for path in (FOUND / name).glob("*") if path.is_file())
