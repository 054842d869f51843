"""Versions: reload and rollback by an admin, one pointer for all workers, a restart with a broken file."""

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from routeproxy.serve import refuse_strangers
from routeproxy.sources import Options, Sources
from tests.running import Running, Served, request, running, serving, until

ADMIN = {"authorization": "Bearer admin"}
KEYS = {"ADMIN_KEY": "admin"}


def rules(model: str, *more: str) -> str:
    lines = ['[server]\nadmin_keys = "env:ADMIN_KEY"\nport = 0', *more, "[providers.echo]"]
    return "\n".join([*lines, "[default]", f'targets = ["echo/{model}"]', ""])


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Running]:
    with running(rules("one"), tmp_path, KEYS) as proxy:
        yield proxy


def served(proxy: Running | Served) -> str:
    return str(proxy.post(request()).headers["x-routeproxy-model"])


def version(proxy: Running | Served) -> str:
    return str(proxy.get("/readyz").json()["rules_version"])


def problem(proxy: Running | Served) -> str | None:
    found: str | None = proxy.get("/-/status", **ADMIN).json()["rules_problem"]
    return found


def save(proxy: Running, model: str) -> None:
    proxy.rules.write_text(rules(model))
    until(lambda: served(proxy) == model)


def rollback(proxy: Running | Served, body: object = b"") -> httpx.Response:
    return proxy.post(body, "/-/rollback", **ADMIN)


# --- one worker


def test_a_rollback_puts_the_version_before_in_force(proxy: Running) -> None:
    first = version(proxy)
    save(proxy, "two")
    said = rollback(proxy).json()
    assert (said["rules_version"], served(proxy), version(proxy)) == (first, "one", first)
    assert problem(proxy) == f"version {first} was put back and holds until a good file is saved"


def test_a_rollback_holds_until_the_next_good_save(proxy: Running) -> None:
    save(proxy, "two")
    rollback(proxy)
    proxy.rules.touch()  # no edit
    proxy.rules.write_text("broken")
    until(lambda: "broken" in (problem(proxy) or "") or "RP001" in (problem(proxy) or ""))
    assert served(proxy) == "one"
    proxy.rules.write_text(rules("two"))  # what was rolled back is no news
    time.sleep(1)
    assert served(proxy) == "one"
    save(proxy, "six")
    assert problem(proxy) is None


def test_a_reload_lifts_a_rollback(proxy: Running) -> None:
    save(proxy, "two")
    rollback(proxy)
    said = proxy.post(b"", "/-/reload", **ADMIN).json()
    assert (said["reloaded"], served(proxy), problem(proxy)) == (True, "two", None)


def test_a_rollback_to_a_named_version(proxy: Running) -> None:
    first = version(proxy)
    save(proxy, "two")
    save(proxy, "six")
    assert rollback(proxy, {"version": first}).status_code == 200
    assert served(proxy) == "one"
    status = proxy.get("/-/status", **ADMIN).json()
    assert [status["history"][0], status["history"][-1]] == [first, first]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 409, id="nothing before"),
        pytest.param({"version": "0123456789ab"}, 409, id="not kept"),
        pytest.param({"version": "../current"}, 409, id="no version"),
        pytest.param({"version": 5}, 400, id="no text"),
        pytest.param(b"{", 400, id="no JSON"),
    ],
)
def test_a_rollback_that_cannot_be_changes_nothing(proxy: Running, body: object, status: int) -> None:
    found = rollback(proxy, body)
    assert (found.status_code, found.json()["type"]) == (status, "error")
    assert (served(proxy), problem(proxy)) == ("one", None)


def test_a_reload_of_a_broken_file_says_what_is_wrong(proxy: Running) -> None:
    proxy.rules.write_text('[providers.echo]\n[default]\ntargets = "ecko/m"')
    found = proxy.post(b"", "/-/reload", **ADMIN)
    assert (found.status_code, found.json()["reloaded"]) == (409, False)
    assert "there is no provider `ecko`" in found.json()["rules_problem"]
    assert served(proxy) == "one"


