"""The schema comes to head once, whoever asks and however many at once, on every PostgreSQL we claim."""

import asyncio
from typing import Any

import asyncpg
import pytest

from connect.errors import SettingsError
from connect.store.migrate import migrate, migrations, schema_version


async def fetch(url: str, query: str) -> Any:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_twenty_processes_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(20)))
    everything = [name for _, name, _ in migrations()]
    assert sorted(applied, key=len) == [[]] * 19 + [everything]
    assert await fetch(empty_database_url, "SELECT count(*) FROM schema_migration") == len(everything)


async def test_the_schema_works_on_the_postgresql_that_runs_beside_us(external_database_url: str) -> None:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(external_database_url)
    assert await schema_version(connection) == migrations()[-1][0]
    await connection.close()


async def test_an_empty_database_is_at_version_zero(empty_database_url: str) -> None:
    connection: asyncpg.Connection[Any] = await asyncpg.connect(empty_database_url)
    assert await schema_version(connection) == 0
    await connection.close()


async def test_a_database_newer_than_the_program_is_refused_and_left_alone(database_url: str) -> None:
    await fetch(database_url, "INSERT INTO schema_migration (version, name) VALUES (9999, 'from the future')")
    with pytest.raises(SettingsError, match="9999"):
        await migrate(database_url)
    assert await fetch(database_url, "SELECT count(*) FROM event") == 0


def test_migrations_are_numbered_without_gaps() -> None:
    assert [version for version, _, _ in migrations()] == list(range(1, len(migrations()) + 1))
