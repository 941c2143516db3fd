"""The queue of record: claiming due actions under a lease, settling what came of them, ending what was tried enough.

Leases and due times are by the database's clock. `attempts` is the fencing token: it grows with each claim, and an
UPDATE by an older attempt finds nothing. A process that dies between any two of these calls leaves rows whose lease
ends by itself.
"""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from msgspec import Struct

from connect.model import ClaimedCommand, DispatchAttempt, Settlement, Target
from connect.store import order
from connect.store.actions import release
from connect.store.pool import Connection

GIVE_UP_BATCH = 500
"""Rows one statement ends: short locks, and the next tick takes the next."""

# A lease that ran out was a sending that failed with its sender; a report's deadline that ran out was not.
_RETRIES = "(retries + (status = 'dispatched' AND accepted_at IS NULL)::integer)"

CLAIM = f"""
WITH lane AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::integer[], $3::float8[], $4::float8[], $5::integer[], $6::boolean[])
        AS lane (target, slots, lease_s, give_up_after_s, attempts_max, probes)
    WHERE NOT EXISTS (SELECT FROM target WHERE name = lane.target AND (
        paused_at IS NOT NULL OR held_until > now() OR (open_until IS NOT NULL AND NOT probes)))
)
UPDATE reward_action AS action SET
    status = 'dispatched',
    attempts = attempts + 1,
    retries = {_RETRIES},
    due_at = now() + make_interval(secs => lane.lease_s),
    give_up_at = coalesce(give_up_at, now() + make_interval(secs => lane.give_up_after_s)),
    dispatched_at = coalesce(dispatched_at, now()),
    accepted_at = NULL
FROM lane
WHERE action.target = lane.target AND action.id = ANY(ARRAY(
    SELECT due.id FROM lane, LATERAL (
        SELECT id FROM reward_action
        WHERE target = lane.target AND due_at <= now() AND (give_up_at IS NULL OR give_up_at > now())
            AND (lane.attempts_max IS NULL OR {_RETRIES} < lane.attempts_max)
        ORDER BY due_at LIMIT lane.slots
        FOR UPDATE SKIP LOCKED
    ) AS due
))
RETURNING action.id, event_id, action.target, body, attempts AS n, retries, give_up_at,
    now() AS claimed_at, due_at AS lease_until
"""

SETTLE = """
WITH answered AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::integer[], $3::text[], $4::integer[], $5::text[], $6::timestamptz[], $7::timestamptz[],
        $8::text[], $9::text[], $10::timestamptz[],
        $11::timestamptz[], $12::float8[], $13::text[], $14::integer[], $15::text[], $16::text[]
    ) AS answered (
        id, n, status, retries, failure, due_at, accepted_at, last_error, reference, completed_at,
        started_at, duration_ms, outcome, status_code, error, excerpt
    )
), attempt AS (
    INSERT INTO dispatch_attempt (action_id, n, started_at, duration_ms, outcome, status_code, error, excerpt)
    SELECT id, n, started_at, duration_ms, outcome, status_code, error, excerpt FROM answered
    ON CONFLICT (action_id, n) DO NOTHING
)
UPDATE reward_action AS action SET
    status = answered.status, retries = answered.retries, failure = answered.failure, due_at = answered.due_at,
    accepted_at = answered.accepted_at, last_error = answered.last_error,
    reference = coalesce(answered.reference, action.reference), completed_at = answered.completed_at
FROM answered
WHERE action.id = answered.id AND action.status = 'dispatched' AND action.attempts = answered.n
RETURNING action.id, action.due_at IS NULL AND (
    action.lane_position IS NOT NULL OR action.reversed > 0
    OR EXISTS (SELECT FROM reward_action AS undo WHERE undo.reverses = action.id)) AS releases
"""

SETTLEMENT_COLUMNS = ("id", "n", "status", "retries", "failure", "due_at", "accepted_at", "last_error", "reference",
                      "completed_at")  # fmt: skip
ATTEMPT_COLUMNS = ("started_at", "duration_ms", "outcome", "status_code", "error", "excerpt")
"""In the order of `SETTLE`'s parameters."""

GIVE_UP = f"""
WITH lane AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::integer[]) AS lane (target, attempts_max)
)
UPDATE reward_action SET
    status = 'failed', failure = 'exhausted', due_at = NULL, accepted_at = NULL, completed_at = now(),
    retries = {_RETRIES}, last_error = coalesce(last_error, 'given up: no answer to attempt ' || attempts)
WHERE id = ANY(ARRAY(
    SELECT action.id FROM lane JOIN reward_action AS action ON action.target = lane.target
    WHERE due_at <= now() AND (give_up_at <= now() OR {_RETRIES} >= lane.attempts_max)
        AND NOT EXISTS (SELECT FROM target WHERE name = lane.target AND paused_at IS NOT NULL)
    LIMIT {GIVE_UP_BATCH}
    FOR UPDATE OF action SKIP LOCKED
))
RETURNING id, target
"""

