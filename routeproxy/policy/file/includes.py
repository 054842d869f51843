"""Included files: each belongs to one team, stands where it is included, and can only narrow what that team
may. What files there are is asked of a `Folder`; besides `Disk` nothing here reads any."""

import errno
import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from routeproxy.files import names_in, read_file
from routeproxy.policy.file.reader import read
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import LayerFile
from routeproxy.policy.patterns import is_glob
from routeproxy.policy.problems import Code, KeyPath, RulesRefused


class Folder(Protocol):
    """Where a rules file stands, with what it includes. Names are relative to it, with `/`."""

    def find(self, pattern: str) -> list[str]:
        """The files of this name, or that match its glob, in name order."""

    def read(self, name: str) -> bytes: ...


class Disk:
    """A folder of the file system, as it is now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.looked_at: dict[Path, None] = {}
        """The files and folders that were asked for: a change of one of them may change the policy."""

    def find(self, pattern: str) -> list[str]:
        """Raises `OSError` for a folder that can't be read, and for what lies outside."""
        name_of_folder, _, name = pattern.rpartition("/")
        folder = self.root / name_of_folder
        self.looked_at[folder] = None
        names = fnmatch.filter(names_in(folder), name)
        paths = [folder / name for name in names if not name.startswith(".")]
        for path in paths:
            self._check_inside(path)
        return [path.relative_to(self.root).as_posix() for path in paths]

    def read(self, name: str) -> bytes:
        path = self.root / name
        self.looked_at[path] = None
        self._check_inside(path)
        return read_file(path)

    def _check_inside(self, path: Path) -> None:
        # A link may lead anywhere, and whoever may write an included file must not read other files by it.
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
        except RuntimeError:  # Python before 3.13, of a link to itself
            raise OSError(errno.ELOOP, "it leads to itself", str(path)) from None
        if not inside:
            raise PermissionError(f"`{path.name}` leads out of this file's folder")


class CopyingFolder:
    """Another folder, with copies of all that was asked of it: the same policy can be compiled again from
    them."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.found: dict[str, list[str]] = {}
        self.contents: dict[str, bytes] = {}

    def find(self, pattern: str) -> list[str]:
        self.found[pattern] = self._folder.find(pattern)
        return self.found[pattern]

    def read(self, name: str) -> bytes:
        self.contents[name] = self._folder.read(name)
        return self.contents[name]


class KeptFolder:
    """A folder of copies."""

    def __init__(self, found: Mapping[str, list[str]], contents: Mapping[str, bytes]) -> None:
        self._found = found
        self._contents = contents

    def find(self, pattern: str) -> list[str]:
        return self._found.get(pattern, [])

    def read(self, name: str) -> bytes:
        if name not in self._contents:
            raise FileNotFoundError(f"{name} was not kept")
        return self._contents[name]


class Layer(Struct, frozen=True):
    """One included file, as its tables."""

    file: LayerFile
    report: Report
    label: str
    """Its name, relative to the folder of the rules file."""
    team: str
    """Empty, if the file does not state it."""
    included_at: KeyPath
    """The place of the `include` in the rules file."""


def relative_problem(name: str, *, globs: bool = False) -> str | None:
    """Why a name in a rules file does not lead to a file beside or below it; `None` if it does. `globs`: its
    last part may be a glob."""
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in parts[0]:
        return "must be relative to this file's folder"
    if ".." in parts:
        return "must not lead out of this file's folder"
    if is_glob("".join(parts[:-1])) or "**" in name or (is_glob(name) and not globs):
        return "may have a `*` only in the last part of its name" if globs else "must be the name of one file"
    return None


def read_layers(include: str, path: KeyPath, report: Report, folder: Folder, beside: Path) -> Iterator[Layer]:
    """The files that `include` names, which stand in the folder `beside`. What is wrong with a file is in its
    own report."""
    if problem := relative_problem(include, globs=True):
        report.error(Code.FORBIDDEN, path, f"`include` {problem}")
        return
    try:
        names = folder.find(include)
    except OSError as error:
        report.error(Code.FORBIDDEN, path, f"an included file can't be taken: {error}")
        return
    if not names and is_glob(include):
        report.warn(Code.NO_EFFECT, path, f"no file matches `{include}`")
    elif not names:
        report.error(Code.UNDEFINED, path, f"there is no file `{include}` beside this one")
    for name in names:
        try:
            text = folder.read(name).decode().removeprefix("\ufeff")
        except OSError as error:
            report.error(Code.UNDEFINED, path, f"`{name}` can't be read: {error.strerror or error}")
            continue
        except UnicodeDecodeError as error:
            report.error(Code.UNDEFINED, path, f"`{name}` can't be read: {error}")
            continue
        yield _layer(text, name, path, Report(text, str(beside / name), gives_way=report.gives_way))


def _layer(text: str, name: str, included_at: KeyPath, report: Report) -> Layer:
    try:
        document = report.parse()
    except RulesRefused:
        return Layer(LayerFile(), report, name, "", included_at)
    file = read(document, report, LayerFile)
    if file.team is None and not report.faulty(("team",)):
        message = "an included file begins with the team that it belongs to"
        report.error(Code.MISSING, (), message, expected='`team = "NAME"`')
    for at in _sent_keys(document, ()):
        message = f"an included file can't have `{at[-1]}`: it can only narrow"
        report.error(Code.FORBIDDEN, at, message, hint="it belongs to the file that includes", key=True)
    for at, value in _texts(document, ()):
        if value.startswith(("env:", "file:")):
            report.error(Code.FORBIDDEN, at, "an included file can't read variables or files")
    return Layer(file, report, name, file.team or "", included_at)


ELSEWHERE = frozenset({"container", "inference_geo", "mcp_servers", "thread"})
"""The parameters that take a request to places that no target names."""


def _sent_keys(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """The places of keys that would send something of the file's own to a back end."""
    for key, item in _items(value):
        here = (*path, key)
        if key == "extra_body" or (key in ELSEWHERE and path[-2:-1] == ("params",)):
            yield here
        else:
            yield from _sent_keys(item, here)


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text in `value`, with its place."""
    if isinstance(value, str):
        yield path, value
    for key, item in _items(value):
        yield from _texts(item, (*path, key))


def _items(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)
