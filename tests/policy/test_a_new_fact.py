"""A new fact is a row of the table of facts and its keys in the tables of the rules file: two files are
changed in a copy of the source, and everything else follows."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import routeproxy
from tests.budgets import seconds
from tests.running import request, serving, until

EDITS = {
    "policy/fact_table.py": {
        "FACTS: tuple[Fact, ...] = (\n": """\
    Fact(
        name="client",
        kind="text",
        read=lambda facts: facts.header("x-client"),
        header="x-client",
        optional=True,
        assumed="no client",
        condition="Which client asks.",
        statement="The client that it is from.",
        option=Option("--client", "The client that it is from.", "NAME"),
    ),
""",
    },
    "policy/file/tables.py": {
        "class MatchTable(Table):\n": "    client: str | list[str] | HeaderTable | None = None\n",
        "class RequestTable(Table):\n": "    client: str | None = None\n",
    },
}
"""By file, what is written behind a line of it."""

RULES = """
[server]
decision_log = "decisions.jsonl"

[providers.echo]
[providers.inside]
type = "echo"

[[rules]]
name = "auditors"
match.client = ["auditor", "inspector"]
targets = "inside/it"

[default]
targets = "echo/it"

[[invariants]]
name = "what auditors say stays inside"
when.client = "auditor"
only.provider = "inside"

[[tests]]
request = { model = "m", client = "inspector" }
expect.rule = "auditors"
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the changed copy."""
    folder = tmp_path_factory.mktemp("source")
    package = folder / "routeproxy"
    shutil.copytree(Path(routeproxy.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, insertions in EDITS.items():
        text = (package / name).read_text(encoding="utf-8")
        for line, lines in insertions.items():
            assert text.count(line) == 1
            text = text.replace(line, line + lines)
        (package / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(RULES, encoding="utf-8")
    return file


def run(source: Path, rules: Path, *words: str) -> tuple[int, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "routeproxy", *words],
        cwd=rules.parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=seconds(30),
        check=False,
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_rules_tests_and_the_command_line_know_it(source: Path, rules: Path) -> None:
    code, output = run(source, rules, "test", "rules.toml")
    assert (code, "1 passed" in output) == (0, True)
    code, output = run(source, rules, "explain", "--model", "m", "--client", "auditor")
    assert (code, "✓ auditors" in output, "no client" in output) == (0, True, False)
    code, output = run(source, rules, "explain", "--model", "m", "--header", "x-client: somebody")
    assert "client is `somebody`, needs to be `auditor` or `inspector`" in output
    code, output = run(source, rules, "explain", "--model", "m")
    assert "client is missing, needs to be `auditor` or `inspector`" in output
    assert "assumed: no client, no headers" in output
    code, output = run(source, rules, "schema")
    tables = json.loads(output)["definitions"]
    assert tables["MatchTable"]["properties"]["client"]["description"] == "Which client asks."
    assert tables["RequestTable"]["properties"]["client"]["description"] == "The client that it is from."


def test_the_proof_goes_by_it(source: Path, rules: Path) -> None:
    code, output = run(source, rules, "prove", "rules.toml")
    assert (code, "✓ what auditors say stays inside" in output) == (0, True)
    assert "requests where client is `auditor`: only provider" in output
    assert "rests on the client's word: client" in output
    rules.write_text(RULES.replace('["auditor", "inspector"]', '"inspector"'), encoding="utf-8")
    code, output = run(source, rules, "prove", "rules.toml", "--json")
    (invariant,) = json.loads(output)["invariants"]
    assert code == 1
    assert invariant["open"][0]["counter_example"]["client"] == "auditor"
    assert "with client auditor may reach `echo/it`" in invariant["open"][0]["message"]


def test_the_decision_log_keeps_it(source: Path, rules: Path) -> None:
    log = rules.parent / "decisions.jsonl"
    with serving(
        rules.parent, "--rules", "rules.toml", "--port", "0", environ={"PYTHONPATH": str(source)}
    ) as served:
        assert served.post(request(), x_client="auditor").headers["x-routeproxy-rule"] == "auditors"
        (line,) = until(lambda: log.exists() and log.read_text(encoding="utf-8").splitlines()) or []
    logged = json.loads(line)
    assert logged["facts"] == {"model": "claude-sonnet-5", "client": "auditor", "max_tokens": 100}
    code, output = run(source, rules, "explain", "--decision", logged["id"])
    assert (code, "✓ auditors" in output) == (0, True)
