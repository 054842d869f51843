"""What of a conversation a target can't be given, since only the provider that wrote it can read it."""

from collections import Counter
from collections.abc import Mapping
from typing import Literal

Loss = Literal["thinking", "signatures", "server_tool_results"]
"""Blocks of thinking; signatures without a text (redacted or omitted thinking); and results of tools that the
provider ran, of which words are left."""

Losses = Counter[Loss]

_NAMES: Mapping[Loss, tuple[str, str]] = {
    "thinking": ("1 thinking block", "{} thinking blocks"),
    "signatures": ("1 block of hidden thinking", "{} blocks of hidden thinking"),
    "server_tool_results": ("1 result of a server tool", "{} results of server tools"),
}


def loss_of_thinking(thinking: object) -> Loss:
    """`thinking`: the text of a thinking block."""
    return "thinking" if thinking else "signatures"


def in_words(losses: Mapping[Loss, int]) -> str:
    """`2 thinking blocks and 1 result of a server tool`."""
    one_by_one = [
        one if losses[loss] == 1 else many.format(losses[loss])
        for loss, (one, many) in _NAMES.items()
        if losses.get(loss)
    ]
    return " and ".join(one_by_one)
