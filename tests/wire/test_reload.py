"""An edit is live within a second, however it is saved; a broken one changes nothing and is shown wherever an
operator looks."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend import BackEnd, messages_stream, pause, streamed
from tests.running import Running, events, request, running, until

LIVE = 1.0
"""Seconds. What the README promises."""


def rules(model: str, *more: str) -> str:
    return "\n".join([*more, "[providers.echo]", "[default]", f'targets = ["echo/{model}"]', ""])


BROKEN = '[providers.echo]\n[default]\ntargets = ["ecko/one"]\n'


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Running]:
    with running(rules("one"), tmp_path) as proxy:
        yield proxy


def served(proxy: Running) -> str:
    return proxy.post(request()).headers["x-routeproxy-model"]


def goes_live(proxy: Running, model: str) -> bool:
    """Whether `model` answers within a second, and everything says that all is well."""
    until(lambda: served(proxy) == model, LIVE)
    return "rules_problem" not in proxy.get("/readyz").json()


def problem(proxy: Running) -> str | None:
    ready = proxy.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    found: str | None = ready.json().get("rules_problem")
    return found


# --- ways to save


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_renaming(path: Path, text: str) -> None:
    """VS Code and most tools: a new file over the old one."""
    fresh = path.with_name(".rules.toml.tmp")
    fresh.write_text(text)
    fresh.replace(path)


def as_vim_does(path: Path, text: str) -> None:
    """The old file becomes the backup, a new one is written under its name."""
    backup = path.with_name("rules.toml~")
    path.rename(backup)
    time.sleep(0.02)
    path.write_text(text)
    backup.unlink()


def in_two_halves(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        time.sleep(0.05)
        file.write(text[len(text) // 2 :])


def keeping_the_time(path: Path, text: str) -> None:
    """As `cp -p` and `rsync -t` do."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def with_a_new_folder(path: Path, text: str) -> None:
    shutil.rmtree(path.parent)
    time.sleep(0.5)
    path.parent.mkdir()
    path.write_text(text)


@pytest.mark.parametrize(
    "save", [in_place, by_renaming, as_vim_does, in_two_halves, keeping_the_time, with_a_new_folder]
)
def test_an_edit_is_live_within_a_second(proxy: Running, save: object) -> None:
    before = proxy.post(request()).headers["x-routeproxy-rules-version"]
    for model in ("two", "six"):
        save(proxy.rules, rules(model))  # type: ignore[operator]
        assert goes_live(proxy, model)
    assert proxy.post(request()).headers["x-routeproxy-rules-version"] != before


def test_a_config_map_is_swapped_whole(tmp_path: Path) -> None:
    """Kubernetes: `rules.toml` → `..data/rules.toml`, and `..data` is a link that is replaced."""

    def publish(name: str, text: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "rules.toml").write_text(text)
        fresh = tmp_path / "..data_tmp"
        fresh.symlink_to(name)
        fresh.replace(tmp_path / "..data")

    publish("..v1", rules("one"))
    (tmp_path / "rules.toml").symlink_to("..data/rules.toml")
    with running(rules("one"), tmp_path) as proxy:
        for number, model in enumerate(("two", "six"), 2):
            publish(f"..v{number}", rules(model))
            shutil.rmtree(tmp_path / f"..v{number - 1}")
            assert goes_live(proxy, model)
        assert proxy.rules.is_symlink()


# --- broken edits


def test_a_broken_edit_changes_nothing_and_is_shown_with_its_line(
    proxy: Running, caplog: pytest.LogCaptureFixture
) -> None:
    version = proxy.get("/readyz").json()["rules_version"]
    proxy.rules.write_text(BROKEN)
    shown = until(lambda: problem(proxy), LIVE)
    assert f"{proxy.rules}:3:12" in shown
    assert "ecko" in shown
    assert proxy.get("/").json()["rules_problem"] == shown
    assert (served(proxy), proxy.get("/readyz").json()["rules_version"]) == ("one", version)
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 1
    assert "rules.toml:3:12" in logged[0].getMessage()
    assert f"version {version} stays in force" in logged[0].getMessage()


def test_a_repaired_file_clears_the_problem(proxy: Running) -> None:
    proxy.rules.write_text(BROKEN)
    until(lambda: problem(proxy), LIVE)
    proxy.rules.write_text(rules("two"))
    assert goes_live(proxy, "two")
    assert problem(proxy) is None


def test_the_old_content_put_back_clears_the_problem_too(proxy: Running) -> None:
    proxy.rules.write_text(BROKEN)
    until(lambda: problem(proxy), LIVE)
    proxy.rules.write_text(rules("one"))
    until(lambda: problem(proxy) is None, LIVE)
    assert served(proxy) == "one"


