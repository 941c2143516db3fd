"""Events sent again after the database was restored from a backup taken half-way double no target effect."""

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from connect.store.embedded.mode import ENVIRONMENT, binaries
from tests.chaos.feeder import purchases
from tests.chaos.harness import SEED, cluster
from tests.chaos.processes import all_of

pytestmark = pytest.mark.whole

EVENTS = 2000


async def run(program: str, *arguments: str) -> None:
    """A program of the embedded PostgreSQL, so that its version is the server's."""
    command: Sequence[str] = (str(binaries("direct") / program), *arguments)
    done = await asyncio.to_thread(
        subprocess.run, command, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def empty_anew(url: str) -> None:
    """The database is lost: another of its name takes its place."""
    parts = urlsplit(url)
    connection = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    await connection.execute(f'DROP DATABASE "{parts.path[1:]}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "{parts.path[1:]}"')
    await connection.close()


@pytest.mark.timeout(300)
async def test_2000_events_sent_again_after_a_restore_double_no_effect(database_url: str, tmp_path: Path):
    facts = purchases(Random(SEED), EVENTS)
    backup = str(tmp_path / "half-way.dump")
    async with cluster(database_url, tmp_path) as up:
        await up.feed(facts[: EVENTS // 2], singles=0.1)
        await run(
            "pg_dump", "--format=custom", f"--file={backup}", f"--dbname={database_url}"
        )  # while commands are on their way
        await up.feed(facts[EVENTS // 2 :], singles=0.1)
        assert await up.all_ended()
        bodies = dict(await up.pool.fetch("SELECT id, body FROM reward_action"))
        before = {effect["key"]: effect["body_sha256"] for effect in await up.ledger()}

        await all_of(*(node.stop() for node in up.nodes))
        await up.pool.expire_connections()
        await empty_anew(database_url)
        await run("pg_restore", "--exit-on-error", f"--dbname={database_url}", backup)
        restored = await up.pool.fetchval("SELECT count(*) FROM event")
        assert EVENTS // 2 <= restored < EVENTS

        await all_of(*(node.start() for node in up.nodes))
        up.history.answers.clear()
        await up.feed(facts, singles=0.1)
        await up.finish()
        ledger = await up.ledger()
        assert {effect["key"]: effect["body_sha256"] for effect in ledger} == before
        assert dict(await up.pool.fetch("SELECT id, body FROM reward_action")) == bodies
        asked_again = sum(effect["n_requests"] > 1 for effect in ledger)
        assert asked_again > EVENTS // 4, f"void: only {asked_again} commands were sent twice"
