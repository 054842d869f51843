"""Whole rules files and requests for them, out of an alphabet so small that everything collides; and a judge
that knows nothing but the words of the language: it reads the file's tables, never what they compile to."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import tomli_w
from hypothesis import strategies as st
from msgspec import Struct

from routeproxy.policy.compile.compiler import Compilation, compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.facts import Facts, requested_model_problem
from routeproxy.policy.file.includes import KeptFolder
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.problems import RulesRefused

Table = dict[str, Any]

# Parts, beginnings and look-alikes of each other, words that read as globs, two letters that look the same.
WORDS = ("a", "ab", "abc", "b", "ba", "A", "a?", "*", "é", "e\u0301")
MODELS = ("a", "ab", "abc", "b", "ba", "c", "A", "aB", "p/ab", "P/a", "q/p/a", "pq/b", "ab[1m]", "b[1M]")
GLOBS = ("a", "ab", "a*", "*b", "?b", "a?c", "*b*", "A*", "*")
REGEXES = ("^a", "b$", "^(a|b)$", "ab?c", "[^a]", "(?i)A")
TOOLS = ("a", "ab", "b", "web_1")
TOOL_GLOBS = ("a", "a*", "ab", "*b", "web_*")
EFFORTS = ("low", "high", "max")
PROVIDERS = ("p", "q", "pq", "P")
TEAMS = ("t", "u", "T")
ZONES = ("local", "private", "public")
AGENT = "x-claude-code-agent-id"
"""The header that has a short name: `agent`."""
HEADERS = ("x-a", "x-b", AGENT)
FLAGS = ("stream", "images", "documents", "thinking")
IN_WHEN = ("model", "headers", "agent", "max_tokens", "tools", "effort", *FLAGS)
FACTS = (*IN_WHEN, "input_tokens", "system", "user", "url_target")
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
    def folder(self) -> KeptFolder:
        contents = {name: tomli_w.dumps(layer).encode() for name, layer in self.layers.items()}
        return KeptFolder({INCLUDED: sorted(contents)}, contents)

    def __repr__(self) -> str:
        layers = "".join(f"\n# {name}\n{tomli_w.dumps(layer)}" for name, layer in self.layers.items())
        return f"\n{self.text}{layers}"

    def promising(self, invariant: Table) -> "Written":
        """With one invariant more."""
        promised = [*self.file.get("invariants", []), invariant]
        return Written(self.file | {"invariants": promised}, self.layers)

    def promising_nothing(self) -> "Written":
        teams = {name: {**team} for name, team in self.teams.items()}
        for name, team in teams.items():
            if name not in {layer["team"] for layer in self.layers.values()}:
                team.pop("targets", None)
        kept = {key: value for key, value in self.file.items() if key != "invariants"}
        return Written(kept | ({"teams": teams} if teams else {}), self.layers)

    # --- what it says

    @property
    def providers(self) -> Mapping[str, Table]:
        providers: Mapping[str, Table] = self.file["providers"]
        return providers

    @property
    def teams(self) -> Mapping[str, Table]:
        teams: Mapping[str, Table] = self.file.get("teams", {})
        return teams

    @property
    def invariants(self) -> Mapping[str, Table]:
        """By name, those that teams' `targets` imply among them."""
        implied = {
            f"[teams.{name}] targets": {
                "when": {"team": name},
                "only": {"target": self.meant(team["targets"])},
            }
            for name, team in self.teams.items()
            if "targets" in team
        }
        return implied | {one["name"]: one for one in self.file.get("invariants", [])}

    def meant(self, targets: str | list[str]) -> list[str]:
        """With aliases replaced."""
        aliases: Mapping[str, Any] = self.file.get("aliases", {})
        return [target for name in listed(targets) for target in listed(aliases.get(name, name))]

    @property
    def callers(self) -> list[str | None]:
        """The teams; and nobody's, if the door is open for everybody."""
        keyed = any("keys" in team for team in self.teams.values())
        is_open = not keyed or not self.file.get("server", {}).get("require_key", True)
        return [*self.teams, *([None] if is_open else [])]

    @property
    def url_targets(self) -> bool:
        return bool(self.file.get("server", {}).get("url_targets", False))


