"""A Messages request into a chat request. Pure: no I/O, no clock, no chance, and the input stays as it is."""

from typing import TypeVar

import msgspec
from msgspec import UNSET, DecodeError, Raw, Struct, UnsetType
from msgspec.structs import replace

from routeproxy.chat.request import (
    ChatRequest,
    JsonObjectFormat,
    ResponseFormat,
    StreamOptions,
    WebSearch,
)
from routeproxy.messages.decoding import NO_UTF_8
from routeproxy.messages.errors import InvalidRequest
from routeproxy.messages.losses import Losses
from routeproxy.messages.request import MessagesRequest, System, SystemText
from routeproxy.translate import params
from routeproxy.translate.cache_marks import mark_of, with_last_marked, within_limit
from routeproxy.translate.context import ReplyContext
from routeproxy.translate.conversation import Conversation
from routeproxy.translate.profile import ModelProfile
from routeproxy.translate.schemas import is_of_object
from routeproxy.translate.thinking import Signer
from routeproxy.translate.tools import NO_TOOLS, Toolbox, ToolNames

T = TypeVar("T")


class RequestContext(Struct, frozen=True, kw_only=True):
    """What a translation depends on besides the body."""

    version: str = "2023-06-01"
    """The header `anthropic-version`."""
    betas: frozenset[str] = frozenset()
    target: str
    """The model that gets the request, for signatures: `openai/gpt-4.1`."""
    signer: Signer
    session_id: str | None = None
    fields: tuple[str, ...] = ()
    """The names of the body's top-level fields that hold something, to warn of unknown ones."""
    by_rule: frozenset[str] = frozenset()
    """The fields that a rule has put there: the client's version of the API has no say in them."""


class TranslatedRequest(Struct, frozen=True, kw_only=True):
    chat: ChatRequest
    reply: ReplyContext
    warnings: tuple[str, ...]
    """One short sentence each, ASCII, with nothing of the prompt: they go into a header."""
    losses: Losses
    """What of the conversation the back end can't be given."""
    warms_cache: bool
    """The request only warms a cache (`max_tokens: 0`): its answer is empty, and no back end gets it."""


def translate_request(
    request: MessagesRequest, profile: ModelProfile, context: RequestContext
) -> TranslatedRequest:
    """Raises `InvalidRequest`, for what Anthropic would refuse and for what this back end cannot take."""
    try:
        return _translate(request, profile, context)
    except RecursionError:
        raise InvalidRequest("the request is nested too deeply") from None
    except UnicodeDecodeError:  # in what we carry on without reading it
        raise InvalidRequest(f"invalid JSON: {NO_UTF_8}") from None
    except DecodeError:  # in what nobody has read before
        raise InvalidRequest(f"invalid JSON: {NO_UTF_8}, or a number in it is too large") from None


def _translate(request: MessagesRequest, profile: ModelProfile, context: RequestContext) -> TranslatedRequest:
    params.check(request, context.version, context.betas, context.by_rule)
    if request.max_tokens == 0:
        params.check_warmup(request)
    warnings: dict[str, None] = {}  # each once, in order

    def warn(sentence: str) -> None:
        warnings[sentence] = None

    params.warn_of_ignored(request, context.fields, warn)
    toolbox = Toolbox(request.tools or NO_TOOLS, profile, warn)
    format, instruction = _response_format(request, profile)
    conversation = _conversation(request, profile, context, toolbox, instruction, warn)
    messages = conversation.finish()
    search = toolbox.search(request.tool_choice)
    choice = toolbox.choice(request.tool_choice)
    tools = toolbox.functions()
    if profile.cache_marks:
        marks = {
            toolbox.wire_name(tool.name): mark_of(tool.cache_control, profile) for tool in request.tools or ()
        }
        tools = tuple(replace(tool, cache_control=marks.get(tool.function.name, UNSET)) for tool in tools)
        messages = with_last_marked(messages, mark_of(request.cache_control, profile))
        tools, messages = within_limit(tools, messages)
    stops = params.stops(request.stop_sequences, profile.stop_limit)
    limit = min(request.max_tokens or 0, profile.max_output_tokens or request.max_tokens or 0)
    params.warn_of_unsupported_sampling(request, profile, warn)
    user_id = request.metadata.user_id if request.metadata is not None else None
    one_call = _is_limited_to_one_call(request)
    thinking_off = dict(params.thinking_off(request, profile, warn))
    chat = ChatRequest(
        messages=messages,
        tools=tools or UNSET,
        web_search=search,
        tool_choice=choice if tools else UNSET,
        parallel_tool_calls=False if one_call and tools and profile.parallel_tool_calls else UNSET,
        max_tokens=limit if profile.max_tokens_field == "max_tokens" else UNSET,
        max_completion_tokens=limit if profile.max_tokens_field == "max_completion_tokens" else UNSET,
        temperature=_supported(request.temperature, profile.sampling),
        top_p=_supported(request.top_p, profile.sampling),
        top_k=_supported(request.top_k, profile.top_k),
        stop=stops.sent,
        reasoning_effort=thinking_off.pop(
            "reasoning_effort", params.effort(request, conversation.effort, profile)
        ),
        thinking_off=thinking_off or UNSET,
        response_format=format,
        service_tier=params.service_tier(request, profile, warn),
        user=params.safe_id(user_id) if user_id and profile.user else UNSET,
        prompt_cache_key=(
            params.safe_id(context.session_id) if context.session_id and profile.prompt_cache_key else UNSET
        ),
        stream=True if request.stream else UNSET,
        stream_options=StreamOptions() if request.stream else UNSET,
    )
    reply = _reply_context(
        request, profile, context, toolbox.names, conversation.tool_ids, stops.scanned, search
    )
    return TranslatedRequest(
        chat=chat,
        reply=reply,
        warnings=tuple(warnings),
        losses=conversation.losses,
        warms_cache=request.max_tokens == 0,
    )


