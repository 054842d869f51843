"""Frames that came together and differ in nothing but a piece of text, made one before they are read.

A fast model, or a gateway that collects, sends dozens of chunks in one read. They are the same bytes around
another text each time, so the texts are put together as they are written: finding what repeats costs less
than reading every chunk and putting the texts together then.
"""

import re
from collections.abc import Callable
from itertools import repeat, takewhile
from operator import and_, itemgetter, truth

_KEY = b'"content":"'
_STRING = re.compile(rb'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+')
"""What stands between the quotes of a JSON string."""
_NOT_PLAIN = re.compile(rb'["\\\n]')

LEAST, MOST = 8, 512
"""Frames that are looked at together: few, until many were alike. Else odd ones among them would make each
look at hundreds in vain."""


class TextCoalescer:
    def __init__(self, says_nothing: Callable[[bytes], bool]) -> None:
        """`says_nothing`: whether a frame, whose text was taken out, has nothing else to say either."""
        self._says_nothing = says_nothing
        self._known = (b"", b"")
        """What stood around the last text."""
        self._window = LEAST

    def together(self, frames: list[bytes]) -> list[bytes]:
        fewer: list[bytes] = []
        at = 0
        while at < len(frames):
            frame, length = self._run(frames, at)
            fewer.append(frame)
            at += length
        return fewer

    def _run(self, frames: list[bytes], at: int) -> tuple[bytes, int]:
        """The frame at `at` and those after it that are like it, as one; and how many they are."""
        first = frames[at]
        begins = first.find(_KEY) + len(_KEY)
        before = first[:begins]
        if begins < len(_KEY) or at + 1 == len(frames) or not frames[at + 1].startswith(before):
            return first, 1
        string = _STRING.match(first, begins)
        assert string is not None  # it may be empty
        after = first[string.end() :]
        if not (frames[at + 1].endswith(after) and self._is_known(before, after)):
            return first, 1
        # Nothing here is a loop in Python: it would take as long as reading the chunks.
        run = frames[at : at + self._window]
        begin_so = map(bytes.startswith, run, repeat(before))
        end_so = map(bytes.endswith, run, repeat(after))
        del run[sum(takewhile(truth, map(and_, begin_so, end_so))) :]
        texts = list(map(itemgetter(slice(begins, -len(after))), run))
        around = len(before) + len(after)
        if _NOT_PLAIN.search(b"".join(texts)) or min(map(len, run)) < around:
            # Up to the first that holds more than a text, or whose end is its beginning.
            is_text = map(truth, map(_STRING.fullmatch, texts))
            is_long = map(around.__le__, map(len, run))
            del texts[sum(takewhile(truth, map(and_, is_text, is_long))) :]
        self._window = min(self._window * 4, MOST) if len(texts) == self._window else LEAST
        return before + b"".join(texts) + after, len(texts)

    def _is_known(self, before: bytes, after: bytes) -> bool:
        if (before, after) != self._known:
            if not (after.startswith(b'"') and self._says_nothing(before + after)):
                return False
            self._known = before, after
        return True
