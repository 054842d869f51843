"""The page at `/-/`: who may look, what each sees, and that it sends nothing anywhere (docs/page.md)."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from routeproxy.observe import Observer
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.web.auth import Authenticator
from routeproxy.web.pages.content import Cell, Column, Table, as_csv
from routeproxy.web.pages.sign_in import SECONDS, SignIns
from tests.running import Running, running, serving, until
from tests.web.pages.scenes import ENVIRON, NO_KEYS, RULES, ask, served, signed_in

VIEWS = ("rules", "targets", "spend", "requests", "explain", "reloads")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(tmp_path_factory.mktemp("page")) as proxy:
        yield proxy


# --- who may look


SEES = {
    "key-of-ops": VIEWS,
    "key-of-auditor": VIEWS,
    "key-of-reader": ("rules", "targets", "explain", "reloads"),
    "key-of-finance": ("spend",),
    "key-of-web": ("spend", "requests", "explain"),
    "key-of-search": ("spend", "requests"),
}


@pytest.mark.parametrize("key", SEES)
def test_each_role_sees_its_part_and_no_more(proxy: Running, key: str) -> None:
    cookie = signed_in(proxy, key)
    first = ask(proxy, "/-/", cookie)
    assert (first.status, first.location) == (303, f"/-/{SEES[key][0]}")
    for view in VIEWS:
        reply = ask(proxy, f"/-/{view}", cookie)
        assert reply.status == (200 if view in SEES[key] else 403), view
        links = tuple(re.findall(r'<a href="/-/(\w+)"', reply.text))
        assert links == SEES[key]


def test_whoever_is_not_signed_in_is_asked_who_they_are(proxy: Running) -> None:
    assert ask(proxy, "/-/").location == "/-/sign-in"
    reply = ask(proxy, "/-/requests")
    assert (reply.status, reply.location) == (303, "/-/sign-in?next=/-/requests")
    form = ask(proxy, reply.location)
    assert form.status == 200
    assert 'name="next" value="/-/requests"' in form.text
    back = ask(proxy, "/-/sign-in", form={"key": "key-of-ops", "next": "/-/requests"})
    assert (back.status, back.location) == (303, "/-/requests")


@pytest.mark.parametrize("key", ["", "wrong", "key-of-op", "key-of-ops2"])
def test_a_wrong_key_opens_nothing(proxy: Running, key: str) -> None:
    reply = ask(proxy, "/-/sign-in", form={"key": key})
    assert reply.status == 401
    assert "set-cookie" not in reply.headers
    assert "this key opens no page" in reply.text


def test_a_key_for_metrics_opens_no_page(proxy: Running) -> None:
    reply = ask(proxy, "/-/sign-in", form={"key": "key-of-scraper"})
    assert (reply.status, "set-cookie" in reply.headers) == (403, False)


def test_the_cookie_is_for_this_page_alone_and_of_no_use_to_scripts(proxy: Running) -> None:
    reply = ask(proxy, "/-/sign-in", form={"key": "key-of-ops"})
    attributes = reply.headers["set-cookie"].split("; ")[1:]
    assert attributes == ["Path=/-/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"]
    secure = ask(proxy, "/-/sign-in", form={"key": "key-of-ops"}, x_forwarded_proto="https")
    assert "Secure" in secure.headers["set-cookie"].split("; ")
    value = reply.headers["set-cookie"]
    assert "key-of-ops" not in value


def test_a_cookie_opens_nothing_but_the_page(proxy: Running) -> None:
    cookie = signed_in(proxy, "key-of-ops")
    assert ask(proxy, "/-/status", cookie).status == 401
    assert ask(proxy, "/-/usage", cookie).status == 401
    assert proxy.post({}, "/-/reload", cookie=cookie).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-1] + ("0" if value[-1] != "0" else "1"),
        lambda value: value.replace(value.split(".")[1], "0" * 32),
        lambda value: f"9{value}",
        lambda value: value.partition(".")[0],
        lambda value: "",
        lambda value: "a.b.c",
        lambda value: "é",
    ],
)  # fmt: skip
def test_a_cookie_that_was_changed_is_none(proxy: Running, change: object) -> None:
    assert callable(change)
    name, _, value = signed_in(proxy, "key-of-ops").partition("=")
    reply = ask(proxy, "/-/rules", f"{name}={change(value)}".encode().decode("latin-1"))
    assert (reply.status, reply.location) == (303, "/-/sign-in?next=/-/rules")


def test_a_cookie_ends_after_twelve_hours_and_with_its_key() -> None:
    def policy(key: str) -> Authenticator:
        text = f'[server]\nadmin_keys = ["env:{key}"]\n{NO_KEYS}'
        environ = {"OPS": "key-of-ops", "OTHER": "key-of-others"}
        return Authenticator(compile_rules(text, path=Path("rules.toml"), environ=environ), None)

    clock = [1000.0]
    sign_ins = SignIns(policy("OPS"), b"secret", lambda: clock[0])
    line = sign_ins.cookie("key-of-ops", is_secure=False).partition(";")[0]
    for later, counts in ((0, True), (SECONDS - 1, True), (SECONDS, False), (-1, False)):
        clock[0] = 1000.0 + later
        assert (sign_ins.caller((line,)) is not None) is counts
    clock[0] = 1000.0
    same_secret = SignIns(policy("OPS"), b"secret", lambda: clock[0])
    assert same_secret.caller((line,)) is not None  # another worker
    assert SignIns(policy("OPS"), b"another", lambda: clock[0]).caller((line,)) is None
    assert SignIns(policy("OTHER"), b"secret", lambda: clock[0]).caller((line,)) is None


def test_signing_out_takes_the_cookie_away(proxy: Running) -> None:
    reply = ask(proxy, "/-/sign-out", signed_in(proxy, "key-of-ops"), form={})
    assert (reply.status, reply.location) == (303, "/-/sign-in")
    assert "Max-Age=0" in reply.headers["set-cookie"]


@pytest.mark.parametrize("path", ["https://evil.example/", "//evil.example", "/-//evil", "/-/\\evil", "x"])
def test_nobody_is_sent_to_another_site(proxy: Running, path: str) -> None:
    reply = ask(proxy, "/-/sign-in", form={"key": "key-of-ops", "next": path})
    assert reply.location == "/-/"


def test_no_page_of_another_site_signs_anybody_in_or_out(proxy: Running) -> None:
    for path in ("/-/sign-in", "/-/sign-out"):
        reply = ask(proxy, path, form={"key": "key-of-ops"}, sec_fetch_site="cross-site")
        assert (reply.status, "set-cookie" in reply.headers) == (403, False)


def test_a_form_that_is_no_key_is_refused_before_it_is_read(proxy: Running) -> None:
    assert ask(proxy, "/-/sign-in", form={"key": "x" * 10_000}).status == 413


def test_a_key_may_be_shown_as_programs_do(proxy: Running) -> None:
    reply = ask(proxy, "/-/spend?csv=team", x_api_key="key-of-finance")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert ask(proxy, "/-/spend", x_api_key="wrong").status == 401


# --- where no key is configured


def test_without_any_key_whoever_runs_the_server_looks_and_nobody_else(tmp_path: Path) -> None:
    with running(NO_KEYS, tmp_path) as proxy:
        assert ask(proxy, "/-/rules").status == 200
        for name in ("forwarded", "x_forwarded_for", "x_forwarded_proto", "x_forwarded_host", "via"):
            reply = ask(proxy, "/-/rules", **{name: "1.2.3.4"})
            assert reply.status == 403, name
            assert "No key is configured" in reply.text
            assert 'name="key"' not in reply.text
    with running(NO_KEYS, tmp_path, host="0.0.0.0") as proxy:
        assert ask(proxy, "/-/rules").status == 403


def test_as_soon_as_there_is_any_key_the_page_asks_for_one(tmp_path: Path) -> None:
    team = '[teams.t]\nkeys = ["env:T"]\n'
    with running(NO_KEYS + team, tmp_path, {"T": "key-of-team"}) as proxy:
        assert ask(proxy, "/-/spend").status == 303
    with running(NO_KEYS, tmp_path, {"ANTHROPIC_AUTH_TOKEN": "token-of-all"}) as proxy:
        assert ask(proxy, "/-/rules").status == 303
        assert ask(proxy, "/-/sign-in", form={"key": "token-of-all"}).status == 401


def test_without_a_ledger_the_page_says_that_nothing_is_counted(tmp_path: Path) -> None:
    with running(NO_KEYS, tmp_path) as proxy:
        for view in ("rules", "targets", "spend", "requests"):
            assert "Nothing is counted" in ask(proxy, f"/-/{view}").text


# --- what is shown


def table(proxy: Running, path: str, key: str = "key-of-ops") -> list[dict[str, str]]:
    reply = ask(proxy, path, x_api_key=key)
    assert reply.status == 200, reply.text
    return list(csv.DictReader(io.StringIO(reply.text)))


def test_rules_stand_in_their_order_with_what_they_took(proxy: Running) -> None:
    rows = table(proxy, "/-/rules?csv=rules&since=7d")
    assert [row["Rule"].partition(" (")[0] for row in rows] == [
        "search",
        "<b>never</b> taken",
        "retired",
        "default",
    ]
    by_name = {row["Rule"].partition(" (")[0]: row for row in rows}
    assert (by_name["retired"]["Hits"], by_name["retired"]["Cost, USD"]) == ("6", "0")
    assert by_name["<b>never</b> taken"]["Last hit"] == ""
    assert by_name["search"]["Cost, USD"] == ""  # nobody knows it
    default = by_name["default"]
    assert int(default["Hits"]) + int(by_name["search"]["Hits"]) == 294
    assert int(default["Failures"]) == int(default["Fallbacks"]) > 0


def test_what_comes_from_outside_is_escaped(proxy: Running) -> None:
    page = ask(proxy, "/-/rules", signed_in(proxy, "key-of-ops")).text
    assert "&lt;b&gt;never&lt;/b&gt; taken" in page
    assert "<b>never" not in page
    assert "<code>&lt;i&gt;odd&lt;/i&gt;</code>" in page


def test_dead_rules_promises_tests_and_shadow_rules_are_marked(proxy: Running) -> None:
    page = ask(proxy, "/-/rules?since=24h", signed_in(proxy, "key-of-ops")).text
    assert re.search(r'class="narrow warn"[^>]*>\s*<span class="text">none</span>', page)
    assert table(proxy, "/-/rules?csv=promises")[0]["State"] == "proved"
    assert table(proxy, "/-/rules?csv=tests")[0]["State"] == "passed"
    assert table(proxy, "/-/rules?csv=shadows")[0]["Would go to"] == "echo/small"


def test_spend_is_told_by_team_model_class_and_day_and_what_is_not_known_beside_it(proxy: Running) -> None:
    teams = {row["Team"]: row for row in table(proxy, "/-/spend?csv=team&since=7d")}
    assert teams["search"]["Cost, USD"] == ""
    assert int(teams["search"]["Unpriced tokens"]) > 0
    assert float(teams["web"]["Cost, USD"]) > 1
    assert {row["Class"] for row in table(proxy, "/-/spend?csv=class")} == {"main", "subagent"}
    assert {row["Model"] for row in table(proxy, "/-/spend?csv=model")} >= {"openai/gpt-5", "corp/llama"}
    page = ask(proxy, "/-/spend?since=7d", signed_in(proxy, "key-of-ops")).text
    assert "attempts are a lower bound" in page
    assert page.count('class="bar"') == len(table(proxy, "/-/spend?csv=day&since=7d"))


def test_a_team_sees_its_own_part_and_nobody_s_name(proxy: Running) -> None:
    rows = table(proxy, "/-/requests?csv=requests", "key-of-web")
    assert rows
    assert {row["Team"] for row in rows} == {"web"}
    assert "User" not in rows[0]
    assert {row["Model"] for row in table(proxy, "/-/spend?csv=model", "key-of-search")} == {"corp/llama", ""}
    cookie = signed_in(proxy, "key-of-web")
    ids = re.findall(r'href="/-/requests/(\w+)"', ask(proxy, "/-/requests", cookie).text)
    mine = ask(proxy, f"/-/requests/{ids[0]}", cookie).text
    assert "@corp.example" not in mine
    assert "session-" not in mine
    of_search = re.findall(
        r'href="/-/requests/(\w+)"', ask(proxy, "/-/requests", signed_in(proxy, "key-of-search")).text
    )
    assert ask(proxy, f"/-/requests/{of_search[0]}", cookie).status == 404
    assert "By the rules of now" not in ask(
        proxy, f"/-/requests/{of_search[0]}", signed_in(proxy, "key-of-search")
    ).text  # fmt: skip


def test_requests_are_told_the_latest_first_page_by_page_and_each_in_full(proxy: Running) -> None:
    cookie = signed_in(proxy, "key-of-auditor")
    page = ask(proxy, "/-/requests", cookie).text
    ids = re.findall(r'href="/-/requests/(\w+)"', page)
    assert ids == [f"{number:032x}" for number in range(50)]
    (older,) = re.findall(r'href="(/-/requests\?until=\d+)"', page)
    following = re.findall(r'href="/-/requests/(\w+)"', ask(proxy, older, cookie).text)
    assert following[0] == f"{50:032x}"
    one = ask(proxy, f"/-/requests/{ids[9]}", cookie).text
    assert "Passed over" in one
    assert "cooling down for 3 s" in one
    assert "user-4@corp.example" in one
    assert "✓ default" in one or "✓ search" in one
    shadowed = ask(proxy, f"/-/requests/{ids[1]}", cookie).text
    assert "What shadow rules would have done" in shadowed
    for absent in ("0" * 31 + "g", "f" * 32, "..%2f", "req_" + "e" * 32):
        assert ask(proxy, f"/-/requests/{absent}", cookie).status == 404


def test_a_look_at_people_is_told_to_whoever_audits(tmp_path: Path) -> None:
    looks: list[str] = []

    class Audit(Observer):
        def admin_action(self, action: str, key_name: str | None, outcome: str) -> None:
            looks.append(f"{key_name} {action}")

    with served(tmp_path, [Audit()]) as proxy:
        ask(proxy, "/-/requests", x_api_key="key-of-auditor")
        ask(proxy, "/-/requests", x_api_key="key-of-web")
        ask(proxy, "/-/spend", x_api_key="key-of-auditor")
        assert until(lambda: looks == ["auditor view requests"])


def test_the_box_decides_and_translates_and_asks_nobody(proxy: Running) -> None:
    cookie = signed_in(proxy, "key-of-ops")
    body = '{"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}'
    page = ask(proxy, "/-/explain", cookie, form={"body": body, "team": "search", "headers": "x-kind: red"})
    assert page.status == 200
    assert "✓ search" in page.text
    assert "1. corp/llama" in page.text
    assert "sends model" in page.text
    assert "claude-haiku-4-5" in page.text  # what was asked stands there again
    shadow = ask(proxy, "/-/explain", cookie, form={"body": body, "team": "nobody’s key"}).text
    assert "shadow: tried would have taken it: echo/small" in shadow
    of_team = ask(proxy, "/-/explain", signed_in(proxy, "key-of-web"), form={"body": body, "team": "search"})
    assert "✓ search" not in of_team.text


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"body": "nonsense"}, "400: "),
        ({"body": "{}"}, "400: "),
        ({"body": '{"model": "m", "messages": []}', "team": "absent"}, "there is no `absent`"),
        ({"body": '{"model": "m", "messages": []}', "headers": "no colon"}, "is not NAME: VALUE"),
    ],
)
def test_what_can_t_be_explained_is_refused_in_words(
    proxy: Running, form: dict[str, str], words: str
) -> None:
    reply = ask(proxy, "/-/explain", signed_in(proxy, "key-of-ops"), form=form)
    assert reply.status == 200
    text = re.sub(r"</?code>", "`", reply.text)
    assert words in text
    assert "Refused" in text


def test_reloads_are_told_with_what_each_changed(tmp_path: Path) -> None:
    with running(RULES.format(folder=tmp_path), tmp_path, ENVIRON) as proxy:
        text = proxy.rules.read_text()
        proxy.rules.write_text(text.replace('"openai/gpt-5", "echo/*"', '"echo/*"'))
        assert proxy.post(b"", "/-/reload", x_api_key="key-of-ops").status_code == 200
        rows = table(proxy, "/-/reloads?csv=reloads")
        assert rows[0]["What it changed"].startswith("default: to echo/* instead of to openai/gpt-5, echo/*")
        assert rows[1]["What it changed"] == "the first that is known"
        proxy.rules.write_text("nonsense")
        proxy.post(b"", "/-/reload", x_api_key="key-of-ops")
        page = ask(proxy, "/-/reloads", x_api_key="key-of-ops").text
        assert "What is on disk was not taken" in page


def test_targets_are_told_with_their_health_and_keys_without_their_values(proxy: Running) -> None:
    targets = {row["Target"]: row for row in table(proxy, "/-/targets?csv=targets&since=7d")}
    assert targets["openai/gpt-5"]["State"] == "may be asked"
    assert int(targets["openai/gpt-5"]["Failures"]) > 0
    assert targets["corp/llama"]["Cost, USD"] == ""
    keys = {row["Provider"]: row for row in table(proxy, "/-/targets?csv=keys")}
    assert (keys["corp"]["State"], keys["corp"]["Where it stands"]) == ("not set", "env:CORP_KEY")
    page = ask(proxy, "/-/targets", signed_in(proxy, "key-of-ops")).text
    assert "sk-test" not in page


# --- how it is sent


def test_every_answer_of_the_page_forbids_all_that_it_does_not_need(proxy: Running) -> None:
    cookie = signed_in(proxy, "key-of-ops")
    for path in ("/-/sign-in", *(f"/-/{view}" for view in VIEWS), "/-/assets/page.js"):
        headers = ask(proxy, path, cookie).headers
        policy = headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not any("unsafe" in part or "http" in part for part in policy)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert ("no-store" in headers["cache-control"]) is ("assets" not in path)


def test_the_page_has_no_style_and_no_script_in_it_and_loads_its_own_files_by_their_hash(
    proxy: Running,
) -> None:
    page = ask(proxy, "/-/spend", signed_in(proxy, "key-of-ops")).text
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    assert re.findall(r"<script([^>]*)>(.*?)</script>", page) == [
        (page.partition("<script")[2].partition(">")[0], "")
    ]
    for address in re.findall(r'(?:href|src)="(/-/assets/[^"]+)"', page):
        asset = ask(proxy, address)
        assert asset.status == 200
        assert "immutable" in asset.headers["cache-control"]
    assert ask(proxy, "/-/assets/page.html").status == 404
    assert ask(proxy, "/-/assets/handlers.py").status == 404


def test_csv_is_no_place_for_formulas() -> None:
    columns = (Column("Name"), Column("Count", "number"))
    rows = ((Cell("=1+1"), Cell("-5", value="-5")), (Cell("@x", note="why"), Cell("1")))
    table = Table(name="t", title="T", columns=columns, rows=rows, empty="")
    assert as_csv(table).decode().splitlines() == ["Name,Count", "'=1+1,-5", "'@x (why),1"]


def test_there_is_no_table_of_another_name(proxy: Running) -> None:
    assert ask(proxy, "/-/spend?csv=nothing", x_api_key="key-of-ops").status == 404


def test_an_until_that_is_no_time_is_refused_in_words(proxy: Running) -> None:
    for until_ in ("x", "9" * 40, "-" + "9" * 30):
        assert ask(proxy, f"/-/requests?until={until_}", x_api_key="key-of-ops").status == 400


def test_a_cookie_of_one_worker_counts_at_the_other_and_not_after_a_restart(tmp_path: Path) -> None:
    rules = RULES.format(folder=tmp_path).replace("[server]\n", "[server]\nport = 0\n")
    (tmp_path / "rules.toml").write_text(rules)
    cookie = ""
    for start in range(2):
        with serving(tmp_path, "--rules", "rules.toml", "--workers", "2", environ=ENVIRON) as server:
            if start == 1:
                assert ask(server, "/-/rules", cookie).status == 303
            cookie = signed_in(server, "key-of-ops")
            workers = set()
            for _ in range(200):
                assert ask(server, "/-/rules", cookie).status == 200
                workers.add(server.get("/-/status", x_api_key="key-of-ops").json()["process"])
                if len(workers) == 2:
                    break
            assert len(workers) == 2
