"""Commands over HTTP: one POST a command, and what each answer means."""

import asyncio
import errno
import re
import socket
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from connect.dispatch.command import headers, signing_key
from connect.dispatch.targets.guard import refusal
from connect.dispatch.targets.http_batch import envelope, envelope_id, outcomes_of
from connect.dispatch.targets.port import HTTP_SCHEMES
from connect.errors import SettingsError
from connect.lifecycle import (
    REFERENCE_CHARACTERS_MAX,
    Accepted,
    Answer,
    Completed,
    Misconfigured,
    Outcome,
    Refused,
    Retriable,
    storable,
)
from connect.model import ClaimedCommand, Target

REPLY_BYTES_MAX = 64 * 1024
"""Read of a reply, before and after decompression; a reply is a reference and a word, the rest is cut."""
EXCERPT_CHARACTERS_MAX = 1000
REASON_EXCERPT_CHARACTERS = 200
KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s after which common servers close an idle connection: a POST should not meet a closed one."""

REFUSED = frozenset({400, 413, 415, 422})
RETRIABLE = frozenset({408, 409, 425, 429})
BUSY = frozenset({409, 425, 429})
LANE_HELD = frozenset({429, 503})
SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class Reply(Struct, frozen=True):
    """The part of a JSON reply that is read. Anything may stand in these places."""

    id: Any = None
    status: Any = None
    reference: Any = None


class AddressRefused(PermissionError):
    """Raised by the guard in place of a socket; it reaches `send` with this errno, alone or in aiohttp's summary."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)


