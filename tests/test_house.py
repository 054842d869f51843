"""The house keeps its shape: imports go one way, and what is heavy or foreign is imported in one place."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from routeproxy.cli import COMMANDS
from tests.budgets import seconds

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "routeproxy").rglob("*.py"))
OWN_OPTIONS = set(COMMANDS) - {"prove"}
"""The commands with options that no other has."""


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
        pytest.param("httptools", {"upstream/http/connection.py", "web/http_protocol.py"}, id="httptools"),
        pytest.param(
            "httpx",
            {"audit/writing.py", "upstream/litellm/setup.py", "upstream/litellm/transport.py"},
            id="httpx: for LiteLLM, and to post signed heads",
        ),
        pytest.param("jinja2", {"web/front_page.py", "web/pages/html.py"}, id="jinja2: for pages"),
        pytest.param("re2", {"policy/patterns.py"}, id="re2"),
        pytest.param("yaml", {"migrate/source.py"}, id="yaml"),
        pytest.param("watchfiles", {"policy/live/notices.py"}, id="watchfiles"),
        pytest.param(
            "typer",
            {f"cli/{name}.py" for name in ("__init__", "fact_options", "options", "running", *OWN_OPTIONS)},
            id="typer: a command owns its options",
        ),
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


def test_the_commands_are_listed_without_importing_them() -> None:
    check = (
        "import sys\n"
        "from routeproxy.cli import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print(*(name for name in sys.modules if name.startswith('routeproxy.')))"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=seconds(60))
    assert ran.stdout.splitlines()[-1].split() == ["routeproxy.cli.options", "routeproxy.cli"], ran.stderr


def test_serving_imports_no_litellm() -> None:
    check = "import sys, routeproxy.serve; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=seconds(60), check=False).returncode == 0


def test_only_its_room_loads_what_is_of_litellm() -> None:
    loaded = re.compile(r"\b(?:import_module|find_spec)\(\"(?:litellm|openai)\b")
    found = {
        source.relative_to(ROOT / "routeproxy").as_posix()
        for source in SOURCES
        if loaded.search(source.read_text(encoding="utf-8"))
    }
    # Tokens are counted with a file that LiteLLM ships, below everything that asks a back end.
    assert found == {
        "tokens/text.py",
        *(f"upstream/litellm/{name}.py" for name in ("model_table", "setup")),
    }
