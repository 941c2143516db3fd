"""NATS JetStream: a client, a stream, and what its errors mean."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Generator
from typing import Any, Final

import msgspec
from msgspec import Struct
from nats import errors
from nats.aio.client import Client
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from connect.brokers.address import Address, BrokerMisconfigured, BrokerUnavailable, trouble
from connect.brokers.look import Look

PING_S: Final = 10
"""A connection that is dead without having been closed is noticed within about three of these."""
CLOSE_S: Final = 1.0
"""Patience for a goodbye; a server that does not answer it notices anyhow."""
REQUEST_S: Final = 5.0
"""Patience for an answer of JetStream's own API."""
DUPLICATE_WINDOW_S: Final = 600
"""For this long the stream drops a repeated command itself: about the first seven retries, at 100 bytes for each."""

OURS: Final = (errors.AuthorizationError, errors.BadSubjectError, errors.BadHeaderError, errors.MaxPayloadError,
               errors.SecureConnWantedError)  # fmt: skip
OURS_SAID: Final = ("authorization violation", "authentication", "permissions violation", "not enabled", "tls required")
"""Parts of errors that somebody has to mend: a password, a permission, a server without JetStream or TLS."""
OURS_CODES: Final = (400, 403)
"""The codes of JetStream's API for a request that contradicts what exists, or that is not allowed."""


class _StreamNames(Struct):
    streams: list[str] | None = None
    error: dict[str, Any] | None = None


class _Client(Client):
    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """`tls://` means it: the client would go on in the clear, password and all, where a server offers no TLS."""
        server: Any = self._current_server
        if server.uri.scheme == "tls" and not info.get("tls_required"):
            raise errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)


async def open_client(address: Address, gone: Callable[[BrokerUnavailable], None], *, connect_timeout_s: float) -> Any:
    """A `nats.aio.client.Client` that is not connected again when its connection breaks: then `gone` is told.

    Raises `BrokerUnavailable`, `BrokerMisconfigured`.
    """
    client: Any = _Client()
    connected = False
    last: list[Exception] = []

    async def failed(error: Exception) -> None:
        if not connected:
            raise error  # else the client would try for ever
        last.append(error)

    async def closed() -> None:
        if connected:
            gone(told(address, last[-1]) if last else BrokerUnavailable(f"{address.shown}: the connection was closed"))

    with broker_errors(address):
        try:
            async with asyncio.timeout(connect_timeout_s):
                await client.connect(
                    address.url, name="connect", allow_reconnect=False, connect_timeout=connect_timeout_s,
                    ping_interval=PING_S, error_cb=failed, closed_cb=closed,
                )  # fmt: skip
            connected = True
        finally:
            if not connected:
                await close_client(client)
    return client


async def close_client(client: Any) -> None:
    """Never raises, and takes no longer than `CLOSE_S`; what was published before is sent."""
    with contextlib.suppress(errors.Error, OSError, TimeoutError, RuntimeError, AttributeError):  # half open: no socket
        async with asyncio.timeout(CLOSE_S):
            await client.close()


def name_of(subject: str) -> str:
    """A subject as a stream or consumer may be called: `orders.>` is `orders`, `shop.orders` is `shop-orders`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", subject).strip("-") or "connect"


async def ensure_stream(client: Any, address: Address) -> str:
    """The stream that takes the subject: the one the address names, else whichever does; made where there is none.

    One made here keeps a message until it is acknowledged, so that nothing unread is dropped and nothing read piles up.
    """
    streams: Any = client.jetstream(timeout=REQUEST_S)
    name = address.options.get("stream")
    with broker_errors(address):
        found = await _streams_of(client, address.name) if name is None else await _stream_if_any(streams, name)
        if len(found) > 1:
            raise BrokerMisconfigured(f"{address.shown}: {', '.join(found)} take it: name one of them by `stream=`")
        if found:
            return found[0]
        made = api.StreamConfig(
            name=name or name_of(address.name), subjects=[address.name], retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE, duplicate_window=DUPLICATE_WINDOW_S,
        )  # fmt: skip
        await streams.add_stream(made)
        return str(made.name)


async def _stream_if_any(streams: Any, name: str) -> list[str]:
    try:
        await streams.stream_info(name)
    except NotFoundError:
        return []
    return [name]


async def _streams_of(client: Any, subject: str) -> list[str]:
    """All that a subject reaches: of a pattern the client's own call would tell one."""
    try:
        said = await client.request("$JS.API.STREAM.NAMES", msgspec.json.encode({"subject": subject}), REQUEST_S)
    except errors.NoRespondersError as error:
        raise BrokerUnavailable("JetStream does not answer: is it enabled?") from error
    answer = msgspec.json.decode(said.data, type=_StreamNames)
    if answer.error is not None:
        raise APIError(**answer.error)
    return answer.streams or []


@contextlib.contextmanager
def broker_errors(address: Address) -> Generator[None]:
    """Errors of the client as `BrokerUnavailable` or, where somebody has to mend something, `BrokerMisconfigured`."""
    try:
        yield
    except BrokerUnavailable:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise told(address, error) from error  # the client cancels what waits on a connection that breaks
    except (errors.Error, OSError, TimeoutError, ValueError) as error:
        raise told(address, error) from error


def told(address: Address, error: BaseException) -> BrokerUnavailable:
    """Turns an error of the client into ours."""
    text = f"{type(error).__name__}: {error}".lower()
    ours = isinstance(error, OURS) or any(said in text for said in OURS_SAID)
    refused = isinstance(error, APIError) and error.code in OURS_CODES
    return trouble(address, error, ours=ours or refused)


async def look(address: Address) -> Look:
    """The stream that takes the subject, and what it holds."""
    client = await open_client(address, lambda _: None, connect_timeout_s=5)
    try:
        with broker_errors(address):
            name = address.options.get("stream")
            found = await _streams_of(client, address.name) if name is None else [name]
            streams: Any = client.jetstream(timeout=REQUEST_S)
            try:
                said = await streams.stream_info(found[0]) if found else None
            except NotFoundError:
                said = None
    finally:
        await close_client(client)
    if said is None:
        return Look("stream", None)
    in_memory = said.config.storage == api.StorageType.MEMORY
    doubt = "its storage is memory: a crash of its server loses what it holds" if in_memory else ""
    return Look(f"stream {said.config.name}", int(said.state.messages), doubt)
