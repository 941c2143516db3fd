"""Processes that die or stand still, a database that goes away, a row that cannot be written: nothing is lost."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from connect.dispatch.dispatcher import Dispatcher
from connect.dispatch.lane import Lane
from connect.dispatch.targets.http import HttpTransport
from connect.store import claims
from connect.store.actions import read_attempts
from connect.store.pool import open_pool
from tests.conftest import eventually
from tests.dispatch.stand_in import (
    action_of,
    add_actions,
    answer,
    body_of,
    count_of,
    dispatching,
    end_leases,
    has_ended,
    standing_in,
    target_at,
)

PROCESS = """
import asyncio, sys
from connect.dispatch.dispatcher import Dispatcher
from connect.model import Target
from connect.store.pool import open_pool

async def main(database_url, target_url):
    pool = await open_pool(database_url)
    target = Target(url=target_url, internal=True, timeout_s=60, max_inflight=4)
    await Dispatcher(pool, {"points": target}, poll_s=0.05).run(asyncio.Event())

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def process(database_url: str, target_url: str, **environment: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A dispatcher in a process of its own, killed at the end if it still lives."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, database_url, target_url, env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def test_a_process_paused_past_its_lease_does_not_overwrite_newer_state(database_url: str, pool: Any):
    (id,) = await add_actions(pool, 1)
    async with standing_in() as points:

        async def hang_then_fail(request: web.Request) -> web.StreamResponse:
            await points.hang(request)
            return web.Response(status=422)

        points.behave = points.in_turn(hang_then_fail, answer(200, {"reference": "from its successor"}))
        async with process(database_url, points.url) as paused:
            await eventually(lambda: points.requests, timeout_s=30)
            paused.send_signal(signal.SIGSTOP)
            await end_leases(pool)
            async with dispatching(pool, {"points": target_at(points.url)}):
                before = await eventually(lambda: has_ended(pool, id, "completed"))
            points.released.set()
            paused.send_signal(signal.SIGCONT)

            async def both_attempts_are_kept() -> bool:
                return len(await read_attempts(pool, id)) == 2

            await eventually(both_attempts_are_kept)
    assert await action_of(pool, id) == before
    assert [(attempt.n, attempt.outcome) for attempt in await read_attempts(pool, id)] == [
        (1, "refused"),
        (2, "completed"),
    ]
    assert points.keys == [str(id)] * 2


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("place", ["claim.after", "send.before", "send.after", "settle.before", "settle.after"])
async def test_a_process_killed_anywhere_loses_and_doubles_nothing(database_url: str, pool: Any, place: str, nth: int):
    ids = await add_actions(pool, 40)
    async with standing_in() as points:
        async with process(database_url, points.url, CONNECT_ENV="test", CONNECT_FAILPOINT=f"{place}:{nth}") as killed:
            assert await asyncio.wait_for(killed.wait(), 60) == -signal.SIGKILL
        await end_leases(pool)
        async with dispatching(pool, {"points": target_at(points.url)}):
            await eventually(lambda: _completed(pool, 40))
    assert points.effects == {str(id): 1 for id in ids}
    assert {(key, body.decode()) for key, body, _ in points.requests} == {(str(id), body_of(id)) for id in ids}


async def _completed(pool: Any, count: int) -> bool:
    return await count_of(pool, "completed") == count


class Wire:
    """A connection to PostgreSQL that can be cut: forwards bytes, or closes and refuses."""

    def __init__(self, database_url: str) -> None:
        self._upstream = urlsplit(database_url)
        self._sockets = parse_qs(self._upstream.query).get("host", [""])[0]  # the embedded one listens on a Unix socket
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self.url = ""

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        user = self._upstream.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._upstream._replace(netloc=f"{user}@127.0.0.1:{self._port}", query=""))

    async def cut(self) -> None:
        assert self._server
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._sockets:
            opening = asyncio.open_unix_connection(f"{self._sockets}/.s.PGSQL.5432")
        else:
            opening = asyncio.open_connection(self._upstream.hostname, self._upstream.port or 5432)
        database_reader, database_writer = await opening
        self._writers |= {writer, database_writer}
        await asyncio.gather(_pump(reader, database_writer), _pump(database_reader, writer))
        self._writers -= {writer, database_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_answers_that_come_while_the_database_is_away_are_kept_and_settled(database_url: str, pool: Any):
    ids = await add_actions(pool, 20)
    wire = Wire(database_url)
    await wire.mend()
    through_wire = await open_pool(wire.url)
    async with standing_in() as points:
        points.behave = points.hang
        async with dispatching(through_wire, {"points": target_at(points.url)}):
            await eventually(lambda: len(points.requests) == 20)
            await wire.cut()
            with capture_logs() as lines:
                points.released.set()
                (late,) = await add_actions(pool, 1)
                await eventually(lambda: {"settle_failed", "claim_failed"} <= {line["event"] for line in lines})
            assert not await count_of(pool, "completed")
            await wire.mend()
            await eventually(lambda: _completed(pool, 21))
    through_wire.terminate()
    await wire.cut()
    assert sorted(points.keys) == sorted(map(str, [*ids, late]))


async def test_a_row_that_cannot_be_written_does_not_hold_up_the_others(pool: Any):
    await pool.execute("ALTER TABLE dispatch_attempt ADD CHECK (excerpt <> '{\"poison\": true}')")
    ids = await add_actions(pool, 30)
    poison = str(ids[7])

    async def behave(request: web.Request) -> web.StreamResponse:
        return web.json_response({"poison": True} if poison in request.headers["Idempotency-Key"] else {})

    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        points.behave = behave
        await eventually(lambda: _completed(pool, 29))
    assert (await action_of(pool, ids[7])).status == "dispatched"


async def test_a_claim_that_outlived_its_lease_unsent_is_not_sent(pool: Any):
    await add_actions(pool, 1)
    async with standing_in() as points:
        target = target_at(points.url)
        (held,) = await claims.claim(pool, {"points": claims.LaneClaim(slots=1, target=target)})
        dispatcher = Dispatcher(pool, {"points": target})
        lane = Lane(target, HttpTransport(target), time.monotonic())
        with capture_logs() as lines:
            await dispatcher._send(lane, [held], claimed_at=time.monotonic() - target.lease_s)
        assert points.requests == []
    assert [line["event"] for line in lines] == ["lease_lost_before_sending"]
