"""Thinking that must come back: what a back end wants returned to it travels in a block's `signature`.

Anthropic's clients send thinking blocks back exactly as they got them, signature included, so a back end's
reasoning is kept there between turns (wire.md §1.6). A signature says for which family it was minted; another
family drops it.

The kinds of payload, which the translator of answers mints and that of requests reads:

* `text`: the reasoning, a string, if the block itself does not show it (`display: "omitted"`); else `None`.
* `details`: OpenRouter's `reasoning_details` or the reasoning items of Responses, a list, to be returned
  unchanged.
* `thought_signatures`: Gemini's, an object of tool id (the client's) to signature; `""` is the text's own.
* `nothing`: a block that has nothing to bring back.

`place` says where thought signatures came, if in another place than LiteLLM's: there they go back.
"""

import base64
import binascii
import hashlib
import hmac
import zlib
from typing import Any, Literal

import msgspec
from msgspec import Struct

PREFIX = "rp1."
MAX_LENGTH = 64 * 1024
"""Characters of a signature."""
_MAX_PAYLOAD = 4 * 1024 * 1024
_MAC_LENGTH = 22  # 16 bytes in base64url, without padding


class SignatureContents(Struct, frozen=True, omit_defaults=True):
    family: str
    model: str
    kind: str
    payload: Any = None
    place: Literal["", "extra_content"] = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(SignatureContents).decode


def is_ours(signature: str | None) -> bool:
    return signature is not None and signature.startswith(PREFIX)


class Signer:
    """Mints signatures and opens them again. Without a key the check finds damage, but no forgery."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key

    def mint(
        self,
        family: str,
        model: str,
        kind: str,
        payload: Any = None,
        place: Literal["", "extra_content"] = "",
    ) -> str:
        """Never fails: what does not fit into `MAX_LENGTH` is left out, and the kind is `nothing`."""
        try:
            packed = _pack(_encode(SignatureContents(family, model, kind, payload, place)))
        except UnicodeEncodeError:  # half an emoji
            packed = ""
        if not packed or len(packed) > MAX_LENGTH - len(PREFIX) - _MAC_LENGTH:
            packed = _pack(_encode(SignatureContents(family, model, "nothing")))
        return PREFIX + packed + self._mac(packed)

    def open(self, signature: str) -> SignatureContents | None:
        """What `mint` put in, or `None` if it did not make this signature."""
        if not is_ours(signature) or len(signature) > MAX_LENGTH:
            return None
        packed, mac = signature[len(PREFIX) : -_MAC_LENGTH], signature[-_MAC_LENGTH:]
        if not hmac.compare_digest(mac.encode("utf-8", "replace"), self._mac(packed).encode()):
            return None
        try:
            return _decode(_unpack(packed))
        except (binascii.Error, zlib.error, ValueError, RecursionError):
            return None

    def _mac(self, packed: str) -> str:
        data = packed.encode("utf-8", "replace")
        digest = hmac.digest(self._key, data, "sha256") if self._key else hashlib.sha256(data).digest()
        return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(zlib.compress(data)).rstrip(b"=").decode()


def _unpack(packed: str) -> bytes:
    compressed = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    # Without a key anyone may write a signature, also one that unpacks to gigabytes.
    return zlib.decompressobj().decompress(compressed, _MAX_PAYLOAD)
