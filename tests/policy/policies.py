"""Whole rules files and requests for them, out of an alphabet so small that everything collides; and a judge
that knows nothing but the words of the language: it reads the file's tables, never what they compile to."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import tomli_w
from hypothesis import strategies as st
from msgspec import Struct

from routeproxy.policy.cases import Question
from routeproxy.policy.compile import Compilation, compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts, requested_model_problem
from routeproxy.policy.layers import Kept

Table = dict[str, Any]
Strategy = st.SearchStrategy[Any]

# Parts, beginnings and look-alikes of each other; the last one is no ASCII.
WORDS = ("a", "ab", "abc", "b", "ba", "A", "é")
MODELS = ("a", "ab", "abc", "b", "ba", "c", "A", "aB", "p/ab", "P/a", "q/p/a", "pq/b", "ab[1m]", "b[1M]")
GLOBS = ("a", "ab", "a*", "*b", "?b", "a?c", "*b*", "A*", "*")
REGEXES = ("^a", "b$", "^(a|b)$", "ab?c", "[^a]")
TOOLS = ("a", "ab", "b", "web_1")
EFFORTS = ("low", "high", "max")
PROVIDERS = ("p", "q", "pq", "P")
TEAMS = ("t", "u", "T")
HEADERS = ("x-a", "x-b")
ZONES = ("local", "private", "public")
FLAGS = ("stream", "images", "documents", "thinking")
KEYS = {f"KEY_{team}_{number}": f"key {team} {number}" for team in TEAMS for number in range(2)}

INCLUDED = "layers/*.toml"


class Written(Struct, frozen=True):
    """A rules file as tables, with those that it includes."""

    file: Table
    layers: Mapping[str, Table] = {}

    @property
    def text(self) -> str:
        return tomli_w.dumps(self.file)

    @property
    def folder(self) -> Kept:
        contents = {name: tomli_w.dumps(layer).encode() for name, layer in self.layers.items()}
        return Kept({INCLUDED: sorted(contents)}, contents)

    def __repr__(self) -> str:
        layers = "".join(f"\n# {name}\n{tomli_w.dumps(layer)}" for name, layer in self.layers.items())
        return f"\n{self.text}{layers}"

    # --- what it says

    @property
    def teams(self) -> Mapping[str, Table]:
        teams: Mapping[str, Table] = self.file.get("teams", {})
        return teams

    @property
    def invariants(self) -> Mapping[str, Table]:
        """By name, those that teams' `targets` imply among them."""
        found = {
            f"[teams.{name}] targets": {
                "when": {"team": name},
                "only": {"target": self._globs(team["targets"])},
            }
            for name, team in self.teams.items()
            if "targets" in team
        }
        return found | {one["name"]: one for one in self.file.get("invariants", [])}

    def promising(self, invariant: Table) -> "Written":
        """With one invariant more."""
        promised = [*self.file.get("invariants", []), invariant]
        return Written(self.file | {"invariants": promised}, self.layers)

    def _globs(self, written: str | list[str]) -> list[str]:
        aliases: Mapping[str, Any] = self.file.get("aliases", {})
        return [target for name in listed(written) for target in listed(aliases.get(name, name))]

    @property
    def anonymous_may_ask(self) -> bool:
        keyed = any("keys" in team for team in self.teams.values())
        return not keyed or not self.file.get("server", {}).get("require_key", True)


def compiled(written: Written) -> Policy:
    """Raises `RulesRefused`."""
    return compile_rules(written.text, path=Path("rules.toml"), environ=KEYS, folder=written.folder)


def unproved(written: Written) -> Policy:
    """Whether it keeps its promises or not."""
    compilation = Compilation(written.text, Path("rules.toml"), KEYS, folder=written.folder)
    return compilation.policy(lambda body: 0, prove=False)


# --- conditions


@cache
def some(values: tuple[str, ...]) -> Strategy:
    """One of them, or a list."""
    one = st.sampled_from(values)
    return one | st.lists(one, min_size=1, max_size=3, unique=True)


