"""Rules files: TOML or what should be, with the files that it includes and a `.env` beside it.

An input is the text of `rules.toml`; a line `#> NAME` begins another file of this name.
"""

import atexit
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path, PurePosixPath
from random import Random

import msgspec

from routeproxy.cli.annotations import github, sarif
from routeproxy.cli.prove import run_prove
from routeproxy.messages.body import Body
from routeproxy.messages.errors import InvalidRequest
from routeproxy.policy.compile.lints import Lints
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import explain
from routeproxy.policy.facts import Facts
from routeproxy.policy.problems import Problem, RulesRefused
from routeproxy.policy.verify.diff import compare_policies, describe_decision
from routeproxy.sources import Options, Sources
from routeproxy.upstream.chat.model_facts import known_facts
from tests.fuzz.mutate import mutate_bytes, mutate_parts
from tests.fuzz.surface import BrokenLaw, Surface, logged
from tests.running import request

ROOT = Path(__file__).parents[2]
SECRET = "sk-canary-0123456789abcdef"
"""The value of every variable that there is."""
VARIABLES = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CORP_API_KEY", "PAYMENTS_KEY", "RESEARCH_KEY", "KEY")
ENVIRONMENT = dict.fromkeys(VARIABLES, SECRET)

NEW_FILE = re.compile(rb"^#> *([^\n]*)\n", re.MULTILINE)


@cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="fuzz-rules-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _files(data: bytes) -> dict[str, bytes]:
    text, *others = NEW_FILE.split(data)
    files = {"rules.toml": text}
    for name, content in zip(others[::2], others[1::2], strict=True):
        path = PurePosixPath(name.decode("latin-1").strip())
        if (
            path.parts
            and ".." not in path.parts
            and not path.is_absolute()
            and re.fullmatch(r"[\w./-]+", str(path))
        ):
            files[str(path)] = content
    return files


def _written(data: bytes) -> Sources:
    """The sources of what was written to an empty folder."""
    folder = _folder()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for name, content in _files(data).items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError:  # a name that is a file's and a folder's
            continue
    return Sources(Options(rules=folder / "rules.toml"), ENVIRONMENT)


class _Shown:
    """Whatever is printed: no secret may be in it."""

    def write(self, text: str) -> int:
        if SECRET in text:
            raise BrokenLaw(f"it tells a secret: {text[max(0, text.find(SECRET) - 100) :][:300]}")
        return len(text)

    def flush(self) -> None: ...


SHOWN = _Shown()


# --- laws


def check(data: bytes) -> None:
    sources = _written(data)
    if any(SECRET.encode() in text for name, text in _files(data).items() if name != ".env"):
        return  # then it is no secret, but for whom it was written as a key
    with logged("routeproxy") as records:
        _check_sources(sources)
    for record in records:
        if record.exc_info:
            raise BrokenLaw(f"an exception in the log: {record.getMessage()}")
        SHOWN.write(record.getMessage())


def _check_sources(sources: Sources) -> None:
    try:
        loaded = sources.read(also=Lints(known_facts))
    except RulesRefused as refused:
        if not any(problem.severity == "error" for problem in refused.problems):
            raise BrokenLaw("refused without an error") from None
        _check_problems([*refused.problems, *refused.accepted], sources)
        SHOWN.write(str(refused))
        with suppress(RulesRefused):
            _check_policy(sources.unproved())  # whose invariants or tests alone may be broken
    except UnicodeDecodeError:
        return
    except ValueError as error:
        # Of a `.env`: in our own words.
        if ".env is not UTF-8: byte " not in str(error):
            raise
    else:
        policy = loaded.policy
        _check_problems([*policy.warnings, *policy.accepted], sources)
        _check_policy(policy)
        if sources.restore(loaded.bundle).version != policy.version:
            raise BrokenLaw("another policy out of the bundle that is kept of it")


def _check_problems(problems: Iterable[Problem], sources: Sources) -> None:
    problems = [*problems]
    for problem in problems:
        place = problem.location
        SHOWN.write(str(problem))
        if place is None or place.line < 1 or place.column < 1 or place.end_column < place.column:
            raise BrokenLaw(f"no place of a problem: {problem.message}: {place}")
        lines = Path(place.file).read_bytes().decode().count("\n") + 1
        if place.line > lines:
            raise BrokenLaw(f"line {place.line} of {lines}: {problem.message}")
        if not problem.message or "\n" in problem.message:
            raise BrokenLaw(f"a message of no line, or of several: {problem.message!r}")
    SHOWN.write(sarif(problems))
    SHOWN.write(github(problems))
    SHOWN.write(msgspec.json.encode(problems).decode())


BODIES = tuple(
    msgspec.json.encode(body)
    for body in (
        request(),
        request(model="claude-haiku-4-5", stream=True, tools=[{"name": "Bash", "input_schema": {}}]),
        request(
            thinking={"type": "enabled", "budget_tokens": 1024}, system="You are.", metadata={"user_id": "u"}
        ),
    )
)
HEADERS = ({}, {"x-claude-code-session-id": ("s",), "x-team": ("a",), "user-agent": ("claude-cli/2.1",)})


