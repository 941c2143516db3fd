"""Redis Streams: a consumer group, read in batches; what a dead reader left is claimed when it was idle long enough."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from redis import exceptions

from connect.brokers import Address
from connect.brokers.redis import EVENT_FIELD, RESULT_FIELD, broker_errors, open_client
from connect.intake.bus.port import Message
from connect.jsonvalue import is_array

GROUP: Final = "connect"
CLAIM_IDLE_S: Final = 30.0
"""A message untouched for this long had a reader that died or stands still; `keep` touches what is worked on."""
CLAIM_EVERY_S: Final = 5.0
FORGET_READER_S: Final = 3_600.0
"""Readers that hold nothing and were not seen for this long are taken off the group's list."""
SOCKET_MARGIN_S: Final = 10.0


class RedisStreamBus:
    """`redis://host:6379/0?stream=NAME&group=connect`. The body is the entry's field `event` (of results: `result`)."""

    def __init__(self, address: Address, reader: str) -> None:
        self._address, self._reader = address, reader
        self._stream, self._group = address.name, address.options.get("group", GROUP)
        self._client = open_client(address, timeout_s=SOCKET_MARGIN_S)
        self._claimed_at = 0.0

    async def open(self) -> None:
        with broker_errors(self._address):
            try:
                await self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            await self._forget_readers()

    async def batch(self, limit: int, wait_s: float) -> list[Message]:
        with broker_errors(self._address):
            if time.monotonic() - self._claimed_at > CLAIM_EVERY_S and (left := await self._claim(limit)):
                return left
            found: Any = await self._client.xreadgroup(
                self._group, self._reader, {self._stream: ">"}, count=limit, block=int(wait_s * 1000)
            )
        return _messages(_entries(found))

    async def ack(self, messages: Sequence[Message]) -> None:
        with broker_errors(self._address):
            await self._client.xack(self._stream, self._group, *(message.handle for message in messages))

    async def keep(self, messages: Sequence[Message]) -> None:
        with broker_errors(self._address):
            await self._client.xclaim(
                self._stream, self._group, self._reader, 0, [message.handle for message in messages], justid=True
            )

    async def lag(self) -> int:
        with broker_errors(self._address):
            groups: Any = await self._client.xinfo_groups(self._stream)
            length = await self._client.xlen(self._stream)
        for group in groups:
            if group["name"] == self._group.encode():
                return int(group["pending"]) + int(length if group.get("lag") is None else group["lag"])
        return int(length)

    async def close(self) -> None:
        with suppress(exceptions.RedisError, OSError):
            await self._client.aclose()

    async def _claim(self, limit: int) -> list[Message]:
        """Claims what other readers left: goes once around the pending messages, then waits for `CLAIM_EVERY_S`."""
        cursor: Any = "0-0"
        while True:
            cursor, entries, *_ = await self._client.xautoclaim(
                self._stream, self._group, self._reader, int(CLAIM_IDLE_S * 1000), cursor, count=limit
            )
            if messages := _messages(entries):
                return messages
            if cursor in (b"0-0", "0-0"):
                self._claimed_at = time.monotonic()
                return []

    async def _forget_readers(self) -> None:
        for reader in await self._client.xinfo_consumers(self._stream, self._group):
            if reader["pending"] == 0 and reader["idle"] > FORGET_READER_S * 1000:
                await self._client.xgroup_delconsumer(self._stream, self._group, reader["name"])


def _entries(found: Any) -> list[Any]:
    """Returns the entries of the one stream asked for: RESP2 answers a list of pairs, RESP3 a mapping to lists."""
    if not found:
        return []
    if is_array(found):
        [[_, entries]] = found
        return entries
    [chunks] = found.values()
    return [entry for chunk in chunks for entry in chunk]


def _messages(entries: Sequence[Any]) -> list[Message]:
    """An entry that was trimmed away while it was pending has no fields any more: there is nothing to give."""
    return [_message(handle, fields) for handle, fields in entries if fields is not None]


def _message(handle: bytes, fields: dict[bytes, bytes]) -> Message:
    body = fields.get(EVENT_FIELD) or fields.get(RESULT_FIELD) or b""
    attributes = {
        name.decode("utf-8", "replace").lower(): value.decode("utf-8", "replace")
        for name, value in fields.items()
        if name not in (EVENT_FIELD, RESULT_FIELD)
    }
    return Message(body, attributes, handle)