def compiled(written: Written) -> Policy:
    """Raises `RulesRefused`."""
    return compile_rules(written.text, path=Path("rules.toml"), environ=KEYS, folder=written.folder)


def unproved(written: Written) -> Policy:
    """Whether it keeps its promises or not."""
    compilation = Compilation(written.text, Path("rules.toml"), KEYS, folder=written.folder)
    return compilation.policy(lambda body: 0, prove=False)


# --- dice


class Dice:
    """Makes things up. What is more likely to be plain comes first."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def chance(self, of: float) -> bool:
        return self._random.random() >= 1 - of

    def one(self, values: Sequence[Any]) -> Any:
        return self._random.choice(values)

    def several(self, values: Sequence[Any], least: int, most: int) -> list[Any]:
        """Different ones."""
        most = min(most, len(values))
        return self._random.sample(values, self._random.randint(min(least, most), most))

    def some(self, values: Sequence[Any]) -> Any:
        """One of them, or a list."""
        return self.several(values, 1, 3) if self.chance(0.4) else self.one(values)

    def times(self, least: int, most: int) -> range:
        return range(self._random.randint(least, most))


dice = st.randoms(use_true_random=True).map(Dice)
"""Fifty times as fast as choices that Hypothesis knows of; `smallest` does what it would do."""


# --- conditions


class Topics:
    """Makes conditions, mostly of a few facts and in few words, so that they meet."""

    def __init__(self, dice: Dice, teams: Sequence[str]) -> None:
        self._dice = dice
        self._teams = teams
        self._facts = dice.several([*FACTS, *["team", "headers", "model"] * 2, "agent"], 1, 3)
        self._words = dice.several(WORDS, 2, 4)
        self._models = dice.several(MODELS, 2, 4)
        self._globs = dice.several(GLOBS, 2, 4)

    def match(self, facts: Sequence[str] = FACTS, depth: int = 2) -> Table:
        dice = self._dice
        if depth and dice.chance(0.3):
            return self._nested(facts, depth - 1) | (self._flat(facts) if dice.chance(0.4) else {})
        return self._flat(facts)

    def when(self) -> Table:
        return self.match(IN_WHEN)

    def of(self, facts: Iterable[str]) -> Table:
        """A condition on each."""
        return {fact: self._asked_of(fact) for fact in facts}

    def _flat(self, facts: Sequence[str]) -> Table:
        facts = [*facts, *(["team"] if self._teams else [])]
        near = [fact for fact in self._facts if fact in facts]
        return self.of(
            dict.fromkeys(self._dice.several(near if near and self._dice.chance(0.8) else facts, 1, 2))
        )

    def _nested(self, facts: Sequence[str], depth: int) -> Table:
        if self._dice.chance(0.2):
            table = self._flat(facts)
            key = self._dice.one(sorted(table))
            inner = table[key]
            return {"not": {key: dict([self._dice.one([*inner.items()])]) if key == "headers" else inner}}
        return {self._dice.one(("any", "not")): [self.match(facts, depth) for _ in self._dice.times(1, 3)]}

    def _asked_of(self, fact: str) -> Any:
        dice = self._dice
        match fact:
            case "team":
                return dice.some(self._teams)
            case "model":
                return self.text(self._models)
            case "headers":
                names = dice.several((dice.one(("x-a", "X-A")), "x-b", AGENT), 1, 2)
                return {name: self.text(self._words, header=True) for name in names}
            case "agent" | "user":
                return self.text(self._words, header=True)
            case "system":
                return self.text(("a", "ab", "b"))
            case "max_tokens" | "input_tokens":
                least, most = sorted(dice.one(range(4)) for _ in range(2))
                return dice.one(({"min": least}, {"max": most}, {"min": least, "max": most}))
            case "tools" if dice.chance(0.7):
                return dice.some(TOOL_GLOBS)
            case "effort":
                return dice.some(EFFORTS)
        return dice.one((True, False))

    def text(self, words: Sequence[str], *, header: bool = False) -> Any:
        """What is asked of a text."""
        dice = self._dice
        if dice.chance(0.4):
            return dice.some(words)
        if header and dice.chance(0.2):
            return {"present": dice.one((True, False))}
        values = {"equals": words, "prefix": words, "contains": words, "glob": self._globs, "regex": REGEXES}
        return {operator: dice.some(values[operator]) for operator in dice.several(sorted(values), 1, 2)}


# --- files


def file_of(dice: Dice) -> Written:
    """A rules file that can only be refused for what its invariants say."""
    teams = dice.several(TEAMS, 0, 3)
    providers = {name: _provider(dice) for name in dice.several(PROVIDERS, 2, 3)}
    known = [target for name, table in providers.items() for target in _targets_at(name, table)]
    aliases = {name: _list(dice, known, 2) for name in dice.several(("one", "two"), 0, 2)}
    file: Table = {
        "server": {"url_targets": dice.chance(0.5)}
        | ({"require_key": dice.chance(0.5)} if dice.chance(0.5) else {}),
        "providers": providers,
        "aliases": aliases,
        "teams": {name: _team(dice, name, [*providers], [*aliases]) for name in teams},
    }
    if dice.chance(0.3):
        file["server"] |= _judge(dice, known)
    topics = Topics(dice, teams)
    file["invariants"] = [
        {"name": f"promise {number}"} | invariant_of(dice, topics, [*providers])
        for number in dice.times(1, 3)
    ]
    makes = _Rules(dice, topics, Written(file), [*known, *aliases])
    rules = [*makes.guards(), *(makes.rule() for _ in dice.times(0, 4))]
    file["default"] = makes.action(careful=dice.chance(0.3))
    layers = makes.layers()
    if layers:
        rules.insert(dice.one(range(len(rules) + 1)), {"include": INCLUDED})
    if dice.chance(0.2):  # so many that they are looked up
        rules[:0] = [{"match": {"headers": {"x-c": f"c{number}"}}, "deny": "no"} for number in range(14)]
    file["rules"] = rules
    for place, table in enumerate((file, *layers.values())):
        table["rules"] = [
            rule if "include" in rule else {"name": f"file {place}, rule {number}"} | rule
            for number, rule in enumerate(table["rules"])
        ]
    return Written({name: value for name, value in file.items() if value}, layers)


def invariant_of(dice: Dice, topics: Topics, providers: Sequence[str]) -> Table:
    reach: Table = {}
    for _ in range(2 if dice.chance(0.3) else 1):
        key = dice.one(("zone", "region", "labels", "provider", "target"))
        globs = [f"{provider}/{model}" for provider in providers for model in ("*", "a", "a*", "?b", "A*")]
        values = {
            "zone": ZONES,
            "region": ("eu", "us"),
            "labels": ("x", "y"),
            "provider": providers,
            "target": globs,
        }
        reach[key] = dice.some(values[key])
    return {dice.one(("never", "only")): reach} | ({"when": topics.when()} if dice.chance(0.85) else {})


def _provider(dice: Dice) -> Table:
    table: Table = {"type": "openai_compatible", "base_url": "http://h.example/v1", "api_key": "none"}
    if dice.chance(0.8):
        table["zone"] = dice.one(ZONES)
    table |= _stated(dice)
    if dice.chance(0.5):
        table["models"] = {
            name: _stated(dice) for name in dice.several(("a", "ab", "a*", "?b", "*", "A"), 1, 3)
        }
    return table


def _stated(dice: Dice) -> Table:
    said = {"region": dice.one(("eu", "us")), "labels": dice.some(("x", "y"))}
    return {key: value for key, value in said.items() if dice.chance(0.6)}


def _targets_at(name: str, table: Table) -> list[str]:
    return [f"{name}/*", *(f"{name}/{model}" for model in ("a", "ab", "cb", "A") if admitted(table, model))]


def _team(dice: Dice, name: str, providers: Sequence[str], aliases: Sequence[str]) -> Table:
    targets = [f"{provider}/{model}" for provider in providers for model in ("*", "a", "a*", "?b")]
    headers = dice.several(("x-a", "X-B", AGENT), 1, 2)
    said: Table = {
        "keys": dice.several([f"env:KEY_{name}_{number}" for number in range(2)], 1, 2),
        "models": dice.some(GLOBS),
        "targets": dice.some([*targets, *aliases]),
        "request_headers": {name: dice.one(WORDS) for name in headers},
    }
    return {key: value for key, value in said.items() if dice.chance(0.4)}


def _judge(dice: Dice, targets: Sequence[str]) -> Table:
    """Who judges tool uses: one of those targets that are one model, or nobody."""
    single = [target for target in targets if "/" in target and not target.endswith("/*")]
    return {"safeguards": dice.one(single) if single and dice.chance(0.8) else False}


def _list(dice: Dice, items: Sequence[str], most: int) -> Any:
    return [dice.one(items) for _ in dice.times(1, most)] if dice.chance(0.6) else dice.one(items)


class _Rules:
    """Makes rules for a file whose promises are made: mostly such as break none of them, since what is
    refused at sight proves nothing."""

    def __init__(self, dice: Dice, topics: Topics, written: Written, targets: Sequence[str]) -> None:
        self._dice = dice
        self._topics = topics
        self._written = written
        self._targets = targets
        self._promised = written.invariants.values()
        self._whens = [one["when"] for one in self._promised if "when" in one]

    def guards(self) -> list[Table]:
        """Rules that take what invariants speak of, so that what stands below them may do as it likes."""
        taken = [when for when in self._whens if self._dice.chance(0.9)]
        return [{"match": _wider(self._dice, when)} | self.action() for when in taken]

    def rule(self) -> Table:
        """Any; or one that has to do with what some invariant speaks of, or with what it doesn't."""
        dice, topics = self._dice, self._topics
        if not self._whens or dice.chance(0.3):
            return {"match": topics.match()} | self.action()
        when = dice.one(self._whens)
        beside = [fact for fact in when if fact not in ("any", "not")]
        match dice.one(("beside", "beside", "not", "other", "any")):
            case "beside" if beside:
                wanted = topics.of(beside)
            case "any":
                wanted = {"any": [when, topics.match()]}
            case "other":
                wanted = _other(when)
            case _:
                wanted = {"not": [when]}
        return {"match": wanted} | self.action(careful=False)

    def action(self, *, careful: bool = True) -> Table:
        """`careful`: to targets that no invariant forbids; else to some that one forbids for its requests."""
        dice = self._dice
        possible = self._left([one for one in self._promised if "when" not in one], self._targets)
        harmless = self._left(self._promised, possible)
        daring = [target for target in possible if target not in harmless]
        pool = harmless if careful else daring or harmless
        if dice.chance(0.1) or (not pool and dice.chance(0.8)):
            return {"deny": "no"}
        if harmless and dice.chance(0.1):  # whatever follows is never reached
            return {"targets": [dice.one(harmless), dice.one(self._targets)], "fallback": False}
        chosen = pool if pool and dice.chance(0.9) else self._targets
        action: Table = {"targets": _list(dice, chosen, 3)}
        action |= _judge(dice, chosen) if dice.chance(0.3) else {}
        return action | ({"fallback": dice.chance(0.5)} if dice.chance(0.4) else {})

    def _left(self, promised: Iterable[Table], targets: Sequence[str]) -> list[str]:
        """Those that none of the invariants forbids."""
        return [
            target
            for target in targets
            if not any(
                _forbids(said, self._written, one) for said in promised for one in self._written.meant(target)
            )
        ]

    def layers(self) -> Mapping[str, Table]:
        owners = [name for name, team in self._written.teams.items() if "targets" in team]
        numbers = self._dice.times(0, 2) if owners else ()
        return {
            f"layers/{number}.toml": {
                "team": self._dice.one(owners),
                "rules": [self.rule() for _ in self._dice.times(1, 2)],
            }
            for number in numbers
        }