@cache
def texts(words: tuple[str, ...], *, header: bool = False) -> Strategy:
    """What may be asked of a text."""
    operators: dict[str, Strategy] = {
        "equals": some(words),
        "prefix": some(words),
        "contains": some(words),
        "glob": some(GLOBS),
        "regex": some(REGEXES),
    }
    tables = _some_of(operators, most=2)
    if header:
        tables |= st.fixed_dictionaries({"present": st.booleans()})
    return some(words) | tables


@cache
def ranges() -> Strategy:
    numbers = st.integers(0, 3)
    both = st.tuples(numbers, numbers).map(lambda ends: {"min": min(ends), "max": max(ends)})
    return both | st.fixed_dictionaries({"min": numbers}) | st.fixed_dictionaries({"max": numbers})


@cache
def conditions(teams: tuple[str, ...], *, when: bool = False) -> Strategy:
    """Tables for `match`, or for `when`, which may not ask for everything."""
    facts = facts_asked_of(teams, when=when)
    single = st.sampled_from(sorted(facts)).flatmap(lambda fact: st.fixed_dictionaries({fact: facts[fact]}))
    flat = _some_of(facts, most=3)
    return st.recursive(flat, lambda inner: _around(inner, flat, single), max_leaves=4)


@cache
def facts_asked_of(teams: tuple[str, ...], *, when: bool = False) -> Mapping[str, Strategy]:
    """What may be asked of each."""
    header = texts(WORDS, header=True)
    facts: dict[str, Strategy] = {
        "model": texts(MODELS),
        "headers": st.dictionaries(
            st.sampled_from(("x-a", "X-A", "x-b")), header, min_size=1, max_size=2
        ).filter(lambda headers: len({name.lower() for name in headers}) == len(headers)),
        "max_tokens": ranges(),
        "tools": st.booleans() | some(("a", "a*", "ab", "*b", "web_*")),
        "effort": some(EFFORTS),
    }
    facts |= dict.fromkeys(FLAGS, st.booleans())
    if teams:
        facts["team"] = some(teams)
    if not when:
        facts |= {
            "input_tokens": ranges(),
            "system": texts(("a", "ab", "b")),
            "user": texts(WORDS, header=True),
            "url_target": st.booleans(),
        }
    return facts


def _around(inner: Strategy, flat: Strategy, single: Strategy) -> Strategy:
    tables = st.lists(inner, min_size=1, max_size=3)
    nesting = st.fixed_dictionaries({"any": tables}) | st.fixed_dictionaries(
        {"not": tables | single.filter(_is_single)}
    )
    return nesting | st.tuples(flat, nesting).map(lambda both: both[0] | both[1])


def _is_single(table: Table) -> bool:
    """`not` without a list holds one condition."""
    return "headers" not in table or len(table["headers"]) == 1


def _some_of(tables: Mapping[str, Strategy], *, most: int) -> Strategy:
    names = st.lists(st.sampled_from(sorted(tables)), min_size=1, max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: tables[name] for name in chosen}))


# --- files


@st.composite
def files(draw: st.DrawFn) -> Written:
    """Rules files that can only be refused for what their invariants say."""
    teams = tuple(draw(st.lists(st.sampled_from(TEAMS), unique=True, max_size=3)))
    providers = {name: draw(_providers()) for name in draw(_several(PROVIDERS))}
    known = [target for name, table in providers.items() for target in _targets_at(name, table)]
    aliases = draw(st.dictionaries(st.sampled_from(("one", "two")), _lists(known, 2), max_size=2))
    promised = draw(st.lists(invariants(teams, tuple(providers)), min_size=1, max_size=3))
    file: Table = {
        "server": draw(_servers()),
        "providers": providers,
        "aliases": aliases,
        "teams": {name: draw(_teams(name, tuple(providers), tuple(aliases))) for name in teams},
        "invariants": [{"name": f"promise {number}"} | one for number, one in enumerate(promised)],
    }
    written = Written(file)
    targets = [*known, *aliases]
    file["rules"] = draw(_guards(written, targets)) + draw(
        st.lists(_rules(written, teams, targets), max_size=4)
    )
    file["default"] = draw(_actions(written, targets, careful=draw(_CHANCES) < 3))
    layers = draw(_layers(written, targets))
    if layers:
        file["rules"].insert(draw(st.integers(0, len(file["rules"]))), {"include": INCLUDED})
    if draw(_CHANCES) > 7:  # so many that they are looked up
        file["rules"][:0] = [{"match": {"headers": {"x-c": f"c{n}"}}, "deny": "no"} for n in range(14)]
    for place, table in enumerate((file, *layers.values())):
        _name(table["rules"], f"file {place}")
    return Written({name: value for name, value in file.items() if value}, layers)


