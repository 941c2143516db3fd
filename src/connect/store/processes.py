"""Tells what runs: each process says so every few seconds, so that `connect status` can show all of them."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from connect import __version__
from connect.store.pool import Connection

BEAT_EVERY_S = 5.0
GONE_AFTER_S = 20.0
"""A process not seen for this long (four beats) is shown as gone."""

BEAT = """
INSERT INTO process (id, role, host, pid, program_version, ruleset_version) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET seen_at = now(), ruleset_version = $6
"""
FORGET = "DELETE FROM process WHERE seen_at < now() - interval '1 day'"
LEAVE = "DELETE FROM process WHERE id = $1"
ALL = """
SELECT id, role, host, pid, program_version, ruleset_version, started_at, seen_at,
    extract(epoch FROM now() - seen_at)::float8 AS silent_s
FROM process ORDER BY role, started_at
"""


async def beat(connection: Connection, process_id: UUID, role: str, ruleset_version: int) -> None:
    await connection.execute(BEAT, process_id, role, socket.gethostname(), os.getpid(), __version__, ruleset_version)
    await connection.execute(FORGET)


async def leave(connection: Connection, process_id: UUID) -> None:
    await connection.execute(LEAVE, process_id)


async def list_processes(connection: Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in await connection.fetch(ALL)]


@contextlib.asynccontextmanager
async def heartbeat(pool: Any, role: str, ruleset_version: Callable[[], int]) -> AsyncGenerator[None]:
    """Says every few seconds that this process runs, and takes the word back at the end."""
    process_id = uuid4()

    async def keep_beating() -> None:
        while True:
            # a missed beat is what the others are to see
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                async with pool.acquire() as connection:
                    await beat(connection, process_id, role, ruleset_version())
            await asyncio.sleep(BEAT_EVERY_S)

    beating = asyncio.create_task(keep_beating())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        # leaving must not hide why it leaves
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with pool.acquire(timeout=1) as connection:
                await leave(connection, process_id)