def _conversation(
    request: MessagesRequest,
    profile: ModelProfile,
    context: RequestContext,
    toolbox: Toolbox,
    instruction: str,
    warn: params.Warn,
) -> Conversation:
    """The conversation, with `instruction` at the end of its system prompt."""
    conversation = Conversation(
        profile, toolbox, context.signer, warn, strict=context.version not in params.FIRST_VERSIONS
    )
    system = _with_instruction(request.system, instruction)
    if system is not None:
        conversation.add_system_prompt(system)
    conversation.add_turns(request.messages)
    return conversation


def _reply_context(
    request: MessagesRequest,
    profile: ModelProfile,
    context: RequestContext,
    names: ToolNames,
    tool_ids: frozenset[str],
    scan: tuple[str, ...],
    search: WebSearch | UnsetType,
) -> ReplyContext:
    thinking = request.thinking
    format = params.output_format(request)
    return ReplyContext(
        model=request.model,
        names=names,
        thinking=not params.wants_no_thinking(request),
        display="omitted" if thinking is not None and thinking.display == "omitted" else "summarized",
        parallel=not _is_limited_to_one_call(request),
        stop_sequences=tuple(request.stop_sequences or ()),
        scan=scan,
        schema=format.schema if format is not None else None,
        speed="standard" if request.speed is not None else None,
        signer=context.signer,
        family=profile.family,
        target_model=context.target,
        web_search="none" if search is UNSET else "forced" if search.forced else "offered",
        allowed_domains=() if search is UNSET else search.allowed_domains,
        tool_ids=tool_ids,
    )


def _is_limited_to_one_call(request: MessagesRequest) -> bool:
    return request.tool_choice is not None and bool(request.tool_choice.disable_parallel_tool_use)


def _supported(value: T | None, supported: bool) -> T | UnsetType:
    return value if supported and value is not None else UNSET


def _response_format(
    request: MessagesRequest, profile: ModelProfile
) -> tuple[ResponseFormat | JsonObjectFormat | UnsetType, str]:
    """The schema of the answer: as a parameter, or an instruction where there is no such parameter."""
    output_format = params.output_format(request)
    if output_format is None:
        return UNSET, ""
    format = params.response_format(output_format, profile.schemas)
    if profile.structured_outputs and (profile.structured_outputs_with_tools or not request.tools):
        return format, ""
    schema = bytes(output_format.schema).decode()
    # DeepSeek wants to read the word JSON, too, for its mode of that name.
    in_words = "Answer with a JSON value only, without code fences, that conforms to this JSON schema:\n"
    has_mode = profile.json_mode and not profile.structured_outputs
    mode = JsonObjectFormat() if has_mode and is_of_object(output_format.schema) else UNSET
    return mode, in_words + schema


def _with_instruction(system: System | None, instruction: str) -> System | None:
    if not instruction:
        return system
    if isinstance(system, str):  # as a block it would go whole, if it begins with the attribution
        return f"{system}\n\n{instruction}"
    return (*(system or ()), SystemText(Raw(msgspec.json.encode(instruction))))
