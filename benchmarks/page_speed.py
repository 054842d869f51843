"""How long the views of the page at `/-/` take with a year of rows behind them.

    python benchmarks/usage_speed.py --keep FOLDER
    python benchmarks/page_speed.py FOLDER/usage.db [--rounds 5]

Serves the ledger that the first script has made, and asks for each view over its shortest and its longest
period. Wall-clock time of a whole answer, at a server that does nothing else.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import httpx

RULES = """
[server]
port = {port}
admin_keys = ["env:OPERATOR_KEY"]
[ledger]
path = "{ledger}"
users = "plain"
[providers.echo]
[default]
targets = "echo/*"
"""
KEY = "key-of-the-operator"
PORT = 8193
VIEWS = (
    *("rules?since=7d", "rules?since=52w", "targets?since=7d", "targets?since=52w"),
    *("spend?since=7d", "spend?since=30d", "spend?since=52w", "requests", "explain", "reloads"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.toml"
        rules.write_text(RULES.format(port=PORT, ledger=arguments.ledger.resolve()))
        server = subprocess.Popen(
            [sys.executable, "-m", "routeproxy", "serve", "--rules", str(rules)],
            env={**os.environ, "OPERATOR_KEY": KEY, "LOG_LEVEL": "ERROR"},
        )
        try:
            measure(arguments.rounds)
        finally:
            server.terminate()
            server.wait(20)


def measure(rounds: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", headers={"x-api-key": KEY}, timeout=60) as client:
        wait_until_ready(client)
        print("| view | ms |\n|---|---|")
        for view in VIEWS:
            times = [took(client, view) for _ in range(rounds)]
            low, middle, high = min(times), statistics.median(times), max(times)
            print(f"| {view} | {low:.0f} – **{middle:.0f}** – {high:.0f} |", flush=True)


def took(client: httpx.Client, view: str) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    client.get(f"/-/{view}").raise_for_status()
    return (time.perf_counter() - started) * 1000


def wait_until_ready(client: httpx.Client) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
