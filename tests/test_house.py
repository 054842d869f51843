"""The house keeps its shape: imports go one way, and what is heavy or foreign is imported in one place."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.budgets import seconds

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "routeproxy").rglob("*.py"))


def test_imports_go_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run(
        [str(linter)], cwd=ROOT, capture_output=True, text=True, timeout=seconds(120), check=False
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("module", "importers"),
    [
        pytest.param("litellm", set(), id="litellm: by name only, late"),
        pytest.param("aiohttp", {"upstream/http/client.py", "upstream/http/connection.py"}, id="aiohttp"),
        pytest.param("re2", {"policy/patterns.py"}, id="re2"),
        pytest.param("yaml", {"migrate/source.py"}, id="yaml"),
        pytest.param("watchfiles", {"policy/live/live.py"}, id="watchfiles"),
        pytest.param("typer", {"cli/__init__.py", "cli/fact_options.py"}, id="typer"),
    ],
)
def test_a_library_is_imported_in_its_place(module: str, importers: set[str]) -> None:
    statement = re.compile(rf"^\s*(?:import|from) {module}\b", re.MULTILINE)
    found = {
        source.relative_to(ROOT / "routeproxy").as_posix()
        for source in SOURCES
        if statement.search(source.read_text(encoding="utf-8"))
    }
    assert found == importers


def test_serving_imports_no_litellm() -> None:
    check = "import sys, routeproxy.serve; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=seconds(60), check=False).returncode == 0
