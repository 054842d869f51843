"""What an observer hears of a request and of its attempts, in order; and that one that fails costs nobody an
answer."""

from collections.abc import Iterator

import pytest

from routeproxy.exchange import AttemptRecord, Exchange
from routeproxy.observe import Observer
from routeproxy.policy.decide import Policy
from routeproxy.upstream.chat.endpoints import Path
from tests.backend import CUT, HANG, BackEnd, chunk, completion, done, error, json_answer, sse
from tests.running import Running, connect, request, request_bytes, running, until
from tests.wire.asking import answers, ask, message

RULES = """
[providers.corp]
type = "openai_compatible"
base_url = "{corp}/v1"
api_key = "none"
zone = "local"
[providers.claude]
type = "anthropic"
base_url = "{claude}"
api_key = "none"
zone = "local"
[teams.payments]
keys = {{ name = "laptop", key = "env:PAYMENTS_KEY" }}
[server]
require_key = false
[default]
targets = ["corp/m", "claude/m"]
"""


class Recorder(Observer):
    """Notes what it hears, one line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def attempt_started(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        self.lines.append(f"{attempt.target.name} started")

    def first_content(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        assert exchange.body.text, "the text can still be looked at"
        self.lines.append(f"{attempt.target.name} first content")

    def attempt_ended(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        assert attempt.ended is not None
        assert attempt.started <= (attempt.first_content_at or attempt.ended) <= attempt.ended
        outcome = "let go" if attempt.let_go else attempt.failure or "answered"
        usage = f", {attempt.usage.output_tokens} tokens out" if attempt.usage else ""
        self.lines.append(f"{attempt.target.name} {outcome}{usage}")

    def request_done(self, exchange: Exchange) -> None:
        who = f" {exchange.inbound.team}/{exchange.inbound.key_name}" if exchange.inbound.team else ""
        self.lines.append(f"done {exchange.status}{who}{' left' if exchange.client_left else ''}")


class Failing(Observer):
    def attempt_started(self, exchange: Exchange, attempt: AttemptRecord) -> None:
        raise ZeroDivisionError

    def request_done(self, exchange: Exchange) -> None:
        raise ZeroDivisionError


RECORDER = Recorder()


@pytest.fixture(scope="module")
def corp() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def claude() -> Iterator[BackEnd]:
    with BackEnd() as back_end:
        yield back_end


@pytest.fixture(scope="module")
def proxy(corp: BackEnd, claude: BackEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rules = RULES.format(corp=corp.url, claude=claude.url)
    folder = tmp_path_factory.mktemp("rules")
    observers = [Failing(), RECORDER]
    with running(rules, folder, {"PAYMENTS_KEY": "secret"}, observers=observers) as server:
        yield server


@pytest.fixture
def heard() -> list[str]:
    RECORDER.lines.clear()
    return RECORDER.lines


def until_done(heard: list[str]) -> list[str]:
    """What was heard until the request was over: its client has the answer a moment before."""
    until(lambda: heard and heard[-1].startswith("done"))
    return heard


def test_a_whole_answer(proxy: Running, corp: BackEnd, heard: list[str]) -> None:
    answers(corp, json_answer(completion("Hello")))
    assert ask(proxy).status == 200
    assert until_done(heard) == [
        "corp/m started",
        "corp/m first content",
        "corp/m answered, 5 tokens out",
        "done 200",
    ]


def test_a_fallback(proxy: Running, corp: BackEnd, claude: BackEnd, heard: list[str]) -> None:
    answers(corp, error(503, "busy"))
    answers(claude, json_answer(message("Hello")))
    assert ask(proxy, headers={"x-api-key": "secret"}).status == 200
    assert until_done(heard) == [
        "corp/m started",
        "corp/m overloaded",
        "claude/m started",
        "claude/m first content",
        "claude/m answered, 7 tokens out",
        "done 200 payments/laptop",
    ]


def test_a_stream_that_is_cut(proxy: Running, corp: BackEnd, heard: list[str]) -> None:
    answers(corp, sse(chunk("Hel"), CUT))
    assert ask(proxy, stream=True).script[-1].startswith("error")
    assert until_done(heard) == ["corp/m started", "corp/m first content", "corp/m connection", "done 200"]


def test_a_client_that_leaves(proxy: Running, corp: BackEnd, heard: list[str]) -> None:
    answers(corp, sse(chunk("Hel"), HANG))
    with connect(proxy.url) as wire:
        wire.sendall(request_bytes(request(stream=True)))
        until(lambda: "corp/m first content" in heard)
    assert until_done(heard) == ["corp/m started", "corp/m first content", "corp/m let go", "done 200 left"]


def test_a_request_that_is_refused_before_any_attempt(proxy: Running, heard: list[str]) -> None:
    assert ask(proxy, model="..").status == 404
    assert until_done(heard) == ["done 404"]


def test_an_observer_that_fails_is_logged_and_the_others_still_hear(
    proxy: Running, corp: BackEnd, heard: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    answers(corp, sse(chunk("Hello"), done()))
    assert ask(proxy, stream=True).text == "Hello"
    until_done(heard)
    assert "an observer failed: Failing.attempt_started" in caplog.text
    assert "an observer failed: Failing.request_done" in caplog.text


class Reloads(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def reload_succeeded(self, before: Policy, after: Policy) -> None:
        self.lines.append(f"{'new' if before.version != after.version else 'same'} rules")

    def reload_failed(self, in_force: Policy, problem: str) -> None:
        self.lines.append(f"failed: {problem.partition(': ')[2]}")

    def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
        self.lines.append(f"{key_name}: {action} {outcome}")


ADMINS = '[server]\nadmin_keys = { name = "ops", key = "env:ADMIN_KEY" }\n[providers.echo]\n[default]\n'


def test_reloads_and_admins_are_heard(tmp_path: Path) -> None:
    heard = Reloads()
    with running(
        f'{ADMINS}targets = "echo/a"\n', tmp_path, {"ADMIN_KEY": "admin"}, observers=[heard]
    ) as server:
        assert server.post({}, "/-/reload", x_api_key="admin").status_code == 200
        server.rules.write_text(f'{ADMINS}targets = "echo/b"\n')
        until(lambda: "new rules" in heard.lines, 5)
        server.rules.write_text(f'{ADMINS}targets = "ecko/b"\n')
        until(lambda: heard.lines[-1].startswith("failed"), 5)
        assert server.post({}, "/-/rollback", x_api_key="admin").status_code == 200
    assert heard.lines[:2] == ["same rules", "ops: reload reloaded"]
    assert "there is no provider `ecko`" in heard.lines[3]
    assert heard.lines[4] == "new rules"
    assert heard.lines[5].startswith("ops: rollback ")
