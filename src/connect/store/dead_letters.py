"""Dead events: kept once however often a broker gives them, listed, mended and replayed."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from connect.errors import ConnectError, NotFound
from connect.model import DeadEvent, DeadKind
from connect.store.page import Page, page
from connect.store.pool import Connection, RawJson

REASON_CHARACTERS_MAX = 2_000
DEAD_COLUMNS = ", ".join(DeadEvent.__struct_fields__)

KEEP = """
INSERT INTO dead_event (id, bus, kind, body, attributes, code, reason, errors, event_id, digest)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::jsonb[], $6::text[], $7::text[], $8::jsonb[],
    $9::uuid[], $10::bytea[])
ON CONFLICT (bus, digest) DO UPDATE SET times = dead_event.times + 1, last_at = now()
"""
ONE = f"SELECT {DEAD_COLUMNS} FROM dead_event WHERE id = $1"
LOCK = f"{ONE} FOR UPDATE"
MEND = f"""
UPDATE dead_event SET body = $2, attributes = $3, mended_at = now()
WHERE id = $1 AND replayed_at IS NULL RETURNING {DEAD_COLUMNS}
"""
REPLAYED = f"""
UPDATE dead_event SET replayed_at = now(), event_id = coalesce($2, event_id) WHERE id = $1 RETURNING {DEAD_COLUMNS}
"""
STILL_DEAD = f"""
UPDATE dead_event SET code = $2, reason = $3, errors = $4, last_at = now() WHERE id = $1 RETURNING {DEAD_COLUMNS}
"""
OPEN_BY_BUS = (
    "SELECT bus, count(*)::integer AS count FROM dead_event WHERE replayed_at IS NULL GROUP BY bus ORDER BY bus"
)
AUDIT = "INSERT INTO audit (actor, verb, subject, note, detail) VALUES ($1, $2, $3, $4, $5)"


class Dead(Struct, frozen=True, kw_only=True):
    """A refused message, to be kept."""

    bus: str
    kind: DeadKind
    body: bytes
    attributes: Mapping[str, str]
    error: ConnectError

    @property
    def digest(self) -> bytes:
        around = "".join(f"{name}\0{value}\0" for name, value in sorted(self.attributes.items()))
        return hashlib.sha256(around.encode("utf-8", "replace") + b"\n" + self.body).digest()


class DeadFilter(Struct, frozen=True, kw_only=True):
    """Which dead events; only those still to be dealt with unless `replayed`."""

    bus: str | None = None
    code: str | None = None
    replayed: bool = False


async def keep_dead(connection: Connection, dead: Sequence[Dead]) -> None:
    """Keeps refused messages; one that is kept already is counted once more."""
    rows = {(one.bus, one.digest): one for one in sorted(dead, key=lambda one: (one.bus, one.digest))}
    values = list(rows.values())
    await connection.execute(
        KEEP,
        [uuid4() for _ in values],
        [one.bus for one in values],
        [one.kind for one in values],
        [one.body for one in values],
        [_storable(one.attributes) for one in values],
        [one.error.code for one in values],
        [_reason(one.error) for one in values],
        [_errors(one.error) for one in values],
        [_event_of(one.error) for one in values],
        [digest for _, digest in rows],
    )


async def list_dead(connection: Connection, filters: DeadFilter, *, limit: int, cursor: str | None) -> Page[DeadEvent]:
    """Newest first."""
    conditions, values = ["replayed_at IS NOT NULL" if filters.replayed else "replayed_at IS NULL"], list[Any]()
    for name in ("bus", "code"):
        if (value := getattr(filters, name)) is not None:
            values.append(value)
            conditions.append(f"{name} = ${len(values)}")
    return await page(
        connection, "dead_event", DEAD_COLUMNS, to_dead, " AND ".join(conditions), values,
        order_by="received_at", limit=limit, cursor=cursor,
    )  # fmt: skip


async def read_dead(connection: Connection, dead_id: UUID, *, lock: bool = False) -> tuple[DeadEvent, bytes]:
    """One dead event, and its body's bytes. Raises `NotFound`."""
    row = await connection.fetchrow(LOCK if lock else ONE, dead_id)
    if row is None:
        raise NotFound(f"there is no dead event {dead_id}")
    return to_dead(row), row["body"]


async def mend_dead(
    connection: Connection, dead_id: UUID, body: bytes, attributes: Mapping[str, str], *, actor: str, note: str
) -> DeadEvent | None:
    """Gives it another body; None where it was replayed meanwhile. Inside a transaction of the caller's."""
    row = await connection.fetchrow(MEND, dead_id, body, _storable(attributes))
    if row is not None:
        await connection.execute(AUDIT, actor, "mend", f"dead/{dead_id}", note, {})
    return to_dead(row) if row is not None else None


async def mark_replayed(connection: Connection, dead_id: UUID, event_id: UUID | None, *, actor: str) -> DeadEvent:
    detail = {"event_id": str(event_id)} if event_id else {}
    await connection.execute(AUDIT, actor, "replay", f"dead/{dead_id}", "", detail)
    return to_dead(await connection.fetchrow(REPLAYED, dead_id, event_id))


async def mark_still_dead(connection: Connection, dead_id: UUID, error: ConnectError) -> DeadEvent:
    """A replay was refused: what it was refused with now stands in place of the first reason."""
    return to_dead(await connection.fetchrow(STILL_DEAD, dead_id, error.code, _reason(error), _errors(error)))


async def dead_by_bus(connection: Connection) -> dict[str, int]:
    """How many wait for somebody, by bus."""
    return {row["bus"]: row["count"] for row in await connection.fetch(OPEN_BY_BUS)}


def to_dead(row: Any) -> DeadEvent:
    columns = dict(row)
    return DeadEvent(**columns | {"body": columns["body"].decode("utf-8", "replace")})


def _storable(attributes: Mapping[str, str]) -> dict[str, str]:
    """As jsonb can hold them: no NUL, no half of a pair."""
    return {_text(name): _text(value) for name, value in attributes.items()}


def _text(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _reason(error: ConnectError) -> str:
    return _text(error.detail[:REASON_CHARACTERS_MAX])


def _errors(error: ConnectError) -> RawJson:
    """As text: in an array of parameters a list would be another dimension, and an empty one nothing at all."""
    errors = [{"pointer": _text(one.pointer), "detail": _text(one.detail)} for one in error.errors[:100]]
    return RawJson(msgspec.json.encode(errors).decode())


def _event_of(error: ConnectError) -> UUID | None:
    found = error.extra.get("event_id")
    return UUID(found) if isinstance(found, str) else None
