"""The catalogue of texts by which back ends say that a prompt, or the output that is asked for, does not fit.
Claude Code parses the API's own sentence for it and acts on that, so all of them become that sentence. What
is in no row is no overflow: nothing is guessed."""

# ruff: noqa: E501 - the words of back ends stand on one line each

import re
from collections.abc import Iterable

from routeproxy.chat.error_codes import meaning_of_codes
from routeproxy.upstream.errors.words import sentence, without_quotations

CAPABILITY_REJECTED = "capability_rejected: "
"""What Claude Code's stable tokens stand behind: `capability_rejected: prompt_too_long`."""


def _pattern(text: str) -> re.Pattern[str]:
    """`text` as a pattern, in which `<name>` stands for a number of that name."""
    pattern = re.sub(r"<(\w+)>", lambda name: rf"(?P<{name[1]}>\d[\d,_]*)", text)
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


# How each back end words it, as of 2026, from its own source. The groups: `limit`, and `prompt` and `output`
# or their sum, `total`.
_INPUT_AND_OUTPUT: tuple[re.Pattern[str], ...] = (
    # Anthropic, and whoever copies it
    _pattern(r"input length and `max_tokens` exceed context limit: <prompt> \+ <output> > <limit>"),
    # OpenAI, Azure, vLLM, DeepSeek, OpenRouter
    _pattern(
        r"maximum context length is <limit> tokens.*?requested (?:about )?<total> tokens "
        r"\([^)]*?<output> (?:in the completion|in the output|for the completion)"
    ),
    # vLLM, between 0.8 and 0.10
    _pattern(
        r"is too large: <output>\. This model's maximum context length is <limit> tokens "
        r"and your request has <prompt> input tokens"
    ),
    # vLLM since
    _pattern(
        r"maximum context length is <limit> tokens.*?requested <output> output tokens "
        r"and your prompt contains (?:at least )?<prompt> input tokens"
    ),
    # vLLM, which counts characters first: beyond so many the prompt cannot fit
    _pattern(
        r"maximum context length is <limit> tokens.*?requested <output> output tokens and your prompt contains "
        r"[\d,_]+ characters \(more than [\d,_]+ characters, which is the upper bound for <bound> input tokens"
    ),
    # SGLang, Cloudflare
    _pattern(
        r"maximum context length of <limit> tokens.*?total of <total> tokens: "
        r"<prompt> tokens from the input messages and <output> tokens for the completion"
    ),
    # Together, Text Generation Inference
    _pattern(r"must be <= <limit>\. Given: <prompt> `inputs` tokens and <output> `max_new_tokens`"),
)
_INPUT_ONLY: tuple[re.Pattern[str], ...] = (
    _pattern(
        r"trying to keep the first <prompt> tokens when (?:the )?context (?:the )?overflows\..{0,80}?"
        r"context length of only <limit> tokens"
    ),  # LM Studio
    _pattern(r"input too long: <prompt> input tokens, limit is <limit>"),  # Baseten
    _pattern(r"maximum input length is <limit>(?: tokens)?, but got <prompt>"),
    _pattern(
        r"prompt has <prompt> tokens, but the (?:configured )?(?:context (?:size|length|window)) is <limit>"
    ),
    _pattern(r"prompt is too long: <prompt> tokens > <limit> maximum"),  # Anthropic, Bedrock
    # OpenAI, Azure, vLLM
    _pattern(
        r"maximum context length is <limit> tokens.*?(?:resulted in|requested|contains?|has|with) "
        r"(?:at least |about )?<prompt> (?:input )?tokens"
    ),
    _pattern(r"configured limit of <limit> tokens.*?resulted in <prompt> tokens"),  # OpenAI, GPT-5
    _pattern(
        r"request too large for .*?limit <limit>, requested <prompt>"
    ),  # OpenAI, Groq: more than a whole minute's worth
    _pattern(
        r"decoder prompt \(length <prompt>\) is longer than the maximum model length of <limit>"
    ),  # vLLM
    _pattern(
        r"prompt \(total length <prompt>\) is too long to fit into the model \(context length <limit>\)"
    ),  # vLLM
    _pattern(
        r"input length \(<prompt>(?: tokens)?\) exceeds (?:the )?model's maximum (?:context|allowed) length "
        r"\(<limit>(?: tokens)?\)"
    ),  # vLLM, SGLang, Ollama
    _pattern(
        r"input \(<prompt> tokens\) is longer than the model's context length \(<limit> tokens\)"
    ),  # SGLang
    _pattern(
        r"request \(<prompt> tokens\) exceeds the available context size \(<limit> tokens\)"
    ),  # llama.cpp
    _pattern(r"`inputs` must have less than <limit> tokens\. Given: <prompt>"),  # Text Generation Inference
    _pattern(
        r"input token count \(?<prompt>\)? exceeds the maximum number of tokens allowed \(?<limit>\)?"
    ),  # Gemini
    _pattern(r"input token count is <prompt> but (?:the )?model only supports up to <limit>"),  # Vertex
    _pattern(
        r"prompt contains <prompt> tokens.*?too large for model with <limit> maximum context length"
    ),  # Mistral
    _pattern(r"maximum prompt length is <limit> but the request contains <prompt> tokens"),  # xAI
    _pattern(r"the prompt is too long: <prompt>, model maximum context length: <limit>"),  # Fireworks
    _pattern(r"current length is <prompt> while limit is <limit>"),  # Cerebras
    _pattern(r"exceeded model token limit: <limit> \(requested: <prompt>\)"),  # Moonshot
    _pattern(r"prompt cannot exceed <limit> - received <prompt>"),  # Cohere
    _pattern(r"prompt token count of <prompt> exceeds the limit of <limit>"),  # GitHub
    _pattern(
        r"prompt length \(<prompt>(?:\.0)?\).*?should not exceed max_num_tokens \(<limit>\)"
    ),  # TensorRT-LLM
)
_OUTPUT_ONLY: tuple[re.Pattern[str], ...] = (
    _pattern(
        r"max(?:_completion|_output)?_tokens\D{0,20} is too large: <output>\.? "
        r"This model supports at most <limit>"
    ),  # OpenAI
    _pattern(
        r"max_tokens: <output> > <limit>, which is the maximum allowed number of output tokens"
    ),  # Anthropic
    _pattern(
        r"maxOutputTokens value of <output> but the supported range is "
        r"from \d+ \(inclusive\) to <above> \(exclusive\)"
    ),  # Vertex
)
_BOTH_TOGETHER = _pattern(
    r"number of input and maximum output tokens \(<total>\) exceeded this model context window limit \(<limit>\)"
)
"""Cloudflare, which does not say how much of it is the prompt."""

