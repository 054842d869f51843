"""`routeproxy audit`: for auditors, who need the trail and a public key, and no server."""

import datetime
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from routeproxy.audit.report import InvariantReport, Reporter
from routeproxy.audit.requests import Condition, TrailReading, meets, parsed_query
from routeproxy.audit.signing import Anchor, anchors_in, new_key, public_key_in
from routeproxy.audit.verify import Verification, verify
from routeproxy.cli.options import JsonOption, new_app
from routeproxy.cli.running import run_and_exit, sources_of
from routeproxy.files import write_whole
from routeproxy.ledger.question import beginning, ending, zone_of
from routeproxy.ledger.report import aligned
from routeproxy.sources import Options, Sources, find_rules

app = new_app(no_args_is_help=True)

PathOption = Annotated[
    Path | None,
    typer.Option(
        "--path",
        metavar="FOLDER",
        help="The folder of the trail; left out, that of the rules file.",
        show_default=False,
    ),
]
RulesFileOption = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="FILE",
        help="The rules file that names the trail; left out, ./rules.toml.",
        show_default=False,
    ),
]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key",
        metavar="FILE",
        help="Who signs the heads, as PEM; may be repeated, as after a change of keys.",
        show_default=False,
    ),
]
AnchorsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--anchors",
        metavar="FILE",
        help="Signed heads from a store outside, among other lines perhaps; may be repeated.",
        show_default=False,
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="30d, 12h or 2026-11-01; left out, all.", show_default=False
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="DATE", help="The day after the last; left out, now.", show_default=False
    ),
]


@app.callback()
def _audit() -> None:
    """Verify, ask and report on the audit trail."""


