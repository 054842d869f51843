"""The parameters that rules change: which of them there are, what each may be, and how several tables come to
one."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.request import KNOWN_FIELDS, decode_request
from routeproxy.policy.file.report import Report
from routeproxy.policy.file.tables import ParamsTable
from routeproxy.policy.problems import Code, KeyPath
from routeproxy.policy.targets import Params

_NEVER_CHANGED = frozenset({"model", "messages", "system", "tools", "stream", "fallbacks"})
PARAMS = KNOWN_FIELDS - _NEVER_CHANGED
"""The parameters of the Messages API that a rule may change."""
CAPPED = frozenset({"max_tokens", "temperature", "top_p", "top_k"})
"""Those that may be capped."""
_LIMITS: Mapping[str, tuple[int, int | None]] = {
    "max_tokens": (1, None),
    "temperature": (0, 1),
    "top_p": (0, 1),
    "top_k": (0, None),
}
"""The least and the most that the Messages API takes, whatever the back end."""


def check_params(table: ParamsTable | None, path: KeyPath, report: Report) -> None:
    """Reports parameters that no rule may change, and values that the API would refuse."""
    if table is None:
        return
    for section in ("default", "set", "cap", "drop", "extra_body"):
        names = getattr(table, section) or ()
        for index, name in enumerate(names):
            here = (*path, section, index if section == "drop" else name)
            _check_name(section, name, here, report)
            if isinstance(names, dict) and section != "extra_body" and not report.faulty(here):
                _check_value(section, name, names[name], here, report)


def _check_name(section: str, name: str, path: KeyPath, report: Report) -> None:
    key = section != "drop"
    if name in _NEVER_CHANGED:
        report.error(Code.FORBIDDEN, path, f"`{name}` is not a rule's to change", key=key)
    elif section == "cap" and name not in CAPPED:
        report.unknown(Code.UNKNOWN_KEY, path, f"`{name}` can't be capped", name, CAPPED, key=key)
    elif section != "extra_body" and name not in PARAMS:
        hint = "what only the back end knows stands under `extra_body`"
        message = f"Messages have no parameter `{name}`"
        report.unknown(Code.UNKNOWN_KEY, path, message, name, PARAMS, key=key, hint=hint)


def _check_value(section: str, name: str, value: Any, path: KeyPath, report: Report) -> None:
    """A value that the API refuses would make every request fail."""
    body = msgspec.json.encode({"model": "m", "messages": [], name: value})
    try:
        decode_request(body)
    except InvalidRequest as refused:
        report.error(Code.WRONG_VALUE, path, refused.message)
        return
    least, most = _LIMITS.get(name, (None, None))
    if least is not None and value < least:
        report.error(Code.WRONG_VALUE, path, f"`{name}` is at least {least}")
    elif most is not None and value > most and section != "cap":
        report.error(Code.WRONG_VALUE, path, f"`{name}` is at most {most}")


def merge_params(tables: Iterable[ParamsTable | None]) -> Params:
    """Later tables win key by key; of several caps the lowest counts."""
    merged = Params(default={}, set={}, cap={}, extra_body={})
    for table in tables:
        if table is None:
            continue
        cap = dict(merged.cap)
        for name, value in (table.cap or {}).items():
            cap[name] = min(value, cap.get(name, value))
        merged = Params(
            default={**merged.default, **(table.default or {})},
            set={**merged.set, **(table.set or {})},
            cap=cap,
            drop=merged.drop.union(table.drop or ()),
            extra_body=_deep_merged(merged.extra_body, table.extra_body or {}),
        )
    return merged


def _deep_merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = (
            _deep_merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
        )
    return merged
