"""The facts of one request, as rules see them. What is asked of each fact stands in `fact_table`.

Facts are total: each has an answer for every request, so no condition can fail. A fact that costs something
(images, tokens, the system text) is worked out when a condition asks, and kept.
"""

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from copy import copy
from functools import cached_property
from hashlib import blake2b

from msgspec import Struct
from msgspec.json import Decoder
from msgspec.structs import replace

from routeproxy.messages.decoding import UNREADABLE
from routeproxy.messages.request import NULL, Envelope, ToolHead
from routeproxy.policy.content import (
    DOCUMENTS,
    IMAGES,
    contains_block,
    defined_tools,
    latest_effort,
    system_text,
)

_NAME = re.compile(r"[A-Za-z0-9_.:@/+\[\]-]{1,256}")


def stable_hash(*names: str) -> int:
    """64 bits, the same in all workers, on all servers and after a restart."""
    text = "\0".join(names).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def requested_model_problem(name: str) -> str | None:
    """Why no rule is asked about a model of this name (the answer is 404); `None` if it is a name."""
    if not _NAME.fullmatch(name):
        return "a model's name is 1 to 256 characters of A-Z a-z 0-9 . _ : @ / + - [ ]"
    if ".." in name or "//" in name:
        return "a model's name can't contain `..` or `//`"
    stem = name[:-4] if name.lower().endswith("[1m]") else name
    return "a model's name can't be a prefix alone" if not stem or stem.endswith("/") else None


class Facts:
    """One request, as rules see it. `headers` have lower-case names and every line that arrived."""

    def __init__(
        self,
        envelope: Envelope,
        headers: Mapping[str, tuple[str, ...]],
        *,
        url_target: str | None = None,
        team: str | None = None,
        no_fallback: bool = False,
        count: Callable[[], int] = lambda: 0,
        is_below: Callable[[int], bool] | None = None,
        most_tokens: int | None = None,
        request_id: str | None = None,
    ) -> None:
        """`count`: the input tokens. `is_below`: whether they are fewer than a limit, for certain; wherever
        it says yes, they are at most `most_tokens`."""
        self.envelope = envelope
        self.headers = headers
        self.url_target = url_target
        """`provider/model`, as the URL named it."""
        self.team = team
        """Whose key was shown; `None`: nobody's."""
        self.no_fallback = no_fallback
        """The client wants no other target than the first."""
        self.requested = url_target.partition("/")[2] if url_target is not None else envelope.model
        """The model asked for, as the client spells it."""
        self.model = ascii_lower(self.requested)
        self.count = count
        self._is_below = is_below
        self._most_tokens = most_tokens
        self._is_bounded = False
        self.request_id = request_id
        self.text_is_forgotten = False

    def header(self, name: str) -> str | None:
        """Trimmed. Several lines are taken for one: `Policy.check_headers` has refused those that differ."""
        lines = self.headers.get(name)
        return as_text(lines[0].strip(" \t")) if lines else None

    @property
    def max_tokens(self) -> int | None:
        return self.envelope.max_tokens

    @property
    def stream(self) -> bool:
        return self.envelope.stream is True

    @property
    def thinking(self) -> bool:
        thinking = self.envelope.thinking
        return thinking is not None and thinking.type in {"enabled", "adaptive", "between_tools"}

    @cached_property
    def effort(self) -> str | None:
        """The one in force: the latest that a system turn asks for, or else that of the whole request."""
        config = self.envelope.output_config
        return latest_effort(bytes(self.envelope.messages)) or (config.effort if config else None)

    @property
    def user(self) -> str | None:
        metadata = self.envelope.metadata
        return metadata.user_id.strip(" \t") if metadata and metadata.user_id is not None else None

    @property
    def session_id(self) -> str | None:
        """The session that the request belongs to: that of its header, or else the one in its
        `metadata.user_id`, where earlier versions of Claude Code say it."""
        return self.header("x-claude-code-session-id") or self.session_in_body

    @property
    def claimed_user(self) -> str | None:
        """Who the client says it is: the account or the device inside Claude Code's `metadata.user_id`, or
        the whole of another client's."""
        return self._metadata_names[1]

    @cached_property
    def _metadata_names(self) -> tuple[str | None, str | None]:
        """The session and the user that its `metadata.user_id` tells of."""
        return (session_in(self.user), user_in(self.user)) if self.user else (None, None)

    def share(self, name: str) -> float | None:
        """Where the session stands among all, from 0 to 100, by a hash that differs for each `name` and is
        the same everywhere. Without a session the request counts; `None`: nobody sent it, so it has no id."""
        session = self.session_id or self.request_id
        if session is None:
            return None
        return stable_hash(name, session) / 2**64 * 100

    @cached_property
    def _tools(self) -> tuple[ToolHead, ...]:
        """Those of the request, and those that its turns bring along."""
        return (*(self.envelope.tools or ()), *defined_tools(bytes(self.envelope.messages)))

    @cached_property
    def tools(self) -> tuple[str, ...]:
        """The names and the types of the tools."""
        return tuple(word for tool in self._tools for word in (tool.name, tool.type) if word)

    @property
    def tool_names(self) -> tuple[str, ...]:
        """One for each tool: its name, or else its type."""
        return tuple(tool.name or tool.type or "" for tool in self._tools)

    @property
    def has_tools(self) -> bool:
        return bool(self.envelope.tools) or bool(self._tools)

    @property
    def has_url_target(self) -> bool:
        return self.url_target is not None

    @cached_property
    def input_tokens(self) -> int:
        return self.count()

    def fewer_tokens_than(self, limit: int) -> bool:
        """Whether that is sure without counting them."""
        if self._is_below is None or not self._is_below(limit):
            return False
        self._is_bounded = True
        return True

    @property
    def counted(self) -> int | None:
        """The input tokens, if some rule asked for them."""
        return self.__dict__.get("input_tokens")

    @property
    def counted_at_most(self) -> int | None:
        """An upper bound of the input tokens, if it was enough for all rules that asked."""
        return self._most_tokens if self._is_bounded and self.counted is None else None

    @cached_property
    def session_in_body(self) -> str | None:
        """The one in its `metadata.user_id`."""
        return self._metadata_names[0]

    @cached_property
    def images(self) -> bool:
        return self._contains(IMAGES)

    @cached_property
    def documents(self) -> bool:
        return self._contains(DOCUMENTS)

    def _contains(self, types: Collection[str]) -> bool:
        # Some servers of Messages take pictures in the system prompt.
        in_system = contains_block(bytes(self.envelope.system), types)
        return contains_block(bytes(self.envelope.messages), types) or in_system

    @cached_property
    def system(self) -> str:
        """In ASCII lower case, without the attribution block."""
        return ascii_lower(system_text(bytes(self.envelope.system)))

    def forget_text(self) -> None:
        """Lets the body go. What has been worked out of it is kept, and no more can be."""
        self.text_is_forgotten = True
        self.envelope = replace(self.envelope, messages=NULL, system=NULL)
        self.count = lambda: 0
        self._is_below = None

    def with_headers(self, headers: Mapping[str, tuple[str, ...]]) -> "Facts":
        """The same request with other headers. What was worked out of its body is kept."""
        facts = copy(self)
        facts.headers = headers
        return facts


