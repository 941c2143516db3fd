"""A queue of Amazon SQS, as moto's server has it over real HTTP."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer
from moto.sqs.models import Queue as MotoQueue
from moto.sqs.models import SQSBackend, sqs_backends

from connect.brokers import Address, parse_address
from connect.brokers.sqs import Queue, calls
from tests.brokers.port import NOTHING, BrokerStandIn

ACCOUNT, REGION = "123456789012", "eu-west-1"
HALF_A_WHILE_MS = 35_000
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class OneAtATime:
    """Makes moto take in one step what SQS takes in one: two threads at once lose deletions and double messages."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        for kind, name in ((SQSBackend, "receive_message"), (MotoQueue, "delete_message"), (MotoQueue, "add_message")):
            setattr(kind, name, self._in_turn(getattr(kind, name)))
        MotoQueue.wait_for_messages = self._while_others_may(MotoQueue.wait_for_messages)  # type: ignore[method-assign]

    def _in_turn(self, step: Any) -> Any:
        def taken(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                return step(*arguments, **named)

        return taken

    def _while_others_may(self, wait: Any) -> Any:
        def waited(queue: Any, timeout: int) -> None:
            self._lock.release()
            try:
                wait(queue, timeout)
            finally:
                self._lock.acquire()

        return waited


OneAtATime()
logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request


class SqsStandIn(BrokerStandIn):
    many = 90
    in_order = False
    holds_connections = False

    def __init__(self, _: str = "") -> None:
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._moto.start()
        host, port = self._moto.get_host_and_port()
        super().__init__(f"http://{host}:{port}")
        self._environ = pytest.MonkeyPatch()
        self._refusing: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return self._at(f"http://127.0.0.1:{self.relay.port}")

    @property
    def direct_url(self) -> str:
        return self._at(self.server)

    def _at(self, endpoint: str) -> str:
        return f"sqs://{REGION}/{self.name}?endpoint={endpoint}"

    async def connect(self) -> None:
        for name, value in CREDENTIALS.items():
            self._environ.setenv(name, value)

    async def remove(self) -> None:
        self._environ.undo()
        if self._refusing is not None:
            await self._refusing.cleanup()
        self._moto.stop()

    async def refusing(self) -> str:
        """Moto takes any credentials: this answers as SQS does to those that it does not know."""

        async def refuse(_: web.Request) -> web.Response:
            told = {"__type": "com.amazon.coral.service#InvalidClientTokenId", "message": "The token is invalid."}
            return web.json_response(told, status=403, content_type="application/x-amz-json-1.0")

        app = web.Application()
        app.router.add_post("/", refuse)
        self._refusing = web.AppRunner(app)
        await self._refusing.setup()
        await web.TCPSite(self._refusing, "127.0.0.1", 0).start()
        return self._at(f"http://127.0.0.1:{self._refusing.addresses[0][1]}")

    async def take_away(self) -> None:
        queue = await self._queue()
        await queue.client.delete_queue(QueueUrl=queue.url)
        await queue.close()

    async def make(self) -> None:
        queue = Queue(self._direct(), timeout_s=10)
        await queue.find()
        await queue.client.create_queue(QueueName=self.name, Attributes={"MessageRetentionPeriod": "12345"})
        await queue.close()

    async def as_made(self) -> bool:
        return self._stored().message_retention_period == 12_345

    async def put(self, bodies: Sequence[bytes], headers: Mapping[str, str] = NOTHING) -> None:
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in headers.items()}
        queue = await self._queue()
        for part in calls(list(enumerate(bodies))):
            entries = [
                {"Id": str(number), "MessageBody": body.decode(), "MessageAttributes": attributes}
                for number, body in part
            ]
            await queue.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
        await queue.close()

    async def pending(self) -> int:
        return len(self._stored()._messages)

    async def waiting(self) -> int:
        return len(self._stored().messages)

    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        return [(each.body.encode(), _headers(each.message_attributes)) for each in self._stored()._messages]

    async def half_a_while(self) -> None:
        for message in self._stored()._messages:
            message.visible_at -= HALF_A_WHILE_MS

    async def give_up_on(self, reader: str) -> None:
        for message in self._stored()._messages:
            message.visible_at = 0

    def _stored(self) -> Any:
        return sqs_backends[ACCOUNT][REGION].queues[self.name]

    def _direct(self) -> Address:
        return parse_address(self.direct_url)

    async def _queue(self) -> Queue:
        queue = Queue(self._direct(), timeout_s=10)
        await queue.open()
        return queue


def _headers(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {name.lower(): value["StringValue"] for name, value in attributes.items()}
