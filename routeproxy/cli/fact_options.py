"""The options that state the facts of a request, one for each row of the table of facts that has one."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

from routeproxy.cli.completions import completion_of
from routeproxy.policy.fact_table import BY_NAME, FACTS, Fact, Kind
from routeproxy.policy.facts import as_line

_VALUES: Mapping[Kind, Any] = {
    "word": str,
    "text": str,
    "number": int,
    "presence": str,
    "tools": list[str],
    "headers": list[str],
}
"""The type of an option that takes a value; one that takes a list may be repeated."""


def with_fact_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, which ends in `**options`, with an option for each fact that is not among its parameters.

    They stand in front of its keyword-only parameters, and come to it by the names of the facts.
    """
    written = signature(command)
    own = [item for item in written.parameters.values() if item.kind is not Parameter.VAR_KEYWORD]
    facts = [fact for fact in FACTS if fact.option is not None and fact.name not in written.parameters]
    parameters = [
        *(item for item in own if item.kind is not Parameter.KEYWORD_ONLY),
        # Those without a value last.
        *map(_parameter, sorted(facts, key=lambda fact: fact.kind == "flag")),
        *(item for item in own if item.kind is Parameter.KEYWORD_ONLY),
    ]
    parameters = [item.replace(kind=Parameter.KEYWORD_ONLY) for item in parameters]
    command.__signature__ = written.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    return command


def _parameter(fact: Fact) -> Parameter:
    option = fact.option
    assert option is not None
    least = 0 if fact.kind == "number" else None
    info = typer.Option(
        option.flag,
        metavar=option.metavar,
        help=option.help,
        min=least,
        show_default=False,
        autocompletion=completion_of(fact.name),
    )
    default, value = (False, bool) if fact.kind == "flag" else (None, _VALUES[fact.kind] | None)
    return Parameter(fact.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[value, info])


def stated_facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """What options say, as `HypotheticalRequest` takes it. Raises `ValueError` for what is no header."""
    stated = dict(options)
    for name, value in options.items():
        match BY_NAME[name].kind:
            case "tools":
                stated[name] = tuple(value or ())
            case "headers":
                stated[name] = parse_headers(value or ())
    return stated


def parse_headers(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Curl's `name: value` lines as an HTTP server would hand them over. Raises `ValueError` for others."""
    headers: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"`{line}` is not a header: write `name: value`")
        key = name.strip().lower()
        headers[key] = (*headers.get(key, ()), as_line(value.strip(" \t")))
    return headers
