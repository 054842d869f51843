"""Ids of tool calls, in a form that each side takes, so that a call and its result still find each other.

The client gets a back end's id as it is, if Anthropic's rules allow it, or else wrapped, to be unwrapped on
the next turn: Kimi, for one, counts on seeing its own `functions.Bash:0` again.
"""

import base64
import binascii
import hashlib
import re
from typing import Literal

_VALID_FOR_CLIENTS = re.compile(r"[A-Za-z0-9_-]+\Z")
_VALID_FOR_MISTRAL = re.compile(r"[A-Za-z0-9]{9}\Z")
_PREFIX = "toolu_rp1_"
_MAX_LENGTH_FOR_OPENAI = 40
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def for_client(id: str) -> str:
    """A back end's id in a form that clients take (`^[a-zA-Z0-9_-]+$`)."""
    if _VALID_FOR_CLIENTS.match(id) and not id.startswith(_PREFIX):
        return id
    return _PREFIX + base64.urlsafe_b64encode(id.encode("utf-8", "replace")).rstrip(b"=").decode()


def for_back_end(id: str, rule: Literal["any", "openai", "mistral"]) -> str:
    """A client's id in a form that the back end takes: unwrapped if it is its own, hashed if it breaks its
    rule."""
    if id.startswith(_PREFIX):
        id = _unwrap(id)
    match rule:
        case "openai" if len(id) > _MAX_LENGTH_FOR_OPENAI:
            return "call_" + hashlib.sha256(id.encode()).hexdigest()[:32]
        case "mistral" if not _VALID_FOR_MISTRAL.match(id):
            number = int.from_bytes(hashlib.sha256(id.encode()).digest()[:16], "big")
            return "".join(_ALPHABET[number // 62**place % 62] for place in range(9))
    return id


def _unwrap(id: str) -> str:
    wrapped = id.removeprefix(_PREFIX)
    try:
        return base64.urlsafe_b64decode(wrapped + "=" * (-len(wrapped) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return id
