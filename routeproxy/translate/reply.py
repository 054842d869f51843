"""A whole completion becomes a whole message by way of the stream it would have been: they cannot differ."""

from collections.abc import Callable, Iterable

from routeproxy.chat.completion import Chunk
from routeproxy.messages.events import Error, accumulate
from routeproxy.messages.reply import Message
from routeproxy.translate.context import ReplyContext
from routeproxy.translate.stream import StreamTranslator, rough_count
from routeproxy.translate.transforms import UNTOUCHED, Transforms


def translate_reply(
    completion: Iterable[Chunk],
    context: ReplyContext,
    *,
    message_id: str,
    input_tokens: int | None,
    new_tool_id: Callable[[], str],
    transforms: Transforms = UNTOUCHED,
    count: Callable[[str], int] = rough_count,
) -> Message | Error:
    """`completion` is one chunk whose choices carry `message`; or many, of a back end that cannot but
    stream."""
    translator = StreamTranslator(
        context,
        message_id=message_id,
        input_tokens=input_tokens,
        new_tool_id=new_tool_id,
        transforms=transforms,
        count=count,
    )
    events = [event for chunk in completion for event in translator.feed(chunk)]
    return accumulate(events + translator.finish())
