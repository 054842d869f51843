"""The one Hypothesis profile. Nothing here is timed: machines are busy, and CI's most of all."""

import signal

from hypothesis import HealthCheck, settings

from tests.budgets import LAWS

settings.register_profile(
    "routeproxy",
    deadline=None,
    database=None,
    max_examples=max(1, round(100 * LAWS)),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
settings.load_profile("routeproxy")

# A run under `nohup` ignores it, and so would every server that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
