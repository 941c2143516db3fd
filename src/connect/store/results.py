"""Targets' later reports: the action's row is locked, judged by the caller, and every report is kept."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from connect.model import Disposition, Failure, ResultReport, RewardAction
from connect.store.actions import ACTION_COLUMNS, to_action
from connect.store.pool import Connection

LOCK = f"SELECT {ACTION_COLUMNS}, now() AS now FROM reward_action WHERE id = $1 FOR UPDATE"

KEEP = """
INSERT INTO result_report (action_id, status, reference, reason, disposition) VALUES ($1, $2, $3, $4, $5)
"""

END = f"""
UPDATE reward_action SET
    status = $2, failure = $3, last_error = $4, reference = $5, completed_at = $6, due_at = NULL, accepted_at = NULL
WHERE id = $1 RETURNING {ACTION_COLUMNS}
"""


async def lock_action(connection: Connection, action_id: UUID) -> tuple[RewardAction, datetime] | None:
    """The action, locked until the transaction ends, and the database's time. None where there is no such action."""
    row = await connection.fetchrow(LOCK, action_id)
    if row is None:
        return None
    columns = dict(row)
    now = columns.pop("now")
    return to_action(columns), now


async def keep_report(connection: Connection, action_id: UUID, result: ResultReport, disposition: Disposition) -> None:
    await connection.execute(KEEP, action_id, result.status, result.reference, result.reason, disposition)


async def end_action(
    connection: Connection,
    action_id: UUID,
    *,
    status: Literal["completed", "failed"],
    failure: Failure | None,
    last_error: str | None,
    reference: str | None,
    completed_at: datetime | None,
) -> RewardAction:
    """Writes the end of an action that this transaction has locked."""
    return to_action(await connection.fetchrow(END, action_id, status, failure, last_error, reference, completed_at))