def _name(rules: Sequence[Table], file: str) -> None:
    for number, rule in enumerate(rules):
        if "include" not in rule:
            rule["name"] = f"{file}, rule {number}"


def _several(names: Sequence[str]) -> Strategy:
    return st.lists(st.sampled_from(names), min_size=2, max_size=3, unique=True)


def _lists(items: Sequence[Any], most: int) -> Strategy:
    one = st.sampled_from(items)
    return one | st.lists(one, min_size=1, max_size=most)


@cache
def _servers() -> Strategy:
    return st.fixed_dictionaries({"url_targets": st.booleans()}, optional={"require_key": st.booleans()})


@cache
def _providers() -> Strategy:
    stated: dict[str, Strategy] = {"region": st.sampled_from(("eu", "us")), "labels": some(("x", "y"))}
    models = st.dictionaries(
        st.sampled_from(("a", "ab", "a*", "?b", "*", "A")),
        st.fixed_dictionaries({}, optional=stated),
        min_size=1,
        max_size=3,
    )
    fixed = {
        "type": st.just("openai_compatible"),
        "base_url": st.just("http://h.example/v1"),
        "api_key": st.just("none"),
        "zone": st.sampled_from(ZONES),
    }
    optional = stated | {"models": models}
    return st.fixed_dictionaries(fixed, optional=optional)


def _targets_at(name: str, table: Table) -> list[str]:
    return [f"{name}/*", *(f"{name}/{model}" for model in ("a", "ab", "cb", "A") if admitted(table, model))]


@cache
def _teams(name: str, providers: tuple[str, ...], aliases: tuple[str, ...]) -> Strategy:
    targets = [f"{provider}/{model}" for provider in providers for model in ("*", "a", "a*", "?b")]
    return st.fixed_dictionaries(
        {},
        optional={
            "keys": st.lists(
                st.sampled_from((f"env:KEY_{name}_0", f"env:KEY_{name}_1")),
                min_size=1,
                max_size=2,
                unique=True,
            ),
            "models": some(GLOBS),
            "targets": some((*targets, *aliases)),
            "request_headers": st.dictionaries(
                st.sampled_from(("x-a", "X-B")), st.sampled_from(WORDS), min_size=1
            ),
        },
    )


@cache
def _reaches(providers: tuple[str, ...]) -> Strategy:
    globs = [f"{provider}/{model}" for provider in providers for model in ("*", "a", "a*", "?b", "A*")]
    return _some_of(
        {
            "zone": some(ZONES),
            "region": some(("eu", "us")),
            "labels": some(("x", "y")),
            "provider": some(providers),
            "target": some(tuple(globs)),
        },
        most=1,
    )


@cache
def invariants(teams: tuple[str, ...], providers: tuple[str, ...]) -> Strategy:
    one = _reaches(providers)
    reach = st.one_of(one, one, st.tuples(one, one).map(lambda both: both[0] | both[1]))
    said = st.fixed_dictionaries({"never": reach}) | st.fixed_dictionaries({"only": reach})
    bound = st.tuples(said, conditions(teams, when=True)).map(lambda both: both[0] | {"when": both[1]})
    return st.one_of(*[bound] * 6, said)


@st.composite
def _rules(draw: st.DrawFn, written: Written, teams: tuple[str, ...], targets: Sequence[str]) -> Table:
    """Any rule, or one that has to do with what some invariant speaks of, or with what it doesn't."""
    whens = [one["when"] for one in written.invariants.values() if "when" in one]
    if not whens or draw(_CHANCES) < 3:
        return {"match": draw(conditions(teams))} | draw(_actions(written, targets))
    when = draw(st.sampled_from(whens))
    same = {key: strategy for key, strategy in facts_asked_of(teams).items() if key in when}
    beside = [draw(st.fixed_dictionaries(same))] * 3 if same else []
    either = {"any": [when, draw(conditions(teams))]}
    wanted = draw(st.sampled_from([{"not": [when]}, _other(when), either, *beside]))
    return {"match": wanted} | draw(_actions(written, targets, careful=False))