ENDED_UNRELEASED = f"""
SELECT DISTINCT original.id FROM reward_action AS undo JOIN reward_action AS original ON original.id = undo.reverses
WHERE undo.status = 'blocked' AND undo.lane_position IS NULL AND original.status IN ('completed', 'failed', 'cancelled')
LIMIT {GIVE_UP_BATCH}
"""

DUE_BY_TARGET = """
SELECT target, count(*)::integer AS due, extract(epoch FROM now() - min(due_at))::float8 AS oldest_age_s
FROM reward_action WHERE due_at <= now() GROUP BY target ORDER BY target
"""

# A loose scan of the index: from each target to the next greater one, not over every row.
UNKNOWN_TARGETS = """
WITH RECURSIVE waiting AS (
    SELECT min(target) AS target FROM reward_action WHERE due_at IS NOT NULL
    UNION ALL
    SELECT (SELECT min(target) FROM reward_action AS action WHERE due_at IS NOT NULL AND action.target > waiting.target)
    FROM waiting WHERE waiting.target IS NOT NULL
)
SELECT target FROM waiting WHERE target <> ALL($1::text[]) ORDER BY target
"""


class LaneClaim(Struct, frozen=True, kw_only=True):
    """How much one target's lane may claim now, and on what terms."""

    slots: int
    target: Target
    probes: bool = False
    """The breaker is half-open and this process is the one that tries: its claim is let through."""


class Due(Struct, frozen=True, kw_only=True):
    """Tells what waits for one target: how many are due and how overdue the oldest is."""

    due: int
    oldest_age_s: float


async def claim(connection: Connection, lanes: Mapping[str, LaneClaim]) -> list[ClaimedCommand]:
    """Takes up to `slots` due actions of each lane, oldest due first; rows another process holds are passed by.

    Nothing of a target that is paused, whose breaker is open or that asked for patience, whoever knows of it yet.

    An action of a target that is not among `lanes` stays where it is. A crash after the commit leaves the actions
    dispatched; they are claimed again when the lease ends.
    """
    rows = await connection.fetch(
        CLAIM,
        list(lanes),
        [lane.slots for lane in lanes.values()],
        [lane.target.lease_s for lane in lanes.values()],
        [lane.target.give_up_after_s for lane in lanes.values()],
        [lane.target.attempts_max for lane in lanes.values()],
        [lane.probes for lane in lanes.values()],
    )
    return [ClaimedCommand(**dict(row)) for row in rows]


async def settle(connection: Connection, settled: Sequence[tuple[Settlement, DispatchAttempt]]) -> set[UUID]:
    """Carries out the settlements and keeps their attempts, in one statement; returns the ids whose lease still held.

    The attempt is kept even where the lease was lost. Doing it again after an unknown COMMIT changes nothing.
    """
    ordered = sorted(settled, key=lambda pair: (pair[0].id, pair[0].n))
    if not ordered:
        return set()
    states = [settlement for settlement, _ in ordered]
    attempts = [attempt for _, attempt in ordered]
    columns = [[getattr(state, name) for state in states] for name in SETTLEMENT_COLUMNS]
    columns += [[getattr(attempt, name) for attempt in attempts] for name in ATTEMPT_COLUMNS]
    rows = await connection.fetch(SETTLE, *columns)
    if ended := [row["id"] for row in rows if row["releases"]]:
        await release(connection, ended)  # a crash before this is mended by `release_ended`
    return {row["id"] for row in rows}


async def release_ended(connection: Connection) -> int:
    """Lets go on what waits for an end that nobody told it of, reversals and users' orders; how many those were."""
    ended = [row["id"] for row in await connection.fetch(ENDED_UNRELEASED)]
    if ended:
        await release(connection, ended)
    return len(ended) + await order.mend(connection)


async def give_up(connection: Connection, targets: Mapping[str, Target]) -> list[tuple[UUID, str]]:
    """Ends due actions past their `give_up_at` or `attempts_max` as exhausted (effect unknown): (id, target) of each.

    At most `GIVE_UP_BATCH`; a statement of its own, so that what cannot be ended never holds up a claim.
    """
    maxima = [target.attempts_max for target in targets.values()]
    return [(row["id"], row["target"]) for row in await connection.fetch(GIVE_UP, list(targets), maxima)]


async def due_by_target(connection: Connection) -> dict[str, Due]:
    """Every target with something due now, configured or not."""
    return {
        row["target"]: Due(due=row["due"], oldest_age_s=row["oldest_age_s"])
        for row in await connection.fetch(DUE_BY_TARGET)
    }


async def unknown_targets(connection: Connection, known: Collection[str]) -> list[str]:
    """Targets that due or held actions wait for and no setting names. Reads one index entry a target."""
    return [row["target"] for row in await connection.fetch(UNKNOWN_TARGETS, list(known))]
