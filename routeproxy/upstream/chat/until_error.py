"""An answer up to the error in it, for every way to get chunks: what came before it is shown before it."""

from collections.abc import AsyncIterator, Sequence

from routeproxy.chat.completion import Chunk
from routeproxy.policy.targets import Target
from routeproxy.upstream.chat.upstream import ChunkSource
from routeproxy.upstream.errors.classify import classify_error_object


class ChunksUntilError:
    """The chunks of an answer; an error among them is raised as the `UpstreamFailure` that it stands for."""

    def __init__(self, answer: ChunkSource, target: Target) -> None:
        self._answer = answer
        self._target = target

    async def __aiter__(self) -> AsyncIterator[Sequence[Chunk]]:
        async for chunks in self._answer:
            place = next((place for place, chunk in enumerate(chunks) if chunk.error), None)
            if place is None:
                yield chunks
                continue
            if place:
                yield chunks[:place]
            raise classify_error_object(
                chunks[place].error, provider=self._target.provider.name, model=self._target.model
            )

    async def aclose(self) -> None:
        await self._answer.aclose()