_INPUT_SIGNS = sentence(
    # OpenAI's "your input exceeds the context window of this model", llama.cpp, LM Studio, Ollama, MiniMax
    r"(?:\w+ ){0,8}(?:input|prompt|request|messages?|conversation|context|tokens?)\b(?: [\w'’,()-]+){0,12}? "
    r"(?:exceeds?|exceeded|is (?:longer|larger|greater|bigger) than|surpass(?:es)?|overflows?) "
    r"(?:[\w'’-]+ ){0,6}(?:context (?:window|length|size|limit)|max(?:imum)? (?:context|prompt|input|model)? ?length|"
    r"max_model_len|token limit|max(?:imum)? (?:number of )?(?:input |prompt |message )?tokens?|context|your deployment)\b",
    r"(?:this |the )?(?:model|endpoint)(?:'s|’s) (?:maximum|max) (?:context|prompt) (?:length|size) is\b",
    r"(?:the |your )?(?:input|prompt|request|conversation|message)(?: you submitted was| token length| tokens?| length)? (?:is )?too (?:long|large)\b"
    r"(?! for (?:a |the )?(?:file|image|parameter))",
    r"(?:the )?number of tokens to keep from the initial prompt is greater than the context length",
    r"too many tokens in the prompt",
    r"tokens in request more than max tokens allowed",
    r"(?:invalid params, )?context window (?:exceeds limit|exceeded|is full)",
    r"context (?:length|size) exceeded",
    r"exceeded max(?:imum)? context length",
    r"input length and `max_tokens` exceed context limit",
    r"(?:please )?reduce the length of the (?:messages|input|prompt)",  # Groq
    r"(?:<400> )?(?:internalerror\.algo\.invalidparameter: )?range of input length should be",  # Alibaba
    r"trying to keep the first \d+ tokens when (?:the )?context (?:the )?overflows",  # LM Studio
    r"max_tokens must be at least ?1, got -\d",  # vLLM, NIM: less than nothing is left for the answer
    r"(?:max_tokens|max_completion_tokens|max_new_tokens) must be (?:at least ?1|positive|greater than 0).{0,20}(?:got|but is|:) ?-\d",
    # sizes, which are no tokens
    r"(?:the |total )*(?:request|message|payload|prompt|body)(?: body| payload)? size (?:\(\d+ bytes\) )?"
    r"(?:exceeds|is larger than|is too large|limit exceeded)",  # Vertex, Gemini
    r"(?:http )?(?:request|payload|request body|request payload|request entity|content|body) (?:is )?too large",
    r"(?:request )?(?:body|payload|input) (?:exceeds|exceeded|is larger than) (?:the )?(?:maximum |max )?"
    r"(?:size |limit |allowed |length )*(?:of |:)? ?\d",
    r"(?:failed to buffer the request body: )?length limit exceeded",  # axum: TGI, Dynamo
    r"maximum request (?:body )?size",
    r"invalid ['\"](?:messages|input)\S*(?:content|text|output)\S*['\"]: string too long",  # OpenAI
)
_OUTPUT_SIGNS = sentence(
    r"invalid max_tokens value, the valid range of max_tokens is",  # DeepSeek
    r"(?:<400> )?(?:internalerror\.algo\.invalidparameter: )?range of max_(?:completion_|output_)?tokens should be",  # Alibaba
    r"[`'\"]?max_(?:completion_|output_|new_)?tokens[`'\"]? (?:must be|should be|needs to be) "
    r"(?:less than or equal to|at most|<=|no more than|smaller than|below|lower than|within|in the range)",  # Groq
    r"(?:the )?maximum tokens you requested exceeds the model limit",  # Bedrock
    r"[`'\"]?max_(?:completion_|output_|new_)?tokens[`'\"]? (?:is too (?:large|high|big)|is greater than|exceeds?|exceeded|too large)\b",
    r"(?:the )?(?:requested )?(?:output|completion|max(?:imum)?(?: output| completion)?) tokens?(?: \(?\d+\)?)? "
    r"(?:limit )?(?:exceeds?|is (?:larger|greater|higher) than) ",
)


