"""One contract for every transport: HTTP, and each of the brokers that run here."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from connect.dispatch.command import sign, signing_key
from connect.lifecycle import Completed, Misconfigured, Retriable
from tests.brokers import STAND_INS, Relay, standing_in_for
from tests.dispatch.sending import PATIENCE_S, SECRET, commands, outcomes, sending_to
from tests.dispatch.stand_in import StandIn, answer, command, standing_in

GOODBYE_S = 2.0
"""The seconds that letting go of a connection may take beyond the close itself."""


class FarEnd(Protocol):
    """Where commands arrive, behind a relay."""

    relay: Relay

    @property
    def url(self) -> str: ...

    def cut(self) -> None: ...

    async def refusing(self) -> str:
        """The url of one that refuses our credentials."""
        ...

    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        """Bodies and headers, names in lower case."""
        ...


class HttpEnd:
    def __init__(self, target: StandIn) -> None:
        self._target = target
        target.behave = answer(200, {})
        parts = urlsplit(target.url)
        self.relay = Relay(parts.hostname or "", parts.port or 0)
        self.url = f"http://127.0.0.1:{self.relay.port}{parts.path}"

    def cut(self) -> None:
        self.relay.cut()

    async def refusing(self) -> str:
        self._target.behave = answer(401)
        return self.url

    async def received(self) -> list[tuple[bytes, dict[str, str]]]:
        return [
            (body, {name.lower(): value for name, value in headers.items()})
            for _, body, headers in self._target.requests
        ]


@asynccontextmanager
async def end_of(transport: str) -> AsyncGenerator[FarEnd]:
    if transport != "http":
        async with standing_in_for(transport) as stand_in:
            yield stand_in
        return
    async with standing_in() as target:
        end = HttpEnd(target)
        await end.relay.start()
        yield end
        await end.relay.stop()


@pytest.fixture(params=["http", *sorted(STAND_INS)])
async def end(request: Any) -> AsyncIterator[FarEnd]:
    async with end_of(request.param) as far_end:
        yield far_end


async def test_the_body_arrives_byte_for_byte_and_the_headers_beside_it(end: FarEnd):
    sent = command()
    async with sending_to(end.url, secret=(SECRET,)) as transport:
        [answer] = await transport.send([sent])
    assert answer.outcome == Completed()
    [(body, headers)] = await end.received()
    assert body == sent.body.encode()
    assert headers["content-type"] == "application/json"
    assert headers["idempotency-key"] == f'"{sent.id}"'
    assert headers["traceparent"].startswith(f"00-{sent.event_id.hex}-")
    timestamp = headers["webhook-timestamp"]
    assert headers["webhook-signature"] == sign(signing_key(SECRET), str(sent.id), int(timestamp), body)


async def test_sendings_at_once_do_not_get_into_each_others_way(end: FarEnd):
    async with sending_to(end.url) as transport:
        sendings = [commands(min(20, transport.batch_max)) for _ in range(10)]
        told = await asyncio.gather(*(transport.send(sending) for sending in sendings))
    assert [outcomes(answers) for answers in told] == [[Completed()] * len(sending) for sending in sendings]
    bodies = [each.body.encode() for sending in sendings for each in sending]
    assert sorted(body for body, _ in await end.received()) == sorted(bodies)


async def test_one_that_is_gone_is_retried_in_time_and_works_when_it_is_back(end: FarEnd):
    async with sending_to(end.url) as transport:
        assert outcomes(await transport.send([command(id=uuid4())])) == [Completed()]
        await end.relay.stop()
        for _ in range(2):
            started = time.monotonic()
            told = outcomes(await transport.send(commands(min(3, transport.batch_max))))
            assert time.monotonic() - started < PATIENCE_S + GOODBYE_S
            assert [type(outcome) for outcome in told] == [Retriable] * len(told)
        await end.relay.start()
        assert outcomes(await transport.send([command(id=uuid4())])) == [Completed()]


async def test_a_cut_connection_is_made_anew_at_the_next_sending(end: FarEnd):
    async with sending_to(end.url) as transport:
        await transport.send(commands(1))
        end.cut()
        told = [type(outcome) for _ in range(2) for outcome in outcomes(await transport.send(commands(1)))]
        assert told[-1] is Completed
        assert told[0] in (Retriable, Completed)


async def test_one_that_falls_silent_is_retried_in_time(end: FarEnd):
    async with sending_to(end.url, timeout_s=1.0) as transport:
        await transport.send(commands(1))
        end.relay.silent = True
        started = time.monotonic()
        told = outcomes(await transport.send(commands(1)))
        assert time.monotonic() - started < 1.0 + GOODBYE_S
        assert [type(outcome) for outcome in told] == [Retriable]
        end.relay.silent = False
        assert outcomes(await transport.send(commands(1))) == [Completed()]


async def test_a_credential_that_is_refused_is_told_as_something_to_mend(end: FarEnd):
    async with sending_to(await end.refusing()) as transport:
        [outcome] = outcomes(await transport.send([command()]))
    assert isinstance(outcome, Misconfigured), outcome
    assert "nobody" not in outcome.reason


async def test_a_loopback_address_is_refused_unless_the_target_is_internal(end: FarEnd):
    async with sending_to(end.url, internal=False) as transport:
        [outcome] = outcomes(await transport.send([command()]))
    assert isinstance(outcome, Misconfigured), outcome
    assert "internal = true" in outcome.reason
