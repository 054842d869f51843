"""How back ends say in words what they have no code for. Each pattern is a sentence, or the beginning of one,
that a known server writes: a word alone decides nothing, since an error may quote the client's own text."""

# ruff: noqa: E501 - the words of back ends stand on one line each

import re
from collections.abc import Iterable, Mapping

from routeproxy.chat.error_codes import Meaning

_QUOTED = re.compile(r"(?<!\w)([\"'`])(.*?)(?<!\\)\1(?!\w)|(?<!\w)\"[^\"]*\Z|“.*?”|«.*?»", re.DOTALL)
_IN_BRACES = re.compile(r"\{.*\}|\{[^}]*\Z", re.DOTALL)
_ECHO = re.compile(r"(?is)\b(?:input_value=|at pos \d+:|received: |failed_generation).*")


_RUNS = re.compile(r"([\s.!?;:)\]>-])\1{3,}")
"""A sentence may begin behind each of these, and a thousand of them are a thousand beginnings to try."""


def without_quotations(message: str) -> str:
    """A back end's words without what it quotes: names in quotes stay, texts do not."""
    message = _RUNS.sub(r"\1\1\1", _ECHO.sub("…", message))
    message = _QUOTED.sub(
        lambda match: "…" if match[2] is None or re.search(r"\s", match[2]) else match[0], message
    )
    return _IN_BRACES.sub("…", message)


def sentence(*patterns: str) -> re.Pattern[str]:
    """Any of them, where a sentence begins."""
    return re.compile(rf"(?:\A|[.!?;:)\]>\n]\s*|\s- )(?:{'|'.join(patterns)})", re.IGNORECASE)


# As of 2026, from the servers' own sources and from reports of their users.
MEANING_OF_WORDS: Mapping[Meaning, re.Pattern[str]] = {
    "quota": sentence(
        r"you (?:have )?exceeded your (?:current|monthly|current token) (?:quota|included credits|usage limit)",
        r"(?:your )?(?:credit|account) balance is (?:too low|insufficient|not enough)",
        r"(?:exceededbudget|budget has been exceeded|budget exceeded)",
        r"insufficient (?:account )?(?:balance|credits?|quota|funds)\b",
        r"(?:your )?(?:account|team|organization|user) .{0,60}(?:has (?:run out|used all)|is out) of .{0,20}(?:credits|funds)",
        r"this request requires more credits",  # OpenRouter
        r"key limit exceeded",  # OpenRouter, with 403
        r"(?:this )?(?:account|organization) (?:is|has been) (?:suspended|disabled).{0,60}(?:billing|payment|balance)",
        r"your account .{0,80}suspended due to insufficient balance",  # Moonshot
        r"access denied, please make sure your account is in good standing",  # Alibaba
        r"(?:the )?free (?:tier|quota|allocated quota) .{0,60}(?:exhausted|used up|exceeded)",
        r"(?:you have )?no (?:more )?credits (?:left|remaining)",
    ),
    "content_policy": sentence(
        r"content exists risk",  # DeepSeek
        r"content violates usage guidelines",  # xAI, with 403
        r"(?:the )?(?:input|output|request|prompt)(?: data| text| content)? (?:may contain|contains) "
        r"(?:inappropriate|sensitive|unsafe) (?:content|information|words)",  # Alibaba, MiniMax, Zhipu
        r"(?:your|the) (?:input|prompt|request|message)s? (?:was|were|has been|have been) "
        r"(?:flagged|blocked|rejected)\b.{0,80}\b(?:moderation|safety|policy|policies|guidelines|as|for|by)\b",
        r"your input was flagged",
        r"\S+ requires moderation on .{0,40}your input was flagged",  # OpenRouter, with 403
        r"(?:your |the )?request was rejected (?:as a result of our safety system|because it was considered high risk)",
        r"(?:the )?(?:response|request|output|prompt) was (?:filtered|blocked) "
        r"(?:due to|by|because of) .{0,60}(?:content|safety|guardrail)",  # Azure, Bedrock
        r"output blocked by content filtering policy",  # Anthropic
        r"(?:your )?(?:prompt|request|input) .{0,40}potentially violating our usage policy",  # OpenAI
        r"invalid prompt: your prompt was flagged as potentially violating",
        r"(?:this|your) (?:content|request|prompt) .{0,40}(?:violates|violate|violating) (?:our|openai's|the) "
        r"(?:usage|content|safety|terms)",
        r"this (?:content|request) was flagged for possible .{0,40} risk",  # OpenAI
        r"(?:the )?(?:prompt|content) (?:is|was) blocked (?:due to|by|because of)",
        r"系统检测到输入或生成内容可能包含不安全或敏感内容",  # Zhipu
    ),
    "region": sentence(
        r"country, region, or territory not supported",  # OpenAI, with 403
        r"user location is not supported",  # Gemini, with 400
        r"(?:access to )?.{0,60}(?:not allowed|not available|unavailable|not supported|unsupported|blocked) "
        r"(?:in|from) (?:your|this|unsupported) (?:countr(?:y|ies)|regions?|locations?|territor)",
        r".{0,60}\b(?:model|service|api|tier) is not available in your (?:country|region|location)",
        r"(?:this|the) (?:model|feature|endpoint|service) .{0,60}(?:is only|only) available (?:to|for|on|with) .{0,60}"
        r"(?:plan|tier|subscription|subscribers?|users|customers|account)",
        r".{0,80}(?:not available|not included|not supported|not enabled) (?:on|in|with|for) (?:your|the|this) "
        r"(?:current |free |\w+ )?(?:plan|tier|subscription)",
        r"(?:your|the) (?:current |\w+ )?(?:plan|tier|subscription) (?:does not|doesn't) (?:include|support|allow|have)",
        r".{0,80}requires? (?:a |an )?(?:higher |paid |\w+ )?(?:plan|tier|subscription)\b",
        r"(?:please )?upgrade (?:your|to a) .{0,30}(?:plan|subscription|account)",
        r"you don't have access to the model with the specified model id",  # Bedrock
        r"kimi for coding is currently only available for",
        r"your organization must be verified to use",  # OpenAI
        r"(?:your |the )?(?:project|organization|account|team|api key)(?: \S{1,80})? (?:does not|doesn't) have access to (?:the )?model",
        r"gemini api free tier is not available in your country",
        r"request not allowed\Z",  # Anthropic, by address
    ),
    "overloaded": sentence(
        r"(?:the |this |our |that )?(?:model|engine|server|service|backend|system)s?(?: \S{1,80})? "
        r"(?:is|are|may be|was) (?:currently |temporarily )*(?:overloaded|at capacity|over capacity|busy)",
        r"(?:the )?(?:model|server|engine) (?:is )?(?:currently )?overloaded",
        r"overloaded\b",
        r"(?:server|model|engine) busy\b",  # Ollama
        r"no healthy (?:deployments|upstream)",
        r"no deployments available",  # LiteLLM's gateway
        r"(?:the )?model (?:\S+ )?is (?:currently |still )?loading",  # Hugging Face
        r"loading model",  # llama.cpp
        r"(?:no|not enough) (?:available )?(?:capacity|workers|instances) .{0,40}available",
    ),
    "auth": sentence(
        r"(?:your )?api key (?:not valid|not found|expired|is invalid|is not valid|is expired|has expired|was revoked)",
        r"(?:incorrect|invalid|missing|wrong) (?:x-)?api[- ]key",
        r"no api[- ]key (?:provided|passed in)",
        r"authentication (?:error|failed)\b",
        r"api_key invalid",
    ),
    "server_error": sentence(
        r"function id \S+ degraded function cannot be invoked",  # NVIDIA, with 400
        r"failed to call a function\. please adjust your prompt",  # Groq, with 400
        r"parsing failed\. the model generated output that could not be parsed",
    ),
}
"""In the order in which they are looked for."""

