"""How many input tokens a Messages request has: a local estimate that never raises and errs on the high side.

It approximates Claude's own numbers, because clients plan with those (Claude Code compacts by them). Claude's
tokenizer is not public, so text is measured with `cl100k_base`, which LiteLLM ships, and corrected by what
the last published Claude tokenizer makes of prose, code, JSON and other scripts (`text`). Structure costs
what Anthropic's documentation says (`blocks`), and so do pictures and pages (`media`).

A conversation comes back with every turn, so the count of each block is remembered (`memory`). Every body has
a count: a block of a type that is not known here counts as a third of its bytes.
"""

from functools import cached_property

from routeproxy.large_bodies import let_others_run
from routeproxy.messages.request import UNTIL_NEXT_USER_MESSAGE, Envelope
from routeproxy.messages.word_search import may_contain
from routeproxy.tokens.blocks import COSTLIEST_HOSTED_TOOL, PER_TURN, TOOL_PROMPT, Cost, Pricing, unknown_cost
from routeproxy.tokens.blocks import Memory as Memory
from routeproxy.tokens.parts import UNREADABLE, Request, Turn, read_request
from routeproxy.tokens.text import PER_BYTE
from routeproxy.tokens.text import warm as warm

PER_REQUEST = 300
"""Hundredths. With this and `PER_TURN` a bare "Hello" is 8 tokens, as the API says."""

MEMORY = Memory()


def count(body: bytes, memory: Memory = MEMORY) -> int:
    """The input tokens of a `/v1/messages` or `count_tokens` body, at least 1."""
    try:
        request = read_request(body)
    except UNREADABLE:
        return _whole_tokens(unknown_cost(len(body)))
    let_others_run(len(body))
    total = _Total()
    total.add_request(request, Pricing(memory, request.model))
    # A token has at least a byte. Nonsense would cost more, `[1,1,1]` for messages: it is capped, since
    # `Ceiling` relies on that.
    return _whole_tokens(min(total.text, _upper_bound(len(body))) + total.fixed)


class Ceiling:
    """An upper bound of a request's tokens before they are counted: few bytes are few tokens.

    There is no lower bound. A body of any size may be one small picture, thinking of earlier turns, or fields
    that no model sees.
    """

    def __init__(self, body: bytes, envelope: Envelope) -> None:
        hosted = sum(tool.type is not None for tool in envelope.tools or ())
        self._body = body
        self.tokens = _whole_tokens(_upper_bound(len(body)) + hosted * COSTLIEST_HOSTED_TOOL)
        """There are no more of them if `is_below` says yes of any limit."""

    def is_below(self, limit: int) -> bool:
        """Whether `count(body) < limit`, for certain. `False` means that nobody knows without counting."""
        return self.tokens < limit and not self._may_hold_more

    @cached_property
    def _may_hold_more(self) -> bool:
        """What pictures cost has nothing to do with their bytes, nor what a hosted tool does that a turn
        brings along. Checked last, since it takes 3 µs a kB."""
        return may_contain(self._body, b'"image"', b'"document"', b'"tool_definition"')


def _upper_bound(size: int) -> int:
    """The most that a body of `size` bytes costs, without pictures, pages and hosted tools. In hundredths."""
    return PER_REQUEST + TOOL_PROMPT + PER_BYTE * size


def _whole_tokens(hundredths: int) -> int:
    return max(1, -(-hundredths // 100))


class _Total:
    """Adds up a request, part by part."""

    def __init__(self) -> None:
        self.text = PER_REQUEST
        self.fixed = 0
        self._exposed: set[int] = set()
        self._has_changes = False
        """Some turn changes the tools."""
        self._thinking: list[Cost] = []
        """The thinking of the turn that is not over."""

    def add_request(self, request: Request, pricing: Pricing) -> None:
        for cost in pricing.price_content(request.system):
            self._add(cost)
        turns = request.messages or ()
        last_of_user = max((index for index, turn in enumerate(turns) if turn.role == "user"), default=-1)
        for index, turn in enumerate(turns):
            is_over = turn.clear_at == UNTIL_NEXT_USER_MESSAGE and index < last_of_user
            self._add_turn(turn, pricing.price_content(turn.content), is_over=is_over)
        for cost in self._thinking:
            self._add(cost)
        if request.tools or self._has_changes:
            self.text += TOOL_PROMPT
        for cost in pricing.price_tools(request.tools or []):
            # A deferred tool is not in the prompt until a search finds it.
            if cost.names <= self._exposed:
                self._add(cost)
        self.text += pricing.price_schema(request)

    def _add_turn(self, turn: Turn, costs: list[Cost], *, is_over: bool) -> None:
        """`is_over`: of a system turn, only what it says of the tools still holds."""
        if is_over and turn.role == "system":
            costs = [cost for cost in costs if cost.kind == "tools"]
        self.text += PER_TURN
        # Tool results continue a turn, and so does text beside them.
        ends_turn = turn.role == "user"
        for cost in costs:
            if cost.kind == "thinking":
                self._thinking.append(cost)
            else:
                self._add(cost)
                self._has_changes |= cost.kind == "tools"
                ends_turn &= cost.kind != "tool_result"
        if ends_turn:
            self._thinking.clear()  # the API itself drops the thinking of turns that are over

    def _add(self, cost: Cost) -> None:
        self.text += cost.text
        self.fixed += cost.fixed
        if cost.names:
            self._exposed |= cost.names
