"""Amazon SQS: long polling, ten messages a call and many calls at once; what is worked on is kept from others."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from connect.brokers import Address, BrokerUnavailable
from connect.brokers.sqs import CALL_MAX, CALLS_AT_ONCE, COUNTS, VISIBILITY_S, Queue, broker_errors, calls
from connect.intake.bus.port import Message

SOCKET_MARGIN_S: Final = 15.0
WAIT_MAX_S: Final = 10
"""Within the margin; SQS itself takes up to 20."""


class SqsBus:
    """`sqs://region/queue-name?endpoint=URL`. The body is the message's, its attributes are the headers."""

    def __init__(self, address: Address, reader: str) -> None:
        self._address, self._reader = address, reader
        self._queue = Queue(address, timeout_s=SOCKET_MARGIN_S)

    async def open(self) -> None:
        await self._queue.open()

    async def batch(self, limit: int, wait_s: float) -> list[Message]:
        """One call waits; where it comes back full, others fetch what else lies there, without waiting."""
        with broker_errors(self._address):
            found = await self._receive(min(limit, CALL_MAX), min(max(1, int(wait_s)), WAIT_MAX_S))
            while len(found) % CALL_MAX == 0 and found and len(found) < limit:
                counts = [min(CALL_MAX, limit - start) for start in range(len(found), limit, CALL_MAX)]
                more = await asyncio.gather(*(self._receive(count, 0) for count in counts[:CALLS_AT_ONCE]))
                if not any(more):
                    break
                found += [message for part in more for message in part]
        return found

    async def ack(self, messages: Sequence[Message]) -> None:
        """Those that could not be deleted come again, and are known by then."""
        with broker_errors(self._address):
            answers = await asyncio.gather(*(self._delete(part) for part in calls(messages)))
        if failed := [one for answer in answers for one in answer.get("Failed", ())]:
            raise BrokerUnavailable(f"{self._address.shown}: {len(failed)} not deleted: {failed[0].get('Message')}")

    async def keep(self, messages: Sequence[Message]) -> None:
        with broker_errors(self._address):
            await asyncio.gather(*(self._prolong(part) for part in calls(messages)))

    async def lag(self) -> int:
        with broker_errors(self._address):
            answer = await self._queue.client.get_queue_attributes(
                QueueUrl=self._queue.url, AttributeNames=list(COUNTS)
            )
        return sum(int(answer["Attributes"][name]) for name in COUNTS)

    async def close(self) -> None:
        await self._queue.close()

    async def _receive(self, count: int, wait_s: int) -> list[Message]:
        answer = await self._queue.client.receive_message(
            QueueUrl=self._queue.url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=VISIBILITY_S,
            MessageAttributeNames=["All"],
        )
        return [_message(found) for found in answer.get("Messages", ())]

    async def _delete(self, messages: Sequence[Message]) -> Any:
        entries = [{"Id": str(index), "ReceiptHandle": one.handle} for index, one in enumerate(messages)]
        return await self._queue.client.delete_message_batch(QueueUrl=self._queue.url, Entries=entries)

    async def _prolong(self, messages: Sequence[Message]) -> Any:
        entries = [
            {"Id": str(index), "ReceiptHandle": one.handle, "VisibilityTimeout": VISIBILITY_S}
            for index, one in enumerate(messages)
        ]
        return await self._queue.client.change_message_visibility_batch(QueueUrl=self._queue.url, Entries=entries)


def _message(found: Any) -> Message:
    attributes = {
        name.lower(): value.get("StringValue", "") for name, value in found.get("MessageAttributes", {}).items()
    }
    return Message(found["Body"].encode("utf-8", "surrogatepass"), attributes, found["ReceiptHandle"])