@pytest.mark.parametrize("path", ["/-/reload", "/-/rollback"])
@pytest.mark.parametrize("shown", [{}, {"x-api-key": "wrong"}])
def test_only_an_admin_key_changes_what_is_in_force(proxy: Running, path: str, shown: dict[str, str]) -> None:
    assert proxy.post(b"", path, **shown).status_code == 401


def test_the_log_of_a_reload_says_what_changes(proxy: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "routeproxy.policy"):
        save(proxy, "two")
    assert "default: to echo/two instead of to echo/one" in caplog.text


FAILING = """
[[tests]]
name = "all goes to one"
request = {{ model = "x" }}
expect = {{ targets = "echo/one" }}
{0}
"""


def test_a_reload_whose_tests_fail_is_refused(proxy: Running) -> None:
    proxy.rules.write_text(rules("two") + FAILING.format(""))
    shown = until(lambda: problem(proxy))
    assert "the test `all goes to one` fails: expected targets [`echo/one`], got [`echo/two`]" in shown
    assert served(proxy) == "one"


def test_a_reload_whose_proof_fails_is_refused(proxy: Running) -> None:
    outside = (
        '[providers.out]\ntype = "openai_compatible"\nbase_url = "https://x.example"\napi_key = "none"\n'
    )
    invariant = '[[invariants]]\nname = "nothing leaves"\nnever.zone = "public"\n'
    proxy.rules.write_text(rules("two", outside).replace("echo/two", "out/m") + invariant)
    assert "`nothing leaves` is broken" in until(lambda: problem(proxy))
    assert served(proxy) == "one"


def test_a_reload_does_not_open_what_start_up_would_refuse_to(tmp_path: Path) -> None:
    team = '[teams.known]\nkeys = "env:KNOWN_KEY"\n'
    with running(rules("one", team), tmp_path, KEYS | {"KNOWN_KEY": "known"}) as proxy:
        sources = Sources(Options(rules=proxy.rules), KEYS | {"KNOWN_KEY": "known"})
        proxy.app.rules.guard = partial(refuse_strangers, sources, "192.0.2.1")
        proxy.rules.write_text(rules("two"))
        assert "anybody who can reach 192.0.2.1" in until(lambda: problem(proxy))
        assert proxy.post(request()).status_code == 401
        assert proxy.post(request(), x_api_key="known").headers["x-routeproxy-model"] == "one"


# --- included files


def test_an_included_file_is_live_within_a_second_when_it_appears_changes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "teams").mkdir()
    team = '[teams.known]\nkeys = "env:KNOWN_KEY"\ntargets = "echo/*"\n[[rules]]\ninclude = "teams/*.toml"\n'
    layer = tmp_path / "teams" / "known.toml"

    def goes_to(model: str) -> bool:
        answer = proxy.post(request(), x_api_key="known")
        return bool(answer.headers["x-routeproxy-model"] == model)

    with running(rules("one", team), tmp_path, KEYS | {"KNOWN_KEY": "known"}) as proxy:
        assert goes_to("one")
        for model in ("two", "six"):
            layer.write_text(f'team = "known"\n[[rules]]\ntargets = "echo/{model}"\n')
            until(lambda model=model: goes_to(model))  # type: ignore[misc]
        layer.write_text('team = "known"\n[[rules]]\ntargets = "ecko/two"\n')
        # What is written may be seen half written, and is a problem of another kind for that moment.
        until(lambda: "teams/known.toml:3:11" in (problem(proxy) or ""))
        layer.write_text('team = "known"\n[[rules]]\ntargets = "echo/ten"\n')  # mended in the layer alone
        until(lambda: goes_to("ten"))
        layer.unlink()
        until(lambda: goes_to("one"))


# --- restarts


