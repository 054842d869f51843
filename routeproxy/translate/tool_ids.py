"""Ids of tool calls, in a form that each side takes, so that a call and its result still find each other.

A back end's id is shown to the client as it is, if Anthropic's rules allow it, or else wrapped, to be
unwrapped on the next turn: Kimi, for one, counts on seeing its own `functions.Bash:0` again.
"""

import base64
import binascii
import hashlib
import re
from typing import Literal

_FITS_CLIENTS = re.compile(r"[A-Za-z0-9_-]+\Z")
_FITS_MISTRAL = re.compile(r"[A-Za-z0-9]{9}\Z")
_WRAPPED = "toolu_rp1_"
_LONGEST_FOR_OPENAI = 40
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def for_client(id: str) -> str:
    """A back end's id, as the client may see it (`^[a-zA-Z0-9_-]+$`)."""
    if _FITS_CLIENTS.match(id) and not id.startswith(_WRAPPED):
        return id
    return _WRAPPED + base64.urlsafe_b64encode(id.encode("utf-8", "replace")).rstrip(b"=").decode()


def for_back_end(id: str, rule: Literal["any", "openai", "mistral"]) -> str:
    """A client's id, as the back end takes it: unwrapped if it was its own, hashed if it breaks its rule."""
    if id.startswith(_WRAPPED):
        id = _unwrap(id)
    match rule:
        case "openai" if len(id) > _LONGEST_FOR_OPENAI:
            return "call_" + hashlib.sha256(id.encode()).hexdigest()[:32]
        case "mistral" if not _FITS_MISTRAL.match(id):
            number = int.from_bytes(hashlib.sha256(id.encode()).digest()[:16], "big")
            return "".join(_ALPHABET[number // 62**place % 62] for place in range(9))
    return id


def _unwrap(id: str) -> str:
    wrapped = id.removeprefix(_WRAPPED)
    try:
        return base64.urlsafe_b64decode(wrapped + "=" * (-len(wrapped) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return id
