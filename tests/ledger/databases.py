"""A PostgreSQL of the tests' own, where one is installed."""

import functools
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from routeproxy.listening import Address, listen

PROGRAMS = (Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"))


def _found(program: str) -> str | None:
    for folder in PROGRAMS:
        for path in sorted(folder.glob(f"*/bin/{program}"), reverse=True):
            return str(path)
    return shutil.which(program)


def _as_nobody_special() -> dict[str, int]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid}
    return {}


class Postgres:
    """A server, with its owner and a role that is nobody special."""

    def __init__(self, port: int, data: str, options: list[str], who: dict[str, int]) -> None:
        self.port = port
        self._data = data
        self._options = options
        self._who = who

    def start(self) -> None:
        program = _found("pg_ctl")
        assert program is not None
        arguments = [
            "-D",
            self._data,
            "-l",
            f"{self._data}.log",
            "-o",
            " ".join(self._options),
            "-w",
            "start",
        ]
        subprocess.run([program, *arguments], check=True, capture_output=True, **self._who)  # type: ignore[call-overload]

    def stop(self, mode: str = "immediate") -> None:
        program = _found("pg_ctl")
        assert program is not None
        arguments = ["-D", self._data, "-m", mode, "-w", "stop"]
        subprocess.run([program, *arguments], check=True, capture_output=True, **self._who)  # type: ignore[call-overload]

    def url(self, database: str, role: str = "owner") -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Its name."""
        name = f"ledger_{uuid.uuid4().hex[:12]}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name

    def sql(self, database: str, statement: str) -> str:
        psql = _found("psql")
        assert psql is not None
        done = subprocess.run(
            [psql, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Skips where there is no PostgreSQL to start."""
    pytest.importorskip("asyncpg", reason="asyncpg is not installed")
    initdb, who = _found("initdb"), _as_nobody_special()
    if initdb is None or _found("psql") is None or (os.getuid() == 0 and not who):
        pytest.skip("PostgreSQL is not installed here")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if who:
        os.chown(folder, who["user"], who["group"])
    data = str(folder / "data")
    subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "owner", "--no-sync"],
        check=True,
        capture_output=True,
        **who,
    )  # type: ignore[call-overload]
    with listen(Address("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    options = [f"-p {port}", f"-k {folder}", "-c listen_addresses=127.0.0.1", "-c fsync=off"]
    server = Postgres(port, data, options, who)
    server.start()
    try:
        server.sql("postgres", "CREATE ROLE server LOGIN")
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def is_installed() -> bool:
    return _found("initdb") is not None
