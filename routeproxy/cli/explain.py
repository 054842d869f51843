"""`routeproxy explain`: which rule would take such a request, and what it lacked for each rule above."""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO

import msgspec
import typer

from routeproxy.cli.completions import model_names
from routeproxy.cli.fact_options import stated_facts, with_fact_options
from routeproxy.cli.logged import logged_question
from routeproxy.cli.options import (
    JsonOption,
    LiteralKeysOption,
    RulesArgument,
    RulesOption,
    new_app,
)
from routeproxy.cli.running import chosen_sources, run_and_exit
from routeproxy.exchange import Exchange, Inbound
from routeproxy.messages.errors import ApiError
from routeproxy.policy.decide import Policy
from routeproxy.policy.explain import DryRun, Explanation, explain
from routeproxy.policy.facts import requested_model_problem
from routeproxy.policy.hypothetical import HypotheticalRequest
from routeproxy.policy.problems import visible
from routeproxy.policy.targets import Target
from routeproxy.tokens import count as count_tokens
from routeproxy.upstream.dry_run import dry_runs
from routeproxy.upstream.registry import Registry, signing_key_of

app = new_app()


@app.command()
@with_fact_options
def command(
    file: RulesArgument = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model that the request asks for.",
            show_default=False,
            autocompletion=model_names,
        ),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A real request, as JSON; instead of --model.", show_default=False),
    ] = None,
    decision: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="A request from the decision log; instead of --model.", show_default=False
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The decision log. [default: the rules file's]", show_default=False
        ),
    ] = None,
    rules: RulesOption = None,
    *,
    json: JsonOption = False,
    allow_literal_keys: LiteralKeysOption = False,
    **options: Any,
) -> None:
    """Say which rule takes a request, where it goes, and why no rule above took it.

    The request is given by flags, by a file (--request), or by the id of a logged decision (--decision).
    """

    def question(policy: Policy) -> HypotheticalRequest:
        ways = sum(option is not None for option in (model, request, decision))
        if ways > 1 or (ways == 0 and options["url_target"] is None):
            raise ValueError("say which request: one of --model, --request and --decision")
        if decision is not None:
            return logged_question(policy, decision, log)
        return HypotheticalRequest(
            model=model or "",
            body=request.read_bytes() if request is not None else None,
            **stated_facts(options),
        )

    load = chosen_sources(file, rules, allow_literal_keys=allow_literal_keys).unproved
    complete = decision is not None
    run_and_exit(lambda: run_explain(load, question, complete=complete, json=json, out=sys.stdout))


def run_explain(
    load: Callable[[], Policy],
    question: Callable[[Policy], HypotheticalRequest],
    *,
    complete: bool = False,
    json: bool = False,
    out: TextIO,
) -> int:
    """Exit code 0: explained, a refusal included. Raises `OSError` or `ValueError` if the request or the log
    can't be read.

    `question` makes the request, for which it may need the policy. `complete`: the request leaves no fact to
    be assumed.
    """
    policy = load()
    request = question(policy)
    assumed = () if complete else policy.assumed_of(request)
    try:
        explanation = _explain(request, policy)
    except ApiError as refusal:
        print(f"refused with {refusal.status} before any rule: {refusal.message}", file=out)
        return 0
    if json:
        document = {"explanation": explanation, "assumed": assumed}
        print(msgspec.json.format(msgspec.json.encode(document)).decode(), file=out)
    else:
        print(explanation, file=out)
        if assumed:
            print(f"\nassumed: {', '.join(assumed)}", file=out)
    return 0


def _explain(request: HypotheticalRequest, policy: Policy) -> Explanation:
    if request.team is not None and request.team not in policy.teams:
        known = ", ".join(policy.teams) or "none"
        raise ValueError(f"there is no team `{request.team}`; the rules know {known}")
    facts = policy.facts_of(request, count_tokens)
    if problem := requested_model_problem(facts.requested):
        raise ApiError(404, f"model: {visible(facts.requested[:256])} ({problem})")
    decision = policy.decide(facts)
    if request.body is None:
        return explain(decision, policy)
    exchange = Exchange(Inbound(body=request.body, headers=facts.headers), policy)
    exchange.decision, exchange.facts, exchange.envelope = decision, facts, facts.envelope
    return explain(decision, policy, dry_runs=asyncio.run(_dry_runs(exchange, decision.targets)))


async def _dry_runs(exchange: Exchange, targets: Iterable[Target]) -> Mapping[str, DryRun]:
    # What goes wrong is in the explanation, so nobody needs to read it in a log.
    logging.getLogger().addHandler(logging.NullHandler())
    upstreams = Registry(signing_key_of(exchange.policy), {}, dry=True)
    await upstreams.prepare_for(targets)
    return await dry_runs(exchange, upstreams)
