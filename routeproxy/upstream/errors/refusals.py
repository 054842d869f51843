"""Requests that a target cannot serve as they are, told by its words, and what of the request it refuses. A
request in another shape may be served: Claude Code asks again without what it is told of, in the stable tokens
that it knows, and we may ask again in the shape that is wanted."""

# ruff: noqa: E501 - the words of back ends stand on one line each

import re
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from routeproxy.upstream.errors.words import sentence, without_quotations

Feature = Literal[
    "mid_conv_system",  # a system turn after the first message
    "system_role",  # any system turn
    "alternating_roles",  # two turns of one role in a row, or a system turn between
    "user_after_tool",  # a user turn right after a tool's result
    "prefill",  # an assistant turn at the end
    "null_content",  # an assistant turn without text
    "tool_content_parts",  # a tool's result as a list of parts
    "content_parts",  # any content as a list of parts
    "image_block",
    "document_block",
    "tools",
    "tool_choice",
    "effort_with_tools",
    "effort_value",  # this effort, of several
    "effort_unsupported",  # any effort, and thinking where it is asked for
    "thinking_off",  # it cannot but think
    "structured_outputs_unsupported",  # a JSON schema for the answer
    "max_tokens",  # under this name: `max_completion_tokens` is wanted
    "parameter",  # another one, by its name in `names`
]


class Refusal(Struct, frozen=True):
    """What of a request a target refuses."""

    feature: Feature | None = None
    """None: it refuses the request, and does not say what of it."""
    names: tuple[str, ...] = ()
    """The parameters that it refuses."""
    accepted: tuple[str, ...] = ()
    """The values that it names as those that it takes."""


CLIENT_TOKENS: Mapping[Feature, str] = {
    "mid_conv_system": "mid_conv_system",
    # What we send alternates, but for the system turns between.
    "alternating_roles": "mid_conv_system",
    "image_block": "image_block",
    "document_block": "document_block",
    "effort_with_tools": "effort_unsupported",
    "effort_value": "effort_unsupported",
    "effort_unsupported": "effort_unsupported",
    "structured_outputs_unsupported": "structured_outputs_unsupported",
}
"""The tokens by which Claude Code knows what to leave out."""

_EFFORT = r"(?:reasoning[_ .]effort|reasoning|effort|thinking|think)"

