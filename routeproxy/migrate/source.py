"""The configuration to migrate, as a tree whose values know their lines and whether they were used.

A value that is neither used nor explained is left over by itself, so that no setting gets lost because
somebody forgot it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from routeproxy.migrate.moved import Leftover

Scalar = str | int | float | bool | None

UNKNOWN = "`routeproxy init` does not know this key; docs/rules.md says what a rules file can hold"
TWICE = "the same key stands again further down, and that one counts"
_SECRET_NAME = re.compile(r"key|secret|passw|auth|credential|cookie|bearer|token$", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"sk-|bearer ", re.IGNORECASE)


class Node:
    """One value. Reading it in its own form marks it as used. In any other form it reads as `None`."""

    def __init__(
        self,
        name: str,
        key: str,
        line: int,
        *,
        shape: Literal["scalar", "list", "mapping", "absent"] = "absent",
        value: Scalar = None,
        text: str = "",
        members: Iterable["Node"] = (),
    ) -> None:
        self.name = name
        self.key = key
        self.line = line
        self.members = tuple(members)
        self._shape = shape
        self._value = value
        self._text = text
        self._used = False
        self._reasons: list[str] = []

    def __bool__(self) -> bool:
        return self._shape != "absent"

    def at(self, name: str) -> "Node":
        """The member of that name, or one that is absent."""
        named = [member for member in self.members if member.name == name and self._shape == "mapping"]
        return named[-1] if named else Node(name, f"{self.key}.{name}".lstrip("."), self.line)

    @property
    def looks_secret(self) -> bool:
        return bool(_SECRET_NAME.search(self.name) or _SECRET_TEXT.match(self._text))

    # --- using

    def use(self) -> None:
        self._used = True

    def text(self) -> str | None:
        """The text of a scalar as it stands in the file: YAML would make a date of `2024-10-21`."""
        if self._shape != "scalar" or self._value is None:
            return None
        self.use()
        return self._text

    def number(self, least: float = -math.inf, most: float = math.inf) -> int | float | None:
        """A number within the bounds. Leaves the node, with a reason, if it is anything else."""
        value = self._value
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            self.use()
            return value
        bounds = f" from {least:g} to {most:g}" if most < math.inf else f" of at least {least:g}"
        self.leave(f"expected a number{bounds if least > -math.inf else ''}")
        return None

    def integer(self, least: int, most: float = math.inf) -> int | None:
        """A whole number within the bounds. Leaves the node, with a reason, if it is anything else."""
        value = self.number(least, most)
        if value is None or value == int(value):
            return None if value is None else int(value)
        self.leave("expected a whole number")
        return None

    def plain(self) -> Any:
        """As much of the value as TOML can express. Whatever looks like a secret is left."""
        self.use()
        if self._shape == "scalar":
            return self._value
        expressible = [member for member in self.members if member.is_expressible()]
        if self._shape == "list":
            return [member.plain() for member in expressible]
        return {member.name: member.plain() for member in expressible}

    def is_expressible(self) -> bool:
        """Whether a rules file can and may have the value. Leaves the node, with a reason, if not."""
        if self._shape == "scalar" and self._value is None:
            self.leave("TOML has no null")
        elif isinstance(self._value, float) and not math.isfinite(self._value):
            self.leave("this number can't be sent as JSON")
        elif self.looks_secret:
            self.leave("it looks like a secret, and those don't stand in a rules file")
        else:
            return True
        return False

    # --- leaving

    def leave(self, reason: str) -> None:
        """Explains what becomes of the value and of all that is in it."""
        if reason not in self._reasons:
            self._reasons.append(reason)

    def leave_unused(self, reasons: Mapping[str, str]) -> None:
        """Leaves the members that nobody has used or left, if `reasons` has one by their name."""
        for member in self.members:
            if member.name in reasons and not member._touched:
                member.leave(reasons[member.name])

    def leftovers(self) -> Iterator[Leftover]:
        """The values that were left, and those that nobody has used or left."""
        return self._leftovers(explained=False)

    def _leftovers(self, *, explained: bool) -> Iterator[Leftover]:
        for reason in self._reasons:
            yield Leftover(self.line, self.key, reason)
        explained = explained or bool(self._reasons)
        if not explained and not self._touched:
            yield Leftover(self.line, self.key, UNKNOWN)
            return
        for member in self.members:
            yield from member._leftovers(explained=explained)

    @property
    def _touched(self) -> bool:
        return self._used or bool(self._reasons) or any(member._touched for member in self.members)


# --- reading


def read_yaml(text: str) -> Node:
    """The root of a YAML document. Raises `ValueError` with the line, and what was expected there."""
    return _Reader(text, "YAML").root()


_COMMENT_OR_TEXT = re.compile(
    r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|//[^\n]*|/\*.*?\*/|\t""", re.DOTALL
)


