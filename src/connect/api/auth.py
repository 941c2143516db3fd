"""Who calls and what they may do. Every route states its scope in `opt`; nobody passes one that states none."""

import hmac
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from msgspec import Struct

from connect.errors import RateLimited, ScopeMissing, Unauthenticated
from connect.model import ApiKey, Scope
from connect.store.keys import find_key, hash_secret, mark_used

PUBLIC = "public"
"""The scope of routes that need no credential."""
CACHE_S = 5.0
"""A revoked key stops working in every process within this (10 s are promised)."""
CACHE_MAX = 10_000
"""Secrets remembered, wrong ones included: a flood of guesses costs one look-up each and no memory beyond this."""
SECRET_LENGTH_MAX = 512
TOKEN_LENGTH_MAX = 8192
TOKEN_DOTS = 2
"""A JSON Web Token has three parts; an API key has no dot."""
MARK_USED_EVERY_S = 30.0


class Caller(Struct, frozen=True):
    """An authenticated caller, with what its credential is bound to."""

    name: str
    scopes: frozenset[str]
    source: str | None = None
    target: str | None = None
    key_id: UUID | None = None

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


class _Bucket(Struct):
    tokens: float
    at: float


class Authenticator:
    """Checks credentials against a bootstrap key and the key table, through a short-lived cache."""

    def __init__(
        self,
        pool: Any,
        *,
        bootstrap_key: str | None,
        rate_per_key: float | None = None,
        token_verifier: "Callable[[str], Awaitable[Caller]] | None" = None,
    ) -> None:
        self._pool = pool
        self._verify_token = token_verifier
        self._bootstrap = hash_secret(bootstrap_key) if bootstrap_key else None
        self._rate = rate_per_key
        self._cache: dict[bytes, tuple[float, Caller | None]] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._used: dict[UUID, datetime] = {}
        self._marked_at = time.monotonic()

    async def caller(self, authorization: str | None) -> Caller:
        """Raises `Unauthenticated`, and `RateLimited` past the key's rate."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("send `Authorization: Bearer <key>`; `connect keys create` makes one")
        caller = await self._look_up(secret.strip())
        if caller is None:
            raise Unauthenticated("the key is unknown, expired or revoked")
        self._spend(caller)
        return caller

    async def _look_up(self, secret: str) -> Caller | None:
        if self._verify_token and secret.count(".") == TOKEN_DOTS and len(secret) <= TOKEN_LENGTH_MAX:
            return await self._verify_token(secret)
        if len(secret) > SECRET_LENGTH_MAX:
            return None
        digest = hash_secret(secret)
        if self._bootstrap and hmac.compare_digest(digest, self._bootstrap):
            return Caller("bootstrap", frozenset(get_args(Scope)))
        now = time.monotonic()
        cached = self._cache.get(digest)
        if cached and cached[0] > now:
            return cached[1]
        async with self._pool.acquire() as connection:
            key = await find_key(connection, secret)
            if key:
                self._used[key.id] = datetime.now(UTC)
            if self._used and now - self._marked_at > MARK_USED_EVERY_S:
                used, self._used, self._marked_at = self._used, {}, now
                await mark_used(connection, used)
        caller = _caller(key) if key else None
        if len(self._cache) >= CACHE_MAX:
            self._cache.clear()
        self._cache[digest] = (now + CACHE_S, caller)
        return caller

    def _spend(self, caller: Caller) -> None:
        """A token bucket a key, with a burst of one second."""
        if self._rate is None:
            return
        now = time.monotonic()
        bucket = self._buckets.setdefault(str(caller.key_id or caller.name), _Bucket(max(1.0, self._rate), now))
        bucket.tokens = min(max(1.0, self._rate), bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise RateLimited(f"key {caller.name!r} may make {self._rate:g} requests a second", retry_after_s=1)
        bucket.tokens -= 1


def _caller(key: ApiKey) -> Caller:
    return Caller(key.name, frozenset(key.scopes), key.source, key.target, key.id)


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The one gate in front of every route: 401 without a credential, 403 without the scope."""
    scope = handler.opt.get("scope")
    if scope == PUBLIC or (scope is None and handler.opt.get("exclude_from_auth")):
        return
    caller = await connection.app.state.runtime.authenticator.caller(connection.headers.get("authorization"))
    require(caller, str(scope))
    connection.state.caller = caller


def require(caller: Caller, scope: str) -> None:
    if not caller.may(scope):
        raise ScopeMissing(
            f"this needs scope {scope!r}; the key {caller.name!r} has {', '.join(sorted(caller.scopes)) or 'none'}"
        )
