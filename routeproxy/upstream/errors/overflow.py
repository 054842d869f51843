"""The catalogue of texts by which back ends say that a prompt, or the output that is asked for, does not fit.
Claude Code parses the API's own sentence for it and acts on that, so all of them become that sentence. What
is in no row is no overflow: nothing is guessed."""

import re


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
    # SGLang
    _pattern(
        r"maximum context length of <limit> tokens.*?total of <total> tokens: "
        r"<prompt> tokens from the input messages and <output> tokens for the completion"
    ),
    # Together, Text Generation Inference
    _pattern(r"must be <= <limit>\. Given: <prompt> `inputs` tokens and <output> `max_new_tokens`"),
)
_INPUT_ONLY: tuple[re.Pattern[str], ...] = (
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
        r"input length \(<prompt>\) exceeds (?:the )?model's maximum context length \(<limit>\)"
    ),  # vLLM, SGLang
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
_OVERFLOW_SIGNS = (
    "context_length_exceeded",
    "exceed_context_size_error",
    "maximum context length",
    "exceeds the context window",
    "exceeds the context length",
    "exceeds the available context size",
    "exceeded max context length",
    "exceed context limit",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "too many tokens in the prompt",
    "context window exceeded",
    "context window exceeds limit",
    "prompt exceeds max length",
    "greater than the context length",
    "when context the overflows",
    "range of input length should be",
)
_OUTPUT_SIGNS = (
    "valid range of max_tokens is",
    "`max_tokens` must be less than or equal to",
    "maximum tokens you requested exceeds the model limit",
)


def match_overflow(message: str, code: str) -> str | None:
    """The API's sentence for a prompt that does not fit, from a back end's message and the code beside it;
    None when the failure is another one."""
    if numbers := _first_match(_INPUT_AND_OUTPUT, message):
        output, limit = numbers["output"], numbers["limit"]
        prompt = numbers["prompt"] if "prompt" in numbers else numbers["total"] - output
        if prompt < limit:
            return (
                f"input length and `max_tokens` exceed context limit: {prompt} + {output} > {limit}, "
                "decrease input length or `max_tokens` and try again"
            )
        return f"prompt is too long: {prompt} tokens > {limit} maximum"
    if numbers := _first_match(_INPUT_ONLY, message):
        return f"prompt is too long: {numbers['prompt']} tokens > {numbers['limit']} maximum"
    if numbers := _first_match(_OUTPUT_ONLY, message):
        limit = numbers["limit"] if "limit" in numbers else numbers["above"] - 1
        return (
            f"max_tokens: {numbers['output']} > {limit}, "
            "which is the maximum allowed number of output tokens for this model"
        )
    # The stable tokens that Claude Code knows, for back ends that give no numbers.
    text = f"{code} {message}".lower()
    if any(sign in text for sign in _OUTPUT_SIGNS):
        return f"capability_rejected: max_tokens_context_overflow ({message[:300]})"
    if any(sign in text for sign in _OVERFLOW_SIGNS):
        return f"capability_rejected: prompt_too_long ({message[:300]})"
    return None


def _first_match(patterns: tuple[re.Pattern[str], ...], message: str) -> dict[str, int]:
    """The numbers of the first pattern that matches; empty if none does."""
    for pattern in patterns:
        if match := pattern.search(message):
            return {name: _int(digits) for name, digits in match.groupdict().items()}
    return {}


def _int(digits: str) -> int:
    return int(digits.replace(",", "").replace("_", ""))