def read_json(text: str) -> Node:
    """The root of a JSON document, which may have comments and trailing commas. Raises as `read_yaml`.

    But for comments and tabs JSON is YAML, whose reader knows lines.
    """
    if not re.match(r"\s*\{", blanked := _COMMENT_OR_TEXT.sub(_blank, text.removeprefix("\ufeff"))):
        raise ValueError("line 1: this is not a JSON object; expected `{`")
    return _Reader(blanked, "JSON").root()


def _blank(match: re.Match[str]) -> str:
    return match[1] or re.sub(r"[^\n]", " ", match[0])


class _Reader:
    def __init__(self, text: str, language: str) -> None:
        self._text = text
        self._language = language
        self._own_values: dict[int, set[int]] = {}
        """By mapping, the values that stand in it, unlike those that `<<` merges into it. Both by `id`."""

    def root(self) -> Node:
        try:
            # Only composed, never constructed: no tag of the file makes anything run.
            self._loader = yaml.SafeLoader(self._text)
            document = self._loader.get_single_node()
            if not isinstance(document, yaml.MappingNode):
                raise _expected(document, "expected a mapping, `key: value` line by line")
            root = self._node(document, "", "", ())
            root.use()  # an empty file leaves nothing
            return root
        except yaml.MarkedYAMLError as error:
            line = (error.problem_mark or error.context_mark).line + 1
            # Not the whole error: its excerpt may show a key.
            raise ValueError(f"line {line}: this is not {self._language}: {error.problem}") from None
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise ValueError(f"line {line}: a character that {self._language} does not have") from None

    def _node(self, source: yaml.Node, name: str, key: str, within: tuple[yaml.Node, ...]) -> Node:
        line = source.start_mark.line + 1
        if source in within:
            raise _expected(source, "expected an end: this value holds itself")
        within = (*within, source)
        if isinstance(source, yaml.ScalarNode):
            value, text = self._scalar(source)
            return Node(name, key, line, shape="scalar", value=value, text=text)
        if isinstance(source, yaml.SequenceNode):
            items = [
                self._node(item, f"[{index}]", f"{key}[{index}]", within)
                for index, item in enumerate(source.value)
            ]
            return Node(name, key, line, shape="list", members=items)
        return Node(name, key, line, shape="mapping", members=self._members(source, key, within))

    def _members(self, source: yaml.MappingNode, key: str, within: tuple[yaml.Node, ...]) -> Iterator[Node]:
        own_values = self._own_values.setdefault(id(source), {id(value) for _, value in source.value})
        self._loader.flatten_mapping(source)  # the members that `<<` merges go first
        last = {name.value: id(value) for name, value in source.value if isinstance(name, yaml.ScalarNode)}
        for name, value in source.value:
            if not isinstance(name, yaml.ScalarNode):
                raise _expected(name, "expected a name before the colon")
            if id(value) != last[name.value] and id(value) not in own_values:
                continue
            node = self._node(value, name.value, f"{key}.{name.value}".lstrip("."), within)
            # A value on its own lines begins below its key, where nobody looks for it.
            node.line = name.start_mark.line + 1
            if id(value) != last[name.value]:
                node.leave(TWICE)
            yield node

    def _scalar(self, source: yaml.ScalarNode) -> tuple[Scalar, str]:
        """The value, and its text."""
        # JSON writes a character beyond the first 65,536 as two, which YAML leaves apart.
        text = source.value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        kind = source.tag.rpartition(":")[2]
        if kind in {"bool", "int", "float", "null"}:
            return self._loader.construct_object(source), text
        return text, text


def _expected(source: yaml.Node | None, expected: str) -> ValueError:
    return ValueError(f"line {source.start_mark.line + 1 if source else 1}: {expected}")
