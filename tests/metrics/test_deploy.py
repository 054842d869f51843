"""The dashboard and the alert rules in `deploy/` speak of metrics that are there."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from routeproxy.metrics.families import FAMILIES

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD, ALERTS = DEPLOY / "grafana-dashboard.json", DEPLOY / "alerts.yaml"


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return read


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


EXPRESSIONS = [
    *((panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel["targets"]),
    *((rule["alert"], rule["expr"]) for rule in alerts()),
]


def family_of(name: str) -> str:
    return name if name in FAMILIES else re.sub(r"_(bucket|sum|count)$", "", name)


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_name_and_every_label_is_there(title: str, expression: str) -> None:
    names = {family_of(name) for name in re.findall(r"routeproxy_\w+", expression)}
    assert names
    assert names <= FAMILIES.keys()
    known = {label for name in names for label in FAMILIES[name].labels} | {"le", "instance"}
    used = {
        label for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in group.split(", ")
    }
    used |= set(re.findall(r"[{,]\s*(\w+)\s*[=!]", expression))
    assert used <= known


def test_every_family_is_on_the_dashboard() -> None:
    shown = {family_of(name) for _, text in EXPRESSIONS for name in re.findall(r"routeproxy_\w+", text)}
    assert shown == {*FAMILIES}


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_prometheus_takes_the_alert_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_prometheus_takes_the_dashboards_expressions(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus has it)")
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(EXPRESSIONS)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
