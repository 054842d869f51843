"""The tokens of a text, in hundredths, which are whole numbers: sums don't depend on the order."""

import re
from base64 import b64decode
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import tiktoken

# The name is the SHA-1 of the address that the file was published at: tiktoken's convention, LiteLLM keeps
# it.
CL100K_BASE = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

# Claude's tokens for one of cl100k's, measured with the last published Claude tokenizer: 1.01 in prose, 1.07
# in Markdown, 1.09 to 1.13 in code, 0.98 in JSON (0.94 if it is mostly long numbers). This factor keeps all
# but the last within ten percent. Scripts that differ are corrected by the character: Chinese and Japanese
# take fewer (0.93 to 1.01), Cyrillic and Korean more (1.12 to 1.20).
CLAUDE = 107
CHINESE_JAPANESE = (re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]+"), -7)
OTHER_SCRIPTS = (re.compile(r"[\u0370-\u1fff\uac00-\ud7a3]+"), 6)

PER_BYTE = 110
"""No byte costs more: a token has at least one, and a character that is corrected upwards at least two."""

# Other threads run while tiktoken encodes a slice, 1 to 2 ms without the interpreter's lock, and get the lock
# after it: 1 MB in one piece would keep it for 13 ms to make a list of the tokens.
#
# Slices are needed besides: on a million spaces tiktoken's regex overflows its stack, and a long word costs
# it more than linear time. A cut costs at most two tokens. Beyond `SLICES` of them a text is measured by a
# sample; hardly any model takes two million characters anyway.
SLICE = 8192
SLICES = 256


def measure(text: str) -> int:
    """The hundredths of tokens of a text by itself."""
    stride = 1 + len(text) // (SLICE * SLICES)
    encode = _encoding().encode_ordinary
    sample = range(0, len(text), SLICE * stride)
    hundredths = CLAUDE * stride * sum(len(encode(text[i : i + SLICE])) for i in sample)
    if not text.isascii():
        hundredths += sum(_correction(text[i : i + SLICE]) for i in range(0, len(text), SLICE))
    return hundredths


def _correction(text: str) -> int:
    return sum(
        hundredths * sum(map(len, script.findall(text)))
        for script, hundredths in (CHINESE_JAPANESE, OTHER_SCRIPTS)
    )


def warm() -> None:
    """Loads the vocabulary, which takes 0.1 s: call it off the event loop before the first request."""
    _encoding()


@cache
def _encoding() -> tiktoken.Encoding:
    spec = find_spec("litellm")  # finds it without running it: the import takes seconds
    if spec is None or spec.origin is None:
        raise RuntimeError("litellm, whose vocabulary file counts tokens, is not installed")
    file = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers" / CL100K_BASE
    with file.open("rb") as lines:
        ranks = {b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    encoding = tiktoken.Encoding(
        "cl100k_base", pat_str=CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={}
    )
    ranks.clear()  # it encodes with a copy of its own, and 14 MB are 14 MB
    return encoding
