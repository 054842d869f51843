"""Changes to inputs that keep enough of their form to get past the first check: bytes, lines, JSON. The same
`Random` makes the same change."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import islice
from random import Random
from typing import Any

MOST_BYTES = 16_384

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 0.5, -0.0, 1e308, 2**31, 2**63, -(2**63), 2**64, 10**30),
    *(
        "",
        " ",
        "x",
        "\n",
        "\\",
        '"',
        "{}",
        "null",
        "0",
        "é",
        "😀",
        "\ud83d",
        "\ude00",
        "\0",
        "\x7f",
        "\u2028",
    ),
    *([], {}, [[]], {"": None}, [None], [{}], {"type": None}, {"type": ""}),
)


def mutate_bytes(data: bytes, random: Random, words: Sequence[bytes] = ()) -> bytes:
    """One small change anywhere."""
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((0, 1, 1, 2, 4, 16, 64, 512)))
    match random.randrange(7):
        case 0:
            return data[:start] + data[end:]
        case 1:
            return data[:end] + data[start:end] * random.choice((1, 1, 2, 50)) + data[end:]
        case 2 if words:
            return data[:start] + random.choice(words) + data[end:]
        case 3:
            return data[:start]
        case 4:
            other = random.randint(0, len(data))
            return data[:start] + data[other : other + end - start] + data[end:]
        case 5 if data:
            at = random.randrange(len(data))
            return data[:at] + bytes((data[at] ^ (1 << random.randrange(8)),)) + data[at + 1 :]
    return data[:start] + random.randbytes(random.choice((1, 1, 2, 3, 8))) + data[start:]


def mutate_parts(
    parts: Sequence[bytes], random: Random, mutate: Callable[[bytes, Random], bytes]
) -> list[bytes]:
    """Lines, events or fields: one of them changed, left out, doubled, moved or put in another's place."""
    changed = list(parts)
    if not changed:
        return [mutate(b"", random)]
    at, other = random.randrange(len(changed)), random.randrange(len(changed))
    match random.randrange(8):
        case 0:
            del changed[at]
        case 1:
            changed.insert(other, changed[at])
        case 2:
            changed[at], changed[other] = changed[other], changed[at]
        case 3:
            del changed[at:]
        case _:
            changed[at] = mutate(changed[at], random)
    return changed


def mutate_json(text: bytes, random: Random, words: Sequence[str] = ()) -> bytes:
    """JSON with another value or another shape somewhere, written in one of several ways; bytes if it is
    none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return mutate_bytes(text, random)
    try:
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            value = _mutate_value(value, random, words)
    except RecursionError:  # by now it is nested more deeply than can be copied
        pass
    return _written(value, random)


def _mutate_value(value: Any, random: Random, words: Sequence[str]) -> Any:
    """`value` with a change to one of the values in it, those far inside as likely as the outer ones."""
    places = list(islice(_places(value), MOST_PLACES))
    if not places:
        return _odd(value, random, words)
    holder, key = random.choice(places)
    match random.randrange(9):
        case 0:
            del holder[key]
        case 1:
            for _ in range(random.choice((1, 2, 40, 2000))):
                holder[key] = [holder[key]] if random.random() < 0.5 else {"content": holder[key]}
        case 2:
            other, name = random.choice(places)
            holder[key] = deepcopy(other[name])
        case 3 if isinstance(holder, list):
            holder.insert(key, deepcopy(holder[key]))
        case 3:
            holder[random.choice(words) if words else "x"] = deepcopy(holder[key])
        case 4:
            holder[key] = [holder[key]]
        case 5 if isinstance(holder, dict):
            holder[random.choice(words) if words else "type"] = holder.pop(key)
        case _:
            holder[key] = _odd(holder[key], random, words)
    return value


MOST_PLACES = 100_000
"""Parts may stand in a value many times over, which a change at each of them would make more again."""


def _places(value: Any) -> Any:
    pending = [value]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            for key in keys:
                yield holder, key
                pending.append(holder[key])


def _odd(value: Any, random: Random, words: Sequence[str]) -> Any:
    if isinstance(value, str) and random.random() < 0.5:
        at = random.randint(0, len(value))
        match random.randrange(4):
            case 0:
                return value[:at]
            case 1:
                return (
                    value[:at]
                    + random.choice(("\ud83d", "\ude00", "\0", "\n\n", '"', "\\u", "😀"))
                    + value[at:]
                )
            case 2:
                return value * random.choice((2, 3, 40))
            case _:
                return value[:at] + (random.choice(words) if words else "x") + value[at:]
    if isinstance(value, int) and random.random() < 0.5:
        return value + random.choice((-1, 1, 2, 100, 2**31))
    return random.choice(words) if words and random.random() < 0.4 else random.choice(ODD_VALUES)


def _written(value: Any, random: Random) -> bytes:
    separators = random.choice(((",", ":"), (", ", ": ")))
    try:
        text = json.dumps(value, ensure_ascii=random.random() < 0.7, separators=separators)
    except (ValueError, RecursionError):
        return b"[" * random.choice((2, 100, 5000))
    if random.random() < 0.05:
        text = text.replace("{", '{"type":"x",', 1)  # a name that comes twice
    return text.encode("utf-8", "surrogatepass")
