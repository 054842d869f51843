"""Ed25519 keys, and heads that are signed with them."""

import base64
import binascii
from collections.abc import Iterator

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from msgspec import Struct

from routeproxy.audit.records import Head, SignedHead, decode_head


class Anchor(Struct, frozen=True, kw_only=True):
    """A signed head as it goes out of the house: one JSON line."""

    audit_head: str
    """A `Head` as JSON: the bytes that are signed."""
    signature: str


class ForgedHead(ValueError):
    """A head that the key did not sign."""


def new_key() -> tuple[bytes, bytes]:
    """A private key and its public one, as PEM."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, public_pem(key)


def private_key_in(pem: str) -> Ed25519PrivateKey:
    """Raises `ValueError` for what is none."""
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it holds no private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it holds a key that is not Ed25519")
    return key


def public_key_in(pem: bytes) -> Ed25519PublicKey:
    """Raises `ValueError` for what is none."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it holds no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it holds a key that is not Ed25519")
    return key


def public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed(head: Head, key: Ed25519PrivateKey) -> Anchor:
    text = msgspec.json.encode(head)
    return Anchor(audit_head=text.decode(), signature=base64.b64encode(key.sign(text)).decode())


def verified(signed_head: Anchor | SignedHead, key: Ed25519PublicKey) -> Head:
    """What it says. Raises `ForgedHead`."""
    text = signed_head.audit_head if isinstance(signed_head, Anchor) else signed_head.head
    try:
        key.verify(base64.b64decode(signed_head.signature, validate=True), text.encode())
        return decode_head(text)
    except (InvalidSignature, binascii.Error, ValueError):
        raise ForgedHead("the key did not sign it") from None


def anchors_in(lines: Iterator[bytes]) -> Iterator[tuple[int, Anchor]]:
    """With their numbers, the lines of a file that hold a signed head, whatever a collector of logs has
    written around them."""
    decode = msgspec.json.Decoder(Anchor).decode
    for number, line in enumerate(lines, 1):
        for text in (line, _unwrapped(line)):
            start = text.find(b'{"audit_head":')
            if start < 0:
                continue
            end = text.rfind(b"}") + 1
            try:
                yield number, decode(text[start:end])
            except msgspec.DecodeError:
                continue
            break


def _unwrapped(line: bytes) -> bytes:
    """The text within a JSON line of a collector, if it is one."""
    try:
        document = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return b""
    texts = document.values() if isinstance(document, dict) else ()
    return next((text.encode() for text in texts if isinstance(text, str) and "audit_head" in text), b"")
