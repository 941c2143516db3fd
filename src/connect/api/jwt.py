"""JSON Web Tokens (RFC 7519) as credentials beside API keys: issuer, audience, expiry, a signature by a published key.

The algorithms are an allow-list of asymmetric ones: neither `none` nor a public key used as an HMAC secret passes.
Needs the extra `jwt` (joserfc).
"""

import time
from typing import Any, get_args

import aiohttp
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from connect.api.auth import Caller
from connect.config import JwtSettings
from connect.errors import Unauthenticated
from connect.model import Scope
from connect.telemetry import log

KEYS_FOR_S = 300.0
"""How long fetched keys are used before they are fetched anew."""
FETCH_AGAIN_AFTER_S = 10.0
"""An unknown key id makes us look for new keys at most this often: a flood of forged tokens must not become ours."""
FETCH_TIMEOUT_S = 5.0
LEEWAY_S = 30
"""Between the issuer's clock and ours."""
SCOPES = frozenset(get_args(Scope))


class JwtVerifier:
    """Turns a token into a caller. Scopes come from a claim; `connect_source` and `connect_target` bind it."""

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        self._keys: KeySet | None = None
        self._fetched_at = float("-inf")
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    async def caller(self, token: str) -> Caller:
        """Raises `Unauthenticated` with what is wrong, never with the token."""
        try:
            claims = await self._verified(token)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated(f"the token is not accepted: {type(error).__name__}: {error}") from error
        granted = claims.get(self._settings.scope_claim, "")
        scopes = granted.split() if isinstance(granted, str) else granted
        return Caller(
            name=str(claims["sub"]),
            scopes=SCOPES & {scope for scope in scopes if isinstance(scope, str)},
            source=_text(claims.get("connect_source")),
            target=_text(claims.get("connect_target")),
        )

    async def _verified(self, token: str) -> dict[str, Any]:
        try:
            decoded = jwt.decode(token, await self._key_set(KEYS_FOR_S), algorithms=list(self._settings.algorithms))
        except (JoseError, ValueError):
            # the issuer may have rotated its keys since we looked
            decoded = jwt.decode(
                token, await self._key_set(FETCH_AGAIN_AFTER_S), algorithms=list(self._settings.algorithms)
            )
        self._claims.validate(decoded.claims)
        return decoded.claims

    async def _key_set(self, not_older_than_s: float) -> KeySet:
        if self._keys is None or time.monotonic() - self._fetched_at > not_older_than_s:
            self._fetched_at = time.monotonic()
            try:
                self._keys = KeySet.import_key_set(msgspec.json.decode(await self._read_keys()))
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                log.error("jwt.keys_unavailable", error=repr(error))
        if self._keys is None:
            raise Unauthenticated("tokens cannot be checked now: the issuer's keys are not available")
        return self._keys

    async def _read_keys(self) -> bytes:
        if self._settings.jwks_file is not None:
            return self._settings.jwks_file.read_bytes()
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.get(str(self._settings.jwks_url), allow_redirects=False) as reply,
        ):
            return await reply.read()


def _text(claim: object) -> str | None:
    return claim if isinstance(claim, str) and claim else None
