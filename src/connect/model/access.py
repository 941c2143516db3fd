"""Who may do what."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

Scope = Literal[
    "events:write", "events:read", "events:backfill", "rules:read", "rules:write",
    "actions:read", "actions:operate", "results:write", "analytics:read", "admin",
]  # fmt: skip


class ApiKey(Struct, kw_only=True, frozen=True):
    """A credential. Only the SHA-256 of its secret is stored."""

    id: UUID
    name: str
    scopes: list[Scope]
    source: str | None = None
    """Bound: its events carry this source, and it sees no other's."""
    target: str | None = None
    """Bound: it may report results of this target's actions only."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
