"""RabbitMQ: a queue's messages, pushed up to a prefetch and acknowledged by the last of a batch."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from aiormq.abc import DeliveredMessage

from connect.brokers import Address, BrokerUnavailable
from connect.brokers.rabbitmq import broker_errors, close_connection, ensure_queue, open_connection
from connect.intake.bus.inbox import Arrivals
from connect.intake.bus.port import Message

PREFETCH: Final = 1000
"""Two batches: while one is written the next comes."""
CLOUDEVENTS_PREFIXES: Final = ("cloudevents:", "cloudevents_")
"""The prefixes of attributes in the AMQP binding of CloudEvents 1.0, where values are typed and not percent-encoded."""


class RabbitMqBus:
    """`amqp://user:password@host/vhost?queue=NAME`. A message is its reader's for as long as the connection lasts."""

    def __init__(self, address: Address, reader: str) -> None:
        self._address, self._reader = address, reader
        self._arrivals = Arrivals()
        self._connection: Any = None
        self._channel: Any = None
        self._given = self._acknowledged = 0
        """Delivery tags: the channel counts from 1."""

    async def open(self) -> None:
        self._connection = await open_connection(self._address)
        await ensure_queue(self._connection, self._address)
        with broker_errors(self._address):
            channel = self._channel = await self._connection.channel(publisher_confirms=False)
            channel.closing.add_done_callback(self._closed)
            channel.on_consumer_cancel_callbacks.add(self._cancelled)
            await channel.basic_qos(prefetch_count=PREFETCH)
            await channel.basic_consume(self._address.name, self._arrived)

    async def batch(self, limit: int, wait_s: float) -> list[Message]:
        return await self._arrivals.take(limit, wait_s)

    async def ack(self, messages: Sequence[Message]) -> None:
        self._arrivals.check()
        last = max(message.handle for message in messages)
        with broker_errors(self._address):
            await self._opened.basic_ack(last, multiple=True)
        self._acknowledged = last

    async def keep(self, messages: Sequence[Message]) -> None:
        """Nothing: the broker waits for as long as the connection lasts (its `consumer_timeout`, half an hour)."""

    async def lag(self) -> int:
        """Counts what is in the queue and what this reader holds; other readers tell what they hold."""
        with broker_errors(self._address):
            declared = await self._opened.queue_declare(self._address.name, passive=True)
        return (declared.message_count or 0) + self._given - self._acknowledged

    async def close(self) -> None:
        if self._connection is not None:
            await close_connection(self._connection)

    @property
    def _opened(self) -> Any:
        if self._channel is None:
            raise BrokerUnavailable(f"{self._address.shown}: not open")
        return self._channel

    async def _arrived(self, delivered: DeliveredMessage) -> None:
        tag = delivered.delivery_tag or 0
        self._given = max(self._given, tag)
        self._arrivals.put(Message(delivered.body, _attributes(delivered.header.properties), tag))

    async def _cancelled(self, _: Any) -> None:
        self._arrivals.end(BrokerUnavailable(f"{self._address.shown}: the broker ended it: is the queue gone?"))

    def _closed(self, closing: Any) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._arrivals.end(BrokerUnavailable(f"{self._address.shown}: the channel was closed: {error!r}"))


def _attributes(properties: Any) -> dict[str, str]:
    attributes = {} if properties.content_type is None else {"content-type": str(properties.content_type)}
    headers: dict[Any, Any] = properties.headers or {}
    for name, value in headers.items():
        lower = str(name).lower()
        if lower.startswith(CLOUDEVENTS_PREFIXES):
            attributes[f"ce-{lower[len(CLOUDEVENTS_PREFIXES[0]) :]}"] = quote(_text(value))
        else:
            attributes[lower] = _text(value)
    return attributes


def _text(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.decode("utf-8", "replace")
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
