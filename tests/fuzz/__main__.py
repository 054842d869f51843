"""Runs one fuzzer: `python -m tests.fuzz streams --minutes 10`. It goes on after a finding, and ends with 1
if there were any."""

import argparse
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import routeproxy
from tests.fuzz.coverage import reached_lines
from tests.fuzz.surface import SURFACES, Surface, found_inputs, surface

SLOW = 2.0
"""Seconds of processor time that no input of `MOST_BYTES` may take, instrumented as it is."""


class Findings:
    """Inputs that broke a law, the shortest of each kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shortest: dict[str, tuple[int, Path]] = {}
        self.counts: dict[str, int] = {}

    def add(self, error: BaseException, data: bytes) -> None:
        kind = _kind_of(error)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        length, path = self._shortest.get(kind, (sys.maxsize, self._folder / f"{len(self.counts):03}"))
        if len(data) >= length:
            return
        self._shortest[kind] = len(data), path
        self._folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.with_suffix(".why").write_text("".join(traceback.format_exception(error)), "utf-8", "replace")
        if length == sys.maxsize:
            print(f"found {path}: {kind}", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        lines = [
            f"  {self.counts[kind]:7} × {path.name}: {kind}" for kind, (_, path) in self._shortest.items()
        ]
        return "\n".join([f"{len(lines)} findings in {self._folder}", *lines])


def _kind_of(error: BaseException) -> str:
    """What makes two findings one: the error, without what differs by input, and where it comes from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "routeproxy/" in frame.filename]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    words = re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", str(error).split("\n")[0])[:120]
    return f"{type(error).__name__}: {words}{place}"


def checking(of: Surface, findings: Findings) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        began = time.process_time()
        try:
            of.check(data)
            if (took := time.process_time() - began) > SLOW:
                raise TimeoutError(f"{took:.0f} s for {len(data) // 1000} kB")
        except Exception as error:
            findings.add(error, data)

    return check


def module_names() -> Iterator[str]:
    """All of ours. To instrument them takes as long as thousands of inputs."""
    for path in Path(routeproxy.__file__).parent.rglob("*.py"):
        parts = path.relative_to(Path(routeproxy.__file__).parents[1]).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__")


def inputs_in(corpus: Path | None) -> list[Path]:
    return sorted(path for path in corpus.iterdir() if path.is_file()) if corpus is not None else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("surface", choices=SURFACES)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--corpus", type=Path, help="a folder to keep inputs in that reached something new")
    parser.add_argument("--found", type=Path, help="a folder for findings")
    parser.add_argument("--coverage", action="store_true", help="say which lines the corpus reaches, and end")
    options = parser.parse_args()
    if options.coverage:
        fuzzed = surface(options.surface)
        inputs = [*fuzzed.seeds, *(path.read_bytes() for path in inputs_in(options.corpus))]
        print(reached_lines(SURFACES[options.surface], fuzzed.check, inputs))
        return
    try:
        import atheris
    except ImportError:
        sys.exit("fuzzing needs atheris: pip install routeproxy[fuzz]")
    others = [name for name in module_names() if not name.startswith(tuple(SURFACES[options.surface]))]
    with atheris.instrument_imports(include=["routeproxy"], exclude=others):
        fuzzed = surface(options.surface)
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(
        [*fuzzed.seeds, *(path.read_bytes() for path in found_inputs(options.surface))]
    ):
        (corpus / f"seed-{number:03}").write_bytes(data)
    findings = Findings(options.found or Path(tempfile.mkdtemp(prefix="fuzz-found-")))
    check, executions = checking(fuzzed, findings), 0
    began = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal executions
        if time.monotonic() - began > options.minutes * 60:
            # libFuzzer would end the process without a word of ours.
            print(f"{options.surface}: {executions} inputs in {time.monotonic() - began:.0f} s, {findings}")
            sys.stdout.flush()
            os._exit(1 if findings.counts else 0)
        executions += 1
        check(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        changed = atheris.Mutate(data, most) if random.random() < 0.2 else fuzzed.mutate(data, random)
        return bytes(changed[:most])

    arguments = [f"-seed={options.seed % 2**31}", "-max_len=16384", "-timeout=600", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
