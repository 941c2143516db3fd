"""Connections to PostgreSQL with Connect's codecs: JSON as plain values, numeric as decimal strings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

CONNECT_TIMEOUT_S = 5
"""The longest that a command waits to connect: a person waits for it."""
LOCK_TIMEOUT_S = 1
"""The longest wait for a row. An event that waits longer is committed undecided (202); a worker decides it later."""
IDLE_IN_TRANSACTION_TIMEOUT_S = 10
"""The server ends a transaction whose process was stopped in the middle, so its locks do not outlive it for long."""
STATEMENT_TIMEOUT_S = 30

Connection = Any
"""An asyncpg connection or what a pool lends in its place (their stubs differ in a type parameter)."""

_encode_json = msgspec.json.Encoder(decimal_format="number").encode
_decode_json = msgspec.json.Decoder().decode


class RawJson(str):
    """JSON text that is already encoded: it goes to a column as it is."""

    __slots__ = ()


def _to_json(value: Any) -> str:
    return value if isinstance(value, RawJson) else _encode_json(value).decode()


async def set_codecs(connection: "asyncpg.Connection[Any]") -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=_to_json, decoder=_decode_json, schema="pg_catalog")
    await connection.set_type_codec("numeric", encoder=str, decoder=str, schema="pg_catalog", format="text")


async def open_pool(url: str, *, size_max: int = 10, size_min: int = 1, name: str = "connect") -> "asyncpg.Pool[Any]":
    """Opens a pool on `url` (postgresql://...). Raises asyncpg's and OS errors when the server does not answer."""
    return await asyncpg.create_pool(
        url,
        min_size=size_min,
        max_size=size_max,
        init=set_codecs,
        command_timeout=STATEMENT_TIMEOUT_S + 5,
        server_settings={
            "application_name": name,
            "timezone": "UTC",
            "jit": "off",
            "lock_timeout": f"{LOCK_TIMEOUT_S}s",
            "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s",
            "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
        },
    )


@asynccontextmanager
async def lend(pool: Any) -> AsyncGenerator[Connection]:
    """A connection of the pool. What the server says instead of giving one is no statement's fault: `ConnectionError`.

    It has many words for it: a database that is being dropped or restored, a role's limit, a password just changed.
    """
    try:
        connection = await pool.acquire()
    except asyncpg.PostgresError as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    try:
        yield connection
    finally:
        await pool.release(connection)
