"""The documentation is held to the code: examples compile, commands run, tables are complete.

`tests/docs/pages.py` says how blocks are marked.
"""

import asyncio
import contextlib
import io
import itertools
import json
import logging
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import httpx
import msgspec
import pytest
import tomli
import tomli_w
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import inspect as kinds
from typer.testing import CliRunner

from routeproxy import cli
from routeproxy.ledger.rows import Batch
from routeproxy.ledger.sqlite import SqliteStore
from routeproxy.messages.errors import TYPE_OF_STATUS
from routeproxy.migrate.environment import environment_policy
from routeproxy.migrate.environment_models import BIG_AND_SMALL, PREFIXES
from routeproxy.migrate.environment_providers import PREFERRED
from routeproxy.migrate.environment_variables import OTHER_NAMES
from routeproxy.policy.compile.actions import FAILURES
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import USUAL_FAILURES
from routeproxy.policy.file import tables as file
from routeproxy.policy.file.tables import Ability
from routeproxy.policy.litellm_environment import KEPT_FROM_LITELLM
from routeproxy.policy.problems import Code, RulesRefused
from routeproxy.policy.provider_types import TYPES
from routeproxy.policy.targets import Timeouts
from routeproxy.policy.verify.diff import compare_policies
from routeproxy.serve import startup_lines
from routeproxy.sources import Options, Sources
from routeproxy.telemetry import logs
from routeproxy.telemetry.decisions import LoggedDecision
from routeproxy.telemetry.lines import JsonLine, JsonLines
from routeproxy.telemetry.request_log import RequestRecord
from routeproxy.translate.profile import ModelProfile
from routeproxy.upstream.errors.connecting import CAUSES
from routeproxy.upstream.failures import STATUS_OF_KIND
from routeproxy.upstream.http.client import ANSWERS_OF_PROXIES
from tests.audit.trails import INSIDE, OUTSIDE, Books, public_key
from tests.budgets import seconds
from tests.docs.pages import (
    ALL_PAGES,
    COMMANDS,
    MOVING,
    PAGES,
    PROVIDERS,
    README,
    ROOT,
    RULES,
    RUNNING,
    Block,
    Command,
    all_blocks,
    blocks,
    code,
    command_in,
    every,
    files_of,
    lines_of,
    marked,
    rows,
    write,
)
from tests.end_to_end.clients import CLAUDE_CODE, environment
from tests.ledger.rows import sample
from tests.running import ECHO, Running, request, running, serving, until

KEYS = {
    name: f"test-{name}"
    for name in (
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "ANTHROPIC_API_KEY",
        "CORP_API_KEY",
        "ADMIN_KEY",
        "PAYMENTS_KEY",
        "RESEARCH_KEY",
        "LEDGER_KEY",
    )
}
"""The variables of whoever tries the commands."""


# --- rules


class EveryVariable(Mapping[str, str]):
    """An environment in which everything is set, each to something else, but for what would move a provider
    or choose its account. A value passes for a key and for an address."""

    def __getitem__(self, name: str) -> str:
        if name.endswith("_API_BASE") or name in KEPT_FROM_LITELLM:
            raise KeyError(name)
        return f"https://set.example/{name}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def is_included(block: Block) -> bool:
    return "team" in tomli.loads(block.text)


def whole(block: Block) -> str:
    """A piece of a file among the tables that the comment above it names, or behind what it goes on with."""
    if name := block.marks.get("more of"):
        return files_of(block.page, above=block.line + 1)[name]
    surroundings = tomli.loads(blocks(RULES, "toml")[0].text)
    added: dict[str, Any] = {}
    for name in filter(None, re.split(r",\s*", block.marks.get("with", ""))):
        if name in ("default", "aliases"):
            added[name] = surroundings[name]
        else:
            section = next(section for section in ("providers", "teams") if name in surroundings[section])
            added.setdefault(section, {})[name] = surroundings[section][name]
    return f"{block.text}\n{tomli_w.dumps(added)}"


