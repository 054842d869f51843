"""Events that came in one read and differ in nothing but a piece of text, made one before they are decoded.

A fast model, or a gateway that collects, sends dozens of chunks in one read. They are the same bytes around
another text each time, so the texts are joined as they are written: finding what repeats costs less than
decoding every chunk and joining the texts then.
"""

import re
from collections.abc import Callable
from itertools import repeat, takewhile
from operator import and_, itemgetter, truth

_KEY = b'"content":"'
_STRING = re.compile(rb'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+')
"""What stands between the quotes of a JSON string."""
_NOT_PLAIN = re.compile(rb'["\\\n]')

SMALLEST_WINDOW, LARGEST_WINDOW = 8, 512
"""Events that are compared with one: few, until many were alike. Else odd ones among them would make each
comparison go through hundreds in vain."""


class TextCoalescer:
    def __init__(self, has_no_content: Callable[[bytes], bool]) -> None:
        """`has_no_content`: whether an event, whose text was taken out, holds nothing else either."""
        self._has_no_content = has_no_content
        self._known_frame = (b"", b"")
        """What stood around the last text."""
        self._window = SMALLEST_WINDOW

    def coalesce(self, events: list[bytes]) -> list[bytes]:
        """The same events, neighbours that differ in their text alone as one."""
        fewer: list[bytes] = []
        at = 0
        while at < len(events):
            event, length = self._join_run(events, at)
            fewer.append(event)
            at += length
        return fewer

    def _join_run(self, events: list[bytes], at: int) -> tuple[bytes, int]:
        """The event at `at` and those after it that are like it, as one; and how many they are."""
        first = events[at]
        text_start = first.find(_KEY) + len(_KEY)
        before = first[:text_start]
        if text_start < len(_KEY) or at + 1 == len(events) or not events[at + 1].startswith(before):
            return first, 1
        text = _STRING.match(first, text_start)
        assert text is not None  # it may be empty
        after = first[text.end() :]
        if not (events[at + 1].endswith(after) and self._is_known(before, after)):
            return first, 1
        # Nothing here is a loop in Python: it would take as long as decoding the chunks.
        run = events[at : at + self._window]
        same_start = map(bytes.startswith, run, repeat(before))
        same_end = map(bytes.endswith, run, repeat(after))
        del run[sum(takewhile(truth, map(and_, same_start, same_end))) :]
        texts = list(map(itemgetter(slice(text_start, -len(after))), run))
        length_around = len(before) + len(after)
        if _NOT_PLAIN.search(b"".join(texts)) or min(map(len, run)) < length_around:
            # Up to the first that holds more than a text, or whose end is its beginning.
            is_string = map(truth, map(_STRING.fullmatch, texts))
            is_long_enough = map(length_around.__le__, map(len, run))
            del texts[sum(takewhile(truth, map(and_, is_string, is_long_enough))) :]
        is_full = len(texts) == self._window
        self._window = min(self._window * 4, LARGEST_WINDOW) if is_full else SMALLEST_WINDOW
        return before + b"".join(texts) + after, len(texts)

    def _is_known(self, before: bytes, after: bytes) -> bool:
        if (before, after) != self._known_frame:
            if not (after.startswith(b'"') and self._has_no_content(before + after)):
                return False
            self._known_frame = before, after
        return True