@st.composite
def _guards(draw: st.DrawFn, written: Written, targets: Sequence[str]) -> list[Table]:
    """Rules that take what invariants speak of, so that what stands below them may do as it likes."""
    whens = [one["when"] for one in written.invariants.values() if "when" in one]
    return [
        {"match": draw(_wider(when))} | draw(_actions(written, targets))
        for when in whens
        if draw(_CHANCES) < 8
    ]


_CHANCES = st.integers(0, 9)


def _wider(when: Table) -> Strategy:
    """It, or a table that takes more."""
    tables = [when, {"any": [when, {"stream": True}]}, {"not": [{"not": [when]}]}]
    if len(when) > 1:
        tables += [{key: when[key]} for key in when if key != "not" or not isinstance(when[key], dict)]
    if "headers" in when:
        tables += [when | {"headers": {name: _loose(wanted) for name, wanted in when["headers"].items()}}]
    if "model" in when:
        tables += [when | {"model": _loose(when["model"])}]
    return st.sampled_from(tables)


def _loose(wanted: Any) -> Any:
    """A condition on a text that holds wherever `wanted` does."""
    match wanted:
        case {"present": False} | {"glob": _} | {"regex": _}:
            return wanted
        case {"prefix": words} | {"contains": words} | {"equals": words}:
            return {"contains": [word[-1] for word in listed(words)]}
        case str() | list():
            return {"prefix": [word[0] for word in listed(wanted)]}
    return wanted


def _other(when: Table) -> Table:
    """A table of the same facts which may well exclude it."""
    changed = {
        key: not wanted if isinstance(wanted, bool) else {"not": [{key: wanted}]}
        for key, wanted in when.items()
    }
    nested = [table["not"][0] for table in changed.values() if isinstance(table, dict)]
    flat = {key: value for key, value in changed.items() if isinstance(value, bool)}
    return flat | ({"not": nested} if nested else {})


@st.composite
def _actions(draw: st.DrawFn, written: Written, targets: Sequence[str], *, careful: bool = True) -> Table:
    """Mostly what no invariant forbids or, if not `careful`, what one forbids for the requests that it speaks
    of: what is refused at sight proves nothing."""
    always = [one for one in written.invariants.values() if "when" not in one]
    possible = [target for target in targets if not _forbidden(always, written, target)]
    harmless = [target for target in possible if not _forbidden(written.invariants.values(), written, target)]
    daring = [target for target in possible if target not in harmless]
    pool = harmless if careful else daring or harmless
    chance = draw(_CHANCES)
    if chance == 9 or (not pool and chance > 1):
        return {"deny": "no"}
    action: Table = {"targets": draw(_lists(pool if chance < 8 and pool else targets, 3))}
    fallback = draw(st.sampled_from((None, None, True, False)))
    return action if fallback is None else action | {"fallback": fallback}


@st.composite
def _layers(draw: st.DrawFn, written: Written, targets: Sequence[str]) -> Mapping[str, Table]:
    owners = [name for name, team in written.teams.items() if "targets" in team]
    if not owners or draw(st.booleans()):
        return {}
    return {
        f"layers/{number}.toml": {
            "team": (team := draw(st.sampled_from(owners))),
            "rules": draw(st.lists(_rules(written, (team,), targets), min_size=1, max_size=2)),
        }
        for number in range(draw(st.integers(1, 2)))
    }


# --- requests


