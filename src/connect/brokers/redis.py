"""Redis: a client, and what its errors mean."""

import contextlib
from collections.abc import Generator
from typing import Any, Final, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from connect.brokers.address import Address, BrokerMisconfigured, BrokerUnavailable, trouble
from connect.brokers.look import Look

EVENT_FIELD: Final = b"event"
COMMAND_FIELD: Final = "command"
RESULT_FIELD: Final = b"result"
"""Fields of stream entries that hold a message's body; the others are its attributes."""

OURS: Final = ("NOPERM", "NOAUTH", "WRONGTYPE", "WRONGPASS", "ERR unknown command")
"""Beginnings of errors that somebody has to mend: a permission, a password, another kind of key under the name."""


def open_client(address: Address, *, timeout_s: float, connect_timeout_s: float = 5.0) -> Any:
    """A `redis.asyncio.Redis` that connects at first use.

    Nothing is retried here: whoever calls knows better what a retry costs.
    """
    make = cast("Any", Redis.from_url)  # pyright: ignore[reportUnknownMemberType] - its keywords are untyped
    return make(
        address.url,
        socket_timeout=timeout_s,
        socket_connect_timeout=connect_timeout_s,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        client_name="connect",
    )


@contextlib.contextmanager
def broker_errors(address: Address) -> Generator[None]:
    """Errors of the client as `BrokerUnavailable` or, where somebody has to mend something, `BrokerMisconfigured`."""
    try:
        yield
    except exceptions.AuthenticationError as error:
        raise BrokerMisconfigured(f"{address.shown}: {error}") from error
    except exceptions.ResponseError as error:
        raise _told(address, error) from error
    except (exceptions.RedisError, OSError, TimeoutError) as error:
        raise trouble(address, error) from error


def _told(address: Address, error: Any) -> BrokerUnavailable:
    kind = BrokerMisconfigured if is_ours(error) else BrokerUnavailable
    return kind(f"{address.shown}: {error}")


def is_ours(error: Exception) -> bool:
    """Whether trying again cannot help before somebody mended something."""
    return str(error).startswith(OURS) or isinstance(error, exceptions.NoPermissionError)


async def look(address: Address) -> Look:
    """The stream, and what its slowest group has not acknowledged."""
    client, saved = open_client(address, timeout_s=5), dict[str, str]()
    try:
        with broker_errors(address):
            found = await client.type(address.name)
            if found == b"none":
                return Look("stream", None)
            if found != b"stream":
                raise BrokerMisconfigured(f"{address.shown}: there is a {found.decode()} under that name, no stream")
            groups = await client.xinfo_groups(address.name)
            length = await client.xlen(address.name)
            with contextlib.suppress(exceptions.ResponseError):  # where a provider keeps its settings to itself
                saved = await client.config_get("appendonly")
    finally:
        with contextlib.suppress(exceptions.RedisError, OSError):
            await client.aclose()
    behind = [int(group["pending"]) + int(group.get("lag") or 0) for group in groups]
    lost = saved.get("appendonly") == "no"
    return Look(
        "stream",
        max(behind, default=int(length)),
        "appendonly is off: a crash of Redis loses what it holds" if lost else "",
    )
