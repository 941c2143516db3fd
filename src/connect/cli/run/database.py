"""Which database a command works on: the configured one, or the embedded one, which it starts if none runs."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from urllib.parse import parse_qs, urlsplit

import asyncpg

from connect.config import Settings
from connect.errors import DatabaseUnavailable
from connect.store.migrate import migrate

ANSWERS_WITHIN_S = 30


@contextlib.contextmanager
def reaching(url: str) -> Generator[None]:
    """Raises `DatabaseUnavailable`, which names the server and never the password, for what asyncpg raises inside."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise DatabaseUnavailable(f"the database at {place(url)} refuses: {error}") from error
    except (OSError, asyncpg.InterfaceError) as error:
        reason = str(error) or type(error).__name__
        raise DatabaseUnavailable(
            f"the database at {place(url)} does not answer: {reason}. Is it up, and CONNECT_DATABASE_URL right?"
        ) from error


def place(url: str) -> str:
    """`host:port/database`, as libpq reads it."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", ["localhost"]))
    return f"{hosts}{parts.path}"


@contextlib.asynccontextmanager
async def database(settings: Settings, *, migrated: bool = True, owned: bool = False) -> AsyncGenerator[str]:
    """The address of a database at the newest schema. An embedded server that this call started is stopped at the end.

    `owned`: an embedded server must become this process's own; one that another process owns is an error.

    Raises `DatabaseUnavailable`, and what `EmbeddedPostgres.start` raises.
    """
    async with contextlib.AsyncExitStack() as stack:
        url = settings.database_url or await _embedded(settings, stack, owned=owned)
        if migrated:
            with reaching(url):
                await migrate(url)
        yield url


async def _embedded(settings: Settings, stack: contextlib.AsyncExitStack, *, owned: bool) -> str:
    from connect.store.embedded import AlreadyOwned, EmbeddedPostgres, running_url

    if not owned and (url := running_url(settings.home)):
        return url
    try:
        server = await stack.enter_async_context(await EmbeddedPostgres.start(settings.home))
    except AlreadyOwned:
        if owned:
            raise
        async with asyncio.timeout(ANSWERS_WITHIN_S):  # its owner is just starting it
            while not (url := running_url(settings.home)):  # noqa: ASYNC110  another process starts it
                await asyncio.sleep(0.1)
        return url
    return server.url