@pytest.mark.parametrize("block", every("toml"))
def test_every_example_of_rules_compiles_without_a_problem(block: Block, tmp_path: Path) -> None:
    if is_included(block):
        name = block.marks["file"]
        includes = [
            rule["include"]
            for toml in blocks(block.page, "toml")
            for rule in tomli.loads(toml.text).get("rules", ())
            if "include" in rule
        ]
        assert any(Path(name).match(include) for include in includes), "no file on this page includes it"
        return
    write(files_of(block.page), tmp_path)
    path = tmp_path / (block.marks.get("file") or block.marks.get("more of") or "rules.toml")
    if "refused" in block.marks:
        with pytest.raises(RulesRefused):
            compile_rules(whole(block), path=path, environ=EveryVariable())
    else:
        policy = compile_rules(whole(block), path=path, environ=EveryVariable())
        assert list(map(str, policy.warnings)) == []


@pytest.mark.parametrize("block", every("json"))
def test_every_example_of_json_is_json(block: Block) -> None:
    assert json.loads(block.text)


# --- commands


def sessions() -> list[Any]:
    params = []
    for page in ALL_PAGES:
        printed = {block.follows.line: block.text for block in blocks(page, "text") if block.follows}
        for block in blocks(page, "sh"):
            commands = [command for line in lines_of(block) if (command := command_in(line))]
            if commands:
                params.append(pytest.param(block, commands, printed.get(block.line), id=block.id))
    return params


def made_by(block: Block) -> list[Block]:
    """The blocks that show files which the block's commands write."""
    after = [below for below in all_blocks(block.page) if below.line > block.line]
    until_next = itertools.takewhile(lambda below: below.language != "sh", after)
    return [below for below in until_next if "made" in below.marks]


def as_ever(text: str) -> str:
    """Without what is different every time: versions of rules, fresh keys and their hashes."""
    text = re.sub(r" +$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\b[0-9a-f]{12}\b|\b[0-9a-f]{64}\b", "…", text)
    return re.sub(r"(?<=\brp_)\w+_[\w-]{43}\b", "…", text).rstrip()


def understood(words: list[str]) -> None:
    """Exits if the command line does not know a word of it."""
    name, *words = words
    command = cli.load_command(name)
    while "commands" in vars(command):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, list(words))


def fill_ledger(file: Path) -> None:
    """Three days of two teams, as the pages show them."""

    async def fill() -> None:
        store = SqliteStore(file)
        for row in sample():
            await store.write(Batch(requests=[row]), row.at + 10**6)
        await store.aclose()

    asyncio.run(fill())


def fill_books(folder: Path, commands: list[Command]) -> None:
    """What the commands read."""
    if any(words[0] in ("usage", "ledger") or "--ledger" in words for words, _ in commands):
        fill_ledger(folder / "usage.db")
    if any(words[0] == "audit" and words[1] != "new-key" for words, _ in commands):
        fill_trail(folder)


