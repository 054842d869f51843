"""`[providers.NAME]` as all importers write it: whose address it is, and what its key is called."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from msgspec import Struct

from routeproxy.migrate.source import Node
from routeproxy.migrate.toml import quoted, section
from routeproxy.policy.provider_types import TYPES, provider_type

Table = dict[str, Any]

PUBLIC: Mapping[str, str] = {
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
"""The types that a line alone leads to the same place. Whole addresses: at `api.z.ai` another path is another
contract, and `dashscope-intl` is another country."""

NOWHERE = "https://write-the-address.invalid"
"""Stands where an address is needed and was not given: that name never leads anywhere."""

ENDINGS = ("/chat/completions", "/v1/messages", "/responses")
"""What our back ends append by themselves."""

ZONE_HINT = '# zone = "private"                     # local, private or public; left out, it counts as public'
ZONE_UNSEEN = "# It counts as public because nobody can see from here where the variable leads."

KEYLESS: Mapping[str, str] = {
    "ollama": 'Ollama needs no key; if yours does, write `api_key = "env:NAME"`',
    "vertex_ai": "Vertex signs in with application-default credentials",
}

UNSAYABLE = frozenset({"model", "messages", "system", "tools", "stream"})
"""What no rule may change in a body."""

_KEY_ORDER = ("type", "base_url", "api_version", "deployment", "api_key", "zone")


class Address(Struct, frozen=True):
    url: str
    doubt: str = ""
    """What had to be taken off, and what to do about it."""
    version: str = ""
    """Azure's."""

    @property
    def type(self) -> str:
        azure = self.host.endswith(".openai.azure.com") and "/openai/v1" not in self.url
        return "azure" if azure else PUBLIC.get(self.url, "openai_compatible")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def of(self, type: str) -> Table:
        """What a provider of that type has to say: nothing, at the type's own address.

        Only what surely is this machine gets a zone. For the rest it is a promise that its operator has to
        make; until then it counts as public, which is the cautious reading.
        """
        if PUBLIC.get(self.url) == type:
            return {}
        base_url, _, deployment = self.url.partition("/openai/deployments/")
        if type == "gemini":
            base_url = base_url.removesuffix("/models")
        said = {"base_url": base_url, "api_version": self.version, "deployment": deployment}
        zone = {"zone": "local"} if _is_loopback(self.host) else {}
        return {key: value for key, value in said.items() if value} | zone


def address(written: str) -> Address:
    """An address in the forms that people write, endpoint included. `doubt` does not repeat it: it may hold a
    password."""
    url = _split(written.strip())
    if url is None:
        return Address(NOWHERE, "this is not an address; write `base_url` by hand")
    doubts = ["a password is left out: it belongs into `api_key`"] if "@" in url.netloc else []
    version = "".join(parse_qs(url.query).get("api-version", []))
    if url.query and not version:
        doubts.append("what follows the `?` is left out: a base_url can't have it")
    netloc, path = url.netloc.rpartition("@")[2], url.path.rstrip("/")
    for ending in ENDINGS:
        path = path.removesuffix(ending)
    return Address(f"{url.scheme}://{netloc}{path.rstrip('/')}", "; ".join(doubts), version)


def _split(written: str) -> SplitResult | None:
    try:
        url = urlsplit(written)
        return url if url.scheme in {"http", "https"} and url.hostname and url.port != 0 else None
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Variables:
    """Names for the keys that stood in the file itself. Two different keys never get the same one."""

    def __init__(self, in_use: Iterable[str]) -> None:
        self._keys: dict[str, str | None] = dict.fromkeys(in_use)

    def name(self, wanted: str, key: str) -> str:
        wanted = re.sub(r"[^A-Z0-9]+", "_", wanted.upper()).strip("_")
        wanted = f"_{wanted}" if wanted[0].isdigit() else wanted  # shells want a letter
        name, number = wanted, 1
        while self._keys.setdefault(name, key) != key:
            number += 1
            name = f"{wanted}_{number}"
        return name


def usual_key(type: str) -> str | None:
    """The variable in which a provider of this type looks for its key when nothing is said."""
    kind = provider_type(type)
    return kind.key_variables[0] if kind and kind.key_variables else None


def is_model(name: str) -> bool:
    """Whether a target can name it."""
    return bool(name) and name.isprintable() and not set(name) & set(" *")


def sendable(node: Node) -> bool:
    """Whether a rule may put this field into a body. Says why if not."""
    if node.name in UNSAYABLE:
        node.leave("no rule may change this field")
        return False
    return node.is_sayable()


def sampling_of(node: Node) -> Table:
    """`temperature`, `top_p` and `top_k`, as far as the Messages API has them."""
    said = {
        "temperature": node.at("temperature").number(0, 1),
        "top_p": node.at("top_p").number(0, 1),
        "top_k": node.at("top_k").whole(0),
    }
    return {name: value for name, value in said.items() if value is not None}


def provider_section(name: str, table: Table) -> str:
    type = table["type"]
    said = {key: table[key] for key in sorted(table, key=_place) if not (key == "type" and type == name)}
    note = "" if "api_key" in table else usual_key(type) or ""
    return section(f"[providers.{quoted(name)}]", said, note=note, below=_below(table))


def _place(key: str) -> int:
    return _KEY_ORDER.index(key) if key in _KEY_ORDER else len(_KEY_ORDER)


def _below(table: Table) -> str:
    base_url = table.get("base_url", "")
    if base_url.startswith("env:"):
        return ZONE_UNSEEN
    return ZONE_HINT if base_url and "zone" not in table else ""
