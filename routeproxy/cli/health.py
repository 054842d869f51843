"""`routeproxy health`: whether the server of this machine is ready, as an image asks it again and again."""

import http.client
import os
import sys
from typing import Annotated, TextIO

import typer

from routeproxy.cli.options import RulesArgument, RulesOption, chosen_rules, new_app
from routeproxy.cli.running import run_and_exit
from routeproxy.listening import ALL_ADDRESSES, Address
from routeproxy.sources import Options, Sources, find_rules

app = new_app()


@app.command()
def command(
    file: RulesArgument = None,
    rules: RulesOption = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="As of `serve`.", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="NUMBER", help="As of `serve`.", show_default=False),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long the answer may take.")
    ] = 2.0,
) -> None:
    """Say whether the server is ready that such a `serve` has started.

    It is asked on this machine, past every proxy. Exit code 0: it is ready; 1: it is not, or nobody answers.
    """
    options = Options(rules=find_rules(chosen_rules(file, rules)), host=host, port=port)
    sources = Sources.opened(options, dict(os.environ))
    run_and_exit(lambda: run_health(sources.address(), timeout=timeout, out=sys.stdout))


def run_health(address: Address, *, timeout: float, out: TextIO) -> int:
    """0: ready. 1: anything else."""
    connection = http.client.HTTPConnection(
        ALL_ADDRESSES.get(address.host, address.host), address.port, timeout=timeout
    )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        status, text = answer.status, answer.read(4096).decode(errors="replace")
    except TimeoutError:
        print(f"{address} did not answer within {timeout:g} s", file=out)
        return 1
    except OSError as error:
        code = error.errno
        print(f"{address} can't be reached: {os.strerror(code).lower() if code else error}", file=out)
        return 1
    except http.client.HTTPException:
        print(f"what answers at {address} does not speak HTTP", file=out)
        return 1
    finally:
        connection.close()
    print(f"{address} answers {status}: {text}", file=out)
    return 0 if status == 200 else 1
