"""Whatever one round of the watch on the rules meets, the next one looks again: `/readyz` and the log say
what is wrong while it lasts, and an edit is in force within three seconds of its end."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from routeproxy.policy.live import notices
from routeproxy.policy.live.versions import Versions
from routeproxy.sources import Options
from tests.budgets import seconds
from tests.running import Running, Served, request, running, serving, until

ADMIN = {"authorization": "Bearer admin"}
KEYS = {"ADMIN_KEY": "admin"}
IN_FORCE = 3.0
"""Seconds after the end of whatever kept the rules from being followed."""


def rules(model: str, *more: str) -> str:
    lines = ['[server]\nadmin_keys = "env:ADMIN_KEY"\nport = 0', *more, "[providers.echo]"]
    return "\n".join([*lines, "[default]", f'targets = ["echo/{model}"]', ""])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def proxy(tmp_path: Path, kept: Path) -> Iterator[Running]:
    options = Options(rules=tmp_path / "rules.toml", last_good=kept)
    with running(rules("one"), tmp_path, KEYS, options=options) as proxy:
        yield proxy


def served(proxy: Running | Served) -> str:
    return str(proxy.post(request()).headers["x-routeproxy-model"])


def problem(proxy: Running | Served) -> str:
    return str(proxy.get("/-/status", **ADMIN).json()["rules_problem"] or "")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- what a round meets


def a_pointer_without_content(folder: Path) -> None:
    (folder / "current.json").write_bytes(b"")


def a_pointer_cut_short(folder: Path) -> None:
    pointer = folder / "current.json"
    pointer.write_bytes(pointer.read_bytes()[:20])


def a_pointer_of_another_shape(folder: Path) -> None:
    (folder / "current.json").write_text('{"version": 7}')


def a_pointer_to_a_version_that_nobody_kept(folder: Path) -> None:
    (folder / "current.json").write_text('{"version": "0123456789ab", "number": 99}')


def a_folder_in_its_place(folder: Path) -> None:
    (folder / "current.json").unlink()
    (folder / "current.json").mkdir()


def a_pipe_in_its_place(folder: Path) -> None:
    (folder / "current.json").unlink()
    os.mkfifo(folder / "current.json")


def a_pipe_for_a_lock(folder: Path) -> None:
    (folder / ".lock").unlink()
    os.mkfifo(folder / ".lock")


DAMAGE = [
    a_pointer_without_content,
    a_pointer_cut_short,
    a_pointer_of_another_shape,
    a_pointer_to_a_version_that_nobody_kept,
    a_folder_in_its_place,
    a_pipe_in_its_place,
    a_pipe_for_a_lock,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_state_ends_neither_the_server_nor_its_following(
    proxy: Running, kept: Path, damage: Callable[[Path], None]
) -> None:
    damage(kept)
    time.sleep(2 * notices.LOOK_EVERY)
    assert served(proxy) == "one"
    proxy.rules.write_text(rules("two"))
    until(lambda: served(proxy) == "two", IN_FORCE)


def test_a_damaged_pointer_is_written_anew_and_said(
    proxy: Running, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = json.loads((kept / "current.json").read_text())
    a_pointer_without_content(kept)
    until(lambda: (kept / "current.json").stat().st_size, IN_FORCE)
    assert json.loads((kept / "current.json").read_text()) == before
    assert [line for line in errors(caplog) if "current.json: it is damaged: written anew" in line]
    assert problem(proxy) == ""


def test_a_pointer_that_cannot_be_written_anew_is_said_once_while_edits_are_followed(
    proxy: Running, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a_folder_in_its_place(kept)
    assert "current.json: it is a folder, and no file" in until(lambda: problem(proxy), IN_FORCE)
    time.sleep(3 * notices.LOOK_EVERY)
    assert len([line for line in errors(caplog) if "changes can't be told" in line]) == 1
    (kept / "current.json").rmdir()
    until(lambda: not problem(proxy), IN_FORCE)


@pytest.mark.parametrize(
    "damage", [a_pointer_without_content, a_pointer_to_a_version_that_nobody_kept, a_folder_in_its_place]
)
def test_two_workers_stay_on_one_version_whatever_becomes_of_their_pointer(
    tmp_path: Path, kept: Path, damage: Callable[[Path], None]
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(rules("one"))
    with serving(tmp_path, "--workers", "2", "--last-good", str(kept), environ=KEYS) as server:
        assert served(server) == "one"
        until(lambda: len({server.get("/-/status", **ADMIN).json()["process"] for _ in range(8)}) == 2, 10)
        damage(kept)
        time.sleep(2 * notices.LOOK_EVERY)
        file.write_text(rules("two"))
        until(lambda: {served(server) for _ in range(12)} == {"two"}, IN_FORCE)


def test_a_version_that_could_not_be_kept_is_kept_once_there_is_room(
    proxy: Running, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.rename(kept.with_name("away"))
    kept.write_text("no folder")
    proxy.rules.write_text(rules("two"))
    until(lambda: served(proxy) == "two", IN_FORCE)
    assert len([line for line in errors(caplog) if "can't be kept for a rollback" in line]) == 1
    answer = proxy.post(b"", "/-/rollback", **ADMIN)
    assert (answer.status_code, "nothing was rolled back" in answer.text) == (409, True)
    kept.unlink()
    kept.with_name("away").rename(kept)
    version = proxy.get("/readyz").json()["rules_version"]
    until(lambda: json.loads((kept / "current.json").read_text())["version"] == version, 5)
    assert proxy.post(b"", "/-/rollback", **ADMIN).status_code == 200
    assert served(proxy) == "one"


def test_without_notices_from_the_system_files_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left(*paths: object, **options: object) -> object:
        raise OSError("Too many open files (os error 24)")  # no inotify instance is left

    monkeypatch.setattr(notices, "awatch", none_left)
    with running(rules("one"), tmp_path, KEYS) as proxy:
        for model in ("two", "six"):
            proxy.rules.write_text(rules(model))
            until(lambda model=model: served(proxy) == model, IN_FORCE)  # type: ignore[misc]
    assert (
        len([line for line in errors(caplog) if "does not tell of changes (Too many open files" in line]) == 1
    )


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("no"), MemoryError()])
def test_a_round_that_fails_is_said_once_and_the_next_looks_again(
    proxy: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fails(self: Versions) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Versions, "pointer", fails)
        assert "changes can't be told" in until(lambda: problem(proxy), IN_FORCE)
        assert (proxy.get("/readyz").status_code, served(proxy)) == (200, "one")
        time.sleep(3 * notices.LOOK_EVERY)
    assert len([line for line in errors(caplog) if "changes can't be told" in line]) == 1
    proxy.rules.write_text(rules("two"))
    until(lambda: served(proxy) == "two", IN_FORCE)
    assert problem(proxy) == ""


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("no"), MemoryError()])
def test_rules_that_could_not_be_read_are_read_again_without_an_edit(
    proxy: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fails() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(proxy.app.rules, "_load", fails)
        proxy.rules.write_text(rules("two"))
        assert until(lambda: problem(proxy), IN_FORCE)
        time.sleep(1)
        assert served(proxy) == "one"
    until(lambda: served(proxy) == "two", IN_FORCE)
    assert problem(proxy) == ""
    assert len([line for line in errors(caplog) if "stays in force" in line]) == 1


def test_a_listener_that_fails_leaves_no_half_of_a_version_in_force(
    proxy: Running, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def fails_once(policy: object) -> None:
        seen.append("called")
        if len(seen) == 1:
            raise RuntimeError("not yet")

    proxy.app.rules.on_change.append(fails_once)
    proxy.rules.write_text(rules("two"))
    assert "a bug in routeproxy" in until(lambda: problem(proxy), IN_FORCE)
    until(lambda: served(proxy) == "two", IN_FORCE)
    assert problem(proxy) == ""


# --- what stands where a file is read


def linked_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def remove(path: Path) -> None:
    path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("place", [linked_to_itself, a_pipe, a_folder, a_device])
@pytest.mark.parametrize("name", [".env", "rules.toml", "teams/a.toml"])
def test_what_is_no_file_stops_nothing_and_is_named(
    tmp_path: Path, name: str, place: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    included = '[teams.known]\nkeys = "env:KNOWN"\ntargets = "echo/*"\n'
    include = '[[rules]]\ninclude = "teams/*.toml"\n'
    (tmp_path / "teams").mkdir()
    environ = KEYS | {"KNOWN": "known"}

    def text(model: str) -> str:
        return rules(model, included + include)

    def answers(model: str) -> bool:
        answer = proxy.post(request(), x_api_key="known")
        return bool(answer.headers.get("x-routeproxy-model") == model)

    with running(text("one"), tmp_path, environ) as proxy:
        path = tmp_path / name
        if path.exists():
            path.unlink()
        place(path)
        assert Path(name).name in until(lambda: problem(proxy), IN_FORCE)
        started = time.monotonic()
        assert proxy.get("/healthz").status_code == 200
        assert time.monotonic() - started < seconds(1)
        assert answers("one")
        remove(path)
        proxy.rules.write_text(text("two"))
        until(lambda: answers("two"), IN_FORCE)
        assert problem(proxy) == ""


@pytest.mark.parametrize("place", [linked_to_itself, a_pipe, a_folder, a_device])
def test_a_key_file_that_is_none_keeps_no_request_waiting(
    tmp_path: Path, place: Callable[[Path], None]
) -> None:
    file = tmp_path / "key"
    file.write_text("sesame")
    text = f'[teams.known]\nkeys = "file:{file}"\ntargets = "echo/*"\n'
    with running(rules("one", text), tmp_path, KEYS) as proxy:
        assert proxy.post(request(), x_api_key="sesame").status_code == 200
        file.unlink()
        place(file)
        assert proxy.post(request(), x_api_key="sesame").status_code == 200  # the last one stays in use
        remove(file)
        file.write_text("open")
        until(lambda: proxy.post(request(), x_api_key="open").status_code == 200, IN_FORCE)


def test_a_folder_of_included_files_that_cannot_be_read_takes_no_team_its_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "teams").mkdir()
    (tmp_path / "teams" / "a.toml").write_text('team = "known"\n[[rules]]\ntargets = "echo/narrow"\n')
    team = '[teams.known]\nkeys = "env:KNOWN"\ntargets = "echo/*"\n[[rules]]\ninclude = "teams/*.toml"\n'
    listed = os.listdir

    def refused(folder: str | Path = ".") -> list[str]:
        if Path(folder).name == "teams":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    def model(proxy: Running) -> str:
        return str(proxy.post(request(), x_api_key="known").headers["x-routeproxy-model"])

    with running(rules("wide", team), tmp_path, KEYS | {"KNOWN": "known"}) as proxy:
        assert model(proxy) == "narrow"
        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", refused)  # these tests may run as root, whom no mode keeps out
            proxy.rules.write_text(rules("wider", team))
            assert "Permission denied" in until(lambda: problem(proxy), IN_FORCE)
            assert model(proxy) == "narrow"
        os.utime(tmp_path / "teams")
        until(lambda: not problem(proxy), IN_FORCE)
        assert model(proxy) == "narrow"


# --- starts


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_start_on_damaged_state_serves_the_file(
    tmp_path: Path, kept: Path, damage: Callable[[Path], None]
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(rules("one"))
    with serving(tmp_path, "--last-good", str(kept), environ=KEYS) as server:
        assert served(server) == "one"
        file.write_text(rules("two"))
        until(lambda: served(server) == "two", IN_FORCE)
        assert server.post(b"", "/-/rollback", **ADMIN).status_code == 200
        server.send_signal(signal.SIGTERM)
        server.exit_code()
    damage(kept)
    with serving(tmp_path, "--last-good", str(kept), environ=KEYS) as server:
        # A lock says nothing of which version was put back.
        assert served(server) == ("one" if damage is a_pipe_for_a_lock else "two")
        file.write_text(rules("six"))
        until(lambda: served(server) == "six", IN_FORCE)


def test_a_version_that_was_put_back_and_is_lost_is_said_at_start(tmp_path: Path, kept: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(rules("one"))
    with serving(tmp_path, "--last-good", str(kept), environ=KEYS) as server:
        first = server.get("/readyz").json()["rules_version"]
        file.write_text(rules("two"))
        until(lambda: served(server) == "two", IN_FORCE)
        assert server.post(b"", "/-/rollback", **ADMIN).status_code == 200
        server.send_signal(signal.SIGTERM)
        server.exit_code()
    (kept / f"version-{first}.json").write_text("{")
    with serving(tmp_path, "--last-good", str(kept), environ=KEYS) as server:
        assert served(server) == "two"
        assert f"version {first} was put back, and can't be taken: what is kept of version" in server.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_rules_may_come_from_a_pipe(tmp_path: Path, workers: str) -> None:
    (tmp_path / "plain.toml").write_text(rules("one"))
    pipe = tmp_path / "rules.fifo"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["cp", str(tmp_path / "plain.toml"), str(pipe)])
    with serving(tmp_path, "--rules", str(pipe), "--workers", workers, environ=KEYS) as server:
        assert served(server) == "one"
        assert "from a pipe: read once" in server.stderr
        assert server.post(b"", "/-/reload", **ADMIN).json()["reloaded"] is True
        assert served(server) == "one"
    writer.wait()


@pytest.mark.parametrize("command", [["check"], ["prove"], ["schema"]], ids=lambda command: command[0])
def test_commands_take_rules_from_a_shells_pipe(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "plain.toml").write_text(rules("one"))
    routeproxy = f"{sys.executable} -m routeproxy {command[0]}"
    line = routeproxy if command == ["schema"] else f"{routeproxy} --rules <(cat plain.toml)"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **KEYS}
    ran = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environ, capture_output=True, timeout=60)
    assert (ran.returncode, b"Traceback" in ran.stderr) == (0, False), ran.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_a_folder_that_can_be_written_rules_are_followed_all_the_same(
    tmp_path: Path, workers: str
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(rules("one"))
    flags = ["--last-good", "/proc/nowhere", "--workers", workers]  # where not even root makes a folder
    with serving(tmp_path, *flags, environ=KEYS) as server:
        assert served(server) == "one"
        file.write_text(rules("two"))
        until(lambda: {served(server) for _ in range(8)} == {"two"}, IN_FORCE + 2)
        assert "can't be kept for a rollback" in server.stderr
        assert server.post(b"", "/-/rollback", **ADMIN).status_code == 409


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_in_the_first_moments_ends_nothing(tmp_path: Path, workers: str) -> None:
    (tmp_path / "rules.toml").write_text(rules("one"))
    with serving(tmp_path, "--workers", workers, environ=KEYS) as server:
        until(
            lambda: waits_for_hangups(server), 10
        )  # a Python that has not reached our code knows no signals
        for _ in range(40):
            server.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        assert served(server) == "one"


def waits_for_hangups(server: Served) -> bool:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(blocked.split()[1], 16) & 1 << (signal.SIGHUP - 1))
