"""Which lines the inputs of a corpus reach, of the modules that a fuzzer looks at."""

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from inspect import CO_OPTIMIZED
from pathlib import Path
from pkgutil import walk_packages
from types import CodeType, FrameType
from typing import Any


def reached_lines(packages: Iterable[str], check: Callable[[bytes], object], inputs: Iterable[bytes]) -> str:
    """`packages` are looked at with all that is in them, but for what runs when they are imported."""
    lines = {
        file: set(_lines_of(compile(Path(file).read_bytes(), file, "exec"))) for file in _files(packages)
    }
    reached: dict[str, set[int]] = {file: set() for file in lines}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        seen = reached.get(frame.f_code.co_filename)
        if seen is None:
            return None
        if event == "line" and frame.f_lineno != frame.f_code.co_firstlineno:
            seen.add(frame.f_lineno)
        return trace

    count = 0
    sys.settrace(trace)
    try:
        for data in inputs:
            count += 1
            try:
                check(data)
            except Exception:
                continue
    finally:
        sys.settrace(None)
    hit, total = sum(len(reached[file] & lines[file]) for file in lines), sum(map(len, lines.values()))
    return f"{count} inputs reach {hit} of {total} lines ({hit / total:.0%})"


def _files(packages: Iterable[str]) -> Iterator[str]:
    for name in packages:
        spec = find_spec(name)
        assert spec is not None
        if spec.origin is not None:
            yield spec.origin
        for module in walk_packages(spec.submodule_search_locations or (), f"{name}."):
            inner = find_spec(module.name)
            if inner is not None and inner.origin is not None:
                yield inner.origin


def _lines_of(code: CodeType) -> Iterator[int]:
    """Those of functions: what a module does when it is imported says nothing of an input."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines_of(constant)
            if constant.co_flags & CO_OPTIMIZED:  # else it is the body of a class
                lines = {line for _, _, line in constant.co_lines() if line is not None}
                yield from lines - {constant.co_firstlineno}