_NO_SUCH = (
    r"(?:was |is |has |could |does |doesn't )?(?:not (?:be )?found|not exist|exist\Z|not (?:a valid|available|supported|loaded|served)|"
    r"been (?:deprecated|retired|decommissioned|removed)|deprecated)"
)
NO_MODEL = sentence(
    rf"(?:the )?(?:requested )?model(?: name| id)?:? ?[`'\"]*[\w./:@-]*[`'\"]*,? {_NO_SUCH}",
    r"(?:no such|unknown|invalid) model\b",
    r"models/\S+ is not (?:found|supported)",  # Gemini
    r"not found the model\b",  # Moonshot
    r"publisher model\b.{0,200}not found",  # Vertex
    r"(?:the )?(?:api )?deployment\b.{0,120}(?:does not|not) (?:exist|found)",  # Azure
    r"no endpoints found for (?!.*\b(?:policy|support|restrict|privacy))",  # OpenRouter
    r"\S+ is not a valid model id",  # OpenRouter
)
"""There is no such model there."""


def meaning_of_words(message: str, among: Iterable[Meaning]) -> Meaning | None:
    """`message`: without its quotations."""
    return next((meaning for meaning in among if MEANING_OF_WORDS[meaning].search(message)), None)


# --- words of programs, which are not for a client

_INSIDES = re.compile(
    r"(?:server disconnected|connection error\b|connection (?:reset|aborted|refused|closed|broken)|connect call failed|"
    r"cannot connect to host|all connection attempts failed|connection attempts failed|"
    r"peer closed connection|incomplete (?:chunked )?read|remote end closed|remoteprotocolerror|"
    r"name or service not known|temporary failure in name resolution|nodename nor servname|no address associated|"
    r"getaddrinfo|\[errno -?\d+\]|\[ssl\b|\[ssl:|certificate verify failed|ssl handshake|tlsv1|"
    r"event loop is closed|max retries exceeded with url|httpconnectionpool|httpsconnectionpool|"
    r"'\w+' object (?:has no attribute|is not|does not support|cannot)|object has no attribute|"
    r"list index out of range|string index out of range|expecting value: line \d+|extra data: line \d+|"
    r"unterminated string starting at|(?:string|list|tuple) indices must be|unhashable type|"
    r"unsupported operand type|(?:\w+\.)*\w+\(\) (?:got an unexpected|missing \d+|takes \d+)|"
    r"dictionary changed size|maximum recursion depth|cannot unpack|too many values to unpack|not enough values to unpack|"
    r"no module named|cannot import name|can't (?:compare|convert|multiply)|invalid literal for int|"
    r"codec can't (?:decode|encode)|response payload is not completed|transferencodingerror|contentlengtherror|"
    r"enginedeaderror|enginecore encountered an issue|<\w+ object at 0x|object at 0x[0-9a-f]+|"
    r"attempted to (?:read|access|call)|the read operation timed out|timed out\Z|unclosed (?:connection|client session))",
    re.IGNORECASE,
)


_KEY_ERROR = re.compile(r"'\w+'")


def are_a_programs(message: str) -> bool:
    """Whether the words are an exception's of the program there: what broke in it is for its operator."""
    return _INSIDES.match(message.lstrip('(" ')) is not None or _KEY_ERROR.fullmatch(message) is not None
