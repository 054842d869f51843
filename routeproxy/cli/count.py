"""`routeproxy count`: the input tokens of a request, by the estimate that rules go by. It contacts nobody."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import msgspec
import typer

from routeproxy import tokens
from routeproxy.cli.options import JsonOption, new_app
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import field_names

STDIN = Path("-")

app = new_app()


@app.command()
def command(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Requests as JSON; none, or `-`: the standard input.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Estimate the input tokens of requests, as rules see them.

    Exit code 0, or 2 if a file holds no request.
    """
    code = run_count(files or (), json=json, out=sys.stdout, err=sys.stderr, stdin=sys.stdin.buffer)
    raise typer.Exit(code)


def run_count(files: Sequence[Path], *, json: bool = False, out: TextIO, err: TextIO, stdin: BinaryIO) -> int:
    """Exit code 0: counted; 2: a file can't be read, or holds no request, and then nothing is counted.

    Without a file, and for `-`, the request is read from `stdin`.
    """
    counts: list[tuple[Path, int]] = []
    for file in files or [STDIN]:
        try:
            body = stdin.read() if file == STDIN else file.read_bytes()
            field_names(body)
        except OSError as error:
            print(f"routeproxy: {file}: {error.strerror}", file=err)
            return 2
        except InvalidRequest as refused:
            print(f"routeproxy: {file}: {refused.message}", file=err)
            return 2
        counts.append((file, tokens.count(body)))
    print(_json(counts) if json else _text(counts), file=out)
    return 0


def _text(counts: Sequence[tuple[Path, int]]) -> str:
    lines = [(f"{count:,}", str(file)) for file, count in counts]
    if len(lines) > 1:
        lines.append((f"{_total(counts):,}", "total"))
    width = max(len(count) for count, _ in lines)
    return "\n".join(f"{count:>{width}}  {name}" for count, name in lines)


def _json(counts: Sequence[tuple[Path, int]]) -> str:
    report = {
        "input_tokens": _total(counts),
        "files": [{"file": str(file), "input_tokens": count} for file, count in counts],
    }
    return msgspec.json.format(msgspec.json.encode(report)).decode()


def _total(counts: Sequence[tuple[Path, int]]) -> int:
    return sum(count for _, count in counts)
