"""Decoding of a client's JSON, and its mistakes in the API's own words.

msgspec describes a mistake in a sentence of its own, which no version promises to keep. So that sentence is
never read: a text that can't be decoded is decoded once more without its type, to find the first value that
the type does not take (wire.md §2.8: `$.messages[0].role` reads `messages.0.role`).
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import DecodeError, ValidationError, inspect
from msgspec.json import Decoder

from routeproxy.messages.errors import InvalidRequest

T = TypeVar("T")

UNREADABLE = (DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a text that is not what its type says: text that is no UTF-8 was the second before
0.23 and is the first since; a text that is nested some thousand times is the third."""

NO_UTF_8 = "a text in it is not valid UTF-8"

ANY_JSON: Decoder[Any] = Decoder()

LARGEST_SEARCHED = 2**20
"""Bytes. In a longer text the place of a syntax error is not looked for, which takes 10 ms a megabyte."""

# JavaScript clients cut strings between the two halves of an emoji, and JSON.stringify then writes a lone
# `\ud83d`.
_BACKSLASH = ord("\\")
# It starts with a literal, which the engine looks for at the speed of memory.
_SURROGATES = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})"
)


REPAIRED_AT_ONCE = 2**18
"""Bytes, after which others get their turn."""

_NO_BYTE = b"\xfe"
"""Stands in no UTF-8."""
_HIGH = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_LOW = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
# It starts with a literal, which the engine looks for at the speed of memory, and has no groups: then its
# replacement is put in without a call for each match.
_LONE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!%b)|[c-fC-F][0-9a-fA-F]{2}(?<!%b\\u[dD].{3}))"
    % (_LOW.pattern, _HIGH.pattern)
)


def decode_leniently(decoder: Decoder[T], text: bytes) -> T:
    """The value of `text`, with half emojis mended if it can't be decoded otherwise. Raises `InvalidRequest`
    with the path of what is wrong."""
    try:
        try:
            return decoder.decode(text)
        except UNREADABLE:
            repaired = without_lone_surrogates(text)
            if repaired == text:
                raise
            return decoder.decode(repaired)
    except RecursionError:
        raise nested_too_deeply() from None
    except ValidationError:
        raise explain_undecodable(text, decoder.type) from None
    except UNREADABLE:
        raise _no_json(text) from None


def nested_too_deeply() -> InvalidRequest:
    return InvalidRequest("invalid JSON: nested too deeply")


def without_lone_surrogates(text: bytes) -> bytes:
    r"""`text` with each unpaired `\udXXX` escape replaced by `\ufffd`."""
    if _HALF.search(text) is None or _NO_BYTE in text:
        return text
    # What is left of the backslashes begins an escape.
    hidden = text.replace(rb"\\", _NO_BYTE * 2)
    pieces, start = [], 0
    while start < len(hidden):
        end = _end_of_piece(hidden, start + REPAIRED_AT_ONCE)
        pieces.append(_LONE.sub(rb"\\ufffd", hidden[start:end]))
        start = end
    return b"".join(pieces).replace(_NO_BYTE * 2, rb"\\")


def _end_of_piece(text: bytes, end: int) -> int:
    """The first place from `end` on that is in no escape and in no pair of them."""
    escape = text.find(b"\\u", max(0, end - 5), end + 1)
    if 0 <= escape < end:
        end = escape + 6
    if _HIGH.match(text, end - 6) and _LOW.match(text, end):
        end += 6
    return end


def replace_lone_surrogates(text: bytes, replacement: Callable[[bytes], bytes]) -> bytes:
    r"""`text` with each unpaired `\udXXX` escape replaced by what `replacement` makes of it."""

    def replace(match: re.Match[bytes]) -> bytes:
        first, second = match[0][:6], match[1]
        before = match.start()
        while before and text[before - 1] == _BACKSLASH:
            before -= 1
        if (match.start() - before) % 2:  # the backslash is itself escaped, and plain text follows it
            return first + (replacement(second) if second else b"")
        return match[0] if second else replacement(first)

    return _SURROGATES.sub(replace, text)