def match_overflow(message: str, code: str | Iterable[str] = ()) -> str | None:
    """The API's sentence for a prompt that does not fit, from a back end's message and the codes beside it;
    None when the failure is another one."""
    codes = code.lower().split() if isinstance(code, str) else code
    text = without_quotations(message)
    if numbers := _first_match(_INPUT_AND_OUTPUT, text):
        output, limit = numbers["output"], numbers["limit"]
        if "bound" in numbers:
            prompt = numbers["bound"] + 1
        else:
            prompt = numbers["prompt"] if "prompt" in numbers else numbers["total"] - output
        if prompt < limit:
            return (
                f"input length and `max_tokens` exceed context limit: {prompt} + {output} > {limit}, "
                "decrease input length or `max_tokens` and try again"
            )
        return f"prompt is too long: {prompt} tokens > {limit} maximum"
    if numbers := _first_match(_INPUT_ONLY, text):
        return f"prompt is too long: {numbers['prompt']} tokens > {numbers['limit']} maximum"
    if numbers := _first_match(_OUTPUT_ONLY, text):
        limit = numbers["limit"] if "limit" in numbers else numbers["above"] - 1
        return (
            f"max_tokens: {numbers['output']} > {limit}, "
            "which is the maximum allowed number of output tokens for this model"
        )
    # The stable tokens that Claude Code knows, for back ends that give no numbers.
    if _OUTPUT_SIGNS.search(text) or _BOTH_TOGETHER.search(text):
        return f"capability_rejected: max_tokens_context_overflow ({message[:300]})"
    if _INPUT_SIGNS.search(text) or meaning_of_codes(codes) == "overflow":
        return f"capability_rejected: prompt_too_long ({message[:300]})"
    return None


_IN_THE_APIS_WORDS = re.compile(
    r"prompt is too long|input is too long for requested model|\Ainput is too long\.?\Z|"
    r"input length and `max_tokens` exceed context limit: \d+ \+ \d+ > \d+|"
    r"\Amax_tokens: \d+ > \d+, which is the maximum allowed|capability_rejected: \w",
    re.IGNORECASE,
)


def is_in_the_apis_words(message: str) -> bool:
    """Whether Claude Code reads it as it is."""
    return _IN_THE_APIS_WORDS.search(message) is not None


def _first_match(patterns: tuple[re.Pattern[str], ...], message: str) -> dict[str, int]:
    """The numbers of the first pattern that matches; empty if none does."""
    for pattern in patterns:
        if match := pattern.search(message):
            return {name: _int(digits) for name, digits in match.groupdict().items()}
    return {}


def _int(digits: str) -> int:
    return int(digits.replace(",", "").replace("_", ""))
