"""`[providers.NAME]` as all importers write it: the type behind an address, and the variable of a key."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from msgspec import Struct

from routeproxy.migrate.source import Node
from routeproxy.migrate.toml import quoted, section
from routeproxy.policy.compile.connections import is_below_localhost, is_loopback
from routeproxy.policy.provider_types import TYPES, provider_type

Table = dict[str, Any]

TYPE_OF_ADDRESS: Mapping[str, str] = {
    **{kind.base_url: name for name, kind in TYPES.items() if kind.base_url},
    "http://localhost:11434/v1": "ollama",
    "https://ai-gateway.vercel.sh/v1": "vercel_ai_gateway",
    "https://api-inference.modelscope.cn/v1": "modelscope",
    "https://api.cerebras.ai/v1": "cerebras",
    "https://api.deepinfra.com/v1/openai": "deepinfra",
    "https://api.deepseek.com": "deepseek",
    "https://api.deepseek.com/beta": "deepseek",
    "https://api.deepseek.com/v1": "deepseek",
    "https://api.fireworks.ai/inference/v1": "fireworks_ai",
    "https://api.groq.com/openai/v1": "groq",
    "https://api.hyperbolic.xyz/v1": "hyperbolic",
    "https://api.minimax.io/v1": "minimax",
    "https://api.mistral.ai/v1": "mistral",
    "https://api.moonshot.ai/v1": "moonshot",
    "https://api.novita.ai/v3/openai": "novita",
    "https://api.perplexity.ai": "perplexity",
    "https://api.sambanova.ai/v1": "sambanova",
    "https://api.together.ai/v1": "together_ai",
    "https://api.x.ai/v1": "xai",
    "https://api.z.ai/api/paas/v4": "zai",
    "https://ark.cn-beijing.volces.com/api/v3": "volcengine",
    "https://dashscope.aliyuncs.com/compatible-mode/v1": "dashscope",
    "https://generativelanguage.googleapis.com/v1beta/models": "gemini",
    "https://generativelanguage.googleapis.com/v1beta/openai": "gemini",
}
"""The type whose own address it is, so that the provider need not state it. Whole addresses: at `api.z.ai`
another path is another contract, and `dashscope-intl` is another country."""

PLACEHOLDER_ADDRESS = "https://write-the-address.invalid"
"""Stands where an address is needed and none was given. This name never leads anywhere."""

ENDINGS = ("/chat/completions", "/v1/messages", "/responses")
"""Paths that our back ends append by themselves."""

ZONE_HINT = '# zone = "private"                     # local, private or public; left out, it counts as public'
ZONE_UNSEEN = "# It counts as public because nobody can see from here where the variable leads."

KEYLESS: Mapping[str, str] = {
    "ollama": 'Ollama needs no key; if yours does, write `api_key = "env:NAME"`',
    "vertex_ai": "Vertex signs in with application-default credentials",
}

FIXED_FIELDS = frozenset({"model", "messages", "system", "tools", "stream"})
"""The fields of a body that no rule may change."""

_KEY_ORDER = ("type", "base_url", "api_version", "deployment", "api_key", "zone")


class Address(Struct, frozen=True):
    """The address of a provider, without the endpoint."""

    url: str
    doubt: str = ""
    """What had to be left out, and what to do about it."""
    version: str = ""
    """Azure's API version."""

    @property
    def type(self) -> str:
        azure = self.host.endswith(".openai.azure.com") and "/openai/v1" not in self.url
        return "azure" if azure else TYPE_OF_ADDRESS.get(self.url, "openai_compatible")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def fields(self, type: str) -> Table:
        """The fields for it in a provider of that type: none, at the type's own address.

        Only an address that surely is this machine gets a zone. For any other the zone is a promise that its
        operator has to make; until then it counts as public, which is the cautious reading.
        """
        if TYPE_OF_ADDRESS.get(self.url) == type:
            return {}
        base_url, _, deployment = self.url.partition("/openai/deployments/")
        if type == "gemini":
            base_url = base_url.removesuffix("/models")
        fields = {"base_url": base_url, "api_version": self.version, "deployment": deployment}
        zone = {"zone": "local"} if is_loopback(self.host) or is_below_localhost(self.host) else {}
        return {key: value for key, value in fields.items() if value} | zone


def parse_address(text: str) -> Address:
    """Reads an address in any form that people write, with or without the endpoint. `doubt` does not repeat
    the text: it may hold a password."""
    url = _split(text.strip())
    if url is None:
        return Address(PLACEHOLDER_ADDRESS, "this is not an address; write `base_url` by hand")
    doubts = ["a password is left out: it belongs into `api_key`"] if "@" in url.netloc else []
    version = "".join(parse_qs(url.query).get("api-version", []))
    if url.query and not version:
        doubts.append("what follows the `?` is left out: a base_url can't have it")
    netloc, path = url.netloc.rpartition("@")[2], url.path.rstrip("/")
    for ending in ENDINGS:
        path = path.removesuffix(ending)
    return Address(f"{url.scheme}://{netloc}{path.rstrip('/')}", "; ".join(doubts), version)


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        return url if url.scheme in {"http", "https"} and url.hostname and url.port != 0 else None
    except ValueError:
        return None


class KeyVariables:
    """Names variables for keys that stand in the file itself. Different keys never get the same variable."""

    def __init__(self, in_use: Iterable[str]) -> None:
        self._keys: dict[str, str | None] = dict.fromkeys(in_use)
        """By variable; `None` for a key that does not stand in the file."""

    def name(self, suggestion: str, key: str) -> str:
        """A variable for `key`, called as suggested if no other key has that name."""
        base = re.sub(r"[^A-Z0-9]+", "_", suggestion.upper()).strip("_")
        base = f"_{base}" if base[0].isdigit() else base  # shells want a letter
        name, number = base, 1
        while self._keys.setdefault(name, key) != key:
            number += 1
            name = f"{base}_{number}"
        return name


def usual_key_variable(type: str) -> str | None:
    """The variable in which a provider of this type looks for its key when it has no `api_key`."""
    kind = provider_type(type)
    return kind.key_variables[0] if kind and kind.key_variables else None


def is_model_name(name: str) -> bool:
    """Whether a target can have this name of a model."""
    return bool(name) and name.isprintable() and not set(name) & set(" *")


def is_sendable(node: Node) -> bool:
    """Whether a rule may put this field into a body. Leaves the node, with a reason, if not."""
    if node.name in FIXED_FIELDS:
        node.leave("no rule may change this field")
        return False
    return node.is_expressible()


def sampling_params(node: Node) -> Table:
    """`temperature`, `top_p` and `top_k`, as far as the Messages API has them."""
    params = {
        "temperature": node.at("temperature").number(0, 1),
        "top_p": node.at("top_p").number(0, 1),
        "top_k": node.at("top_k").integer(0),
    }
    return {name: value for name, value in params.items() if value is not None}


def provider_section(name: str, table: Table) -> str:
    type = table["type"]
    fields = {key: table[key] for key in sorted(table, key=_rank) if not (key == "type" and type == name)}
    note = "" if "api_key" in table else usual_key_variable(type) or ""
    return section(f"[providers.{quoted(name)}]", fields, note=note, below=_zone_comment(table))


def _rank(key: str) -> int:
    return _KEY_ORDER.index(key) if key in _KEY_ORDER else len(_KEY_ORDER)


def _zone_comment(table: Table) -> str:
    base_url = table.get("base_url", "")
    if base_url.startswith("env:"):
        return ZONE_UNSEEN
    return ZONE_HINT if base_url and "zone" not in table else ""
