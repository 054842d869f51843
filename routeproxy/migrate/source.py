"""The configuration that is moved, as a tree whose values know their lines and remember who took them.

What nobody takes or explains is left over by itself, so that no key gets lost because somebody forgot it.
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
    """One value. Asking for it in the form it has takes it; in any other form there is nothing to get."""

    def __init__(
        self,
        name: str,
        key: str,
        line: int,
        *,
        shape: Literal["scalar", "list", "mapping", "absent"] = "absent",
        value: Scalar = None,
        written: str = "",
        members: Iterable["Node"] = (),
    ) -> None:
        self.name = name
        self.key = key
        self.line = line
        self.members = tuple(members)
        self._shape = shape
        self._value = value
        self._written = written
        self._taken = False
        self._whys: list[str] = []

    def __bool__(self) -> bool:
        return self._shape != "absent"

    def at(self, name: str) -> "Node":
        """The member of that name, or one that is absent."""
        named = [member for member in self.members if member.name == name and self._shape == "mapping"]
        return named[-1] if named else Node(name, f"{self.key}.{name}".lstrip("."), self.line)

    @property
    def looks_secret(self) -> bool:
        return bool(_SECRET_NAME.search(self.name) or _SECRET_TEXT.match(self._written))

    # --- taking

    def take(self) -> None:
        self._taken = True

    def text(self) -> str | None:
        """As it stands in the file: YAML would make a date of `2024-10-21`."""
        if self._shape != "scalar" or self._value is None:
            return None
        self.take()
        return self._written

    def number(self, least: float = -math.inf, most: float = math.inf) -> int | float | None:
        """Says so if it is something else."""
        value = self._value
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            self.take()
            return value
        bounds = f" from {least:g} to {most:g}" if most < math.inf else f" of at least {least:g}"
        self.leave(f"expected a number{bounds if least > -math.inf else ''}")
        return None

    def whole(self, least: int, most: float = math.inf) -> int | None:
        """Says so if it is something else."""
        value = self.number(least, most)
        if value is None or value == int(value):
            return None if value is None else int(value)
        self.leave("expected a whole number")
        return None

    def plain(self) -> Any:
        """All of it that TOML can say. What looks like a secret stays behind."""
        self.take()
        if self._shape == "scalar":
            return self._value
        sayable = [member for member in self.members if member.is_sayable()]
        if self._shape == "list":
            return [member.plain() for member in sayable]
        return {member.name: member.plain() for member in sayable}

    def is_sayable(self) -> bool:
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

    def leave(self, why: str) -> None:
        """Says what becomes of it and of all that is in it."""
        if why not in self._whys:
            self._whys.append(why)

    def leave_known(self, reasons: Mapping[str, str]) -> None:
        """The members that have a reason by their name, and whom nobody has touched."""
        for member in self.members:
            if member.name in reasons and not member._touched:
                member.leave(reasons[member.name])

    def left(self) -> Iterator[Leftover]:
        return self._left(explained=False)

    def _left(self, *, explained: bool) -> Iterator[Leftover]:
        for why in self._whys:
            yield Leftover(self.line, self.key, why)
        explained = explained or bool(self._whys)
        if not explained and not self._touched:
            yield Leftover(self.line, self.key, UNKNOWN)
            return
        for member in self.members:
            yield from member._left(explained=explained)

    @property
    def _touched(self) -> bool:
        return self._taken or bool(self._whys) or any(member._touched for member in self.members)


# --- reading


def read_yaml(text: str) -> Node:
    """Raises `ValueError` with the line, and what was expected there."""
    return _Reader(text, "YAML").root()


_COMMENT_OR_TEXT = re.compile(
    r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|//[^\n]*|/\*.*?\*/|\t""", re.DOTALL
)


def read_json(text: str) -> Node:
    """JSON with comments and trailing commas. Raises `ValueError` with the line, and what was expected there.

    But for comments and tabs JSON is YAML, whose reader knows lines.
    """
    if not re.match(r"\s*\{", blanked := _COMMENT_OR_TEXT.sub(_blank, text.removeprefix("\ufeff"))):
        raise ValueError("line 1: this is not a JSON object; expected `{`")
    return _Reader(blanked, "JSON").root()


def _blank(found: re.Match[str]) -> str:
    return found[1] or re.sub(r"[^\n]", " ", found[0])


class _Reader:
    def __init__(self, text: str, language: str) -> None:
        self._text = text
        self._language = language
        self._own: dict[int, set[int]] = {}
        """Of a mapping: the values that stand in it, unlike those that `<<` brings along."""

    def root(self) -> Node:
        try:
            # Only composed, never constructed: no tag of the file makes anything run.
            self._loader = yaml.SafeLoader(self._text)
            found = self._loader.get_single_node()
            if not isinstance(found, yaml.MappingNode):
                raise _refusal(found, "expected a mapping, `key: value` line by line")
            root = self._node(found, "", "", ())
            root.take()  # an empty file leaves nothing
            return root
        except yaml.MarkedYAMLError as error:
            line = (error.problem_mark or error.context_mark).line + 1
            # Not the whole error: its excerpt may show a key.
            raise ValueError(f"line {line}: this is not {self._language}: {error.problem}") from None
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise ValueError(f"line {line}: a character that {self._language} does not have") from None

    def _node(self, found: yaml.Node, name: str, key: str, within: tuple[yaml.Node, ...]) -> Node:
        line = found.start_mark.line + 1
        if found in within:
            raise _refusal(found, "expected an end: this value holds itself")
        within = (*within, found)
        if isinstance(found, yaml.ScalarNode):
            value, written = self._scalar(found)
            return Node(name, key, line, shape="scalar", value=value, written=written)
        if isinstance(found, yaml.SequenceNode):
            items = [
                self._node(item, f"[{index}]", f"{key}[{index}]", within)
                for index, item in enumerate(found.value)
            ]
            return Node(name, key, line, shape="list", members=items)
        return Node(name, key, line, shape="mapping", members=self._members(found, key, within))

    def _members(self, found: yaml.MappingNode, key: str, within: tuple[yaml.Node, ...]) -> Iterator[Node]:
        own = self._own.setdefault(id(found), {id(value) for _, value in found.value})
        self._loader.flatten_mapping(found)  # what `<<` brings along goes first
        last = {part.value: id(value) for part, value in found.value if isinstance(part, yaml.ScalarNode)}
        for part, value in found.value:
            if not isinstance(part, yaml.ScalarNode):
                raise _refusal(part, "expected a name before the colon")
            if id(value) != last[part.value] and id(value) not in own:
                continue
            node = self._node(value, part.value, f"{key}.{part.value}".lstrip("."), within)
            # A value on its own lines begins below its key, where nobody looks for it.
            node.line = part.start_mark.line + 1
            if id(value) != last[part.value]:
                node.leave(TWICE)
            yield node

    def _scalar(self, found: yaml.ScalarNode) -> tuple[Scalar, str]:
        # JSON writes a character beyond the first 65,536 as two, which YAML leaves apart.
        written = found.value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        kind = found.tag.rpartition(":")[2]
        if kind in {"bool", "int", "float", "null"}:
            return self._loader.construct_object(found), written
        return written, written


def _refusal(found: yaml.Node | None, expected: str) -> ValueError:
    return ValueError(f"line {found.start_mark.line + 1 if found else 1}: {expected}")
