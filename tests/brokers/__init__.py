"""The brokers that run here, each behind a relay that tests may cut: streams, queues and subjects of a test's own."""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.brokers.nats import NatsStandIn
from tests.brokers.port import BrokerStandIn
from tests.brokers.rabbitmq import RabbitMqStandIn
from tests.brokers.redis import RedisStandIn
from tests.brokers.relay import Relay, answers
from tests.brokers.servers import server_of_this_run

__all__ = [
    "NATS", "RABBITMQ", "REDIS", "SERVERS", "STAND_INS", "BrokerStandIn", "NatsStandIn", "RabbitMqStandIn",
    "RedisStandIn", "Relay", "answers", "standing_in_for",
]  # fmt: skip

REDIS = os.environ.get("CONNECT_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")
RABBITMQ = os.environ.get("CONNECT_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/")
NATS = os.environ.get("CONNECT_TEST_NATS_URL", "nats://127.0.0.1:4222")
SERVERS: Mapping[str, tuple[type[BrokerStandIn], str]] = {
    "redis": (RedisStandIn, REDIS),
    "rabbitmq": (RabbitMqStandIn, RABBITMQ),
    "nats": (NatsStandIn, NATS),
}
"""Those that run on a machine of one's own."""
STAND_INS = (*SERVERS, "sqs")


@asynccontextmanager
async def standing_in_for(broker: str) -> AsyncGenerator[BrokerStandIn]:
    stand_in = await _made(broker)
    await stand_in.start()
    try:
        yield stand_in
    finally:
        await stand_in.cleanup()


async def _made(broker: str) -> BrokerStandIn:
    if broker == "sqs":
        from tests.brokers.sqs import SqsStandIn  # with moto, which takes long to import

        return SqsStandIn()
    made, server = SERVERS[broker]
    parts = urlsplit(server)
    if not answers(parts.hostname or "", parts.port or 0):
        server = await server_of_this_run(broker)
    return made(server)
