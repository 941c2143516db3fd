"""NATS JetStream: a durable pull consumer that any number of readers share, each message acknowledged by itself."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from nats.errors import Error
from nats.js import api
from nats.js.errors import NotFoundError

from connect.brokers import Address, BrokerMisconfigured, BrokerUnavailable
from connect.brokers.nats import (
    REQUEST_S,
    broker_errors,
    close_client,
    ensure_stream,
    name_of,
    open_client,
)
from connect.intake.bus.inbox import Arrivals
from connect.intake.bus.port import Message

ACK_WAIT_S: Final = 30.0
"""A message untouched for this long goes to another reader; `keep` touches what this one holds."""
ACK_PENDING_MAX: Final = 50_000
"""Messages on their way at once, for all readers of the consumer: some thirty that hold three batches each."""
PULL_S: Final = 30.0
"""One request for messages stands at the server for this long, or until it is filled."""
PULL_MARGIN_S: Final = 10.0
CONNECT_S: Final = 5.0
FLUSH_S: Final = 10

NO_MESSAGES: Final = ("404", "408")
"""A request that time or an empty stream ended has these statuses; any other (409: the consumer is gone) is a fault."""
IDLE: Final = "100"


class JetStreamBus:
    """`nats://host:4222?subject=NAME`, with `stream` and `durable` where they are not called after the subject."""

    def __init__(self, address: Address, reader: str) -> None:
        self._address, self._reader = address, reader
        self._durable = address.options.get("durable", f"connect-{name_of(address.name)}")
        self._arrivals = Arrivals()
        self._client: Any = None
        self._stream = self._inbox = ""
        self._wanted = 0
        """The number of messages that the standing request has yet to bring."""
        self._wanted_until = 0.0
        self._held: dict[str, None] = {}
        """Everything given and not acknowledged, in its order, by the subject that acknowledges it."""

    async def open(self) -> None:
        self._client = await open_client(self._address, self._arrivals.end, connect_timeout_s=CONNECT_S)
        self._stream = await ensure_stream(self._client, self._address)
        with broker_errors(self._address):
            await self._ensure_consumer()
            self._inbox = self._client.new_inbox()
            await self._client.subscribe(self._inbox, cb=self._arrived, pending_bytes_limit=0)

    async def batch(self, limit: int, wait_s: float) -> list[Message]:
        if self._wanted == 0:
            await self._ask(limit)
        elif time.monotonic() > self._wanted_until + PULL_MARGIN_S:
            raise BrokerUnavailable(f"{self._address.shown}: a request for messages was never answered")
        return await self._arrivals.take(limit, wait_s)

    async def ack(self, messages: Sequence[Message]) -> None:
        """Sent in one go; one round trip at the end says that the server has them all."""
        self._arrivals.check()
        with broker_errors(self._address):
            for message in messages:
                await self._client.publish(message.handle)
                self._held.pop(message.handle, None)
            await self._client.flush(FLUSH_S)

    async def keep(self, messages: Sequence[Message]) -> None:
        """Keeps the messages, and those that wait here behind them: their time runs too."""
        self._arrivals.check()
        with broker_errors(self._address):
            for handle in list(self._held):
                await self._client.publish(handle, b"+WPI")

    async def lag(self) -> int:
        with broker_errors(self._address):
            info = await self._streams.consumer_info(self._stream, self._durable)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def close(self) -> None:
        """Gives back at once what is held; a reader that loses the connection gives it back by `ACK_WAIT_S`."""
        if self._client is None:
            return
        with suppress(Error, OSError):
            for handle in self._held:
                await self._client.publish(handle, b"-NAK")
        await close_client(self._client)

    @property
    def _streams(self) -> Any:
        return self._client.jetstream(timeout=REQUEST_S)

    async def _ensure_consumer(self) -> None:
        """One that exists is used as it is, unless it would give other messages or give them otherwise."""
        try:
            config = (await self._streams.consumer_info(self._stream, self._durable)).config
        except NotFoundError:
            wanted = api.ConsumerConfig(
                durable_name=self._durable, filter_subject=self._address.name, ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_S, max_ack_pending=ACK_PENDING_MAX, deliver_policy=api.DeliverPolicy.ALL,
            )  # fmt: skip
            await self._streams.add_consumer(self._stream, wanted)
            return
        if config.deliver_subject or config.ack_policy not in (None, api.AckPolicy.EXPLICIT):
            wrong = "is not a pull consumer with explicit acknowledgement"
        elif config.filter_subject not in (None, "", self._address.name):
            wrong = f"is for the subject {config.filter_subject}"
        else:
            return
        raise BrokerMisconfigured(
            f"{self._address.shown}: the consumer {self._durable} {wrong}: name another one by `durable=`"
        )

    async def _ask(self, limit: int) -> None:
        self._arrivals.check()
        self._wanted, self._wanted_until = limit, time.monotonic() + PULL_S
        request = msgspec.json.encode({"batch": limit, "expires": int(PULL_S * 1e9)})
        with broker_errors(self._address):
            await self._client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}", request, reply=self._inbox
            )

    async def _arrived(self, message: Any) -> None:
        headers: dict[str, str] = message.headers or {}
        status = headers.get("Status", IDLE) if message.subject == self._inbox else None
        if status is None:
            self._wanted = max(self._wanted - 1, 0)
            self._held[message.reply] = None
            attributes = {name.lower(): value for name, value in headers.items()}
            self._arrivals.put(Message(message.data, attributes, message.reply))
        elif status in NO_MESSAGES:
            await self._ask(max(self._wanted, 1))
        elif status != IDLE:
            said = headers.get("Description", "")
            self._arrivals.end(BrokerUnavailable(f"{self._address.shown}: {status} {said}"))
