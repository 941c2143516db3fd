"""Keeps what all processes share of a target's lane: pause, breaker, and the patience that the target asked for.

A row exists once something was ever wrong or somebody paused; a target without one is healthy. Moments are by the
database's clock.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from connect.store.pool import Connection

FAILURES_TO_OPEN = 10
"""Faults of the target one after the other, over all processes, after which nothing is sent for a while."""
OPEN_MAX_S = 60.0
"""The longest while between two probes."""

LaneHealth = Literal["closed", "open", "half_open", "paused"]
"""closed: commands flow; open: none before `open_until`; half_open: one probe decides; paused: by a person."""


class Gate(Struct, frozen=True, kw_only=True):
    """A target's row."""

    name: str
    paused_at: datetime | None
    paused_by: str | None
    failures: int
    opened_at: datetime | None
    open_until: datetime | None
    openings: int
    probe_until: datetime | None
    held_until: datetime | None
    last_failure: str | None
    changed_at: datetime
    now: datetime
    """The database's time when it was read."""

    @property
    def standing(self) -> LaneHealth:
        if self.paused_at is not None:
            return "paused"
        if self.open_until is None:
            return "closed"
        return "open" if self.open_until > self.now else "half_open"

    @property
    def probeable(self) -> bool:
        """Whether a process may ask to be the one that probes."""
        free = self.probe_until is None or self.probe_until <= self.now
        return self.standing == "half_open" and free


class Health(Struct, frozen=True, kw_only=True):
    """Tells what a batch of answers says of a target itself."""

    alive_at: datetime | None
    """When the newest sending began that showed it alive; None where none did."""
    failures: int
    """Faults since then, one after the other."""
    last_failure: str | None
    probe: Literal["alive", "fault"] | None
    """Tells what became of the probe, where one is among them."""
    held_s: float
    """The patience it asked for."""
    open_base_s: float
    """How long the breaker first opens."""


GATES = "SELECT *, now() AS now FROM target"

# Guarded: of all processes that ask, one gets it.
TAKE_PROBES = """
UPDATE target SET probe_until = now() + make_interval(secs => lane.lease_s)
FROM unnest($1::text[], $2::float8[]) AS lane (name, lease_s)
WHERE target.name = lane.name AND paused_at IS NULL AND open_until <= now()
    AND (probe_until IS NULL OR probe_until <= now()) AND (held_until IS NULL OR held_until <= now())
RETURNING target.name
"""
LEAVE_PROBES = "UPDATE target SET probe_until = NULL WHERE name = ANY($1) AND probe_until IS NOT NULL"

# What was sent before the breaker opened says nothing of the target since.
ALIVE = """
UPDATE target SET failures = 0, openings = 0, opened_at = NULL, open_until = NULL, probe_until = NULL,
    changed_at = now()
FROM unnest($1::text[], $2::timestamptz[]) AS seen (name, at)
WHERE target.name = seen.name AND (failures > 0 OR open_until IS NOT NULL)
    AND (opened_at IS NULL OR opened_at <= seen.at)
"""
_OPEN_FOR = f"make_interval(secs => least(seen.base_s * 2.0 ^ least(target.openings, 20), {OPEN_MAX_S}))"
_OPENS = f"(seen.probe OR (target.open_until IS NULL AND target.failures + seen.failures >= {FAILURES_TO_OPEN}))"
MAKE_ROWS = "INSERT INTO target (name) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING"
FAULTS = f"""
UPDATE target SET
    failures = target.failures + seen.failures,
    last_failure = coalesce(seen.last_failure, target.last_failure),
    opened_at = CASE WHEN {_OPENS} THEN coalesce(target.opened_at, now()) ELSE target.opened_at END,
    open_until = CASE WHEN {_OPENS} THEN now() + {_OPEN_FOR} ELSE target.open_until END,
    openings = target.openings + {_OPENS}::integer,
    probe_until = CASE WHEN seen.probe THEN NULL ELSE target.probe_until END,
    held_until = greatest(target.held_until, now() + nullif(seen.held_s, 0) * interval '1 second'),
    changed_at = now()
FROM unnest($1::text[], $2::integer[], $3::text[], $4::boolean[], $5::float8[], $6::float8[])
    AS seen (name, failures, last_failure, probe, held_s, base_s)
WHERE target.name = seen.name
RETURNING target.name, target.opened_at = now() AS opened
"""

