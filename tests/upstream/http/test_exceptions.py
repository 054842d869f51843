"""What the exceptions of our own client become: each in our words, since theirs may hold a URL, and a URL may
hold a key."""

import inspect
import socket
import ssl

import aiohttp
import pytest

from routeproxy.upstream.failures import STATUS_OF_KIND
from routeproxy.upstream.http.client import TRANSPORT_ERRORS, failure_of

WORDS = "Cannot connect to host far.example:443 ssl:default [Name or service not known] ?key=sk-canary"

CLASSES: list[type[BaseException]] = sorted(
    {
        one
        for module in (aiohttp, aiohttp.client_exceptions, aiohttp.http_exceptions)
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, TRANSPORT_ERRORS) and not issubclass(one, Warning)
    }
    | {socket.gaierror, ssl.SSLError, ssl.SSLCertVerificationError, TimeoutError, OSError}
    | {ConnectionResetError, ConnectionRefusedError, ConnectionAbortedError, BrokenPipeError},
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: str(one.__name__))
def test_no_exceptions_own_words_reach_a_client(one: type[BaseException]) -> None:
    error = one.__new__(one)
    error.args = (WORDS,)
    found = failure_of(error, "corp")
    assert found.message.startswith("the back end corp ")
    assert not any(
        part in found.message for part in ("far.example", "canary", "Name or service", one.__name__)
    )
    assert STATUS_OF_KIND[found.kind] in (502, 504)
