"""How long tests wait and how many cases they try: one factor for each, so that a busy machine is no failure
and a thorough run is one variable away.

`PATIENCE=3 pytest` waits three times as long for what must come. `LAWS=100 pytest tests/policy` tries a
hundred times as many cases of each law; with `CI` set it is a half of them.
"""

import os

from hypothesis import settings

CI = bool(os.environ.get("CI"))

PATIENCE = float(os.environ.get("PATIENCE", "3" if CI else "1"))
LAWS = float(os.environ.get("LAWS", "0.5" if CI else "1"))


def seconds(usual: float) -> float:
    """How long to wait for what takes less than `usual` seconds on an idle machine."""
    return usual * PATIENCE


def examples(usual: int) -> settings:
    """A law that is tried with another number of cases than the 100 of the profile."""
    return settings(max_examples=max(1, round(usual * LAWS)))
