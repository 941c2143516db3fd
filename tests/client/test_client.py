"""The client's two laws, nothing lost and nothing doubled, against a server that fails in every way a server fails."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest

from connect.client import Client, Drained, Event, RequestRefused, drain
from tests.client.faulty_connect import (
    FaultyConnect,
    answer,
    at_most,
    cut,
    cut_after_recording,
    cut_the_answer,
    faulty_connect,
    half,
    hang,
)  # fmt: skip
from tests.conftest import free_port

NOT_NOW = [answer(status) for status in (408, 425, 429, 500, 502, 503, 504)]


def events(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"external_id": f"e{n}", "event_type": "purchase.completed"} for n in range(start, start + count)]


def statuses(results: Sequence[Any]) -> list[str]:
    return [result.status for result in results]


@pytest.fixture
async def server() -> AsyncIterator[FaultyConnect]:
    async with faulty_connect() as server:
        yield server


@pytest.fixture
async def client(server: FaultyConnect) -> AsyncIterator[Client]:
    async with Client(server.url, "ck_test", timeout_s=0.3, deadline_s=30, backoff_cap_s=0.2) as client:
        yield client


async def test_an_event_is_reported_with_the_key_and_its_result_says_what_became_of_it(
    server: FaultyConnect, client: Client
):
    result = await client.report(events(1)[0])
    assert (result.status, result.event_id, result.actions) == ("created", "id-e0", 1)
    assert result.acknowledged
    assert server.headers[0]["Authorization"] == "Bearer ck_test"
    assert (await client.report(events(1)[0])).status == "duplicate"


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_fails_nothing_is_lost_and_nothing_is_doubled(server: FaultyConnect, seed: int):
    chance = random.Random(seed)
    kinds = [cut, cut_after_recording, cut_the_answer, hang, half, *NOT_NOW, answer(503, Retry_After="0")]
    server.faults = chance.choices(kinds, k=8)
    sent = events(chance.randrange(1, 60))
    size = chance.choice([1, 7, 1000])
    async with Client(server.url, "key", timeout_s=0.3, backoff_cap_s=0.05, events_max=size) as client:
        results = await client.report_many(sent)
    assert all(result.acknowledged for result in results), results
    assert [result.external_id for result in results] == [event["external_id"] for event in sent]
    assert sorted(server.recorded) == sorted(event["external_id"] for event in sent)
    assert len(server.order) == len(set(server.order))
    assert server.faults == [], "a run whose faults did not fire proves nothing"


async def test_a_refused_item_is_returned_and_never_sent_again(server: FaultyConnect, client: Client):
    server.conflicts = {"e1"}
    server.faults = [half]
    results = await client.report_many([*events(3), {"event_type": "x"}])
    assert statuses(results) == ["created", "conflict", "created", "invalid"]
    assert [result.refused for result in results] == [False, True, False, True]
    assert results[1].problem == {"code": "event_conflict", "detail": "other content"}
    lines = [line for request in server.requests for line in request]
    assert sum(b'"e1"' in line for line in lines) == 2, "once turned away by the fault, once judged"
    assert sum(b"external_id" not in line for line in lines) == 1


async def test_what_is_not_acknowledged_by_the_deadline_is_said_to_be_unavailable_and_why(server: FaultyConnect):
    server.faults = [answer(503, {"detail": "shedding load"})] * 1000
    begun = time.monotonic()
    async with Client(server.url, "key", deadline_s=1.0, events_max=2) as client:
        results = await client.report_many(events(5))
    assert time.monotonic() - begun < 1.5
    assert statuses(results) == ["unavailable"] * 5
    assert results[0].problem == {"detail": "shedding load"}
    assert len(server.requests) > 1
    assert not any(b"e2" in line for request in server.requests for line in request), (
        "later batches wait for earlier ones"
    )


async def test_nobody_listening_is_unavailable():
    async with Client(f"http://127.0.0.1:{free_port()}", "key", deadline_s=0.3) as client:
        result = await client.report(events(1)[0])
    assert result.status == "unavailable"
    assert result.problem is not None
    assert "no answer" in result.problem["detail"]


@pytest.mark.parametrize("form", ["seconds", "a date"])
async def test_retry_after_is_waited_for(server: FaultyConnect, client: Client, form: str):
    date = format_datetime(
        datetime.fromtimestamp(time.time() + 2, UTC), usegmt=True
    )  # in whole seconds: 1 to 2 from now
    server.faults = [answer(429, Retry_After="1" if form == "seconds" else date)]
    begun = time.monotonic()
    assert (await client.report(events(1)[0])).status == "created"
    assert time.monotonic() - begun >= 0.9


async def test_a_retry_after_beyond_the_deadline_is_not_waited_for(server: FaultyConnect, client: Client):
    server.faults = [answer(503, Retry_After="3600")]
    begun = time.monotonic()
    assert (await client.report(events(1)[0])).status == "unavailable"
    assert time.monotonic() - begun < 5
    assert len(server.requests) == 1


async def test_requests_keep_the_order_and_the_limits(server: FaultyConnect):
    async with Client(server.url, "key", events_max=10, bytes_max=500) as client:
        results = await client.report_many(events(95))
    assert statuses(results) == ["created"] * 95
    assert server.order == [f"e{n}" for n in range(95)]
    assert max(map(len, server.requests)) <= 10
    assert max(len(b"\n".join(lines)) for lines in server.requests) <= 500


async def test_a_batch_that_something_between_finds_too_large_is_halved(server: FaultyConnect, client: Client):
    server.faults = [at_most(300)] * 100
    sent = [*events(20), {"external_id": "big", "context": {"text": "x" * 400}}, *events(5, 20)]
    results = await client.report_many(sent)
    assert statuses(results) == ["created"] * 20 + ["invalid"] + ["created"] * 5
    assert len(server.recorded) == 25


@pytest.mark.parametrize("status", [301, 401, 403, 404, 415])
async def test_a_refused_request_is_an_error_that_says_why(server: FaultyConnect, client: Client, status: int):
    server.faults = [answer(status, {"detail": "the key lacks a scope"})]
    with pytest.raises(RequestRefused, match=f"answered {status}: the key lacks a scope"):
        await client.report(events(1)[0])


@pytest.mark.parametrize("body", ["<html>login</html>", {}, {"results": []}, []])
async def test_an_answer_that_is_not_connects_is_no_acknowledgement(server: FaultyConnect, client: Client, body: Any):
    server.faults = [answer(200, body)]
    with pytest.raises(RequestRefused, match="is it Connect's address"):
        await client.report(events(1)[0])


async def test_a_status_this_client_does_not_know_is_no_acknowledgement(server: FaultyConnect, client: Client):
    server.faults = [answer(200, {"results": [{"status": "quarantined"}]})]
    assert (await client.report(events(1)[0])).status == "created"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"external_id": "a", "context": {"at": datetime(2026, 11, 22, tzinfo=UTC)}},
         b'{"external_id":"a","context":{"at":"2026-11-22T00:00:00+00:00"}}'),
        ({"external_id": UUID(int=1), "context": {"amount": Decimal("0.10"), "big": 2**63}},
         b'{"external_id":"00000000-0000-0000-0000-000000000001","context":{"amount":"0.10","big":9223372036854775808}}'),
        ('{\n "external_id": "a",\r\n "context": {"n": 0.10}\n}\n',
         b'{  "external_id": "a",   "context": {"n": 0.10} }'),
        ({"external_id": "\u00fc\u2028"}, '{"external_id":"\u00fc\u2028"}'.encode()),
    ],
)  # fmt: skip
async def test_an_event_is_one_line_with_every_digit(server: FaultyConnect, client: Client, event: Event, line: bytes):
    assert (await client.report(event)).status == "created"
    assert server.requests == [[line]]


@pytest.mark.parametrize(
    "event",
    [
        {"external_id": "a", "context": float("nan")},
        {"external_id": "a", "x": object()},
        {"external_id": "\ud800"},
        "",
        " \n",
        b"",
    ],
)
async def test_what_has_no_form_in_json_is_invalid_and_harms_no_neighbour(
    server: FaultyConnect, client: Client, event: Event
):
    results = await client.report_many([events(1)[0], event, events(2)[1]])
    assert statuses(results) == ["created", "invalid", "created"]
    assert [len(request) for request in server.requests] == [2]


async def test_an_event_larger_than_any_request_is_invalid(server: FaultyConnect):
    async with Client(server.url, "key", bytes_max=1000) as client:
        results = await client.report_many([events(1)[0], {"external_id": "big", "context": {"text": "x" * 1000}}])
    assert statuses(results) == ["created", "invalid"]


async def test_nothing_to_report_is_no_request(server: FaultyConnect, client: Client):
    assert await client.report_many([]) == []
    assert server.requests == []


class Outbox:
    """Rows in memory; `crash` makes the next write to it fail, as a process that dies there."""

    def __init__(self, rows: list[tuple[int, Event]]) -> None:
        self.waiting = dict(rows)
        self.aside: dict[int, Mapping[str, Any]] = {}
        self.crash = False

    async def fetch(self, limit: int) -> list[tuple[int, Event]]:
        return sorted(self.waiting.items(), key=lambda row: row[0])[:limit]

    async def done(self, rows: Sequence[int]) -> None:
        if self.crash:
            self.crash = False
            raise ConnectionResetError("the process died before it marked its rows")
        for row in rows:
            del self.waiting[row]

    async def refused(self, row: int, problem: Mapping[str, Any]) -> None:
        self.aside[row] = problem
        del self.waiting[row]


async def test_draining_reports_rows_in_order_and_marks_what_connect_has(server: FaultyConnect, client: Client):
    server.conflicts = {"e3"}
    outbox = Outbox(list(enumerate(events(25))))
    assert await drain(outbox, client, limit=10) == Drained(done=24, refused=1)
    assert server.order == [f"e{n}" for n in range(25) if n != 3]
    assert outbox.waiting == {}
    assert outbox.aside == {3: {"code": "event_conflict", "detail": "other content"}}


async def test_a_crash_between_the_answer_and_the_mark_sends_again_and_doubles_nothing(
    server: FaultyConnect, client: Client
):
    outbox = Outbox(list(enumerate(events(5))))
    outbox.crash = True
    with pytest.raises(ConnectionResetError):
        await drain(outbox, client)
    assert len(outbox.waiting) == 5
    assert await drain(outbox, client) == Drained(done=5)
    assert len(server.requests) == 2
    assert server.order == [f"e{n}" for n in range(5)]


async def test_rows_connect_did_not_take_in_time_stay(server: FaultyConnect):
    server.faults = [half, *[answer(503)] * 1000]
    outbox = Outbox(list(enumerate(events(4))))
    async with Client(server.url, "key", deadline_s=0.8) as client:
        assert await drain(outbox, client) == Drained(done=2, left=2)
        assert list(outbox.waiting) == [0, 1]
        server.faults = []
        assert await drain(outbox, client) == Drained(done=2)


async def test_two_drains_at_once_do_no_harm(server: FaultyConnect, client: Client):
    boxes = [Outbox(list(enumerate(events(50)))) for _ in range(2)]
    await asyncio.gather(*(drain(box, client, limit=7) for box in boxes))
    assert [box.waiting for box in boxes] == [{}, {}]
    assert len(server.order) == len(set(server.order)) == 50


async def test_history_is_reported_without_effects(server: FaultyConnect):
    urls: list[str] = []

    async def look(_: FaultyConnect, request: Any) -> Any:
        urls.append(request.path_qs)
        return await answer(200, {"results": [{"status": "created"}]})(server, request)

    server.faults = [look]
    async with Client(server.url + "/", "key", effects="none") as client:
        await client.report(json.dumps(events(1)[0]))
    assert urls == ["/internal/events/batch?effects=none"]
