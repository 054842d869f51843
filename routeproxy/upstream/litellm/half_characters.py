"""Half characters on their way through LiteLLM. A back end that streams may cut an emoji in two and send
each half as an escape of its own (`"\\ud83d"`, then `"\\ude00"`), which JSON allows. Whatever LiteLLM hands
such a half to dies of it, and the answer with it, so each travels as a character of its own that nothing else
uses."""

import re
from typing import Any

import msgspec

from routeproxy.chat.completion import Chunk
from routeproxy.messages.decoding import replace_lone_surrogates

_FIRST_HALF, _LAST_HALF = 0xD800, 0xDFFF
_FIRST_STAND_IN = 0x10F800
"""The last 2,048 characters that Unicode leaves to private use, one for each half."""
_OFFSET = _FIRST_STAND_IN - _FIRST_HALF

_HEX = rb"[0-9a-fA-F]"
_HIGH = rb"\\u[dD][89abAB]%b{2}" % _HEX
_PARTIAL = rb"\\(?:u%b{0,3})?" % _HEX
_UNFINISHED = re.compile(rb"(?<!\\)(?:\\\\)*(%b(?:%b)?|%b)\Z" % (_HIGH, _PARTIAL, _PARTIAL))
"""Group 1 is what only the next bytes can tell: an escape that isn't whole, or a first half."""

_STAND_INS = re.compile(f"[{chr(_FIRST_STAND_IN)}-{chr(_LAST_HALF + _OFFSET)}]")
_ESCAPED_STAND_INS = re.compile(r"\\u(dbf[ef])\\u(d[c-f][0-9a-f]{2})")
"""As they are in arguments, which LiteLLM writes as ASCII."""


class HalfCharacters:
    """Of one answer: `hide` them before LiteLLM reads it, `restore` them in what it has made of it."""

    def __init__(self) -> None:
        self._hidden = False

    def hide(self, json: bytes) -> bytes:
        """`json` begins where an escape may begin, and does not end within one."""
        return replace_lone_surrogates(json, self._hide)

    def _hide(self, escape: bytes) -> bytes:
        self._hidden = True
        return chr(int(escape[2:], 16) + _OFFSET).encode()

    def restore(self, chunk: Chunk) -> Chunk:
        if not self._hidden:
            return chunk
        return msgspec.convert(_restored(msgspec.to_builtins(chunk)), Chunk)


def unfinished(json: bytes) -> int:
    """How many of the last bytes have to wait for the next."""
    if b"\\" not in json[-11:]:  # two escapes, one of them unfinished
        return 0
    tail = _UNFINISHED.search(json)
    return len(tail[1]) if tail else 0


def _restored(value: Any) -> Any:
    match value:
        case str():
            text = _STAND_INS.sub(lambda match: chr(ord(match[0]) - _OFFSET), value)
            return _ESCAPED_STAND_INS.sub(_escaped_half, text)
        case dict():
            return {name: _restored(held) for name, held in value.items()}
        case list() | tuple():
            return [_restored(held) for held in value]
    return value


def _escaped_half(pair: re.Match[str]) -> str:
    stand_in = 0x10000 + ((int(pair[1], 16) - 0xD800) << 10) + int(pair[2], 16) - 0xDC00
    return f"\\u{stand_in - _OFFSET:04x}"
