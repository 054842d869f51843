"""Takes secrets out of what others wrote: whole, encoded, and cut off. It is the one place that does; who
knows the secrets says which."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote

REDACTED = "***"

LONG = 16
"""Characters. Of a secret that has as many its beginning and its end are looked for, too: of a shorter one
there would be too little left to tell it from other words."""
SHORT = 4
"""Characters. What has fewer is no secret, and would be found in everything that is said."""
END = 8
"""Characters of a beginning or an end."""
LONGEST = 4096
"""Characters. No secret is longer, and what a stranger writes in one word may be."""
_WORD = re.compile(rf"[\w+/=.~%*-]{{0,{LONGEST}}}")
"""What may stand behind the part of a secret that was found: the rest of it, as far as it goes."""


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` with `***` in place of each word that has some of a secret in it, or is a short one."""
    spans = sorted(span for part in _parts_of(frozenset(secrets)) for span in _spans(text, *part))
    if not spans:
        return text
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        if start >= at:
            pieces += (text[at:start], REDACTED)
        at = max(at, end)
    return "".join((*pieces, text[at:]))


def redact_bytes(content: bytes, secrets: Iterable[str]) -> bytes:
    """The same, whatever else the bytes are."""
    text = content.decode("latin-1")
    redacted = redact(text, secrets)
    return content if redacted is text else redacted.encode("latin-1")


def maskable(secrets: Iterable[str], known: bytes) -> tuple[bytes, ...]:
    """Those that can be told from other words, and that are not in `known`: a client that works on the file
    where a key stands must get it back as it was."""
    words = {secret.rpartition(" ")[2] for secret in secrets}  # without `Bearer`
    encoded = (word.encode("utf-8", "surrogateescape") for word in sorted(words) if len(word) >= LONG)
    return tuple(word for word in encoded if word not in known)


def mask(content: bytes, secrets: Iterable[bytes]) -> bytes:
    """`content` with as many asterisks in place of each whole secret, so that lengths stay. What resembles
    one stays: these may be a model's words, which are the client's to see."""
    for secret in secrets:
        if secret in content:
            content = content.replace(secret, b"*" * len(secret))
    return content


def _spans(text: str, part: str, whole_word: bool) -> Iterator[tuple[int, int]]:
    at = text.find(part)
    while at >= 0:
        start, end = at, at + len(part)
        if not whole_word:
            if not _stands_alone(text, start, end):
                at = text.find(part, start + 1)
                continue
        else:
            before = max(0, start - LONGEST)
            start = before + _start_of_word(text[before:start])
            end = _end_of_word(text, end)
        yield start, end
        at = text.find(part, end)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no word goes on before or behind: keys such as `ollama` are parts of many."""
    return not any(
        character.isalnum() or character in "_-"
        for character in text[max(0, start - 1) : start] + text[end : end + 1]
    )


def _start_of_word(text: str) -> int:
    """Of the word that `text` ends with."""
    return len(text) - _end_of_word(text[::-1], 0)


def _end_of_word(text: str, at: int) -> int:
    found = _WORD.match(text, at)
    return found.end() if found else at


def words_of(credential: str) -> Iterator[str]:
    """The secrets in the value of a header, which may have a scheme before them and a name of a user in
    them."""
    scheme, _, secret = credential.rpartition(" ")
    if scheme.upper().startswith("AWS4-"):
        return  # a signature of this one request
    yield secret
    if scheme.lower() == "basic":
        try:
            yield base64.b64decode(secret, validate=True).decode().partition(":")[2]
        except ValueError:
            return


@lru_cache(256)
def _parts_of(secrets: frozenset[str]) -> tuple[tuple[str, bool], ...]:
    """What to look for, and whether the rest of its word goes with it: else it has to be the whole word."""
    return tuple(
        dict.fromkeys(part for secret in sorted(secrets) if len(secret) >= SHORT for part in _parts(secret))
    )


def _parts(secret: str) -> Iterator[tuple[str, bool]]:
    forms = (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], secret.replace("/", r"\/"))
    if len(secret) < LONG:
        yield from ((form, False) for form in forms)
        return
    for form in (*forms, *_in_base64(secret)):
        yield form, True
        yield form[:END], True
        yield form[-END:], True


def _in_base64(secret: str) -> Iterator[str]:
    """Whatever stands before and behind it."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret.encode("utf-8", "surrogateescape"))
        yield encoded.decode()[4 if before else 0 : len(encoded) // 4 * 4 - 4]