def fill_trail(folder: Path) -> None:
    """A trail of five requests, the public key, and what a store outside has of it."""
    books = Books(folder / "audit")
    for number in range(3):
        books.asked(f"req_{number}", INSIDE, team="claims", rule="claims")
    books.asked("req_3", OUTSIDE)
    books.asked("req_4", OUTSIDE)
    books.writer.stop()
    (folder / "audit-key.pem.pub").write_bytes(
        public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    lines = [msgspec.json.encode(anchor) for _, anchor in books.trail.told]
    (folder / "heads.jsonl").write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.parametrize(("block", "commands", "documented"), sessions())
def test_every_command_runs_and_prints_what_is_shown(
    block: Block,
    commands: list[Command],
    documented: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - {"PATH", "HOME"}:
        monkeypatch.delenv(name)
    write(files_of(block.page, above=block.line), tmp_path)
    fill_books(tmp_path, commands)
    printed = ""
    for words, variables in commands:
        if words[0] in ("claude", "health") or (words[0] == "serve" and "--help" not in words):
            understood(words)
            continue
        keys = {} if "PREFERRED_PROVIDER" in variables else KEYS
        result = CliRunner().invoke(cli.app, words, env=keys | variables)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code in ((0,) if documented is None else (0, 1)), result.output
        printed += result.output
    if documented is not None:
        assert as_ever(printed) == as_ever(documented)
    for made in made_by(block):
        assert Path(made.marks["made"]).read_text(encoding="utf-8") == made.text


def test_every_command_of_a_pipeline_is_understood() -> None:
    commands = [
        command
        for page in ALL_PAGES
        for block in blocks(page, "yaml")
        for line in block.text.splitlines()
        if (command := command_in(re.sub(r"^\s*(- )?(run: )?", "", line)))
    ]
    assert len(commands) > 3
    for words, _ in commands:
        understood(words)


@pytest.mark.parametrize("block", every("yaml"))
def test_every_example_of_yaml_is_yaml(block: Block) -> None:
    assert yaml.safe_load(block.text)


def flags_of(command: Any) -> set[str]:
    options = [param for param in command.params if param.param_type_name == "option"]
    return {flag for param in options if not param.hidden for flag in param.opts} - {"--help"}


def command_line() -> dict[str, Any]:
    """All commands by name; of a group, its members."""
    by_name: dict[str, Any] = {}
    for name, command in ((name, cli.load_command(name)) for name in cli.COMMANDS):
        inner = {f"{name} {key}": value for key, value in getattr(command, "commands", {}).items()}
        if not inner or command.invoke_without_command:
            by_name[name] = command
        by_name |= inner
    return by_name


@pytest.mark.parametrize("name", command_line())
def test_every_flag_is_explained(name: str) -> None:
    page = RUNNING if name == "serve" else COMMANDS
    flags = flags_of(command_line()[name])
    documented = {
        flag for row in rows(page, "Starting" if name == "serve" else name)[1:] for flag in code(row[0])
    }
    said_once = {"--allow-literal-keys", "--rules"} if name != "serve" else set()
    everywhere = (said_once & flags) - documented
    assert documented - {"FILE", "OLD", "NEW", "TEAM", "USER"} == flags - everywhere


def test_every_command_is_listed() -> None:
    documented = [code(row[0])[0] for row in rows(COMMANDS, "The command line")[1:]]
    assert sorted(documented) == sorted(command_line())


# --- the README's first minutes


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server that the README's line starts, with no keys, on a free port."""
    setup, install, serve = marked("run").strip().split(" && ")
    assert setup.endswith(".venv")
    assert install == ".venv/bin/pip install ."
    program, *words = serve.split()
    assert program == ".venv/bin/routeproxy"
    output = tmp_path_factory.mktemp("readme") / "output"
    with output.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "routeproxy", *words, "--port", "0"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(output.parent)},
            stderr=log,
        )
    try:
        limit = time.monotonic() + seconds(10)
        while not (address := re.match(r"routeproxy \S+: (http://\S+)\n", output.read_text())):
            assert server.poll() is None, output.read_text()
            assert time.monotonic() < limit, "it did not start"
            time.sleep(0.02)
        with urllib.request.urlopen(f"{address[1]}/readyz", timeout=seconds(10)) as ready:
            assert ready.status == 200
        yield address[1]
    finally:
        server.kill()
        server.wait()


def test_the_readmes_first_question_is_answered(started: str) -> None:
    words = shlex.split(marked("ask").replace("http://127.0.0.1:8082", started))
    assert words[0] == "curl"
    if shutil.which("curl"):
        answer = subprocess.run(words, capture_output=True, check=True, timeout=seconds(10)).stdout
    else:
        url = next(word for word in words if word.startswith("http"))
        headers = dict(words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H")
        body = words[words.index("-d") + 1].encode()
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=seconds(10)
        ) as response:
            answer = response.read()
    assert json.loads(answer)["content"] == [{"type": "text", "text": "Hello, proxy"}]


def test_the_readmes_sdk_example_prints_the_answer(started: str) -> None:
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(marked("sdk").replace("http://127.0.0.1:8082", started), names)
    names["client"].close()
    assert printed.getvalue() == "Hello\n"


SCRIPTED_CLAUDE = """\
#!{python}
import os, sys
from anthropic import Anthropic
model, question = sys.argv[sys.argv.index("--model") + 1], sys.argv[sys.argv.index("-p") + 1]
with Anthropic() as client:
    message = client.messages.create(
        model=model, max_tokens=100, messages=[{{"role": "user", "content": question}}]
    )
print(message.content[0].text)
"""
"""Stands for Claude Code where it is not installed; it reads the same variables."""


