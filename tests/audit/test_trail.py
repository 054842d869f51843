"""The trail of a server: what is recorded, when, and what becomes of requests if it can't be
(docs/audit.md)."""

import errno
import json
import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from routeproxy.audit.chain import chains_in
from routeproxy.audit.signing import anchors_in, new_key
from routeproxy.cli import app
from tests.backend import CUT, HANG, BackEnd, error, json_answer, messages_stream, pause, streamed
from tests.running import Running, request, running, serving, until
from tests.wire.asking import answers

RULES = """
[server]
admin_keys = [{{ name = "ops", key = "env:ADMIN" }}]
{server}

[audit]
path = "{folder}/audit"
signing_key = "file:{folder}/key.pem"
{audit}

[ledger]
path = "{folder}/usage.db"
users = "plain"
record_headers = ["x-cost-center"]

[providers.claude]
type = "anthropic"
base_url = "{public}"
api_key = "none"
zone = "public"

[providers.inside]
type = "anthropic"
base_url = "{inside}"
api_key = "none"
zone = "private"

[teams.claims]
keys = [{{ name = "c1", key = "env:CLAIMS" }}]

[teams.web]
keys = [{{ name = "w1", key = "env:WEB" }}]

[[invariants]]
name = "claims stay inside"
when.team = "claims"
never.zone = "public"

[[rules]]
name = "claims"
match.team = "claims"
targets = "inside/m"

[[rules]]
name = "denied"
match.model.equals = "denied"
deny = "no"

[default]
targets = ["claude/m", "inside/m"]
fallback = true
"""
ENVIRON = {"ADMIN": "key-of-admin", "CLAIMS": "key-of-claims", "WEB": "key-of-web"}

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


class Scene:
    def __init__(self, proxy: Running, public: BackEnd, inside: BackEnd, folder: Path) -> None:
        self.proxy, self.public, self.inside, self.folder = proxy, public, inside, folder

    def ask(self, model: str = "m", key: str = "key-of-web", **headers: str) -> int:
        return self.proxy.post(request(model=model), x_api_key=key, **headers).status_code

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        return records_in(self.folder, *kinds)

    def ended(self, number: int) -> list[dict[str, Any]]:
        assert until(lambda: len(self.records("ended")) >= number)
        return self.records("ended")