class Asked(Struct, frozen=True, kw_only=True):
    """A request, by what its client says."""

    model: str
    team: str | None = None
    headers: Mapping[str, str] = {}
    """As text, in lower case."""
    url_provider: str | None = None
    """The client named a target in the URL: this, and `model`."""
    no_fallback: bool = False
    input_tokens: int = 0
    max_tokens: int | None = None
    stream: bool = False
    images: bool = False
    documents: bool = False
    thinking: bool = False
    tools: tuple[str, ...] = ()
    effort: str | None = None
    system: str | None = None
    user: str | None = None

    @classmethod
    def of(cls, facts: Facts) -> "Asked":
        """What a request looks like from the other side."""
        return cls(
            model=facts.requested,
            team=facts.team,
            headers={name: facts.header(name) or "" for name in facts.headers},
            url_provider=facts.url_target.partition("/")[0] if facts.url_target is not None else None,
            max_tokens=facts.max_tokens,
            stream=facts.stream,
            images=facts.images,
            documents=facts.documents,
            thinking=facts.thinking,
            tools=facts.tools,
            effort=facts.effort,
        )

    @property
    def question(self) -> Question:
        return Question(
            body=self.body,
            team=self.team,
            headers={
                name: (f" {value.encode().decode('latin-1')}\t",) for name, value in self.headers.items()
            },
            input_tokens=self.input_tokens,
            url_target=None if self.url_provider is None else f"{self.url_provider}/{self.model}",
            no_fallback=self.no_fallback,
        )

    @property
    def body(self) -> bytes:
        kinds = [kind for kind, there in (("image", self.images), ("document", self.documents)) if there]
        content = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": kind} for kind in kinds]}]
        said: Table = {
            "model": "a" if self.url_provider is not None else self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "stream": self.stream,
            "system": None if self.system is None else [{"type": "text", "text": self.system}],
            "tools": [{"name": name} for name in self.tools],
            "thinking": {"type": "adaptive"} if self.thinking else None,
            "output_config": {"effort": self.effort},
            "metadata": {"user_id": self.user},
        }
        return msgspec.json.encode(said)

    def heard(self, written: Written) -> "Asked":
        """With the team's word in place of the client's."""
        stated = written.teams[self.team].get("request_headers", {}) if self.team is not None else {}
        return msgspec.structs.replace(
            self, headers={**self.headers, **{name.lower(): value for name, value in stated.items()}}
        )


def requests(written: Written, random: Random, number: int) -> Iterator[Asked]:
    """Such as can arrive."""
    callers = [*written.teams, *([None] if written.anonymous_may_ask else [])]
    urls = written.file.get("server", {}).get("url_targets", False)
    providers = [*written.file["providers"], "openai_compatible"] if urls else []
    return some_requests(random, callers, number, providers)


def some_requests(
    random: Random, callers: Iterable[str | None], number: int, providers: Sequence[str] = ()
) -> Iterator[Asked]:
    callers = [*callers]
    made = (_request(random, callers, providers) for _ in range(number if callers else 0))
    return (asked for asked in made if not requested_model_problem(asked.model))


def _request(random: Random, callers: Sequence[str | None], providers: Sequence[str]) -> Asked:
    def seldom(*values: Any, otherwise: Any = None) -> Any:
        return random.choice(values) if random.random() < 0.4 else otherwise

    headers = {name: seldom(*WORDS, "", "abab") for name in HEADERS}
    flags = {name: seldom(True, otherwise=False) for name in FLAGS}
    return Asked(
        model=random.choice(MODELS),
        team=random.choice(callers),
        headers={name: value for name, value in headers.items() if value is not None},
        url_provider=seldom(*providers) if providers else None,
        no_fallback=seldom(True, otherwise=False),
        input_tokens=seldom(1, 2, 3, 4, otherwise=0),
        max_tokens=seldom(-1, 0, 1, 2, 3, 4),
        tools=tuple(random.sample(TOOLS, random.randint(1, 2))) if random.random() < 0.4 else (),
        effort=seldom(*EFFORTS, "none"),
        system=seldom("a", "Ab", "b", "c"),
        user=seldom(*WORDS, ""),
        **flags,
    )


# --- the judge


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def glob_matches(glob: str, text: str) -> bool:
    wild = {"*": ".*", "?": "."}
    return bool(re.fullmatch("".join(wild.get(char) or re.escape(char) for char in glob), text, re.DOTALL))


def admitted(provider: Table, model: str) -> bool:
    return "models" not in provider or any(glob_matches(glob, model) for glob in provider["models"])


