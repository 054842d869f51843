"""Why there is no connection, in words of our own: what sockets, name lookups and TLS report, whatever
library their errors come through. Theirs stay out: they hold URLs, and a URL may hold a key."""

import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

_OF_ERRNO: Mapping[int, str] = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "the connection was reset",
    errno.ECONNABORTED: "the connection was cut off",
    errno.EPIPE: "the connection was cut off",
    errno.ETIMEDOUT: "nothing answers at its address",
    errno.EHOSTUNREACH: "there is no way to its host",
    errno.EHOSTDOWN: "its host is down",
    errno.ENETUNREACH: "there is no way to its network",
    errno.ENETDOWN: "the network of this machine is down",
    errno.EADDRNOTAVAIL: "this machine has no address to ask from",
    errno.EAFNOSUPPORT: "this machine can't use addresses of its family",
    errno.EACCES: "this machine does not allow it",
    errno.EPERM: "this machine does not allow it",
    errno.EMFILE: "no file descriptor is left on this machine",
    errno.ENFILE: "no file descriptor is left on this machine",
    errno.ENOBUFS: "no memory for a connection is left on this machine",
    errno.ENOMEM: "no memory for a connection is left on this machine",
}

_OF_NAME_LOOKUP: Mapping[int, str] = {
    socket.EAI_NONAME: "there is no such name",
    getattr(socket, "EAI_NODATA", socket.EAI_NONAME): "there is no such name",
    socket.EAI_AGAIN: "no name server answers",
    getattr(socket, "EAI_ADDRFAMILY", socket.EAI_FAMILY): "its name has no address that this machine can use",
    socket.EAI_FAMILY: "its name has no address that this machine can use",
}

_NOT_TRUSTED = "its certificate is not trusted (`ca_file` names whom to trust)"
_OF_CERTIFICATE: Mapping[int, str] = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    23: "its certificate was revoked",
    62: "its certificate is for another name",
    64: "its certificate is for another name",
}
"""By OpenSSL's `X509_V_ERR_…`; any other says that nobody vouches for it."""

_NO_TLS = "what answers there does not speak TLS"
_OLD_TLS = "it speaks no version of TLS that is safe"
_NO_CLIENT_CERTIFICATE = "it wants a certificate of its client"
_OF_TLS: Mapping[str, str] = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "UNKNOWN_PROTOCOL": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _OLD_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD_TLS,
    "NO_PROTOCOLS_AVAILABLE": _OLD_TLS,
    "DH_KEY_TOO_SMALL": _OLD_TLS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refuses the TLS handshake",
    "NO_SHARED_CIPHER": "it refuses the TLS handshake",
    "TLSV1_UNRECOGNIZED_NAME": "it does not answer for this name",
    "TLSV1_ALERT_UNRECOGNIZED_NAME": "it does not answer for this name",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NO_CLIENT_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the certificate of its client",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection during the TLS handshake",
}

_NO_NAME = "its name could not be looked up"
_NO_HANDSHAKE = "the TLS handshake failed"
_CLOSED = _OF_TLS["UNEXPECTED_EOF_WHILE_READING"]

CAUSES = frozenset(
    {
        *(_NO_NAME, _NO_HANDSHAKE, _NOT_TRUSTED),
        *(words for table in (_OF_ERRNO, _OF_NAME_LOOKUP, _OF_CERTIFICATE) for words in table.values()),
        *_OF_TLS.values(),
    }
)
"""All that `cause_of` can say, one at a time or joined by commas."""

_ERRNO_IN_WORDS = re.compile(r"\[Errno (\d+)\]")


def cause_of(error: BaseException, *, in_handshake: bool = False) -> str | None:
    """Why, as the nearest of an error and those that led to it tells; `None` where none does.
    `in_handshake`: TLS was about to begin, so what was lost was lost there."""
    for related in related_errors(error):
        if any(isinstance(getattr(related, name, None), BaseException) for name in _WRAPPED):
            continue  # it takes its number or its class from what it wraps, and leaves out the rest
        if in_handshake and isinstance(related, ConnectionResetError | ConnectionAbortedError):
            return _CLOSED
        if (words := _words_of(related)) is not None:
            return words
    return None


def related_errors(error: BaseException) -> Iterator[BaseException]:
    """The error, those that it wraps and those that led to it, nearest first."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        related = waiting.pop(0)
        if isinstance(related, BaseException) and id(related) not in seen:
            seen.add(id(related))
            yield related
            waiting += [getattr(related, name, None) for name in _WRAPPED]
            waiting += [related.__cause__, related.__context__]


_WRAPPED = ("original_exception", "os_error", "certificate_error", "reason")
"""Where libraries keep what they wrap."""


def _words_of(error: BaseException) -> str | None:
    match error:
        case ssl.SSLCertVerificationError():
            return _OF_CERTIFICATE.get(getattr(error, "verify_code", 0), _NOT_TRUSTED)
        case ssl.SSLError():
            return _OF_TLS.get(getattr(error, "reason", None) or "", _NO_HANDSHAKE)
        case socket.gaierror():
            return _OF_NAME_LOOKUP.get(error.errno or 0, _NO_NAME)
        case OSError() if error.errno is not None:
            return _OF_ERRNO.get(error.errno)
        case ConnectionResetError():
            return _OF_ERRNO[errno.ECONNRESET]
        case ConnectionAbortedError() | BrokenPipeError():
            return _OF_ERRNO[errno.ECONNABORTED]
        case OSError():  # of several addresses, each for a reason of its own
            numbers = map(int, _ERRNO_IN_WORDS.findall(" ".join(map(str, error.args))))
            words = dict.fromkeys(_OF_ERRNO[number] for number in numbers if number in _OF_ERRNO)
            return ", ".join(words) or None
    return None
