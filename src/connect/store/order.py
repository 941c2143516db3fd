"""The order of a user's commands at a target with `order_by = "user"`: one at a time, as they were given.

Each (target, user) is a lane with a row that is locked while an action enters it or its head ends; so whoever enters
sees every end before it, and whoever ends sees everyone behind. Of a lane's actions only the head is `pending` or
`dispatched`, the others are `blocked`. Held actions and those that await approval are in no lane until they are due.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from connect.store.pool import Connection

MEND_BATCH = 500

# In the order of their keys, so that two who enter several lanes wait for each other and never in a circle.
LOCK_LANES = """
INSERT INTO user_lane (target, user_id)
SELECT DISTINCT target, user_id FROM reward_action
WHERE id = ANY($1) AND status = 'pending' AND (hold_until IS NULL OR hold_until <= now()) AND target = ANY($2)
ORDER BY 1, 2
ON CONFLICT (target, user_id) DO UPDATE SET target = excluded.target
"""
ENTER = """
WITH entering AS MATERIALIZED (
    SELECT action.id, action.target, action.user_id, given.number,
        row_number() OVER (PARTITION BY action.target, action.user_id ORDER BY given.number) AS behind
    FROM unnest($1::uuid[]) WITH ORDINALITY AS given (id, number) JOIN reward_action AS action USING (id)
    WHERE action.status = 'pending' AND (hold_until IS NULL OR hold_until <= now()) AND action.target = ANY($2)
), numbered AS MATERIALIZED (
    SELECT id, behind, nextval('lane_position') AS position FROM (SELECT * FROM entering ORDER BY number) AS entering
), judged AS MATERIALIZED (
    SELECT numbered.*, behind > 1 OR EXISTS (
        SELECT FROM reward_action AS ahead
        WHERE ahead.target = entering.target AND ahead.user_id = entering.user_id AND ahead.lane_position IS NOT NULL
            AND ahead.status IN ('pending', 'blocked', 'dispatched') AND ahead.id <> ALL($1)) AS waits
    FROM numbered JOIN entering USING (id, behind)
)
UPDATE reward_action AS action SET
    lane_position = judged.position,
    status = CASE WHEN waits THEN 'blocked' ELSE action.status END,
    due_at = CASE WHEN NOT waits THEN action.due_at END
FROM judged WHERE action.id = judged.id
"""

# Targets of these actions that have lanes: what comes back to life there goes to the end of its user's.
IN_ORDER = """
SELECT DISTINCT action.target FROM reward_action AS action JOIN user_lane AS lane USING (target, user_id)
WHERE action.id = ANY($1)
"""
LANES_OF = "SELECT DISTINCT target, user_id FROM reward_action WHERE id = ANY($1) AND lane_position IS NOT NULL"
LANES_STUCK = f"""
SELECT DISTINCT target, user_id FROM (
    SELECT target, user_id FROM reward_action WHERE status = 'blocked' AND lane_position IS NOT NULL LIMIT 10000
) AS waiting
WHERE NOT EXISTS (
    SELECT FROM reward_action AS ahead
    WHERE ahead.target = waiting.target AND ahead.user_id = waiting.user_id AND ahead.lane_position IS NOT NULL
        AND ahead.status IN ('pending', 'dispatched'))
LIMIT {MEND_BATCH}
"""
LOCK_KNOWN_LANES = """
SELECT FROM user_lane WHERE (target, user_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
ORDER BY target, user_id FOR UPDATE
"""
ADVANCE = """
UPDATE reward_action SET status = 'pending', due_at = now()
WHERE id = ANY(ARRAY(
    SELECT head.id FROM unnest($1::text[], $2::text[]) AS lane (target, user_id), LATERAL (
        SELECT id, status FROM reward_action AS action
        WHERE action.target = lane.target AND action.user_id = lane.user_id AND lane_position IS NOT NULL
            AND status IN ('pending', 'blocked', 'dispatched')
        ORDER BY lane_position LIMIT 1
    ) AS head WHERE head.status = 'blocked'))
"""


async def enter(connection: Connection, action_ids: Sequence[UUID], targets: Collection[str]) -> None:
    """Puts these actions, in the order given, at the ends of their users' lanes at those targets.

    What is not pending now (held, awaiting approval, ended) is left alone. Inside a transaction of the caller's, so
    that nobody claims one before it has its place.
    """
    await connection.execute(LOCK_LANES, list(action_ids), list(targets))
    await connection.execute(ENTER, list(action_ids), list(targets))


async def enter_again(connection: Connection, action_ids: Sequence[UUID]) -> None:
    """Enters what a person retried or approved, or what waited for another's end, behind those already there."""
    if targets := [row["target"] for row in await connection.fetch(IN_ORDER, list(action_ids))]:
        await enter(connection, action_ids, targets)


async def leave(connection: Connection, ended: Sequence[UUID]) -> None:
    """Lets the next of each lane go on that one of these was in. A crash before it is mended by `mend`."""
    await _advance(connection, await connection.fetch(LANES_OF, list(ended)))


async def mend(connection: Connection) -> int:
    """Lets lanes go on whose head ended and nobody told them; returns how many that were."""
    stuck = await connection.fetch(LANES_STUCK)
    await _advance(connection, stuck)
    return len(stuck)


async def _advance(connection: Connection, lanes: Sequence[dict[str, str]]) -> None:
    if not lanes:
        return
    columns = [row["target"] for row in lanes], [row["user_id"] for row in lanes]
    async with connection.transaction():
        await connection.execute(LOCK_KNOWN_LANES, *columns)
        await connection.execute(ADVANCE, *columns)