@app.command("verify", short_help="Say whether the trail is what was written.")
def verify_command(
    public_key: KeysOption = None,
    anchors: AnchorsOption = None,
    path: PathOption = None,
    rules: RulesFileOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="What is open or can't be seen counts as a fault, too.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Say whether the trail is what was written: the first line that is missing, changed, moved or appended,
    ends that are cut off, and chains that are gone.

    Exit code 0: it is, as far as can be seen; 1: it is not; 2: something can't be read.
    """

    def run() -> int:
        if not public_key:
            raise ValueError(
                "--public-key FILE is missing: without it a trail could be written anew by anybody"
            )
        found = _verified(_folder(path, rules), public_key, anchors)
        if json:
            print(_json(found))
        else:
            print("\n".join(_verification_lines(found)))
        return int(not found.is_whole or (strict and bool(found.findings)))

    run_and_exit(run)


@app.command(short_help="Count the requests of which something is so.")
def query(
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help='As in: \'team = "claims" and zone = "public" and since = 30d\'.'
        ),
    ],
    names: Annotated[bool, typer.Option("--list", help="Name the requests, too.")] = False,
    path: PathOption = None,
    rules: RulesFileOption = None,
    public_key: KeysOption = None,
    anchors: AnchorsOption = None,
    json: JsonOption = False,
) -> None:
    """Count the requests of which all that is asked is so, and name the rules that they rest on.

    Exit code 0: it is answered; 1: the trail is not what was written; 2: something can't be read.
    """

    def run() -> int:
        conditions = parsed_query(question)
        folder = _folder(path, rules)
        is_whole = _check_first(folder, public_key, anchors)
        answer = _answered(TrailReading(folder), conditions)
        print(_json(answer) if json else "\n".join(_answer_lines(answer, names=names)))
        return int(not is_whole)

    run_and_exit(run)


@app.command(short_help="Say whether an invariant held.")
def report(
    invariant: Annotated[
        str, typer.Option("--invariant", metavar="NAME", help="As the rules of then called it.")
    ],
    since: SinceOption = None,
    until: UntilOption = None,
    path: PathOption = None,
    rules: RulesFileOption = None,
    public_key: KeysOption = None,
    anchors: AnchorsOption = None,
    json: JsonOption = False,
) -> None:
    """Decide each recorded request anew under the rules that were in force, and say of how many an invariant
    held.

    Exit code 0: of all that can be decided; 1: it was broken, or the trail is not what was written; 2:
    something can't be read.
    """

    def run() -> int:
        folder = _folder(path, rules)
        is_whole = _check_first(folder, public_key, anchors)
        sources = Sources.opened(Options(rules=None), {})
        found = Reporter(TrailReading(folder), sources.recall, invariant).run(*_times(since, until))
        if not sum(found.versions.values()):
            raise ValueError("no request is recorded in this time")
        if found.not_promised == sum(found.versions.values()):
            raise ValueError(f"no rules that were in force then have an invariant `{invariant}`")
        print(_json(found) if json else "\n".join(_report_lines(found)))
        return int(found.broken > 0 or not is_whole)

    run_and_exit(run)


@app.command("new-key", short_help="Make a key that signs heads.")
def make_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes.")],
    public: Annotated[
        Path | None,
        typer.Option("--public", metavar="FILE", help="Where the public one goes; left out, FILE.pub."),
    ] = None,
) -> None:
    """Make an Ed25519 key: the private one for the server, the public one for whoever verifies.

    Neither file may be there already. Exit code 2: it can't be written.
    """

    def run() -> int:
        public_file = public or file.with_name(f"{file.name}.pub")
        for each in (file, public_file):
            if each.exists():
                raise ValueError(f"{each} is there already, and stays as it is")
        private_pem, public_pem = new_key()
        write_whole(file, private_pem)
        public_file.write_bytes(public_pem)
        print(f'{file}: the private key, for `[audit] signing_key = "file:{file}"`')
        print(f"{public_file}: the public key, for `routeproxy audit verify --public-key {public_file}`")
        return 0

    run_and_exit(run)


# --- what is read


def _folder(path: Path | None, rules: Path | None) -> Path:
    """Raises `ValueError`."""
    if path is None:
        file = find_rules(rules)
        policy = sources_of(file, allow_literal_keys=True).unproved() if file is not None else None
        if policy is None or policy.audit is None:
            raise ValueError(
                "no rules file with an `[audit]` table is named: name the trail with --path FOLDER"
            )
        path = Path(policy.audit.path)
    if not path.is_dir():
        raise ValueError(f"{path} is no folder")
    return path


def _verified(folder: Path, keys: Sequence[Path] | None, anchors: Sequence[Path] | None) -> Verification:
    """Raises `OSError`, or `ValueError` for what is no key, or holds no anchor."""
    read_keys = []
    for file in keys or ():
        try:
            read_keys.append(public_key_in(file.read_bytes()))
        except ValueError as problem:
            raise ValueError(f"{file}: {problem}") from None
    if anchors and not read_keys:
        raise ValueError("--anchors takes a --public-key, which tells who signed them")
    return verify(folder, read_keys, [*_anchors_of(anchors)] if anchors else None)


def _anchors_of(files: Sequence[Path]) -> Iterator[tuple[str, Anchor]]:
    for file in files:
        with file.open("rb") as lines:
            found = [(f"{file}:{number}", anchor) for number, anchor in anchors_in(lines)]
        if not found:
            raise ValueError(f"{file}: no line of it holds a signed head")
        yield from found


def _check_first(folder: Path, keys: Sequence[Path] | None, anchors: Sequence[Path] | None) -> bool:
    """Whether the trail is whole. What is wrong with it goes to stderr: an answer rests on it."""
    found = _verified(folder, keys, anchors)
    for finding in found.findings:
        print(f"routeproxy: {finding.where}: {finding.words}", file=sys.stderr)
    return found.is_whole


def _times(since: str | None, until: str | None) -> tuple[str, str]:
    """As records write times. Raises `ValueError`."""
    zone = zone_of("UTC")
    now = datetime.datetime.now(zone)
    begin = beginning(since, now, zone) if since is not None else datetime.datetime(1970, 1, 1, tzinfo=zone)
    return _in_record(begin), _in_record(ending(until, now, zone))


def _in_record(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


# --- in words


def _json(what: object) -> str:
    return msgspec.json.format(msgspec.json.encode(what)).decode()


def _verification_lines(found: Verification) -> Iterator[str]:
    for severity, heading in (("broken", "broken"), ("open", "open"), ("unseen", "not seen")):
        for finding in found.findings:
            if finding.severity == severity:
                yield f"{heading}: {finding.where}: {finding.words}"
    yield (
        f"{found.records:,} records of {found.requests:,} requests in {found.chains:,} chains, "
        f"{found.heads:,} signed heads that hold, {found.lost:,} records lost"
    )
    yield "the trail is what was written" if found.is_whole else "THE TRAIL IS NOT WHAT WAS WRITTEN"


class _Answer(msgspec.Struct):
    count: int = 0
    not_recorded: int = 0
    """Requests of which it can't be told."""
    versions: dict[str, int] = {}
    first: str | None = None
    last: str | None = None
    requests: list[dict[str, object]] = []


def _answered(reading: TrailReading, conditions: Sequence[Condition]) -> _Answer:
    stated = {
        condition.name: condition.value for condition in conditions if condition.name in ("since", "until")
    }
    answer = _Answer()
    for request in reading.requests(*_times(stated.get("since"), stated.get("until"))):
        holds = meets(request, conditions)
        if holds is None:
            answer.not_recorded += 1
        if not holds:
            continue
        begun = request.begun
        answer.count += 1
        answer.versions[begun.version] = answer.versions.get(begun.version, 0) + 1
        answer.first = min(answer.first or begun.at, begun.at)
        answer.last = max(answer.last or begun.at, begun.at)
        asked = [contact.target for contact in request.contacts]
        answer.requests.append(
            {"at": begun.at, "id": begun.id, "team": begun.team, "asked": asked, "where": request.where}
        )
    return answer


def _answer_lines(answer: _Answer, *, names: bool) -> Iterator[str]:
    yield f"{answer.count:,} request{'' if answer.count == 1 else 's'}"
    if answer.first is not None:
        yield f"from {answer.first} to {answer.last}"
    for version, count in answer.versions.items():
        yield f"  {count:,} under version {version}"
    if answer.not_recorded:
        yield f"of {answer.not_recorded:,} more it can't be told: what is asked was not recorded"
    if names:
        for one in answer.requests:
            asked = one["asked"]
            targets = ", ".join(asked) if isinstance(asked, list) and asked else "nobody"
            yield f"{one['at']}  {one['id']}  {targets}  {one['where']}"


def _report_lines(found: InvariantReport) -> Iterator[str]:
    yield f"invariant `{found.invariant}`"
    rows = [
        ["held", f"{found.held:,}", ""],
        ["broken", f"{found.broken:,}", ""],
        [
            "not decidable",
            f"{found.not_decidable:,}",
            "; ".join(f"{why} ({n:,})" for why, n in found.whys.items()),
        ],
        ["records lost", f"{found.records_lost:,}", "as the trail itself says"],
    ]
    yield from aligned(rows, {0, 2})
    for example in found.examples:
        yield f"broken: {example.where}: {example.id}: {example.why}"
    if found.broken > len(found.examples):
        yield f"broken: {found.broken - len(found.examples):,} more"
    if found.not_promised:
        yield f"{found.not_promised:,} requests were decided by rules that have no such invariant"
    if found.not_concerned:
        yield f"{found.not_concerned:,} requests are none of those that it speaks of"
    if found.under_way:
        yield f"{found.under_way:,} requests are under way"
    if found.decided_otherwise:
        words = "requests were decided otherwise than the kept rules decide them now"
        yield f"{found.decided_otherwise:,} {words}"
    yield from dict.fromkeys(found.notes)
    versions = ", ".join(f"{version} ({count:,})" for version, count in found.versions.items())
    yield f"decided anew under {versions}"
