"""API keys: 256 random bits shown once, their SHA-256 stored."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from connect.errors import NotFound
from connect.model import ApiKey
from connect.store.pool import Connection

KEY_PREFIX = "ck_"
"""Lets secret scanners and people recognise a key."""

KEY_COLUMNS = ", ".join(ApiKey.__struct_fields__)
ADD = f"""
INSERT INTO api_key (id, name, secret_hash, scopes, source, target, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING {KEY_COLUMNS}
"""
USABLE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
BY_HASH = f"SELECT {KEY_COLUMNS} FROM api_key WHERE secret_hash = $1 AND {USABLE}"
ANY_USABLE = f"SELECT EXISTS (SELECT FROM api_key WHERE {USABLE})"
ALL = f"SELECT {KEY_COLUMNS} FROM api_key ORDER BY created_at"
REVOKE = "UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING id"
USED = """
UPDATE api_key SET last_used_at = greatest(last_used_at, used.at)
FROM unnest($1::uuid[], $2::timestamptz[]) AS used (id, at) WHERE api_key.id = used.id
"""
AUDIT = "INSERT INTO audit (actor, verb, subject, detail) VALUES ($1, $2, $3, $4)"


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def create_key(
    connection: Connection,
    name: str,
    scopes: Sequence[str],
    *,
    source: str | None,
    target: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """The key and its secret, which is nowhere else."""
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    async with connection.transaction():
        row = await connection.fetchrow(
            ADD, uuid4(), name, hash_secret(secret), sorted(set(scopes)), source, target, expires_at
        )
        key = _to_key(row)
        await connection.execute(AUDIT, "shell", "create", f"key/{key.id}", {"name": name, "scopes": key.scopes})
    return key, secret


async def find_key(connection: Connection, secret: str) -> ApiKey | None:
    """The live key of this secret. The look-up is by hash, so its time tells nothing of the stored secrets."""
    row = await connection.fetchrow(BY_HASH, hash_secret(secret))
    return _to_key(row) if row else None


async def list_keys(connection: Connection) -> list[ApiKey]:
    return [_to_key(row) for row in await connection.fetch(ALL)]


async def has_usable_key(connection: Connection) -> bool:
    """Whether anybody could hold a key that `find_key` would find."""
    return await connection.fetchval(ANY_USABLE)


async def revoke_key(connection: Connection, key_id: UUID) -> None:
    """Raises `NotFound`. Twice is once."""
    async with connection.transaction():
        if await connection.fetchval(REVOKE, key_id) is None:
            raise NotFound(f"there is no key {key_id}; `connect keys list` shows them")
        await connection.execute(AUDIT, "shell", "revoke", f"key/{key_id}", {})


async def mark_used(connection: Connection, used: dict[UUID, datetime]) -> None:
    ids = sorted(used)
    await connection.execute(USED, ids, [used[key_id] for key_id in ids])


def _to_key(row: Any) -> ApiKey:
    return msgspec.convert(dict(row), ApiKey)