def _check_policy(policy: Policy) -> None:
    if differences := compare_policies(policy, policy):
        raise BrokenLaw(f"it differs from itself: {differences}")
    for body in BODIES:
        envelope = Body(body).envelope()
        for team in (None, *list(policy.teams)[:2]):
            for headers in HEADERS:
                told = policy.headers_of(team, headers)
                facts = Facts(envelope, told, team=team, count=lambda: 99)
                try:
                    policy.check_headers(told)
                    decision = policy.decide(facts)
                except InvalidRequest:
                    continue
                SHOWN.write(describe_decision(decision))
                SHOWN.write(msgspec.json.encode(explain(decision, policy)).decode())
                if decision.deny is None and not decision.targets:
                    raise BrokenLaw("a decision for nobody")
    run_prove(lambda: policy, out=SHOWN)  # type: ignore[arg-type]


# --- inputs


def _folders() -> Iterator[Path]:
    golden = ROOT / "tests" / "policy" / "golden"
    return (file.parent for file in sorted(golden.rglob("rules.toml")))


def _seeds() -> Iterator[bytes]:
    yield (ROOT / "rules.example.toml").read_bytes()
    for folder in _folders():
        others = [
            path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in (".toml", ".env")
        ]
        others.remove(folder / "rules.toml")
        data = (folder / "rules.toml").read_bytes() + b"".join(
            b"\n#> " + str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in others
        )
        if len(data) < 8000:
            yield data
    for page in ("rules.md", "promises.md", "recipes.md", "providers.md"):
        text = (ROOT / "docs" / page).read_bytes()
        yield from re.findall(rb"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    dotenv = f"KEY={SECRET}\nexport OPENAI_API_KEY='{SECRET}'\nPORT=\"80\" # x\n${{KEY}}\n"
    yield (
        b'[providers.p]\ntype = "anthropic"\napi_key = "env:KEY"\n[default]\ntargets = "p/*"\n#> .env\n'
        + dotenv.encode()
    )


_BYTES = (
    *(
        b"\n",
        b'"""',
        b"'''",
        b"[[",
        b"]]",
        b"{",
        b"}",
        b"=",
        b".",
        b"#",
        b'"',
        b"\\",
        b"\r\n",
        b"\xff",
        b"\0",
    ),
    *(b"= {}", b"= []", b'= ""', b"= -1", b"= 1e400", b"= nan", b"= 99999999999999999999", b"= true", b"inf"),
    *(b"= 1979-05-27T07:32:00Z", b"env:KEY", b"file:key", b"${KEY}", b"\n#> .env\n", b"\n#> teams/a.toml\n"),
    *(b"\xef\xbb\xbf", b"\xe2\x80\xae", b"*", b"/*", b"(?i)", b"(((((", b"[a-", b"\\u0000", b"\\ud800"),
)
_VALUES = (
    *(b'""', b"[]", b"{}", b"0", b"-1", b"0.5", b"nan", b"inf", b"true", b"false", b'"x"', b'["x"]', b'[""]'),
    *(
        b'"*"',
        b'"p/*"',
        b'"/"',
        b'"env:KEY"',
        b'"env:"',
        b'"file:"',
        b'"1s"',
        b'"-1s"',
        b'"9999999h"',
        b"[[]]",
    ),
    *(
        b"2024-01-01",
        b"07:32:00",
        b"9223372036854775808",
        b"{ x = 1 }",
        b'"\\u0000"',
        b'"http://["',
        b'"a b"',
    ),
)


@cache
def _words() -> tuple[bytes, ...]:
    """Those of all seeds: keys, names and values."""
    return tuple(
        sorted({word for seed in SURFACE.seeds for word in re.findall(rb"[\w.*/:-]+|\"[^\"\n]*\"", seed)})
    )


@cache
def _tables() -> tuple[bytes, ...]:
    """The tables of all seeds, each with its header."""
    split = (re.split(rb"^(?=\[)", seed, flags=re.MULTILINE) for seed in SURFACE.seeds)
    return tuple(sorted(set(chain.from_iterable(split))))


def mutate(data: bytes, random: Random) -> bytes:
    for _ in range(random.choice((1, 1, 2, 3))):
        data = _mutated(data, random)
    return data


def _mutated(data: bytes, random: Random) -> bytes:
    match random.randrange(10):
        case 0:
            return mutate_bytes(data, random, _BYTES)
        case 1 | 2:
            tables = re.split(rb"^(?=\[)", data, flags=re.MULTILINE)
            tables.insert(random.randint(0, len(tables)), random.choice(_tables()))
            return b"".join(tables)
        case 3:
            tables = re.split(rb"^(?=\[)", data, flags=re.MULTILINE)
            return b"".join(mutate_parts(tables, random, lambda part, _: part + random.choice(_tables())))
    return b"\n".join(mutate_parts(data.split(b"\n"), random, _mutate_line))


def _mutate_line(line: bytes, random: Random) -> bytes:
    key, equals, _ = line.partition(b"=")
    match random.randrange(5):
        case 0 if equals:
            return key + b"= " + random.choice(_VALUES)
        case 1 if equals:
            return random.choice(_words()) + b" " + line[len(key) :]
        case 2 | 3 if words := [*re.finditer(rb"[\w.*/:-]+|\"[^\"\n]*\"", line)]:
            word = random.choice(words)
            return line[: word.start()] + random.choice((*_words(), *_VALUES)) + line[word.end() :]
    return mutate_bytes(line, random, _BYTES)


SURFACE = Surface(tuple(_seeds()), mutate, check)
