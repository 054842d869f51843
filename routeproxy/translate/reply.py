"""A whole completion becomes a whole message by way of the stream it would have been: they cannot differ."""

from collections.abc import Callable, Iterable

from routeproxy.chat.completion import Chunk
from routeproxy.messages.events import Error, accumulate
from routeproxy.messages.reply import Message
from routeproxy.translate.context import ReplyContext, ReplyOptions
from routeproxy.translate.stream import StreamTranslator


def translate_reply(
    completion: Iterable[Chunk],
    context: ReplyContext,
    options: ReplyOptions,
    warn: Callable[[str], None] = lambda warning: None,
) -> Message | Error:
    """`completion` is one chunk whose choices carry `message`; or many, of a back end that cannot but
    stream. `warn` gets what was left out of the answer, and why."""
    return read_reply(completion, StreamTranslator(context, options), warn)


def read_reply(
    completion: Iterable[Chunk], translator: StreamTranslator, warn: Callable[[str], None]
) -> Message | Error:
    """The same by a translator that is fresh, and knows afterwards what the answer took."""
    events = [event for chunk in completion for event in translator.feed(chunk)]
    events += translator.finish()
    for warning in translator.warnings:
        warn(warning)
    return accumulate(events)
