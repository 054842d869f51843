"""`routeproxy claude`: Claude Code through a server that runs, or through one that is started for it."""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from routeproxy.cli.options import LiteralKeysOption, new_app

app = new_app()


class OwnOptionsFirst(TyperCommand):
    """A command whose own options stand first: from the first other word on, everything is an argument, as it
    is. A `--` ends its own options, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        own, rest = self.split(args)
        return super().parse_args(ctx, [*own, "--", *rest] if rest else own)

    def split(self, args: list[str]) -> tuple[list[str], list[str]]:
        options: dict[str, Any] = {flag: param for param in self.params for flag in param.opts}
        options["--help"] = None
        place = 0
        while place < len(args):
            flag, equals, _ = args[place].partition("=")
            if args[place] == "--":
                return args[:place], args[place + 1 :]
            if flag not in options:
                break
            takes_value = options[flag] is not None and not options[flag].is_flag
            place += 2 if takes_value and not equals else 1
        return args[:place], args[place:]


@app.command(cls=OwnOptionsFirst, options_metavar="[OPTIONS]")
def command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGS]...", help="For Claude Code, as they are.", show_default=False),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules",
            metavar="FILE",
            help="The rules file. Left out: as for `serve`, or those of the server that runs.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="The server to use. [default: ROUTEPROXY_URL, else one at HOST and PORT or at "
            "http://127.0.0.1:8082, else one for this session]",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="REFERENCE",
            help="Where the key is that the server asks for: env:NAME or file:PATH. "
            "[default: ANTHROPIC_AUTH_TOKEN]",
            show_default=False,
        ),
    ] = None,
    own_login: Annotated[
        bool,
        typer.Option(
            "--own-login", help='Keep Claude Code\'s own login, for providers with `api_key = "client"`.'
        ),
    ] = False,
    allow_literal_keys: LiteralKeysOption = False,
) -> None:
    """Start Claude Code, pointed at the server that runs, or at one that is started for this session.

    These options stand first; everything from the first other word on is for Claude Code. `--` ends them,
    too: `routeproxy claude -- --help` is Claude Code's own help. The exit code is Claude Code's, or 2 if it
    was not started.
    """
    from routeproxy.cli.running import described_error, sources_of
    from routeproxy.launcher import NotStarted, Wishes, start_claude_code
    from routeproxy.policy.problems import RulesRefused
    from routeproxy.sources import find_rules

    def start() -> NoReturn:
        wishes = Wishes(
            sources=sources_of(find_rules(rules), allow_literal_keys=allow_literal_keys),
            rules_named=rules is not None,
            url=url,
            key=key,
            keeps_login=own_login,
        )
        start_claude_code(wishes, arguments or (), lambda line: typer.echo(f"routeproxy: {line}", err=True))

    try:
        start()
    except RulesRefused as refused:
        typer.echo(str(refused), err=True)
    except (NotStarted, OSError, ValueError) as error:
        typer.echo(f"routeproxy: {described_error(error)}", err=True)
    raise typer.Exit(2)