# The first that fits counts, so the special stand before the general.
_PATTERNS: tuple[tuple[Feature, re.Pattern[str]], ...] = (
    (
        "mid_conv_system",
        sentence(
            r"system messages? (?:must|should|can only|may only|needs? to) be (?:at the (?:beginning|start)|(?:the )?first)",
            r"(?:only )?(?:the )?first message (?:can|may|must|should) (?:have the role|be a|be) ['\"`]?system",
            r"(?:found |there (?:is|are) )?(?:more than one|multiple|only one) system (?:message|prompt)s?\b",
            r"unexpected role ['\"`]?system['\"`]? after role",  # Mistral
            r"system messages? (?:is|are) (?:only|not) (?:allowed|supported|permitted)(?: \w+){0,2} (?:at|in|after|between|other)",
            r"system messages? (?:in the middle|after)\b",
            r"(?:chat )?message with role ['\"`]?system['\"`]? must be",
        ),
    ),
    (
        "system_role",
        sentence(
            r"system (?:role|messages?|prompts?|instructions?)(?: \w+)? (?:is|are)? ?not (?:supported|allowed|enabled)",
            r"(?:the )?['\"`]?system['\"`]? role is not (?:supported|allowed)",
            r"unsupported value: ['\"]messages\[\d+\]\.role['\"] does not support ['\"]system['\"]",  # OpenAI
            r"(?:developer|system) instruction is not enabled",  # Gemini
            r"invalid message role: system",
        ),
    ),
    ("user_after_tool", sentence(r"unexpected role ['\"`]?user['\"`]? after role ['\"`]?tool")),  # Mistral
    (
        "alternating_roles",
        sentence(
            r"(?:after the optional system message, )?conversation roles must alternate",
            r"(?:message )?roles must alternate",
            r"(?:the )?roles? (?:of messages )?must alternate",
            r"expected last role user or tool",
        ),
    ),
    (
        "prefill",
        sentence(
            r"cannot have 2 or more assistant messages at the end",
            r"assistant response prefill is incompatible",
            r"(?:the )?last message (?:must|cannot|should)\b.{0,40}\b(?:user|assistant)",
        ),
    ),
    (
        "effort_with_tools",
        sentence(
            r"function tools with reasoning[_ ]effort (?:are|is) not supported",
            r"(?:function )?(?:tools|tool calls?|calling) (?:are|is) not supported (?:with|when|together with) "
            rf"(?:\w+ ){{0,2}}{_EFFORT}",
        ),
    ),
    (
        "thinking_off",
        sentence(
            r"budget 0 is invalid",
            r"this model only works in thinking mode",
            r"(?:thinking|reasoning) (?:is mandatory|cannot be (?:disabled|turned off))",
        ),
    ),
    (
        "effort_value",
        sentence(
            rf"unsupported value: ['\"`]?{_EFFORT}",
            rf"unexpected {_EFFORT}",
            rf"(?:invalid (?:value for )?)?['\"`]?{_EFFORT}['\"`]? must be (?:one of|either)",
            rf"invalid {_EFFORT}",
            r"think(?:ing)? (?:value|level) \S+ is not supported",
            r"thinking level (?:\w+ )?is not supported",
        ),
    ),
    (
        "effort_unsupported",
        sentence(
            rf"unsupported parameter: ['\"`]?{_EFFORT}",
            rf"unrecognized request arguments? supplied: {_EFFORT}",
            rf"(?:unknown|unsupported) (?:parameter|param|name):? ['\"`]?{_EFFORT}",
            rf"['\"`]?{_EFFORT}['\"`]?: extra inputs are not permitted",
            rf"(?:property )?['\"`]?{_EFFORT}['\"`]? is (?:not supported|unsupported)",
            r"\S+ does not support (?:thinking|reasoning)",  # Ollama
            r"(?:this|the) model does not support (?:the )?(?:thinking|reasoning|effort|reasoning_effort)",
            r"thinking (?:budget |config )?is not (?:supported|enabled)",  # Gemini
            r"no endpoints found that support (?:reasoning|thinking)",
        ),
    ),
    (
        "image_block",
        sentence(
            r"(?:invalid content type\. )?image_url is only supported by certain models",  # OpenAI
            r"image (?:input|content|url|data)s? (?:modality )?(?:is|are) not (?:supported|enabled|allowed)",  # llama.cpp
            r"images (?:are|is) not supported",
            r"(?:this|the|your)? ?model\b.{0,80}?(?:does not|doesn't|cannot|can't) (?:support|accept|process|handle) "
            r"(?:image|vision|visual|multimodal)",
            r"\S+ (?:does not|doesn't) support (?:image|vision|multimodal)",
            r"(?:this|the) (?:model|endpoint) is (?:not a|text).{0,3}(?:multimodal|only)",
            r"\S+ is not a (?:multimodal|vision) model",  # vLLM
            r"at most 0 images?(?:\(s\))? may be provided",  # vLLM
            r"unknown part type: image",
            r"(?:failed to deserialize .{0,120}: )?(?:\S+ )?unknown variant [`'\"]image_url",  # DeepSeek
            r"no endpoints found that support image",  # OpenRouter
            r"(?:this )?model is missing data required for image input",  # Ollama
            r"vision is not (?:supported|enabled)",
        ),
    ),
    (
        "document_block",
        sentence(
            r"unknown part type: (?:file|input_file|document)",  # vLLM
            r"unsupported content\[\]\.type",  # llama.cpp, to which we send texts, images and files
            r"(?:failed to deserialize .{0,120}: )?(?:\S+ )?unknown variant [`'\"](?:file|input_file)",
            r"['\"`]?(?:input_file|file)['\"`]? (?:is|are|content is|inputs are|parts are) not supported",
            r"(?:this|the)? ?model\b.{0,80}?(?:does not|doesn't) support (?:pdf|file|document)",
            r"(?:pdf|file|document) (?:input|content|block|attachment)s? (?:is|are) not supported",
            r"no endpoints found that support (?:file|pdf)",
            r"(?:messages?\S* )?input tag ['\"`](?:file|input_file)['\"`] found using",  # Pydantic
            r"invalid (?:content )?(?:type|value): ?['\"`]?(?:file|input_file)['\"`]?",
        ),
    ),
    (
        "structured_outputs_unsupported",
        sentence(
            r"this response_format type is unavailable",  # DeepSeek
            r"(?:invalid parameter: )?['\"`]?response_format(?:\.type)?['\"`]? (?:must be|of type ['\"`]json_schema)",
            r"(?:this|the) model does not support (?:the )?(?:response[_ ]format|structured outputs?|json[_ ]schema|json mode)",
            r"(?:response_format|json_schema|structured outputs?|json mode)(?: \w+)? (?:is|are) not supported",
            r"response_format type must be one of",
            r"unsupported (?:parameter|value): ['\"`]response_format",
            r"no endpoints found that support (?:structured|response)",
        ),
    ),
    (
        "tool_choice",
        sentence(
            r".{0,60}(?:does not|doesn't) support (?:this |the |forced )?tool_choice",  # DeepSeek
            r"['\"`]?tool_choice['\"`]?(?: \S+)? (?:is|are) not supported",
            r"(?:tool choice|tool_choice) (?:must be|is only|only supports)",
            r"no endpoints found that support the provided ['\"`]?tool_choice",  # OpenRouter
            r"unsupported (?:parameter|value): ['\"`]tool_choice",
        ),
    ),
    (
        "tools",
        sentence(
            r"\S+ does not support (?:tools|tool use|tool calling|function calling)",  # Ollama
            r"(?:this|the) model does not support (?:tools|tool use|tool calling|function calling)",
            r"[`'\"]?(?:tool calling|tool use|function calling)[`'\"]? is not (?:supported|enabled)",  # Groq
            r"no endpoints found that support (?:tool|function)",  # OpenRouter
            r"['\"]auto['\"] tool choice requires",  # vLLM
            r"tools param requires --jinja",  # llama.cpp
            r"unsupported param: tools",
        ),
    ),
    (
        "max_tokens",
        sentence(r"unsupported parameter: ['\"`]max_tokens['\"`] is not supported with this model"),
    ),
    (
        "tool_content_parts",
        sentence(
            r"tool (?:message )?(?:content|message) must be a string",
            r"tool_call\.content must be string",
            r"text is not set",  # MiMo
        ),
    ),
    (
        "null_content",
        sentence(
            r"invalid type for ['\"]messages\[\d+\]\.content['\"].{0,80}got null",
            r"\[json\.exception\.type_error\.302\] type must be string, but is null",
            r"invalid message content type: <nil>",  # Ollama, over chat completions
            r"(?:invalid request content: )?each message must have at least one content element",  # xAI
            r"(?:messages?\S* )?content (?:cannot|must not|can not) be (?:null|none|empty)",
        ),
    ),
    (
        "content_parts",
        sentence(r"['\"]?messages?\S*content['\"]? (?:must be|should be) a (?:valid )?string"),
    ),
    (
        "parameter",
        sentence(
            r"unsupported (?:parameter|value|param):? ['\"`]?[\w.]+",
            r"unrecognized request arguments? supplied: [\w., ]+",
            r"(?:unknown|unrecognized) parameter: ['\"`]?[\w.]+",
            r"[\w.]+: extra inputs are not permitted",
            r"property ['\"`][\w.]+['\"`] is unsupported",  # Groq
            r"(?:['\"`]?[\w.]+['\"`]?|this parameter) is not supported (?:with|by|for) this model",
            r"no endpoints found that can handle the requested parameters",  # OpenRouter
        ),
    ),
)
_NAMES = re.compile(
    r"(?:parameter|value|param|supplied|property|permitted|arguments?)s?:? ['\"`]?((?:[a-z_][\w.]*)(?:, [a-z_][\w.]*)*)"
    r"|([\w.]+): extra inputs",
    re.IGNORECASE,
)
_ACCEPTED = re.compile(
    r"(?:supported (?:values|types) are:?|must be (?:one of|either)|expected one of|supported values:) ?(.{1,200})",
    re.IGNORECASE,
)
_VALUE = re.compile(r"['\"`]?([a-z_]\w*)['\"`]?", re.IGNORECASE)
_NO_VALUES = frozenset({"and", "or", "default", "the", "one", "of"})