def session_in(user_id: str) -> str | None:
    """The session that Claude Code writes into `metadata.user_id`, as JSON or (until 2026) as a text."""
    if user_id.startswith("{"):
        with suppress(*UNREADABLE):
            return _user_of_claude_code.decode(user_id).session_id or None
        return None
    written = _USER_OF_OLD_CLAUDE_CODE.fullmatch(user_id)
    return written[1] if written else None


def user_in(user_id: str) -> str | None:
    """The account, or else the device, that Claude Code writes into `metadata.user_id` beside the session;
    what other clients write there, as it is."""
    if user_id.startswith("{"):
        with suppress(*UNREADABLE):
            user = _user_of_claude_code.decode(user_id)
            return user.account_uuid or user.device_id or None
        return None
    if _USER_OF_OLD_CLAUDE_CODE.fullmatch(user_id):
        device, _, rest = user_id.removeprefix("user_").partition("_account_")
        return rest.partition("_session_")[0] or device or None
    return user_id


class _UserOfClaudeCode(Struct, frozen=True):
    session_id: str | None = None
    account_uuid: str | None = None
    device_id: str | None = None


_user_of_claude_code: Decoder[_UserOfClaudeCode] = Decoder(_UserOfClaudeCode)
_USER_OF_OLD_CLAUDE_CODE = re.compile(r"user_[^_]*_account_[^_]*_session_([^_]+)")

_TO_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_TO_LOWER)


def as_text(header: str) -> str:
    """Servers hand over header bytes as Latin-1; rules are written in UTF-8."""
    return header if header.isascii() else header.encode("latin-1", "replace").decode("utf-8", "replace")


def as_line(text: str) -> str:
    """The reverse: a header's text as servers hand it over."""
    return text if text.isascii() else text.encode().decode("latin-1")
