"""Commands over NATS JetStream: one message a command, the stream's acknowledgements of a batch awaited together."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from nats.js.errors import APIError

from connect.brokers import BrokerMisconfigured, BrokerUnavailable
from connect.brokers.nats import broker_errors, close_client, ensure_stream, open_client, told
from connect.dispatch.targets.broker import BrokerTransport, Confirmed, Parcel, Published, await_confirmed
from connect.errors import SettingsError
from connect.lifecycle import Misconfigured, Outcome, Retriable
from connect.model import Target

NO_RESPONDERS: Final = "503"


class _PublishAck(Struct, frozen=True):
    """Tells what a stream says of a message that reached its subject."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


class JetStreamTransport(BrokerTransport):
    """`nats://host:4222?subject=NAME`; the stream drops a key that it saw within its window."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if {"*", ">"} & set(self.address.name.split(".")):
            raise SettingsError(f"{target!r}: commands go to one subject, and {self.address.name} is a pattern")
        self._client: Any = None
        self._inbox = ""
        self._sent = 0
        self._waiting: dict[str, asyncio.Future[Published | Outcome]] = {}

    async def connect(self) -> None:
        self._client = await open_client(self.address, self._gone, connect_timeout_s=self.target.connect_timeout_s)
        await ensure_stream(self._client, self.address)
        with broker_errors(self.address):
            self._inbox = self._client.new_inbox()
            await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)

    async def publish(self, parcels: Sequence[Parcel], confirmed: Confirmed) -> None:
        """Raises also where no stream takes the subject any more: connecting anew makes one."""
        if self._client is None:
            raise BrokerUnavailable(f"{self.address.shown}: not connected")
        replies: dict[str, asyncio.Future[Published | Outcome]] = {}
        try:
            with broker_errors(self.address):
                for parcel in parcels:
                    self._sent += 1
                    reply = f"{self._inbox}.{self._sent}"
                    replies[reply] = self._waiting[reply] = asyncio.get_running_loop().create_future()
                    headers = {**parcel.headers, "Nats-Msg-Id": parcel.broker_key}
                    await self._client.publish(self.address.name, parcel.body, reply=reply, headers=headers)
            await await_confirmed(list(replies.values()), confirmed)
        finally:
            for reply in replies:
                self._waiting.pop(reply, None)

    async def disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close_client(client)

    async def _answered(self, message: Any) -> None:
        waiting = self._waiting.pop(message.subject, None)
        if waiting is None or waiting.done():
            return
        headers: dict[str, str] = message.headers or {}
        if headers.get("Status") == NO_RESPONDERS:
            waiting.set_exception(BrokerUnavailable(f"{self.address.shown}: no stream takes this subject any more"))
            return
        try:
            answer = msgspec.json.decode(message.data, type=_PublishAck)
        except (msgspec.DecodeError, UnicodeDecodeError):
            reason = f"{self.address.shown}: answered by something else than a stream"
            waiting.set_exception(BrokerMisconfigured(reason))
            return
        waiting.set_result(self._outcome_of(answer))

    def _outcome_of(self, answer: _PublishAck) -> Published | Outcome:
        if answer.error is None:
            repeated = ", which had it already" if answer.duplicate else ""
            return Published(f"stream {answer.stream}, message {answer.seq}{repeated}")
        refused = told(self.address, APIError(**answer.error))
        return Misconfigured(str(refused)) if isinstance(refused, BrokerMisconfigured) else Retriable(str(refused))

    def _gone(self, error: BrokerUnavailable) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
