"""Messages that are facts: read, recorded with everything else that comes in, and told apart from what is refused."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from connect.config import BusSettings, Settings
from connect.errors import ConnectError
from connect.intake.answers import Answer
from connect.intake.bus.consumer import Unready
from connect.intake.bus.port import Message
from connect.intake.bus.reading import read_message
from connect.intake.foreign import Foreign
from connect.intake.normalize import DEFAULT_SOURCE, NormalEvent, Terms
from connect.intake.record import GROUP_CHARACTERS_MAX, Processing, Recorder

Numbered = tuple[int, NormalEvent]
"""A fact, and the place of its message in the batch."""


def terms_of(bus: BusSettings, settings: Settings) -> Terms:
    """On what terms a bus's messages are taken: as over HTTP, with the bus's source."""
    return Terms(
        bound_source=bus.source if bus.source_bound else None,
        default_source=bus.source or DEFAULT_SOURCE,
        age_max_days=settings.event_age_max_days,
        ahead_max_s=settings.event_ahead_max_s,
    )


class Facts:
    """Takes messages of one bus to the recorder."""

    def __init__(
        self, recorder: Recorder, terms: Terms, sources: Mapping[str, Foreign], processing: Processing
    ) -> None:
        """The recorder is best this process's own: what waits in it is then never more than a portion a bus."""
        self._recorder, self._terms, self._sources = recorder, terms, sources
        self._processing: Processing = processing

    async def take(self, messages: Sequence[Message]) -> list[ConnectError | None]:
        """For each message None where its fact is recorded, now or before, or why it is refused for good.

        Raises `Unready` where the recorder could not say: then all of them come again.
        """
        refused: list[ConnectError | None] = [None] * len(messages)
        taken: list[tuple[int, NormalEvent]] = []
        now = datetime.now(UTC)
        for index, message in enumerate(messages):
            try:
                taken.append((index, read_message(message, self._terms, self._sources, now)))
            except ConnectError as error:
                refused[index] = error
        for portion in portions(taken, self._recorder.queue_max):
            for (index, _), answer in zip(portion, await self._record(portion), strict=True):
                if isinstance(answer, ConnectError):
                    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        raise Unready(answer.detail)
                    refused[index] = answer
        return refused

    async def _record(self, portion: Sequence[Numbered]) -> list[Answer]:
        try:
            return await self._recorder.submit([normal for _, normal in portion], self._processing)
        except ConnectError as error:
            raise Unready(error.detail) from error


def portions(taken: Sequence[Numbered], count_max: int) -> Iterator[list[Numbered]]:
    """Cuts a batch, in order, into parts that the recorder has room for: a whole batch of large events never fits."""
    portion, characters = list[Numbered](), 0
    for one in taken:
        size = len(one[1].context)
        if portion and (len(portion) == count_max or characters + size > GROUP_CHARACTERS_MAX):
            yield portion
            portion, characters = [], 0
        portion.append(one)
        characters += size
    if portion:
        yield portion
