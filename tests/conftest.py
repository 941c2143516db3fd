"""Every test may use a real database of its own, and a way to wait for what must come true."""

import asyncio
import inspect
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from connect.store.embedded import EmbeddedPostgres
from connect.store.migrate import migrate
from connect.store.pool import open_pool
from tests import databases
from tests.databases import Stock

settings.register_profile("shared-cores", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("shared-cores")

LOCAL_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"


async def eventually(check: Callable[[], Any], timeout_s: float = 10, every_s: float = 0.02) -> Any:
    """Waits until `check` (sync or async) gives something true, and returns it; fails with its last answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = check()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout_s} s; last answer: {answer!r}"
        await asyncio.sleep(every_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5432), timeout=1):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _servers_end_with_the_run() -> Iterator[None]:
    yield
    if servers := sys.modules.get("tests.brokers.servers"):
        servers.stop_servers()


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[str]:
    """One embedded PostgreSQL a test process; its folder goes with it."""
    with tempfile.TemporaryDirectory(prefix="connect-test-") as home:
        server = asyncio.run(EmbeddedPostgres.start(Path(home)))
        try:
            asyncio.run(_hasten(server.url))
            yield server.url
        finally:
            asyncio.run(server.stop())


@pytest.fixture(scope="session")
def external_url(embedded_url: str) -> str:
    """A PostgreSQL that runs beside us (CONNECT_TEST_POSTGRES_URL or the standard port), else the embedded one."""
    url = os.environ.get("CONNECT_TEST_POSTGRES_URL", LOCAL_POSTGRES)
    return url if _answers(url) else embedded_url


async def _hasten(url: str) -> None:
    """Lets the server not wait for the disk: processes die in tests, the machine never does."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        await connection.execute(f"ALTER SYSTEM SET {setting} = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


@pytest.fixture
async def empty_database_url(embedded_url: str) -> AsyncIterator[str]:
    url = await databases.create(embedded_url)
    yield url
    await databases.drop(embedded_url, url)


@pytest.fixture(scope="session")
def migrated_template(embedded_url: str) -> str:
    """The name of a database at the newest schema, to be copied: that is much faster than migrating each."""

    async def make() -> str:
        url = await databases.create(embedded_url)
        await migrate(url)
        return urlsplit(url).path[1:]

    return asyncio.run(make())


@pytest.fixture(scope="session")
def _stock(embedded_url: str, migrated_template: str) -> Stock:
    return Stock(embedded_url, migrated_template)


@pytest.fixture
async def database_url(_stock: Stock) -> AsyncIterator[str]:
    """A database of this test's own at the newest schema, on the embedded PostgreSQL."""
    url = await _stock.take()
    yield url
    await _stock.give_back(url)


@pytest.fixture
async def external_database_url(external_url: str) -> AsyncIterator[str]:
    """Gives a database on the PostgreSQL that runs beside us."""
    url = await databases.create(external_url)
    await migrate(url)
    yield url
    await databases.drop(external_url, url)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator["asyncpg.Pool[Any]"]:
    pool = await open_pool(database_url)
    yield pool
    await pool.close()