class HttpTransport:
    """Sends one target's commands. A session of its own each: a target that hangs holds no other's connections."""

    def __init__(self, target: Target) -> None:
        """Raises `SettingsError` on an address or a secret that cannot work."""
        self._target = target
        self.batch_max = target.batch
        self._keys = [signing_key(secret) for secret in target.secret]
        try:
            self._url = URL(target.url)
        except ValueError:
            self._url = URL()
        if self._url.scheme not in HTTP_SCHEMES or not self._url.host:
            raise SettingsError(f"{target!r}: an address of the form http(s)://host/path is needed")
        self._session: aiohttp.ClientSession | None = None

    async def send(self, commands: Sequence[ClaimedCommand]) -> list[Answer]:
        """One answer a command, in their order. Never raises for what the target or the network does."""
        if self.batch_max > 1:
            return await self._post_together(commands)
        return list(await asyncio.gather(*(self._post_one(command) for command in commands)))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _post_one(self, command: ClaimedCommand) -> Answer:
        body = command.body.encode()
        got = await self._post(body, headers(command, body, self._keys, int(time.time())))
        if not isinstance(got, _Response):
            return Answer(outcome=got)
        return got.answer(outcome_of(got.status, got.reply, got.wait_s, command.id))

    async def _post_together(self, commands: Sequence[ClaimedCommand]) -> list[Answer]:
        """One POST. Where the target refuses the whole, each command goes in a POST of its own: poison stays alone."""
        body = envelope(commands)
        of_all = replace(commands[0], id=envelope_id(commands))
        got = await self._post(body, headers(of_all, body, self._keys, int(time.time())))
        if not isinstance(got, _Response):
            return [Answer(outcome=got)] * len(commands)
        if got.status in REFUSED and len(commands) > 1:
            alone = await asyncio.gather(*(self._post_together([command]) for command in commands))
            return [answer for [answer] in alone]
        if 200 <= got.status < 300:
            return [got.answer(outcome) for outcome in outcomes_of(got.reply, commands, got.status)]
        return [got.answer(outcome_of(got.status, got.reply, got.wait_s, command.id)) for command in commands]

    async def _post(self, body: bytes, around: dict[str, str]) -> "_Response | Outcome":
        """Returns what came back, or the outcome that stands for no answer."""
        try:
            session = self._open_session()
            async with session.post(self._url, data=body, headers=around, allow_redirects=False) as response:
                reply = await read_reply(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return self._outcome_of_error(error)
        wait_s = retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
        return _Response(response.status, reply, wait_s)

    def _open_session(self) -> aiohttp.ClientSession:
        """Made at the first sending, inside the running loop. The lane bounds the connections, so the pool does not."""
        if self._session is None:
            target = self._target
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, socket_factory=self._socket),
                timeout=aiohttp.ClientTimeout(total=target.timeout_s, sock_connect=target.connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"User-Agent": "Connect", "Accept": "application/json", "Accept-Encoding": "identity"},
            )
        return self._session

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Called with each address about to be connected to, resolved from a name or written in the url."""
        family, kind, protocol, _, (host, *_) = address
        if reason := refusal(str(host), internal=self._target.internal):
            raise AddressRefused(reason)
        return socket.socket(family, kind, protocol)

    def _outcome_of_error(self, error: Exception) -> Outcome:
        match error:
            case aiohttp.InvalidURL():  # its text may hold the url's password
                return Misconfigured("the target's url is not a valid address")
            case aiohttp.ClientConnectorCertificateError():
                return Misconfigured(f"the certificate is not trusted: {error}")
            case aiohttp.ClientConnectorError() if error.os_error.errno == errno.EACCES:
                return Misconfigured(f"the address is not allowed: {error.os_error.strerror}")
            case aiohttp.ConnectionTimeoutError():
                return Retriable(f"no connection within {self._target.connect_timeout_s:g} s")
            case TimeoutError():
                return Retriable(f"no answer within {self._target.timeout_s:g} s")
            case _:
                return Retriable(f"{type(error).__name__}: {error}")


class _Response(Struct, frozen=True):
    """The answer of a target, read."""

    status: int
    reply: bytes
    wait_s: float | None

    def answer(self, outcome: Outcome) -> Answer:
        excerpt = _text(self.reply, EXCERPT_CHARACTERS_MAX) or None
        return Answer(outcome=outcome, status_code=self.status, excerpt=excerpt)


def outcome_of(status: int, reply: bytes, wait_s: float | None, action_id: UUID) -> Outcome:
    """Says what a complete answer means, as the contract's last section has it.

    An unlisted 2xx counts as 200 (RFC 9110, 15). An unlisted 4xx would count as 400, but a refusal is final and these
    (402, 406, 411, 421, 423, 451 ...) come from routes and proxies, so they are retried as the target's fault.
    """
    reason = f"HTTP {status}: {_text(reply, REASON_EXCERPT_CHARACTERS)}".rstrip(": ")
    if status == 202:
        return Accepted()
    if 200 <= status < 300:
        return Completed(_reference(_parsed(reply)))
    if status == 409 and _says_completed(said := _parsed(reply), action_id):
        return Completed(_reference(said))
    if status in REFUSED:
        return Refused(reason)
    if status in RETRIABLE or 500 <= status < 600:
        held = status in LANE_HELD and wait_s is not None
        return Retriable(reason, wait_s, holds_lane=held, alive=status in BUSY)
    return Misconfigured(reason)


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a `Retry-After` header, delta or HTTP date; None where there is none that can be read."""
    text = (value or "").strip()
    if SECONDS.fullmatch(text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - now).total_seconds(), 0.0)


async def read_reply(response: aiohttp.ClientResponse) -> bytes:
    """The reply's first bytes. One that is cut, stalls or never ends does not change what its status line said."""
    raw = bytearray()
    try:
        async for chunk in response.content.iter_any():
            raw += chunk
            if len(raw) > REPLY_BYTES_MAX:
                response.close()
                break
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()
    del raw[REPLY_BYTES_MAX:]
    if response.headers.get("Content-Encoding", "identity").lower() == "identity":
        return bytes(raw)
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(raw, REPLY_BYTES_MAX)
    except zlib.error:
        return bytes(raw)


def _parsed(reply: bytes) -> Reply:
    try:
        return msgspec.json.decode(reply, type=Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Reply()


def _reference(said: Reply) -> str | None:
    match said.reference:
        case bool():
            return None
        case str() | int():
            return storable(str(said.reference), REFERENCE_CHARACTERS_MAX) or None
        case _:
            return None


def _says_completed(said: Reply, action_id: UUID) -> bool:
    return said.status == "completed" and isinstance(said.id, str) and said.id.lower() == str(action_id)


def _text(reply: bytes, characters_max: int) -> str:
    return storable(reply[: characters_max * 4].decode("utf-8", "replace"), characters_max)
