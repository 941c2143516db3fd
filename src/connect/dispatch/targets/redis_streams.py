"""Commands over Redis Streams: one entry a command, pipelined; the field `command` is the body."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from connect.brokers.redis import COMMAND_FIELD, broker_errors, is_ours, open_client
from connect.dispatch.targets.broker import BrokerTransport, Confirmed, Parcel, Published
from connect.lifecycle import Misconfigured, Retriable
from connect.model import Target


class RedisStreamTransport(BrokerTransport):
    """`redis://host:6379/0?stream=NAME`; with `maxlen` the stream is trimmed to about that, read or not."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        timeouts = {"timeout_s": target.timeout_s, "connect_timeout_s": target.connect_timeout_s}
        self._client = open_client(self.address, **timeouts)
        self._maxlen = int(self.address.options["maxlen"]) if "maxlen" in self.address.options else None

    async def connect(self) -> None:
        with broker_errors(self.address):
            await self._client.ping()

    async def publish(self, parcels: Sequence[Parcel], confirmed: Confirmed) -> None:
        pipe = self._client.pipeline(transaction=False)
        for parcel in parcels:
            fields: dict[Any, Any] = {COMMAND_FIELD: parcel.body, **parcel.headers}
            pipe.xadd(self.address.name, fields, maxlen=self._maxlen, approximate=True)
        with broker_errors(self.address):
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        for index, answer in enumerate(answers):
            if not isinstance(answer, Exception):
                confirmed[index] = Published(f"entry {answer.decode()}")
            else:
                reason = f"{self.address.shown}: {answer}"
                confirmed[index] = Misconfigured(reason) if is_ours(answer) else Retriable(reason)

    async def disconnect(self) -> None:
        with suppress(RedisError, OSError):
            await self._client.connection_pool.disconnect()