_TEMPLATE = re.compile(r"\bJinja Exception:\s*([^\n]+)")
_TEMPLATE_AT_START = re.compile(
    r"(?:Error rendering prompt with jinja template|(?:Chat )?[Tt]emplate error|TemplateError)\s*:\s*\"?([^\n\"]+)"
)
"""What a model's own chat template refuses: a program in the model's file, which raises sentences."""


_IN_THE_APIS_WORDS = re.compile(
    r"capability_rejected: \w|extra inputs are not permitted|does not support the effort parameter|"
    r"requires a model that supports|does not support pdfs?\b|could not process (?:image|pdf)|"
    r"(?:role .{0,2}system|thinking\.type|adaptive thinking).{0,60}not supported|messages\.\d+\.content\.\d+\.",
    re.IGNORECASE,
)


def is_told_in_the_apis_words(message: str) -> bool:
    """Whether Claude Code reads out of it what to leave out, as it is."""
    return _IN_THE_APIS_WORDS.search(message) is not None


def read_refusal(message: str, param: str = "") -> tuple[Refusal, str] | None:
    """What a target refuses, and its words for it; None where the words say nothing of the kind. `param`: the
    parameter that the error names."""
    words = without_quotations(message)
    template = _TEMPLATE_AT_START.match(message) or _TEMPLATE.search(words)
    words = template[1].strip() if template else words
    for feature, pattern in _PATTERNS:
        if match := pattern.search(words):
            return _refusal(feature, words, match, param), words if template else message
    return (Refusal(), words) if template else None


