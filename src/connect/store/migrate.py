"""Brings the schema to head: plain SQL files, each once, in order, in a transaction of its own.

Safe twice and side by side: an advisory lock lets one process work while the others wait for it.
"""

from importlib import resources
from typing import Any

import asyncpg

from connect.errors import SettingsError
from connect.store.pool import CONNECT_TIMEOUT_S

ADVISORY_LOCK = 0x436F6E6E656374
"""'Connect' in ASCII: one lock for all processes of one database."""

CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migration (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


def migrations() -> list[tuple[int, str, str]]:
    """(version, name, SQL) in order; the version is the number a file's name starts with."""
    folder = resources.files("connect.store") / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [(int(entry.name.split("_")[0]), entry.name, entry.read_text(encoding="utf-8")) for entry in files]


async def migrate(url: str) -> list[str]:
    """Returns the names of the migrations it applied. Raises `SettingsError` on a database newer than this program."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        await connection.execute(CREATE_HISTORY)
        done = {row["version"] for row in await connection.fetch("SELECT version FROM schema_migration")}
        known = migrations()
        if newer := done - {version for version, _, _ in known}:
            raise SettingsError(
                f"the database is at schema {max(newer)}, this program knows up to {known[-1][0]}: "
                "run the newer program, or restore a backup made before its migration"
            )
        return [await _apply(connection, *entry) for entry in known if entry[0] not in done]
    finally:
        await connection.close()


async def _apply(connection: Any, version: int, name: str, sql: str) -> str:
    async with connection.transaction():
        await connection.execute(sql)
        await connection.execute("INSERT INTO schema_migration (version, name) VALUES ($1, $2)", version, name)
    return name


async def schema_version(connection: Any) -> int:
    """0 on an empty database."""
    if await connection.fetchval("SELECT to_regclass('schema_migration')") is None:
        return 0
    return await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migration")