def records_in(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    lines = [line for path in chains_in(folder / "audit") for line in path.read_bytes().splitlines()]
    records = [json.loads(line) for line in lines]
    return [record for record in records if not kinds or record["kind"] in kinds]


def rules(folder: Path, public: str, inside: str, audit: str = "", server: str = "") -> str:
    private, key = new_key()
    if not (folder / "key.pem").exists():
        (folder / "key.pem").write_bytes(private)
        (folder / "key.pub").write_bytes(key)
    return RULES.format(folder=folder, public=public, inside=inside, audit=audit, server=server)


@pytest.fixture
def back_ends() -> Iterator[tuple[BackEnd, BackEnd]]:
    with BackEnd() as public, BackEnd() as inside:
        answers(public, json_answer(MESSAGE))
        answers(inside, json_answer(MESSAGE))
        yield public, inside


@pytest.fixture
def scene(back_ends: tuple[BackEnd, BackEnd], tmp_path: Path) -> Iterator[Scene]:
    public, inside = back_ends
    with running(rules(tmp_path, public.url, inside.url), tmp_path, ENVIRON) as proxy:
        yield Scene(proxy, public, inside, tmp_path)


def audit(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["audit", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_request_is_recorded_before_anybody_is_asked_and_after_its_end(scene: Scene) -> None:
    assert scene.ask(x_cost_center="4711") == 200
    (ended,) = scene.ended(1)
    (begun,) = scene.records("begun")
    assert begun["n"] < ended["n"]
    assert begun["id"] == ended["id"]
    assert (begun["team"], begun["key"], begun["rule"], begun["denied"]) == ("web", "w1", "default", False)
    assert begun["targets"] == ["claude/m", "inside/m"]
    assert begun["facts"]["model"] == "m"
    assert begun["facts"]["headers"] == {"x-cost-center": "4711"}
    assert ended["contacts"] == [
        {
            "provider": "claude",
            "model": "m",
            "zone": "public",
            "region": None,
            "purpose": "answer",
            "outcome": "ok",
        }
    ]
    assert (ended["status"], ended["error"], ended["client_left"]) == (200, None, False)


def test_every_target_that_was_asked_is_recorded_the_failed_ones_too(scene: Scene) -> None:
    answers(scene.public, error(500, "no"))
    assert scene.ask() == 200
    (ended,) = scene.ended(1)
    asked = [(contact["provider"], contact["outcome"]) for contact in ended["contacts"]]
    assert asked == [("claude", "server_error"), ("inside", "ok")]


def test_a_denied_request_is_recorded_and_reaches_nobody(scene: Scene) -> None:
    assert scene.ask("denied") == 400
    (ended,) = scene.ended(1)
    (begun,) = scene.records("begun")
    assert (begun["denied"], begun["rule"], ended["contacts"]) == (True, "denied", [])


def test_reloads_refused_reloads_and_views_of_users_are_recorded(scene: Scene) -> None:
    text = scene.proxy.rules.read_text()
    before = scene.proxy.app.rules.policy.version
    scene.proxy.rules.write_text(text.replace('"claude/m", "inside/m"', '"inside/m"'))
    assert scene.proxy.post(b"", "/-/reload", x_api_key="key-of-admin").status_code == 200
    (reloaded,) = scene.records("reloaded")
    after = scene.proxy.app.rules.policy.version
    assert (reloaded["before"], reloaded["version"]) == (before, after)
    kept = scene.folder / "audit" / "versions" / f"{after}-{reloaded['rules_sha256'][:16]}.json"
    assert '"inside/m"' in json.loads(kept.read_bytes())["text"]

    scene.proxy.rules.write_text("nonsense")
    assert scene.proxy.post(b"", "/-/reload", x_api_key="key-of-admin").status_code == 409
    assert until(lambda: len(scene.records("reload_refused")) >= 1)
    rolled = scene.proxy.post(
        json.dumps({"version": before}).encode(), "/-/rollback", x_api_key="key-of-admin"
    )
    assert rolled.status_code == 200
    assert scene.records("reloaded")[-1]["version"] == before
    scene.proxy.get("/-/usage?by=user", x_api_key="key-of-admin")
    scene.proxy.get("/-/usage?by=team", x_api_key="key-of-admin")
    acted = [(record["action"], record["key"], record["outcome"]) for record in scene.records("admin")]
    assert acted == [
        ("reload", "ops", "reloaded"),
        ("reload", "ops", "refused"),
        ("rollback", "ops", before),
        ("view user", "ops", "shown"),
    ]


def test_a_disk_that_is_full_for_a_while_loses_records_and_says_how_many(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scene.ask() == 200
    scene.ended(1)
    write = os.write

    def full(file: int, data: Any) -> int:
        if b'"kind"' in bytes(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    with monkeypatch.context() as patched:
        patched.setattr("routeproxy.audit.chain.os.write", full)
        assert scene.ask() == 200  # on_failure is "continue"
        assert until(lambda: status(scene)["audit_records_lost"] == 1)
        assert "No space left" in str(status(scene)["audit_problem"])
    assert scene.ask() == 200
    scene.ended(2)
    assert [record["lost"] for record in scene.records("begun")] == [0, 1]
    assert status(scene)["audit_problem"] is None


def status(scene: Scene) -> Mapping[str, Any]:
    answered: Mapping[str, Any] = scene.proxy.get("/-/status", x_api_key="key-of-admin").json()
    return answered


@pytest.mark.parametrize("model", ["m", "denied"])
def test_with_refuse_a_full_disk_answers_503_and_asks_nobody(
    back_ends: tuple[BackEnd, BackEnd], tmp_path: Path, model: str
) -> None:
    public, inside = back_ends
    text = rules(tmp_path, public.url, inside.url, 'on_failure = "refuse"', "port = 0")
    (tmp_path / "rules.toml").write_text(text)
    with serving(tmp_path, "--rules", "rules.toml", environ=ENVIRON) as server:
        assert server.post(request(), x_api_key="key-of-web").status_code == 200
        assert until(lambda: len(records_in(tmp_path, "ended")) == 1)
        asked = len(public.requests) + len(inside.requests)
        (chain,) = chains_in(tmp_path / "audit")
        # From now on no file of this process can grow beyond what its chain is: a disk without room.
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (chain.stat().st_size,) * 2)
        answer = server.post(request(model=model), x_api_key="key-of-web")
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "the audit trail can't be written, so nobody was asked"
        counted = server.post(request(), "/v1/messages/count_tokens", x_api_key="key-of-web")
        assert counted.status_code == 503
        assert len(public.requests) + len(inside.requests) == asked
        assert server.process.poll() is None
        assert chain.read_bytes().endswith(b"}\n")  # nothing half written


def test_two_workers_write_two_chains_whose_heads_name_each_other(
    back_ends: tuple[BackEnd, BackEnd], tmp_path: Path
) -> None:
    public, inside = back_ends
    text = rules(tmp_path, public.url, inside.url, 'anchor_every = "1s"', "port = 0")
    (tmp_path / "rules.toml").write_text(text)
    with serving(tmp_path, "--rules", "rules.toml", "--workers", "2", environ=ENVIRON) as server:
        assert until(lambda: len(chains_in(tmp_path / "audit")) == 2)
        for key in ("key-of-web", "key-of-claims"):
            assert server.post(request(), x_api_key=key).status_code == 200
        heads = lambda: [json.loads(head["head"]) for head in records_in(tmp_path, "head")]  # noqa: E731
        assert until(lambda: len({head["writer"] for head in heads() if head["others"]}) == 2, 20)
        os.kill(server.process.pid, signal.SIGTERM)
        server.process.wait(20)
        log = (tmp_path / "stderr.txt").read_bytes()
    names = {path.stem for path in chains_in(tmp_path / "audit")}
    assert {name for head in heads() for name in (head["writer"], *head["others"])} == names
    assert len([*anchors_in(iter(log.splitlines()))]) == len(records_in(tmp_path, "head"))

    where = ("--path", str(tmp_path / "audit"), "--public-key", str(tmp_path / "key.pub"))
    anchors = ("--anchors", str(tmp_path / "stderr.txt"))
    code, out, err = audit("verify", *where, *anchors, "--strict")
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == "the trail is what was written"
    code, out, _ = audit("query", 'team = "claims" and zone = private', *where, *anchors)
    assert (code, out.splitlines()[0]) == (0, "1 request")
    code, out, _ = audit("report", "--invariant", "claims stay inside", *where, *anchors)
    assert code == 0, out
    assert [line.split() for line in out.splitlines()[1:5]] == [
        ["held", "1"],
        ["broken", "0"],
        ["not", "decidable", "0"],
        ["records", "lost", "0", "as", "the", "trail", "itself", "says"],
    ]
    # Somebody takes the claims away.
    chain = next(path for path in chains_in(tmp_path / "audit") if b"claims" in path.read_bytes())
    lines = chain.read_bytes().splitlines(keepends=True)
    chain.write_bytes(b"".join(line for line in lines if b'"team":"claims"' not in line))
    code, out, _ = audit("verify", *where, *anchors)
    assert code == 1
    assert "THE TRAIL IS NOT WHAT WAS WRITTEN" in out


def test_heads_are_posted_where_the_rules_say_and_wait_where_that_fails(
    back_ends: tuple[BackEnd, BackEnd], tmp_path: Path
) -> None:
    public, inside = back_ends
    with BackEnd() as store:
        answers(store, error(500, "no"))
        text = rules(tmp_path, public.url, inside.url, f'anchor_every = "1s"\nanchors = "{store.url}/heads"')
        with running(text, tmp_path, ENVIRON) as proxy:
            scene = Scene(proxy, public, inside, tmp_path)
            assert until(lambda: len(store.requests) >= 1, 10)
            assert scene.ask() == 200
            answers(store, json_answer({}))
            assert until(lambda: len(scene.records("head")) >= 2, 10)
            assert until(lambda: {json.loads(got.body)["audit_head"] for got in store.requests} >= {
                head["head"] for head in scene.records("head")
            }, 10)  # fmt: skip
        assert {got.path for got in store.requests} == {"/heads"}


def test_a_cut_answer_is_recorded_as_that(scene: Scene) -> None:
    answers(scene.public, streamed(*messages_stream("Hello")[:4], CUT))
    scene.proxy.post(request(model="m", stream=True), x_api_key="key-of-web")
    (ended,) = scene.ended(1)
    assert [contact["outcome"] for contact in ended["contacts"]] == ["connection"]


def test_a_request_that_outlives_its_trail_ends_in_the_chain_in_which_it_began(
    back_ends: tuple[BackEnd, BackEnd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routeproxy.audit.writing.POST_SECONDS", 1.0)
    public, inside = back_ends
    with BackEnd() as store:
        answers(store, [HANG])  # nobody takes the heads: no reload waits for that
        text = rules(tmp_path, public.url, inside.url, f'anchor_every = "1s"\nanchors = "{store.url}/heads"')
        with running(text, tmp_path, ENVIRON) as proxy:
            answers(inside, [pause(1.5), *json_answer(MESSAGE)])
            scene = Scene(proxy, public, inside, tmp_path)
            with ThreadPoolExecutor(1) as pool:
                status = pool.submit(scene.ask, "m", "key-of-claims")
                assert until(lambda: len(inside.requests) == 1)
                proxy.rules.write_text(text.replace('/audit"', '/elsewhere"'))
                began = time.monotonic()
                assert proxy.post(b"", "/-/reload", x_api_key="key-of-admin").status_code == 200
                assert time.monotonic() - began < 1.4
                assert status.result() == 200
            assert until(lambda: scene.records("ended"), 5)
            assert proxy.post(request(), x_api_key="key-of-claims").status_code == 200
            assert until(lambda: scene.records("stopped"), 5)
        assert [record["kind"] for record in scene.records() if record["kind"] != "head"] == [
            "started",
            "begun",
            "ended",
            "stopped",
        ]
        (elsewhere,) = chains_in(tmp_path / "elsewhere")
        kinds = [json.loads(line)["kind"] for line in elsewhere.read_bytes().splitlines()]
        assert kinds[0] == "started"
        assert kinds.count("begun") == kinds.count("ended") == 1