def holds(table: Table, asked: Asked) -> bool:
    """Whether a `match` or `when` holds of a request, word for word."""
    return all(_holds(key, wanted, asked) for key, wanted in table.items())


def _holds(key: str, wanted: Any, asked: Asked) -> bool:
    match key:
        case "any":
            return any(holds(table, asked) for table in wanted)
        case "not":
            return not any(holds(table, asked) for table in listed(wanted))
        case "headers":
            return all(_text(asked.headers.get(name.lower()), one, "equals") for name, one in wanted.items())
        case "user":
            return _text(asked.user, wanted, "equals")
        case "model" | "system":
            return _text((getattr(asked, key) or "").lower(), _lowered(wanted), "contains")
        case "team" | "effort":
            return getattr(asked, key) in listed(wanted)
        case "input_tokens" | "max_tokens":
            value = getattr(asked, key)
            return value is not None and wanted.get("min", value) <= value <= wanted.get("max", value)
        case "url_target":
            return (asked.url_provider is not None) is wanted
        case "tools" if isinstance(wanted, bool):
            return bool(asked.tools) is wanted
        case "tools":
            return any(glob_matches(glob, tool) for glob in listed(wanted) for tool in asked.tools)
    return getattr(asked, key) is wanted


def _lowered(wanted: Any) -> Any:
    match wanted:
        case str():
            return wanted.lower()
        case list():
            return [word.lower() for word in wanted]
    return {key: words if key == "regex" else _lowered(words) for key, words in wanted.items()}


def _text(value: str | None, wanted: Any, plain: str) -> bool:
    table = wanted if isinstance(wanted, dict) else {plain: wanted}
    return all(
        (value is not None) is words
        if operator == "present"
        else value is not None and any(_OPERATORS[operator](value, word) for word in listed(words))
        for operator, words in table.items()
    )


_OPERATORS = {
    "equals": lambda value, word: value == word,
    "prefix": lambda value, word: value.startswith(word),
    "contains": lambda value, word: word in value,
    "glob": lambda value, word: glob_matches(word, value),
    "regex": lambda value, word: bool(re.search(word, value)),
}


def broken(written: Written, asked: Asked, targets: Sequence[str], *, name: str | None = None) -> list[str]:
    """The invariants that a request breaks which reaches `targets`; of all, or of the one of that name."""
    heard = asked.heard(written)
    return [
        f"{one}: {target}"
        for one, said in written.invariants.items()
        if name in (None, one) and holds(said.get("when", {}), heard)
        for target in targets
        if _forbids(said, written, target)
    ]


def _forbidden(promised: Iterable[Table], written: Written, target: str) -> bool:
    """Whether one of the invariants forbids some requests to reach this target of a rule."""
    aliases = written.file.get("aliases", {})
    return any(
        _forbids(said, written, one) for said in promised for one in listed(aliases.get(target, target))
    )


def _forbids(said: Table, written: Written, target: str) -> bool:
    """What a target lacks is taken for what must not be."""
    answers = [_is_so(key, listed(wanted), written, target) for key, wanted in said.get("never", {}).items()]
    never = bool(answers) and all(answer is not False for answer in answers)
    only = [_is_so(key, listed(wanted), written, target) for key, wanted in said.get("only", {}).items()]
    return never or not all(only)


def _is_so(key: str, wanted: Sequence[str], written: Written, target: str) -> bool | None:
    """`None`: nobody can tell."""
    name, _, model = target.partition("/")
    provider = written.file["providers"][name]
    models = provider.get("models", {})
    entry = next(
        (models[glob] for glob in (model, *models) if glob in models and glob_matches(glob, model)), {}
    )
    stated: Table = {"zone": "public"} | provider | entry
    match key:
        case "provider":
            return name in wanted
        case "target" if any(glob_matches(glob, target) for glob in wanted):
            return True
        case "target":
            # A back end may take a name in other capitals for the same one.
            return None if any(glob_matches(glob.lower(), target.lower()) for glob in wanted) else False
        case "labels":
            return None if key not in stated else bool({*listed(stated[key])} & {*wanted})
    return None if key not in stated else stated[key] in wanted
