"""Messages that a broker pushes, kept until a batch takes them."""

import asyncio
import time
from collections import deque
from typing import Final

from connect.brokers import BrokerUnavailable
from connect.intake.bus.port import Message

LINGER_S: Final = 0.005
"""A batch that is not full waits this long for one more: what was sent together arrives in several reads."""


class Arrivals:
    """Lives as long as its connection. Bounded by what the broker was asked for."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._ended: BrokerUnavailable | None = None

    def put(self, message: Message) -> None:
        self._waiting.append(message)
        self._changed.set()

    def end(self, error: BrokerUnavailable) -> None:
        """Nothing more will come, and what is here can no longer be acknowledged. The first reason counts."""
        self._ended = self._ended or error
        self._changed.set()

    def check(self) -> None:
        """Raises why nothing more comes."""
        if self._ended is not None:
            raise self._ended

    async def take(self, limit: int, wait_s: float) -> list[Message]:
        """Up to `limit`, in their order; [] where none came within `wait_s`. Raises what `end` was told."""
        give_up_at = time.monotonic() + wait_s
        while not self._waiting and self._ended is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(give_up_at - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                return []
        seen = 0
        while seen < len(self._waiting) < limit and self._ended is None:
            seen = len(self._waiting)
            await asyncio.sleep(LINGER_S)
        self.check()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