def test_a_broken_file_that_is_saved_again_is_still_broken(
    proxy: Running, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.rules.write_text(BROKEN)
    until(lambda: problem(proxy), LIVE)
    by_renaming(proxy.rules, BROKEN)
    time.sleep(0.7)
    assert problem(proxy)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_good_file_that_is_saved_again_is_no_news(proxy: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "routeproxy.policy"):
        by_renaming(proxy.rules, rules("one"))
        time.sleep(0.7)
    assert caplog.records == []


def test_a_comment_is_read_but_makes_no_new_version(proxy: Running, caplog: pytest.LogCaptureFixture) -> None:
    version = proxy.get("/readyz").json()["rules_version"]
    with caplog.at_level(logging.INFO, "routeproxy.policy"):
        proxy.rules.write_text("# a comment\n" + rules("one"))
        until(lambda: "nothing changed" in caplog.text, LIVE)
    assert proxy.get("/readyz").json()["rules_version"] == version


def test_rules_that_are_deleted_stay_in_force_and_it_is_said(proxy: Running) -> None:
    proxy.rules.unlink()
    assert "No such file" in until(lambda: problem(proxy), LIVE)
    assert served(proxy) == "one"
    proxy.rules.write_text(rules("two"))
    assert goes_live(proxy, "two")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"= broken"], ids=["empty", "no text", "no TOML"])
def test_whatever_the_file_holds_the_server_goes_on(proxy: Running, content: bytes) -> None:
    proxy.rules.write_bytes(content)
    assert until(lambda: problem(proxy), LIVE)
    assert served(proxy) == "one"


def test_what_needs_a_restart_is_said(proxy: Running, caplog: pytest.LogCaptureFixture) -> None:
    proxy.rules.write_text(rules("two", "[server]", "port = 9999"))
    assert goes_live(proxy, "two")
    assert "[server] port changed: it takes effect at the next start" in caplog.text


def test_limits_and_url_targets_need_no_restart(proxy: Running) -> None:
    assert proxy.post(request(), "/echo:two/v1/messages").status_code == 404
    proxy.rules.write_text(rules("two", "[server]", "url_targets = true", "max_body_mb = 1"))
    assert goes_live(proxy, "two")
    assert proxy.post(request(), "/echo:two/v1/messages").status_code == 200
    assert proxy.post(request("x" * 2**20)).status_code == 413


# --- .env


def through(base_url: str) -> str:
    claude = f'type = "anthropic"\nbase_url = "{base_url}"\nzone = "private"\napi_key = "none"'
    return f'[providers.claude]\n{claude}\n[default]\ntargets = ["claude/*"]\n'


def test_a_variable_of_the_env_file_counts_as_an_edit(tmp_path: Path) -> None:
    with (
        BackEnd(streamed(*messages_stream("first"))) as first,
        BackEnd(streamed(*messages_stream("second"))) as second,
    ):
        (tmp_path / ".env").write_text(f"WHERE={first.url}\n")
        with running(through("env:WHERE"), tmp_path) as proxy:
            assert "first" in proxy.post(request(stream=True)).text
            (tmp_path / ".env").write_text(f"WHERE={second.url}\n")
            until(lambda: "second" in proxy.post(request(stream=True)).text, LIVE)


def test_an_env_file_that_appears_later_counts(proxy: Running) -> None:
    assert proxy.post(request()).status_code == 200
    (proxy.rules.parent / ".env").write_text("ANTHROPIC_AUTH_TOKEN=sesame\n")
    until(lambda: proxy.post(request()).status_code == 401, LIVE)
    assert proxy.post(request(), x_api_key="sesame").status_code == 200
    (proxy.rules.parent / ".env").write_text("ANTHROPIC_AUTH_TOKEN=simsim\n")
    until(lambda: proxy.post(request(), x_api_key="simsim").status_code == 200, LIVE)
    assert proxy.post(request(), x_api_key="sesame").status_code == 401


def test_an_env_file_in_the_working_folder_counts(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = tmp_path_factory.mktemp("working")
    monkeypatch.chdir(working)
    with running(rules("one"), tmp_path_factory.mktemp("elsewhere")) as proxy:
        (working / ".env").write_text("ANTHROPIC_AUTH_TOKEN=sesame\n")
        until(lambda: proxy.post(request()).status_code == 401, LIVE)


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ANTHROPIC_AUTH_TOKEN=from the file\n")
    with running(rules("one"), tmp_path, {"ANTHROPIC_AUTH_TOKEN": "from outside"}) as proxy:
        assert proxy.post(request(), x_api_key="from outside").status_code == 200
        assert proxy.post(request(), x_api_key="from the file").status_code == 401


# --- what is under way


def test_a_request_keeps_the_version_that_it_arrived_under(tmp_path: Path) -> None:
    frames = messages_stream("Hello")
    with BackEnd(streamed(*frames[:4], pause(1.2), *frames[4:])) as slow:
        with running(through(slow.url), tmp_path) as proxy:
            answers = []
            asking = threading.Thread(target=lambda: answers.append(proxy.post(request(stream=True))))
            asking.start()
            until(lambda: slow.requests)
            before = proxy.get("/readyz").json()["rules_version"]
            proxy.rules.write_text(rules("two"))
            until(lambda: proxy.get("/readyz").json()["rules_version"] != before, LIVE)
            assert served(proxy) == "two"
            asking.join()
    assert answers[0].headers["x-routeproxy-rules-version"] == before
    assert answers[0].headers["x-routeproxy-provider"] == "claude"
    assert events(answers[0].text)[-1] == "message_stop"


def test_no_request_falls_between_two_versions(proxy: Running) -> None:
    statuses: set[int] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses.add(proxy.post(request()).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    for model in ("two", "three", "four"):
        by_renaming(proxy.rules, rules(model))
        assert goes_live(proxy, model)
    over.set()
    asking.join()
    assert statuses == {200}