# --- mistakes


def explain_undecodable(text: bytes, expected_type: Any) -> InvalidRequest:
    """Why `text` is not the JSON of an `expected_type`, with the path of the first value that is wrong."""
    repaired = without_lone_surrogates(text)
    try:
        value = msgspec.json.decode(repaired)
    except RecursionError:
        return nested_too_deeply()
    except UNREADABLE:
        return _no_json(repaired)
    try:
        mismatch = _first_mismatch(value, inspect.type_info(expected_type), ())
    except RecursionError:
        return nested_too_deeply()
    if mismatch is None:
        return InvalidRequest("invalid JSON: it can't be read")
    if not mismatch.path:
        return InvalidRequest("request body must be a JSON object")
    return InvalidRequest(f"{'.'.join(map(str, mismatch.path))}: {mismatch.words}")


def _no_json(text: bytes) -> InvalidRequest:
    return InvalidRequest(f"invalid JSON: {_syntax_error(text)}")


def _syntax_error(text: bytes) -> str:
    if not text.strip():
        return "the request body is empty"
    if len(text) > LARGEST_SEARCHED:
        return "the request body has an error in its syntax"
    try:
        readable = text.decode()
        json.loads(readable, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        return NO_UTF_8
    except json.JSONDecodeError as error:
        rest = readable[error.pos :]
        if not rest.strip() or _UNFINISHED.fullmatch(rest):
            return "the request body ends too early"
        return f"unexpected {json.dumps(rest[0])} at line {error.lineno}, column {error.colno}"
    except RecursionError:  # here with less of the stack left than where it was first read
        return "nested too deeply"
    except ValueError:  # NaN, or a number with more digits than Python reads
        return "it has a number that can't be read"
    return "it can't be read"


_UNFINISHED = re.compile(r'"(?:[^"\\]|\\.)*\\?|u[0-9a-fA-F]{0,4}', re.DOTALL)
"""A string or an escape that does not end."""


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


class _Mismatch(NamedTuple):
    """The first value that its type does not take."""

    path: tuple[str | int, ...]
    words: str
    """What was expected there, in the API's words."""


def _first_mismatch(value: Any, expected: inspect.Type, path: tuple[str | int, ...]) -> _Mismatch | None:
    match expected:
        case inspect.Metadata():
            return _first_mismatch(value, expected.type, path)
        case inspect.AnyType() | inspect.RawType():
            return None
        case inspect.UnionType():
            return _mismatch_of_union(value, expected, path)
        case inspect.StructType() if isinstance(value, dict):
            return _mismatch_of_struct(value, expected, path)
        case inspect.DictType() if isinstance(value, dict):
            items = (_first_mismatch(item, expected.value_type, (*path, key)) for key, item in value.items())
            return next(filter(None, items), None)
        case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
            if expected.max_length is not None and len(value) > expected.max_length:
                return _Mismatch(path, f"Input should have at most {expected.max_length} items")
            items = (_first_mismatch(item, expected.item_type, (*path, at)) for at, item in enumerate(value))
            return next(filter(None, items), None)
        case inspect.LiteralType():
            words = _alternatives([f"'{choice}'" for choice in expected.values])
            return None if value in expected.values else _Mismatch(path, f"Input should be {words}")
        case _:
            return _mismatch_of_scalar(value, expected, path)


def _mismatch_of_scalar(value: Any, expected: inspect.Type, path: tuple[str | int, ...]) -> _Mismatch | None:
    if not _is_of(value, expected):
        return _Mismatch(path, f"Input should be {_noun(expected)}")
    if isinstance(expected, inspect.IntType | inspect.FloatType):
        if expected.ge is not None and value < expected.ge:
            return _Mismatch(path, f"Input should be greater than or equal to {expected.ge}")
        if expected.le is not None and value > expected.le:
            return _Mismatch(path, f"Input should be less than or equal to {expected.le}")
    return None


def _mismatch_of_union(value: Any, union: inspect.UnionType, path: tuple[str | int, ...]) -> _Mismatch | None:
    # Alternatives that are objects differ by a tag.
    structs = [alternative for alternative in union.types if isinstance(alternative, inspect.StructType)]
    if len(structs) > 1 and isinstance(value, dict):
        field = structs[0].tag_field or "type"
        if field not in value:
            return _Mismatch((*path, field), "Field required")
        tag = value[field]
        if not isinstance(tag, str):
            return _Mismatch((*path, field), "Input should be a valid string")
        struct = next((struct for struct in structs if struct.tag == tag), None)
        return _wrong_tag(tag, path) if struct is None else _first_mismatch(value, struct, path)
    for alternative in union.types:
        if _is_of(value, alternative):
            return _first_mismatch(value, alternative, path)
    return _Mismatch(path, f"Input should be {' or '.join(_nouns(union))}")


def _mismatch_of_struct(
    value: dict[str, Any], struct: inspect.StructType, path: tuple[str | int, ...]
) -> _Mismatch | None:
    if struct.tag_field is not None and (tag := value.get(struct.tag_field, struct.tag)) != struct.tag:
        return _wrong_tag(str(tag), path)
    fields = {field.encode_name: field for field in struct.fields}
    for name, item in value.items():
        if (field := fields.get(name)) and (mismatch := _first_mismatch(item, field.type, (*path, name))):
            return mismatch
    # Where only one type of block may stand, its tag may be left out.
    required = [field.encode_name for field in struct.fields if field.required]
    missing = next((name for name in required if name not in value), None)
    return _Mismatch((*path, missing), "Field required") if missing else None


def _wrong_tag(tag: str, path: tuple[str | int, ...]) -> _Mismatch:
    words = f"Input tag '{tag[:64]}' found using 'type' does not match any of the expected tags"
    return _Mismatch(path, words)


_NOUNS: tuple[tuple[tuple[type[inspect.Type], ...], tuple[type, ...], str], ...] = (
    ((inspect.BoolType,), (bool,), "a valid boolean"),
    ((inspect.IntType,), (int,), "a valid integer"),
    ((inspect.FloatType,), (int, float), "a valid number"),
    ((inspect.StrType, inspect.LiteralType), (str,), "a valid string"),
    ((inspect.VarTupleType, inspect.ListType), (list,), "a valid list"),
    ((inspect.StructType, inspect.DictType), (dict,), "a valid dictionary"),
    ((inspect.NoneType,), (type(None),), "null"),
)
"""Types of msgspec, the values that they take, and their name in the API's errors; in the order in which
alternatives are named."""


def _is_of(value: Any, expected: inspect.Type) -> bool:
    """Whether `value` is of the JSON type of `expected`, whatever it contains."""
    if isinstance(expected, inspect.Metadata):
        return _is_of(value, expected.type)
    if isinstance(expected, inspect.AnyType | inspect.RawType):
        return True
    if isinstance(expected, inspect.IntType) and type(value) is float:
        return abs(value) >= 2**63  # an integer of so many digits is a float to a decoder without a type
    return any(isinstance(expected, kinds) and type(value) in values for kinds, values, _ in _NOUNS)


def _noun(expected: inspect.Type) -> str:
    return next((noun for kinds, _, noun in _NOUNS if isinstance(expected, kinds)), "another value")


def _nouns(union: inspect.UnionType) -> list[str]:
    """The alternatives, each once, `null` last."""
    types = [kind.type if isinstance(kind, inspect.Metadata) else kind for kind in union.types]
    return [noun for kinds, _, noun in _NOUNS if any(isinstance(kind, kinds) for kind in types)]


def _alternatives(choices: list[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
