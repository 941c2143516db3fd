"""Commands over Amazon SQS: ten a call, each confirmed on its own; a FIFO queue drops repeats by the key."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from connect.brokers.sqs import Queue, broker_errors, calls
from connect.dispatch.targets.broker import BrokerTransport, Confirmed, Parcel, Published
from connect.lifecycle import Misconfigured, Outcome, Refused, Retriable
from connect.model import Target

UNSENDABLE: Final = frozenset({"InvalidMessageContents", "MessageTooLong", "BatchRequestTooLong"})
"""The command itself is at fault: characters or a size that no queue takes."""


class _Recipient(Struct):
    user_id: str = "nobody"


class SqsTransport(BrokerTransport):
    """`sqs://region/queue-name?endpoint=URL`. On a FIFO queue the group is the user, so each user's are in order."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._fifo = self.address.name.endswith(".fifo")
        self._queue = self._make()

    def hosts(self) -> Sequence[str]:
        endpoint = urlsplit(self.address.options.get("endpoint", ""))
        return [endpoint.netloc.rpartition("@")[2]] if endpoint.netloc else []

    async def connect(self) -> None:
        await self._queue.open()

    async def publish(self, parcels: Sequence[Parcel], confirmed: Confirmed) -> None:
        numbered = list(enumerate(parcels))
        with broker_errors(self.address):
            await asyncio.gather(*(self._send_call(part, confirmed) for part in calls(numbered)))

    async def disconnect(self) -> None:
        await self._queue.close()

    def _make(self) -> Queue:
        return Queue(self.address, timeout_s=self.target.timeout_s, connect_timeout_s=self.target.connect_timeout_s)

    async def _send_call(self, numbered: Sequence[tuple[int, Parcel]], confirmed: Confirmed) -> None:
        entries = [self._entry(index, parcel) for index, parcel in numbered]
        answer = await self._queue.client.send_message_batch(QueueUrl=self._queue.url, Entries=entries)
        for one in answer.get("Successful", ()):
            confirmed[int(one["Id"])] = Published(f"message {one['MessageId']}")
        for one in answer.get("Failed", ()):
            confirmed[int(one["Id"])] = self._refusal(one)

    def _entry(self, index: int, parcel: Parcel) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "Id": str(index),
            "MessageBody": parcel.body.decode(),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in parcel.headers.items()
            },
        }
        if self._fifo:
            entry["MessageDeduplicationId"] = parcel.broker_key
            entry["MessageGroupId"] = _group(msgspec.json.decode(parcel.body, type=_Recipient).user_id)
        return entry

    def _refusal(self, failed: dict[str, Any]) -> Outcome:
        reason = f"{self.address.shown}: {failed.get('Code')}: {failed.get('Message')}"
        if failed.get("Code") in UNSENDABLE:
            return Refused(reason)
        return Misconfigured(reason) if failed.get("SenderFault") else Retriable(reason)


def _group(user_id: str) -> str:
    """A user's group: SQS takes up to 128 characters, letters, digits and punctuation of ASCII."""
    return user_id.encode("ascii", "xmlcharrefreplace").decode().replace(" ", "_")[:128]
