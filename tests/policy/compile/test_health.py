"""What a rules file may say of health, retries and times, and what that comes to."""

from pathlib import Path

import pytest

from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.policy.health import HealthSettings
from routeproxy.policy.problems import RulesRefused

RULES = """
{server}
[providers.corp]
type = "openai_compatible"
base_url = "http://127.0.0.1:1/v1"
api_key = "none"
{provider}

[default]
targets = {targets}
{rule}
"""


def compiled(server: str = "", provider: str = "", rule: str = "", targets: str = '"corp/m"') -> Policy:
    text = RULES.format(
        server=f"[server]\n{server}" if server else "", provider=provider, rule=rule, targets=targets
    )
    return compile_rules(text, path=Path("rules.toml"), environ={})


@pytest.mark.parametrize(
    ("server", "provider", "health"),
    [
        pytest.param("", "", HealthSettings(), id="nothing said"),
        pytest.param("health = false", "", None, id="off for all"),
        pytest.param("", "health = false", None, id="off for one"),
        pytest.param("health = false", "health = true", HealthSettings(), id="on for one"),
        pytest.param(
            'health = { failures = 3, cooldown = "5s" }',
            'health = { cooldown = "1m", ratio = 1.0 }',
            HealthSettings(failures=3, cooldown=60.0, ratio=1.0),
            id="key by key",
        ),
    ],
)
def test_a_providers_health_is_its_own_key_by_key_and_else_the_servers(
    server: str, provider: str, health: HealthSettings | None
) -> None:
    assert compiled(server, provider).providers["corp"].health == health


def test_times_of_a_target_go_before_those_of_its_rule_and_its_provider() -> None:
    policy = compiled(
        provider='timeouts = { connect = "1s", first_token = "1s", idle = "1s" }',
        rule='timeouts = { first_token = "2s", idle = "2s" }',
        targets='["corp/a", { target = "corp/a", timeouts = { idle = "3s" } }]',
    )
    first, second = (target.timeouts for target in policy.default.targets)
    assert (first.connect, first.first_token, first.idle) == (1, 2, 2)
    assert (second.connect, second.first_token, second.idle) == (1, 2, 3)


def test_a_target_with_times_of_its_own_leaves_others_alone() -> None:
    policy = compiled(targets='["corp/a", { target = "corp/a", timeouts = { idle = "3s" } }, "corp/a"]')
    assert [target.timeouts.idle for target in policy.default.targets] == [300, 3, 300]


REFUSED = [
    ('health = { cooldown = "10m" }', "", "", "`cooldown` (600 s) is longer than `max_cooldown` is"),
    ("", 'health = { window = "0s" }', "", "`window` of no time at all means nothing"),
    ("", "health = { cooldown = 5 }", "", 'write "5s" for seconds'),
    ("", "health = { failures = 0 }", "", "failures"),
    ("", "health = { ratio = 1.5 }", "", "`ratio` is a share of the attempts: 1.5 is none"),
    ("health = { ratio = 0 }", "", "", "`ratio` is a share of the attempts: 0 is none"),
    ("", "health = { ratio = nan }", "", "`ratio` can't be the number nan"),
    ("", "health = { after = 3 }", "", "`after`"),
    (
        "",
        "",
        'retry = { attempts = 2, on = ["auth"] }',
        "`auth`: the same request would meet",
    ),
    ("", "", 'retry = { attempts = 2, on = ["sever_error"] }', "did you mean `server_error`?"),
    ("", "", 'hold = "part"', "hold"),
]


@pytest.mark.parametrize(("server", "provider", "rule", "words"), REFUSED)
def test_what_means_nothing_is_refused(server: str, provider: str, rule: str, words: str) -> None:
    with pytest.raises(RulesRefused) as refused:
        compiled(server, provider, rule)
    assert words in str(refused.value)