PAUSE = """
INSERT INTO target (name, paused_at, paused_by) VALUES ($1, now(), $2)
ON CONFLICT (name) DO UPDATE SET paused_at = now(), paused_by = $2, changed_at = now() WHERE target.paused_at IS NULL
RETURNING name
"""
# What waited did not use up its patience: the pause is added to it.
RESUME = """
WITH resumed AS (
    UPDATE target AS t SET paused_at = NULL, paused_by = NULL, changed_at = now()
    FROM (SELECT name, paused_at FROM target WHERE name = $1 AND paused_at IS NOT NULL FOR UPDATE) AS was
    WHERE t.name = was.name RETURNING was.name, now() - was.paused_at AS lasted
), patient AS (
    UPDATE reward_action SET give_up_at = give_up_at + lasted FROM resumed
    WHERE target = resumed.name AND due_at IS NOT NULL AND give_up_at IS NOT NULL
)
SELECT name FROM resumed
"""
AUDIT = "INSERT INTO audit (actor, verb, subject, note) VALUES ($1, $2, $3, $4)"

COUNTS = """
SELECT target, count(*) FILTER (WHERE due_at <= now() AND status = 'pending')::integer AS due,
    count(*) FILTER (WHERE status = 'dispatched')::integer AS in_flight,
    (extract(epoch FROM now() - min(due_at) FILTER (WHERE due_at <= now())))::float8 AS oldest_due_age_s
FROM reward_action WHERE due_at IS NOT NULL GROUP BY target
"""
NEEDING = """
SELECT target, count(*) FILTER (WHERE status = 'failed')::integer AS failed,
    count(*) FILTER (WHERE status = 'awaiting_approval')::integer AS awaiting_approval,
    count(*) FILTER (WHERE status = 'blocked')::integer AS blocked
FROM reward_action WHERE status IN ('failed', 'awaiting_approval', 'blocked') GROUP BY target
"""


class LaneCounts(Struct, frozen=True, kw_only=True):
    """Counts what waits for one target, and what needs a person."""

    due: int = 0
    in_flight: int = 0
    oldest_due_age_s: float | None = None
    failed: int = 0
    awaiting_approval: int = 0
    blocked: int = 0


async def read_gates(connection: Connection) -> dict[str, Gate]:
    return {row["name"]: Gate(**dict(row)) for row in await connection.fetch(GATES)}


async def take_probes(connection: Connection, leases_s: Mapping[str, float]) -> set[str]:
    """Asks to be the one that probes these half-open targets; of which it is. A dead prober's time runs out."""
    if not leases_s:
        return set()
    rows = await connection.fetch(TAKE_PROBES, list(leases_s), list(leases_s.values()))
    return {row["name"] for row in rows}


async def leave_probes(connection: Connection, names: Collection[str]) -> None:
    """Nothing was due to probe with: another may."""
    await connection.execute(LEAVE_PROBES, list(names))


async def tell_health(connection: Connection, seen: Mapping[str, Health]) -> list[str]:
    """Takes what answers say of their targets to all processes; returns the targets whose breaker opened by it."""
    names = sorted(seen)
    alive = [name for name in names if seen[name].alive_at is not None and seen[name].probe != "fault"]
    if alive:
        await connection.execute(ALIVE, alive, [seen[name].alive_at for name in alive])
    bad = [name for name in names if seen[name].failures or seen[name].held_s or seen[name].probe == "fault"]
    if not bad:
        return []
    await connection.execute(MAKE_ROWS, bad)
    found = [seen[name] for name in bad]
    rows = await connection.fetch(
        FAULTS, bad, [one.failures for one in found], [one.last_failure for one in found],
        [one.probe == "fault" for one in found], [one.held_s for one in found], [one.open_base_s for one in found],
    )  # fmt: skip
    return [row["name"] for row in rows if row["opened"]]


async def pause(connection: Connection, name: str, *, actor: str, note: str = "") -> bool:
    """Nothing more is claimed for it, by any process, from the commit on; whether it was not paused before."""
    async with connection.transaction():
        done = await connection.fetchval(PAUSE, name, actor) is not None
        if done:
            await connection.execute(AUDIT, actor, "pause", f"target/{name}", note)
    return done


async def resume(connection: Connection, name: str, *, actor: str, note: str = "") -> bool:
    """Whether it was paused. What waited has as much patience left as it had."""
    async with connection.transaction():
        done = await connection.fetchval(RESUME, name) is not None
        if done:
            await connection.execute(AUDIT, actor, "resume", f"target/{name}", note)
    return done


async def lane_counts(connection: Connection, names: Sequence[str] = ()) -> dict[str, LaneCounts]:
    """Counts for every target that actions wait for, and for `names`."""
    found: dict[str, dict[str, int | float | None]] = {name: {} for name in names}
    for query in (COUNTS, NEEDING):
        for row in await connection.fetch(query):
            found.setdefault(row["target"], {}).update({key: row[key] for key in row.keys() if key != "target"})  # noqa: SIM118
    return {name: LaneCounts(**counts) for name, counts in found.items()}  # pyright: ignore[reportArgumentType]