def _wider(dice: Dice, when: Table) -> Table:
    """It, or a table that takes more."""
    tables = [when, {"any": [when, {"stream": True}]}, {"not": [{"not": [when]}]}]
    if len(when) > 1:
        tables += [{key: when[key]} for key in when]
    if "headers" in when:
        tables += [when | {"headers": {name: _looser(wanted) for name, wanted in when["headers"].items()}}]
    if "model" in when:
        tables += [when | {"model": _looser(when["model"])}]
    wider: Table = dice.one(tables)
    return wider


def _looser(wanted: Any) -> Any:
    """A condition on a text that holds wherever `wanted` does, or nearly."""
    match wanted:
        case {"prefix": words} | {"contains": words} | {"equals": words}:
            return {"contains": [word[-1] for word in listed(words)]}
        case str() | list():
            return {"prefix": [word[0] for word in listed(wanted)]}
    return wanted


def _other(when: Table) -> Table:
    """A table of the same facts which may well exclude it."""
    flags = {key: not wanted for key, wanted in when.items() if isinstance(wanted, bool)}
    nested = [{key: wanted} for key, wanted in when.items() if key not in flags]
    return flags | ({"not": nested} if nested else {})


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
    def question(self) -> HypotheticalRequest:
        return HypotheticalRequest(
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


def requests(dice: Dice, written: Written, number: int) -> Iterator[Asked]:
    """Such as can arrive, mostly in the file's own words."""
    providers = [*written.providers, "openai_compatible"] if written.url_targets else []
    own = [word for word in (*WORDS, *MODELS) if f'"{word}"' in written.text]
    return some_requests(dice, written.callers, number, providers, own)


def some_requests(
    dice: Dice,
    callers: Sequence[str | None],
    number: int,
    providers: Sequence[str] = (),
    own: Sequence[str] = (),
) -> Iterator[Asked]:
    words, models = ([word for word in own if word in all] for all in (WORDS, MODELS))
    words, models = [*words * 3, *WORDS, "abab", ""], [*models * 3, *MODELS]
    made = (_request(dice, callers, providers, words, models) for _ in range(number if callers else 0))
    return (asked for asked in made if not requested_model_problem(asked.model))


def _request(
    dice: Dice,
    callers: Sequence[str | None],
    providers: Sequence[str],
    words: Sequence[str],
    models: Sequence[str],
) -> Asked:
    values: Mapping[str, Sequence[Any]] = {
        "url_provider": providers,
        "no_fallback": (True,),
        "input_tokens": (1, 2, 3, 4),
        "max_tokens": (0, 1, 2, 3, 4),
        "tools": (("a",), ("ab",), ("b",), ("web_1",), ("a", "b")),
        "effort": (*EFFORTS, "none"),
        "system": ("a", "Ab", "b", "c"),
        "user": words,
        **dict.fromkeys(FLAGS, (True,)),
    }
    often = dice.one((0.1, 0.3, 0.6))
    said = {fact: dice.one(some) for fact, some in values.items() if some and dice.chance(often)}
    headers = {name: dice.one(words) for name in HEADERS if dice.chance(0.5)}
    return Asked(model=dice.one(models), team=dice.one(callers), headers=headers, **said)


# --- of what fails, the least


def smallest(written: Written, asked: Asked, fails: Callable[[Written, Asked], bool]) -> str:
    """What is left when nothing more can be taken away without losing the failure."""
    while True:
        files = ((smaller, asked) for smaller in _smaller_files(written))
        others = ((written, smaller) for smaller in _smaller_requests(asked))
        found = next((pair for pair in itertools.chain(files, others) if _fails(*pair, fails)), None)
        if found is None:
            return f"{written}\n{asked}"
        written, asked = found


def _fails(written: Written, asked: Asked, fails: Callable[[Written, Asked], bool]) -> bool:
    try:
        return fails(written, asked)
    except (RulesRefused, LookupError):  # it no longer says enough
        return False


def _smaller_files(written: Written) -> Iterator[Written]:
    for file in _smaller(written.file):
        yield Written(file, written.layers)
    for layers in _smaller(written.layers):
        yield Written(written.file, layers)


def _smaller(value: Any) -> Iterator[Any]:
    """Without one of its parts, or with a smaller one."""
    match value:
        case dict():
            yield from ({key: part for key, part in value.items() if key != gone} for gone in value)
            yield from (value | {key: less} for key, part in value.items() for less in _smaller(part))
        case list():
            yield from (value[:place] + value[place + 1 :] for place in range(len(value)))
            yield from (
                [*value[:place], less, *value[place + 1 :]]
                for place, part in enumerate(value)
                for less in _smaller(part)
            )


def _smaller_requests(asked: Asked) -> Iterator[Asked]:
    least = Asked(model=asked.model)
    for field in asked.__struct_fields__:
        if getattr(asked, field) != getattr(least, field):
            yield msgspec.structs.replace(asked, **{field: getattr(least, field)})


# --- the judge


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def glob_matches(glob: str, text: str) -> bool:
    wild = {"*": ".*", "?": "."}
    return bool(re.fullmatch("".join(wild.get(char) or re.escape(char) for char in glob), text, re.DOTALL))


def admitted(provider: Table, model: str) -> bool:
    """A back end may take a name in other capitals for the same one: what that leads to must be no different,
    unless the name is listed as it is."""
    models = provider.get("models", {})
    if "models" not in provider or model in models:
        return True
    written = [said for glob, said in models.items() if glob_matches(glob, model)]
    low = [said for glob, said in models.items() if glob.lower() == model.lower()]
    low += [said for glob, said in models.items() if glob_matches(glob.lower(), model.lower())]
    return bool(written) and _place(provider | written[0]) == _place(provider | low[0])


def _place(said: Table) -> tuple[Any, set[str] | None]:
    return said.get("region"), set(listed(said["labels"])) if "labels" in said else None


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
        case "agent":
            return _text(asked.headers.get(AGENT), wanted, "equals")
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


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "equals": lambda value, word: value == word,
    "prefix": lambda value, word: value.startswith(word),
    "contains": lambda value, word: word in value,
    "glob": lambda value, word: glob_matches(word, value),
    "regex": lambda value, word: bool(re.search(word, value)),
}


