"""The fence: no decision by rules that are no longer live is written, by whichever process and on whichever channel.

A statement that writes decisions reads the live version in its own snapshot and leaves out what an older one decided.
Nobody locks a hot row for it: a statement that began before a publish may commit just after it, so whoever publishes
waits until those have ended (`outlast`), and only then answers.
"""

import asyncio
import time
from collections.abc import Sequence

from connect.store.pool import Connection

OUTLAST_S = 5.0
"""A transaction that began before a publish and runs longer than this is cut off: its caller tries again."""
LOOK_EVERY_S = 0.01

FENCE = "({version} IS NULL OR {version} >= coalesce((SELECT version FROM ruleset_live), 0))"
"""Holds for what is undecided, and for what the live version or a newer one decided."""
LIVE = "SELECT version FROM ruleset_live"
NOW = "SELECT clock_timestamp()"
OLDER = """
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    AND usename = current_user AND application_name LIKE 'connect-%' AND xact_start < $1
"""
COUNT_OLDER = f"SELECT count(*) {OLDER}"
END_OLDER = f"SELECT count(pg_terminate_backend(pid)) {OLDER}"


class Outdated(Exception):
    """Raised where a decision was made by rules that are no longer live; nothing of it was written."""


async def refuse_outdated(connection: Connection, versions: Sequence[int | None]) -> None:
    """Raises `Outdated` where one of the versions that decided is older than the live one."""
    decided = [version for version in versions if version is not None]
    if decided and min(decided) < (await connection.fetchval(LIVE) or 0):
        raise Outdated


async def outlast(connection: Connection, *, patience_s: float = OUTLAST_S) -> None:
    """Returns when every transaction of Connect that began before this call has ended.

    After a publish has committed: what begins from then on sees it. What is left after `patience_s` is cut off. Only
    connections of this database account are waited for: those it sees and may end without further rights.
    """
    moment = await connection.fetchval(NOW)
    cut_off_at = time.monotonic() + patience_s
    while await connection.fetchval(COUNT_OLDER, moment):
        if time.monotonic() > cut_off_at:
            await connection.execute(END_OLDER, moment)
            return
        await asyncio.sleep(LOOK_EVERY_S)