def _refusal(feature: Feature, words: str, match: re.Match[str], param: str) -> Refusal:
    accepted = _ACCEPTED.search(words)
    values: list[str] = _VALUE.findall(accepted[1].split(". ")[0]) if accepted else []
    names = param.split(", ") if param else []
    if feature == "parameter" and not names and (named := _NAMES.search(match[0])):
        names = (named[1] or named[2]).split(", ")
    return Refusal(feature, tuple(names), tuple(value for value in values if value not in _NO_VALUES))


NEVER_WORKS = sentence(
    # llama.cpp, all with 500
    r"failed to parse (?:messages|tools|tool_choice|grammar)\b",
    r"failed to initialize samplers",
    r"json schema (?:conversion failed|error)",
    r"unrecognized schema",
    r"unable to generate parser for this template",
    r"cannot use (?:both|custom grammar)",
    r"only (?:no echo|one completion choice) is (?:supported|allowed)",
    r"invalid (?:tool_choice|message|type)\b",
    r"missing (?:content|role|tool call)",
    r"expected ['\"]?(?:content|messages|stop)['\"]?",
    r"(?:failed to|could not) (?:load|decode|parse) (?:the )?(?:image|audio|url)",
    r"invalid (?:url|image|base64)",
    r"unsupported (?:content|message|type)\b",
    r"\[json\.exception\.(?:type_error|out_of_range)",
    # Ollama
    r"invalid (?:json schema|format|image|options?)\b",
)
"""What servers say with a status of their own fault and is the request's: it never works."""