def broken(written: Written, asked: Asked, targets: Sequence[str], *, name: str | None = None) -> list[str]:
    """The invariants that a request breaks which reaches `targets`, of all or of the one of that name; and
    the targets that their providers don't have."""
    heard = asked.heard(written)
    found = [
        f"{one}: {target}"
        for one, said in written.invariants.items()
        if name in (None, one) and holds(said.get("when", {}), heard)
        for target in targets
        if _forbids(said, written, target)
    ]
    return found + [f"not listed: {target}" for target in targets if not _listed(written, target)]


def _listed(written: Written, target: str) -> bool:
    provider, _, model = target.partition("/")
    return admitted(written.providers[provider], model)


def _forbids(said: Table, written: Written, target: str) -> bool:
    """What a target lacks is taken for what must not be."""
    never = [_is_so(key, listed(wanted), written, target) for key, wanted in said.get("never", {}).items()]
    only = [_is_so(key, listed(wanted), written, target) for key, wanted in said.get("only", {}).items()]
    return (bool(never) and all(answer is not False for answer in never)) or not all(only)


def _is_so(key: str, wanted: Sequence[str], written: Written, target: str) -> bool | None:
    """`None`: nobody can tell."""
    name, _, model = target.partition("/")
    provider = written.providers[name]
    models = provider.get("models", {})
    globs = [model] if model in models else [glob for glob in models if glob_matches(glob, model)]
    stated: Table = {"zone": "public"} | provider | (models[globs[0]] if globs else {})
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