def test_the_readmes_claude_code_is_answered(started: str, tmp_path: Path) -> None:
    program, *words = shlex.split(marked("claude"))
    assert program == ".venv/bin/routeproxy"
    client = tmp_path / "bin" / "claude"
    client.parent.mkdir()
    if CLAUDE_CODE is not None:
        client.symlink_to(Path(CLAUDE_CODE).resolve())
    else:
        client.write_text(SCRIPTED_CLAUDE.format(python=sys.executable))
        client.chmod(0o755)
    port = started.rpartition(":")[2]  # the README's server has the default
    environ = environment(started, tmp_path) | {"PORT": port, "PYTHONPATH": str(ROOT)}
    environ["PATH"] = f"{client.parent}{os.pathsep}{os.environ['PATH']}"
    for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        del environ[name]
    ran = subprocess.run(
        [sys.executable, "-m", "routeproxy", *words], cwd=tmp_path, env=environ,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds(60), check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "Hello, proxy" in ran.stdout
    assert ran.stderr.startswith(f"routeproxy: using the server at {started} (rules.example.toml, version ")


def test_the_lines_that_ci_runs_stand_alone() -> None:
    for mark in ("run", "test"):
        assert re.fullmatch(r"python3 -m venv \.venv && .+\n", marked(mark))


# --- nothing is left out


TABLES = [
    table
    for table in vars(file).values()
    if isinstance(table, type) and issubclass(table, file.Table) and table is not file.Table
]


def words_of_code(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    spans = [block.text for block in blocks(page, "toml")] + re.findall(r"`([^`\n]+)`", text)
    return {word for span in spans for word in re.findall(r"\w+", span)}


KEY_TABLES = {
    "Rules": (file.RuleTable,),
    "match": (file.MatchTable, file.HeaderTable, file.RangeTable),
    "targets": (file.TargetTable,),
    "deny": (file.DenyTable,),
    "fallback": (file.FallbackTable,),
    "retry": (file.RetryTable,),
    "health": (file.HealthTable,),
    "timeouts and deadline": (file.TimeoutsTable,),
    "params": (file.ParamsTable,),
    "transforms": (file.TransformsTable,),
    "Included files": (file.LayerFile,),
    "providers": (file.ProviderTable,),
    "Facts about models": (file.ModelTable,),
    "pools": (file.PoolTable, file.MemberTable),
    "max_concurrent": (file.QueueTable,),
    "teams": (file.TeamTable, file.KeyTable),
    "invariants": (file.InvariantTable, file.ReachTable),
    "tests": (file.CaseTable, file.RequestTable, file.ExpectTable),
    "prices": (file.PriceTable,),
    "server": (file.ServerTable,),
    "ledger": (file.LedgerTable,),
    "audit": (file.AuditTable,),
    "telemetry": (file.TelemetryTable, file.TracesTable),
    "lints": (file.LintsTable,),
}
"""By a heading of docs/rules.md, the tables of the language whose keys have their rows there."""


def own_keys(table: type) -> set[str]:
    return {entry.encode_name for entry in msgspec.structs.fields(table)}


@pytest.mark.parametrize("heading", KEY_TABLES)
def test_every_key_has_its_row(heading: str) -> None:
    firsts = [name for row in rows(RULES, heading) for name in code(row[0])]
    documented = {re.sub(r"^.*\.(?=[a-z])|\.NAME$|\W", "", name) for name in firsts}
    assert set().union(*map(own_keys, KEY_TABLES[heading])) - documented == set()


def test_the_rest_of_the_keys_are_headings() -> None:
    named = {table for tables in KEY_TABLES.values() for table in tables}
    below = {base for table in named for base in table.__mro__}
    assert set(TABLES) - below == {file.RulesFile}
    headings = set(re.findall(r"^##+ (\w+)$", RULES.read_text(encoding="utf-8"), re.MULTILINE))
    assert {name.lower() for name in headings} >= own_keys(file.RulesFile)


def written(value: Any, kind: kinds.Type) -> Iterator[tuple[type, str]]:
    """The keys that stand in `value`, each with the table of the language that it belongs to."""
    match kind:
        case kinds.UnionType():
            for member in kind.types:
                yield from written(value, member)
        case kinds.StructType() if isinstance(value, dict):
            for entry in kind.fields:
                if entry.encode_name in value:
                    owner = next(base for base in reversed(kind.cls.__mro__) if entry.name in vars(base))
                    yield owner, entry.encode_name
                    yield from written(value[entry.encode_name], entry.type)
        case kinds.DictType() if isinstance(value, dict):
            for inner in value.values():
                yield from written(inner, kind.value_type)
        case kinds.ListType() if isinstance(value, list):
            for inner in value:
                yield from written(inner, kind.item_type)


@cache
def keys_in_examples() -> frozenset[tuple[type, str]]:
    keys: set[tuple[type, str]] = set()
    for page in PAGES:
        for block in blocks(page, "toml"):
            if "refused" not in block.marks:
                table = file.LayerFile if is_included(block) else file.RulesFile
                keys.update(written(tomli.loads(block.text), kinds.type_info(table)))
    return frozenset(keys)


@pytest.mark.parametrize("table", [*TABLES, file.ActionTable], ids=lambda table: table.__name__)
def test_every_key_stands_in_an_example(table: type[file.Table]) -> None:
    """In an example that a test compiles, not only in prose."""
    own = {entry.encode_name for entry in msgspec.structs.fields(table) if entry.name in vars(table)}
    assert own - {key for owner, key in keys_in_examples() if owner is table} == set()


def test_every_condition_has_its_row() -> None:
    table = rows(RULES, "match", of="condition")[1:]
    documented = [name.removesuffix(".NAME") for row in table for name in code(row[0])]
    assert sorted(documented) == sorted(own_keys(file.MatchTable))


def test_every_failure_is_explained() -> None:
    documented = {name: row[2] for row in rows(RULES, "fallback", of="failure")[1:] for name in code(row[0])}
    assert documented == {kind: "yes" if kind in USUAL_FAILURES else "no" for kind in FAILURES}


def test_every_code_is_explained() -> None:
    documented = {code(row[0])[0]: row[1] for row in rows(COMMANDS, "Problems and their codes")[1:]}
    assert documented.keys() == {code.value for code in Code}
    assert all(meaning.startswith("warning: ") == (name >= "RP100") for name, meaning in documented.items())


def test_the_times_are_the_defaults() -> None:
    documented = {code(row[0])[0]: row[2] for row in rows(RULES, "timeouts and deadline")[1:]}
    assert documented.pop("deadline") == "no limit"
    assert documented.pop("timeouts.first_token") == "[it depends](#the-first-token)"
    usual = {name: getattr(Timeouts(), name) for name in Timeouts.__struct_fields__ if name != "first_token"}
    assert documented == {
        f"timeouts.{name}": f"{limit:g} s" if limit else "no limit" for name, limit in usual.items()
    }


def test_every_type_of_provider_has_a_recipe() -> None:
    table = {name: row for row in rows(PROVIDERS, "Providers")[1:] for name in code(row[0])}
    assert table.keys() == TYPES.keys()
    for name, kind in TYPES.items():
        assert code(table[name][1]) == list(kind.key_variables)
        assert code(table[name][2]) == ([kind.base_url] if kind.base_url else [])
    used = {
        provider.get("type", name)
        for block in blocks(PROVIDERS, "toml")
        for name, provider in tomli.loads(block.text)["providers"].items()
    }
    as_bedrock = {"bedrock_mantle", "sagemaker", "sagemaker_chat", "sagemaker_nova"}
    assert set(TYPES) - used == as_bedrock | {"vertex_ai_beta"}  # and this as vertex_ai


def test_every_option_of_a_type_is_named_beside_its_recipe() -> None:
    assert {option for kind in TYPES.values() for option in kind.options} <= words_of_code(PROVIDERS)


def test_everything_that_supports_may_name_is_explained() -> None:
    section = RULES.read_text(encoding="utf-8").partition("\n### supports\n")[2].partition("\n## ")[0]
    switches = {field.name for field in msgspec.structs.fields(ModelProfile) if field.type is bool}
    # The one is a transform, the other no ability.
    assert switches - {"strip_attribution", "thinks_always"} == set(get_args(Ability))
    assert set(get_args(Ability)) <= set(code(section))


def test_the_status_of_every_failure_is_shown() -> None:
    documented = {
        code(row[0])[0]: (row[1], code(row[2]))
        for row in rows(RUNNING, "What a client sees when a back end fails")[1:]
        if code(row[0]) and code(row[0])[0] in STATUS_OF_KIND
    }
    assert documented.pop("content_policy") == ("200", [])  # a message: `stop_reason` says it
    assert documented == {
        kind: (str(STATUS_OF_KIND[kind]), [TYPE_OF_STATUS[STATUS_OF_KIND[kind]]])
        for kind in FAILURES
        if kind != "content_policy"
    }


# --- moving


class Remembers(dict[str, str]):
    """An environment that remembers which names were looked up."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def variables_that_are_read() -> set[str]:
    asked: set[str] = set()
    for provider in PREFERRED:
        environ = Remembers(
            {
                "PREFERRED_PROVIDER": provider,
                "BIG_MODEL": "m",
                "AZURE_OPENAI_ENDPOINT": "https://r.example",
                "CUSTOM_BASE_URL": "https://c.example/v1",
                "CUSTOM_API_KEY": "k",
                "VERTEX_PROJECT": "p",
                "VERTEX_LOCATION": "l",
            }
        )
        environment_policy(environ)
        asked |= environ.asked
    logging = set(re.findall(r'"(LOG_[A-Z_]+)"', Path(logs.__file__).read_text(encoding="utf-8")))
    return asked | logging | {"ANTHROPIC_AUTH_TOKEN"}


def test_the_variables_of_older_proxies_are_all_explained_and_all_read() -> None:
    in_table = {
        name
        for row in rows(MOVING, "The variables")
        for name in code(row[0])
        if re.fullmatch(r"[A-Z_]+", name)
    }
    text = MOVING.read_text(encoding="utf-8")
    paragraph = text[text.index("\nSome forks say it otherwise") :].partition("\n\n")[0]
    understood, refused = (set(re.findall(r"`([A-Z_]+)`", part)) for part in paragraph.split(". ", 1))
    assert understood == {other for names in OTHER_NAMES.values() for other in names} - in_table
    read = variables_that_are_read()
    assert in_table - read == set()
    assert read - in_table - understood == {"ANTHROPIC_BASE_URL"} <= refused


def test_the_default_models_are_shown() -> None:
    models = {
        name: [code(cell) for cell in row[1:]]
        for row in rows(MOVING, "The variables")
        for name in code(row[0])
        if name in PREFERRED
    }
    assert models.keys() == set(PREFERRED)
    for provider, (big, small) in BIG_AND_SMALL.items():
        assert models["google" if provider == "gemini" else provider] == [[big], [small]]


def test_every_prefix_is_shown() -> None:
    text = MOVING.read_text(encoding="utf-8").partition("## Where a name leads")[2].partition("\n## ")[0]
    assert set(PREFIXES) <= set(code(text))


def test_the_newline_flags_are_said_to_change_nothing() -> None:
    plain, with_flag = (environment_policy(KEYS, process_newlines=flag) for flag in (False, True))
    assert plain.version == with_flag.version
    assert "They change nothing in this version" in MOVING.read_text(encoding="utf-8")


# --- what the server says of itself


def shown_in(page: Path, start: str) -> str:
    return next(block.text for block in blocks(page, "text") if block.text.startswith(start))


def test_start_up_looks_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
        [providers.openai]
        [providers.ollama]
        [teams.payments]
        keys = "env:PAYMENTS_KEY"
        [teams.research]
        keys = "env:RESEARCH_KEY"
        [[rules]]
        name = "haiku"
        match.model = "haiku"
        targets = "ollama/qwen3:8b"
        [[rules]]
        name = "opus"
        match.model = "opus"
        targets = "openai/gpt-5"
        [default]
        targets = "openai/gpt-4.1"
    """
    policy = compile_rules(text, path=Path("rules.toml"), environ=KEYS)
    lines = startup_lines(policy, "127.0.0.1", 8082, Sources(Options(), KEYS))
    assert as_ever("\n".join(lines)) == as_ever(shown_in(RUNNING, "routeproxy 0"))


def test_strangers_are_refused_in_these_words(tmp_path: Path) -> None:
    write({"rules.toml": ECHO}, tmp_path)
    with serving(tmp_path, "--rules", "rules.toml", "--host", "0.0.0.0", "--port", "0") as served:
        assert served.exit_code(within=10) == 2
        assert served.stderr == shown_in(RUNNING, "routeproxy: anybody")


REQUEST_IN_LOG = RequestRecord(
    event="done",
    id="req_0ad9…",
    method="POST",
    path="/v1/messages",
    status=200,
    duration_ms=812.4,
    first_content_ms=301.2,
    model="claude-haiku-4-5",
    target="openai/gpt-4.1-mini",
    team="research",
    key="laptop",
    rule="background work",
    policy="5f1c08a7d3b2",
    attempts=1,
    input_tokens=5120,
    output_tokens=64,
    stream=True,
)


def test_a_requests_log_line_looks_as_shown() -> None:
    documented = shown_in(RUNNING, "2026-").strip()
    assert documented.endswith(str(REQUEST_IN_LOG).replace('"req_0ad9…"', "req_0ad9…"))


def test_a_requests_log_line_in_json_looks_as_shown() -> None:
    (documented,) = (b.text for b in blocks(RUNNING, "json") if '"logger"' in b.text)
    written = logging.LogRecord("routeproxy.requests", logging.INFO, "", 0, REQUEST_IN_LOG, (), None)
    ours = json.loads(JsonLines().format(written))
    assert ours | {"time": json.loads(documented)["time"]} == json.loads(documented)
    assert list(ours) == list(json.loads(documented))


def test_each_field_of_the_log_in_json_is_documented_and_there() -> None:
    documented = [row for row in rows(RUNNING, "In JSON") if row[0] != "field"]
    names = [name for row in documented for name in code(row[0])]
    assert names == [*JsonLine.__struct_fields__, *RequestRecord.__struct_fields__]
    of_requests = documented[len(JsonLine.__struct_fields__) + 1 :]
    line = str(
        msgspec.structs.replace(
            REQUEST_IN_LOG,
            error="x",
            skipped=("x/z",),
            queued_ms=1.0,
            judge="x/y",
            verdicts={"flagged": 1},
            client_left=True,
        )
    )
    for row in of_requests:
        assert all(word in line for word in code(row[1])), row


def test_each_cause_of_a_back_end_that_cannot_be_reached_is_explained() -> None:
    explained = [cause for row in rows(RUNNING, "A back end that can't be reached") for cause in code(row[0])]
    assert len(set(explained)) == len(explained)
    known = {words.partition(" (")[0] for words in CAUSES} | {
        *ANSWERS_OF_PROXIES.values(),
        "its proxy answered",
    }
    assert set(explained) == known


def test_a_logged_decision_looks_as_shown() -> None:
    documented = [block.text for page in PAGES for block in blocks(page, "json") if '"engines"' in block.text]
    assert len(documented) == 2
    for line in documented:
        assert msgspec.json.encode(msgspec.json.decode(line, type=LoggedDecision)) == line.strip().encode()


def test_what_a_reload_changes_is_said_as_shown() -> None:
    before = """
        [providers.openai]
        [providers.gemini]
        [[rules]]
        name = "background work"
        match.model = "haiku"
        targets = "openai/gpt-4.1-mini"
        [default]
        targets = "openai/gpt-4.1"
    """
    after = before.replace("openai/gpt-4.1-mini", "gemini/gemini-2.5-flash")
    policies = [compile_rules(text, path=Path("rules.toml"), environ=KEYS) for text in (before, after)]
    _, *shown = shown_in(RUNNING, "INFO    routeproxy.policy.live").splitlines()
    assert compare_policies(*policies) == [line.strip() for line in shown]


# --- over HTTP


class Question(NamedTuple):
    """The request that a line with curl sends."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


def curl(line: str, variables: Mapping[str, str]) -> Question:
    program, *words = shlex.split(string.Template(line).substitute(variables))
    assert program == "curl"
    method, headers, body, url = None, {}, None, ""
    waiting = iter(words)
    for word in waiting:
        match word:
            case "-s":
                pass
            case "-X":
                method = next(waiting)
            case "-H":
                name, value = next(waiting).split(": ", 1)
                headers[name] = value
            case "-d":
                body = next(waiting).encode()
            case _:
                assert word.startswith("http://127.0.0.1:8082/"), word
                url = word
    return Question(method or ("POST" if body is not None else "GET"), url, headers, body)


def shape(value: Any) -> Any:
    """The keys of an object; of a list, those of its first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_every_question_over_http_is_answered_as_shown(tmp_path: Path) -> None:
    rules = files_of(RUNNING)["rules.toml"]
    write({"rules.toml": rules}, tmp_path)
    documented = {block.follows.line: block.text for block in blocks(RUNNING, "json") if block.follows}
    with serving(tmp_path, "--rules", "rules.toml", "--port", "0", environ=KEYS) as served:
        first = until(lambda: served.get("/readyz").json()["rules_version"], 10)
        more = '[[rules]]\nname = "more"\nmatch.model = "none"\ntargets = "echo/*"\n'
        write({"rules.toml": rules + more}, tmp_path)
        until(lambda: served.get("/readyz").json()["rules_version"] != first)
        for block in blocks(RUNNING, "sh"):
            for line in lines_of(block):
                if line.startswith("curl "):
                    question = curl(re.sub(r"\b[0-9a-f]{12}\b", first, line), KEYS)
                    url = question.url.replace("http://127.0.0.1:8082", served.url)
                    answer = httpx.request(
                        question.method, url, headers=question.headers, content=question.body
                    )
                    assert answer.status_code == 200, answer.text
                    if block.line in documented:
                        assert shape(answer.json()) == shape(json.loads(documented[block.line]))


def test_curl_is_used_only_where_its_answers_are_tested() -> None:
    pages = {
        page
        for page in ALL_PAGES
        for block in blocks(page, "sh")
        if re.search("^curl ", block.text, re.MULTILINE)
    }
    assert pages == {README, RUNNING}


REFUSED_TEAMS = """
[server]
admin_keys = ["env:ADMIN_KEY"]
[providers.echo]
[teams.payments]
keys = ["env:PAYMENTS_KEY", { key = "env:OVER_KEY", expires = 2027-06-30 }]
models = "claude-*"
[teams.research]
keys = "env:RESEARCH_KEY"
[default]
targets = "echo/*"
"""


@pytest.mark.parametrize(
    ("what", "headers", "question"),
    [
        pytest.param("no key", {}, {}, id="no key"),
        pytest.param("a wrong key", {"x_api_key": "w"}, {}, id="a wrong key"),
        pytest.param(
            "the keys of two teams at once",
            {"x_api_key": KEYS["PAYMENTS_KEY"], "authorization": f"Bearer {KEYS['RESEARCH_KEY']}"},
            {},
            id="two teams",
        ),
        pytest.param(
            "an admin key for anything but its own addresses",
            {"x_api_key": KEYS["ADMIN_KEY"]},
            {},
            id="an admin key",
        ),
        pytest.param(
            "`/v1/route` by a team without `explain`",
            {"x_api_key": KEYS["PAYMENTS_KEY"]},
            {"path": "/v1/route"},
            id="why",
        ),
        pytest.param(
            "no such model, or one that the team may not ask for",
            {"x_api_key": KEYS["PAYMENTS_KEY"]},
            {"body": request(model="NAME")},
            id="a model",
        ),
    ],
)
def test_a_refusal_has_these_words(
    what: str, headers: dict[str, str], question: dict[str, Any], refusing: Running
) -> None:
    _, status, type_, words = next(row for row in rows(RUNNING, "When routeproxy refuses") if row[0] == what)
    answer = refusing.post(**({"body": request()} | question), **headers)
    assert (str(answer.status_code), f"`{answer.json()['error']['type']}`") == (status, type_)
    assert answer.json()["error"]["message"] == words.strip("`")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(REFUSED_TEAMS, tmp_path_factory.mktemp("refusing"), KEYS | {"OVER_KEY": "o"}) as server:
        yield server
