"""The fuzzers themselves: that they run, and that what they once found stays mended. (To fuzz:
docs/internals/fuzzing.md.)"""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.surface import SURFACES, found_inputs, surface

INPUTS = 100


@pytest.mark.parametrize("name", SURFACES)
def test_a_hundred_inputs_keep_the_laws(name: str) -> None:
    fuzzed, random = surface(name), Random(1)
    for number in range(INPUTS):
        data = random.choice(fuzzed.seeds)
        for _ in range(number % 4):
            data = fuzzed.mutate(data, random)
        fuzzed.check(data)


@pytest.mark.parametrize(
    ("name", "path"),
    [pytest.param(name, path, id=f"{name}-{path.name}") for name in SURFACES for path in found_inputs(name)],
)
def test_what_was_found_once_stays_mended(name: str, path: Path) -> None:
    surface(name).check(path.read_bytes())
