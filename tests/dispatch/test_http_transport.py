"""One POST a command over real connections, and what each answer means."""

import asyncio
import base64
import gzip
import time
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from connect.dispatch.command import sign, signing_key
from connect.dispatch.targets.http import REPLY_BYTES_MAX, HttpTransport, outcome_of, retry_after_s
from connect.errors import SettingsError
from connect.lifecycle import Accepted, Answer, Completed, Misconfigured, Refused, Retriable, outcome_name
from tests.conftest import free_port
from tests.dispatch.stand_in import Behaviour, StandIn, answer, command, standing_in, target_at

TARGET_FAULTS = (401, 403, 404, 405, 410, 301, 302, 304, 307, 308, 402, 406, 411, 418, 421, 423, 431, 451, 101, 600)
ID = UUID("6f1c0e8e-2f5a-5b77-9a51-0d3a5f2c1b44")
SECRETS = tuple("whsec_" + base64.b64encode(key).decode() for key in (b"the key that comes", b"the key that goes"))


@asynccontextmanager
async def transport(url: str, **settings: Any) -> AsyncGenerator[HttpTransport]:
    opened = HttpTransport(target_at(url, **settings))
    try:
        yield opened
    finally:
        await opened.close()


async def send_to(behave: Behaviour, **settings: Any) -> tuple[Answer, StandIn]:
    async with standing_in() as points, transport(points.url, **settings) as opened:
        points.behave = behave
        (told,) = await opened.send([command()])
        return told, points


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"reference": "0xabc"}', Completed("0xabc")),
        (200, b'{"reference": 42}', Completed("42")),
        (200, b'{"reference": true}', Completed()),
        (200, b'{"reference": {"a": 1}}', Completed()),
        (200, b'{"reference": "a\\u0000b"}', Completed("a\ufffdb")),
        (200, b'{"status": "failed"}', Completed()),
        (200, b"[1]", Completed()),
        (200, b"not json", Completed()),
        (200, b'"' + b"\xff" * 10, Completed()),
        (200, b"[" * 60_000, Completed()),
        (200, b'{"reference": ' + b"9" * 60_000 + b"}", Completed()),
        (200, b'{"a":' * 10_000, Completed()),
        (200, b"", Completed()),
        (201, b"{}", Completed()),
        (204, b"", Completed()),
        (206, b"", Completed()),
        (202, b'{"reference": "later"}', Accepted()),
        (400, b"", Refused("HTTP 400")),
        (413, b"too big", Refused("HTTP 413: too big")),
        (415, b"", Refused("HTTP 415")),
        (422, b"", Refused("HTTP 422")),
        *[(status, b"", Misconfigured(f"HTTP {status}")) for status in TARGET_FAULTS],
        *[(status, b"", Retriable(f"HTTP {status}")) for status in (408, 500, 502, 503, 504, 599)],
        *[(status, b"", Retriable(f"HTTP {status}", alive=True)) for status in (409, 425, 429)],
        (409, b'{"id": "%s", "status": "completed", "reference": "r"}' % str(ID).encode(), Completed("r")),
        (409, b'{"id": "%s", "status": "completed"}' % str(ID).upper().encode(), Completed()),
        (409, b'{"id": "%s", "status": "pending"}' % str(ID).encode(), Retriable),
        (409, b'{"id": "00000000-0000-0000-0000-000000000000", "status": "completed"}', Retriable),
        (409, b'{"status": "completed"}', Retriable),
    ],
)  # fmt: skip
def test_an_answer_means_what_the_contract_says(status: int, body: bytes, expected: Any):
    outcome = outcome_of(status, body, None, ID)
    assert isinstance(outcome, expected) if isinstance(expected, type) else outcome == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (429, Retriable("HTTP 429", 7, holds_lane=True, alive=True)),
        (503, Retriable("HTTP 503", 7, holds_lane=True)),
        (500, Retriable("HTTP 500", 7, holds_lane=False)),
        (409, Retriable("HTTP 409", 7, holds_lane=False, alive=True)),
    ],
)
def test_retry_after_is_for_the_command_and_on_429_and_503_for_the_lane(status: int, expected: Retriable):
    assert outcome_of(status, b"", 7, ID) == expected


NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120),
        (" 5 ", 5),
        ("0", 0),
        ("Sun, 22 Nov 2026 10:01:30 GMT", 90),
        ("Sunday, 22-Nov-26 10:00:10 GMT", 10),
        ("Sun Nov 22 10:00:30 2026", 30),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 50, None),
        ("Sun, 99 Nov 2026 10:01:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str | None, expected: float | None):
    assert retry_after_s(value, NOW) == expected


async def test_a_command_travels_as_the_contract_shows():
    told, points = await send_to(answer(200, {"reference": "0x1"}), secret=SECRETS)
    assert told == Answer(outcome=Completed("0x1"), status_code=200, excerpt='{"reference": "0x1"}')
    (key, body, headers), *more = points.requests
    assert not more
    assert (key, body) == (str(ID), command().body.encode())
    assert headers["Idempotency-Key"] == f'"{ID}"'
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["traceparent"].startswith(f"00-{command().event_id.hex}-")
    assert headers["webhook-id"] == str(ID)
    sent_at = int(headers["webhook-timestamp"])
    assert abs(sent_at - time.time()) < 60
    signatures = [sign(signing_key(secret), str(ID), sent_at, body) for secret in SECRETS]
    assert headers["webhook-signature"] == " ".join(signatures)


async def test_several_commands_are_answered_in_their_order():
    async def by_key(request: web.Request) -> web.StreamResponse:
        return web.json_response({"reference": request.headers["Idempotency-Key"].strip('"')})

    ids = [UUID(int=n) for n in range(1, 20)]
    async with standing_in() as points, transport(points.url) as opened:
        points.behave = by_key
        answers = await opened.send([command(id=id) for id in ids])
    assert [told.outcome for told in answers] == [Completed(str(id)) for id in ids]


async def test_a_failure_after_the_effect_is_asked_again():
    told, points = await send_to(answer(500, {"error": "crashed after the effect"}))
    assert told.outcome == Retriable('HTTP 500: {"error": "crashed after the effect"}')
    assert points.effects == {str(ID): 1}


async def test_a_connection_reset_is_asked_again():
    async def reset(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    told, _ = await send_to(reset)
    assert outcome_name(told.outcome) == "retriable"
    assert told.status_code is None


async def test_a_target_that_hangs_is_left_after_its_timeout():
    async with standing_in() as points, transport(points.url, timeout_s=0.2) as opened:
        points.behave = points.hang
        (told,) = await opened.send([command()])
    assert told.outcome == Retriable("no answer within 0.2 s")


async def test_a_port_where_nobody_listens_is_asked_again():
    async with transport(f"http://127.0.0.1:{free_port()}/") as opened:
        (told,) = await opened.send([command()])
    assert outcome_name(told.outcome) == "retriable"


async def test_a_name_that_does_not_resolve_is_asked_again():
    async with transport("http://points.invalid/", timeout_s=5) as opened:
        (told,) = await opened.send([command()])
    assert outcome_name(told.outcome) == "retriable"


async def test_an_answer_that_is_not_http_is_asked_again():
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp.example.com ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, transport(f"http://127.0.0.1:{port}/") as opened:
        (told,) = await opened.send([command()])
    assert outcome_name(told.outcome) == "retriable"


@pytest.mark.parametrize("wait", ["30", "Fri, 31 Dec 2100 23:59:59 GMT"])
async def test_too_many_requests_says_when_to_come_back(wait: str):
    told, _ = await send_to(answer(429, None, {"Retry-After": wait}))
    assert isinstance(told.outcome, Retriable)
    assert told.outcome.holds_lane
    assert told.outcome.retry_after_s is not None
    assert told.outcome.retry_after_s >= 30


async def test_a_redirect_is_not_followed():
    async with standing_in() as elsewhere:
        told, _ = await send_to(answer(307, None, {"Location": elsewhere.url}))
        assert elsewhere.requests == []
    assert outcome_name(told.outcome) == "misconfigured"
    assert told.status_code == 307


async def test_a_target_that_took_it_and_completed_it_earlier_says_so_with_409():
    told, _ = await send_to(answer(409, {"id": str(ID), "status": "completed", "reference": "0x7"}))
    assert told == Answer(outcome=Completed("0x7"), status_code=409, excerpt=told.excerpt)


async def test_a_gzip_bomb_is_read_to_the_cap_only():
    bomb = gzip.compress(b" " * 50_000_000)

    async def explode(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    tracemalloc.start()
    told, _ = await send_to(explode)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told.outcome == Completed()
    assert told.excerpt == " " * 1000
    assert peak_bytes < 5_000_000


async def test_a_compressed_reply_is_read_though_none_was_asked_for():
    async def compress(_: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b'{"reference": "0x1"}'), headers={"Content-Encoding": "gzip"})

    told, _ = await send_to(compress)
    assert told.outcome == Completed("0x1")


async def test_a_body_without_end_is_cut_and_its_connection_closed():
    written = 0

    async def never_end(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 16_384)
            written += 16_384

    told, _ = await send_to(never_end, timeout_s=30)
    assert told.outcome == Completed()
    assert told.excerpt == "x" * 1000
    assert written < 100 * REPLY_BYTES_MAX


async def test_a_body_that_stalls_does_not_undo_its_status():
    async with standing_in() as points, transport(points.url, timeout_s=0.3) as opened:

        async def stall(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"partly")
            return await points.hang(request)

        points.behave = stall
        (told,) = await opened.send([command()])
    assert told == Answer(outcome=Completed(), status_code=200, excerpt="partly")


async def test_an_excerpt_can_be_stored():
    async def binary(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500, body=b"\x00\xff\xfe" + b"a" * 5000)

    told, _ = await send_to(binary)
    assert told.excerpt is not None
    assert told.excerpt.startswith("\ufffd\ufffd\ufffdaaa")
    assert len(told.excerpt) == 1000


async def test_cookies_are_not_carried_from_answer_to_request():
    async with standing_in() as points, transport(points.url) as opened:
        points.behave = answer(200, {}, {"Set-Cookie": "session=1"})
        await opened.send([command()])
        await opened.send([command()])
    assert ["Cookie" in headers for _, _, headers in points.requests] == [False, False]


@pytest.mark.parametrize(
    "host", "127.0.0.1 localhost [::1] [::ffff:127.0.0.1] 0x7f.1 0177.0.0.1 2130706433 127.1 0.0.0.0".split()
)
async def test_a_neighbour_is_out_of_reach_unless_the_target_is_internal(host: str):
    async with standing_in() as points:
        async with transport(points.url.replace("127.0.0.1", host), internal=False) as opened:
            (told,) = await opened.send([command()])
        assert points.requests == []
    assert outcome_name(told.outcome) == "misconfigured", told


@pytest.mark.parametrize("host", "169.254.169.254 [fe80::1] [::ffff:169.254.169.254] 0.0.0.0 100.100.100.200".split())
async def test_metadata_and_link_local_are_out_of_reach_even_for_an_internal_target(host: str):
    async with transport(f"http://{host}/latest/meta-data/", internal=True, timeout_s=3) as opened:
        (told,) = await opened.send([command()])
    assert isinstance(told.outcome, Misconfigured)
    assert "not allowed" in told.outcome.reason


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    told, _ = await send_to(answer(200, {}))
    assert told.outcome == Completed()


async def test_an_internal_target_is_reached_by_name():
    async with standing_in() as points, transport(points.url.replace("127.0.0.1", "localhost")) as opened:
        (told,) = await opened.send([command()])
    assert told.outcome == Completed("ref-1")


@pytest.mark.parametrize("url", ["redis://host/0", "http://", "points", "", "http://[::1", "file:///etc/passwd"])
def test_an_address_that_cannot_work_is_told_at_start(url: str):
    with pytest.raises(SettingsError):
        HttpTransport(target_at(url))


def test_a_wrong_address_is_told_without_its_password():
    with pytest.raises(SettingsError) as refused:
        HttpTransport(target_at("ftp://user:hunter2@host/"))
    assert "hunter2" not in str(refused.value)
