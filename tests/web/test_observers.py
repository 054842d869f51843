"""What an observer hears of a request, of its attempts, of reloads and of admins, in order; and that one that
fails costs nobody an answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from routeproxy.exchange import AttemptRecord, Exchange
from routeproxy.messages.errors import ApiError
from routeproxy.observe import Observer, Observers
from routeproxy.policy.compile.compiler import compile_rules
from routeproxy.policy.decide import Policy
from routeproxy.proxy import Proxy
from routeproxy.upstream.registry import Registry
from routeproxy.web.app import build_app
