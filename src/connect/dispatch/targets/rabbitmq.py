"""Commands over RabbitMQ: one persistent message a command, the confirmations of a batch awaited together."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic

from connect.brokers import BrokerMisconfigured, BrokerUnavailable
from connect.brokers.rabbitmq import broker_errors, close_connection, ensure_queue, open_connection
from connect.dispatch.targets.broker import BrokerTransport, Confirmed, Parcel, Published, await_confirmed
from connect.lifecycle import Outcome, Retriable
from connect.model import Target

PERSISTENT = 2


class RabbitMqTransport(BrokerTransport):
    """`amqp://user:password@host/vhost?queue=NAME`, over the default exchange; `message_id` is the idempotency key."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._connection: Any = None
        self._channel: Any = None

    async def connect(self) -> None:
        self._connection = await open_connection(self.address, connect_timeout_s=self.target.connect_timeout_s)
        await ensure_queue(self._connection, self.address)
        with broker_errors(self.address):
            self._channel = await self._connection.channel(publisher_confirms=True)

    async def publish(self, parcels: Sequence[Parcel], confirmed: Confirmed) -> None:
        """Raises also where a command could not be routed: the queue is gone, and connecting anew makes it."""
        if (channel := self._channel) is None:
            raise BrokerUnavailable(f"{self.address.shown}: not connected")
        sending = [asyncio.create_task(self._publish(channel, parcel)) for parcel in parcels]
        await await_confirmed(sending, confirmed)

    async def _publish(self, channel: Any, parcel: Parcel) -> Published | Outcome:
        properties = Basic.Properties(
            content_type="application/json",
            delivery_mode=PERSISTENT,
            message_id=parcel.key,
            headers=dict(parcel.headers),
        )
        with broker_errors(self.address):
            try:
                await channel.basic_publish(
                    parcel.body, routing_key=self.address.name, properties=properties, mandatory=True, wait=False
                )
            except PublishError as error:
                raise BrokerMisconfigured(f"{self.address.shown}: no such queue any more: {error}") from error
            except DeliveryError:
                return Retriable(f"{self.address.shown}: the queue does not take it (is it full?)")
        return Published()

    async def disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await close_connection(connection)
