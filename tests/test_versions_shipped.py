"""What is tested is what the image ships, and neither is beyond what `pyproject.toml` allows."""

import re
from pathlib import Path

import pytest
import tomli
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def pinned(file: str) -> list[str]:
    return re.findall(r"^[\w.-]+==[^\s;\\]+", (DEPLOY / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_constraints_are_the_versions_that_the_image_installs() -> None:
    assert pinned("constraints.txt") == pinned("requirements.txt") != []


def test_every_version_that_the_image_installs_has_its_hashes() -> None:
    text = (DEPLOY / "requirements.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^[\w.-]+==[^\n]*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(
        pinned("requirements.txt")
    )


PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("line", PROJECT["dependencies"])
def test_the_image_installs_what_the_project_asks_for_below_a_bound(line: str) -> None:
    asked = Requirement(line)
    shipped = dict(pin.split("==") for pin in pinned("constraints.txt"))
    assert asked.specifier.contains(shipped[asked.name])
    assert any(bound.operator in ("<", "==") for bound in asked.specifier)