def test_the_last_good_version_outlives_a_restart_with_a_broken_file(tmp_path: Path) -> None:
    file, keep = tmp_path / "rules.toml", tmp_path / "kept"
    file.write_text(rules("one"))
    with serving(tmp_path, "--last-good", str(keep), environ=KEYS) as server:
        assert served(server) == "one"
        server.send_signal(signal.SIGTERM)
        assert server.exit_code() == 0
    file.write_text("broken")
    with serving(tmp_path, "--last-good", str(keep), environ=KEYS) as server:
        assert served(server) == "one"
        assert "this is the last good version, since: rules.toml:1:" in server.stderr
        assert "RP001" in (problem(server) or "")
        file.write_text(rules("two"))
        until(lambda: served(server) == "two")
    file.write_text("broken")
    with serving(tmp_path, environ=KEYS) as server:  # nobody said where the versions are
        assert server.exit_code() == 1


def test_a_rollback_outlives_a_restart(tmp_path: Path) -> None:
    file, keep = tmp_path / "rules.toml", tmp_path / "kept"
    file.write_text(rules("one"))
    with serving(tmp_path, "--last-good", str(keep), environ=KEYS) as server:
        assert served(server) == "one"
        file.write_text(rules("two"))
        until(lambda: served(server) == "two")
        assert rollback(server).status_code == 200
    with serving(tmp_path, "--last-good", str(keep), environ=KEYS) as server:
        assert served(server) == "one"
        assert "was put back" in (problem(server) or "")


def test_what_is_kept_of_a_version_has_no_secrets(tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    (tmp_path / ".env").write_text("ADMIN_KEY=sesame-canary\n")
    with running(rules("one"), tmp_path, options=Options(rules=tmp_path / "rules.toml", last_good=keep)):
        kept = [path.read_text() for path in keep.rglob("*") if path.is_file()]
    assert any("echo/one" in text for text in kept)
    assert not [text for text in kept if "canary" in text]


# --- red tests


def test_rules_whose_tests_fail_are_not_served_unless_told_so(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(rules("two") + FAILING.format(""))
    with serving(tmp_path, environ=KEYS) as server:
        assert server.exit_code() == 1
        assert "RP016" in server.stderr
    with serving(tmp_path, "--skip-tests", environ=KEYS) as server:
        assert served(server) == "two"
        assert "warning    --skip-tests: 1 test of the rules not run" in server.stderr


# --- several workers


def test_workers_never_stay_on_different_versions(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(rules("one"))
    with serving(tmp_path, "--workers", "2", environ=KEYS) as server:
        assert served(server) == "one"
        until(lambda: len(workers(server)) == 2, 10)

        def all_serve(model: str) -> bool:
            """Whether each of the two says so, in answers of its own."""
            return {served(server) for _ in range(12)} == {model}

        file.write_text(rules("two"))
        until(lambda: all_serve("two"), 5)
        assert rollback(server).status_code == 200
        until(lambda: all_serve("one"), 5)
        assert {version(server) for _ in range(8)} == {json.loads(rollback_status(server))["rules_version"]}
        file.write_text(rules("six"))
        until(lambda: all_serve("six"), 5)


def workers(server: Served) -> set[int]:
    return {server.get("/-/status", **ADMIN).json()["process"] for _ in range(8)}


def rollback_status(server: Served) -> str:
    return server.get("/-/status", **ADMIN).text


def test_many_reloads_under_load_lose_and_misroute_nothing(proxy: Running) -> None:
    """Each version sends a request to a model of its own name: an answer whose version and model don't belong
    together was routed by two policies."""
    seen: set[tuple[str, str]] = set()
    statuses: set[int] = set()
    over = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not over.is_set():
                answer = client.post(f"{proxy.url}/v1/messages", json=request())
                statuses.add(answer.status_code)
                seen.add((answer.headers["x-routeproxy-rules-version"], answer.headers["x-routeproxy-model"]))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    versions = {}
    for number in range(15):
        proxy.rules.write_text(rules(f"m{number}"))
        assert proxy.post(b"", "/-/reload", **ADMIN).status_code == 200
        versions[version(proxy)] = f"m{number}"
    over.set()
    for thread in asking:
        thread.join()
    assert statuses == {200}
    assert len(seen) > 5
    assert {(found, versions.get(found, "one")) for found, _ in seen} == seen
