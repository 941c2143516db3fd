"""Reward actions: rows made at deciding, read and searched by people."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from connect.model import ActionStatus, DispatchAttempt, Failure, RewardAction, ZonedTime
from connect.store.page import Page, page
from connect.store.pool import Connection

ACTION_COLUMNS = ", ".join(RewardAction.__struct_fields__)

ACTIONS_OF_EVENTS = f"SELECT {ACTION_COLUMNS} FROM reward_action WHERE event_id = ANY($1) ORDER BY created_at, id"
ACTION = f"SELECT {ACTION_COLUMNS} FROM reward_action WHERE id = $1"
ATTEMPTS = """
SELECT n, started_at, duration_ms, outcome, status_code, error, excerpt
FROM dispatch_attempt WHERE action_id = $1 ORDER BY n
"""
GIVEN_RULES = (
    "SELECT event_id, array_agg(DISTINCT rule_key) AS keys FROM reward_action WHERE event_id = ANY($1) GROUP BY 1"
)


class ActionFilter(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which actions: every given field must match; within a field any of its values."""

    status: list[ActionStatus] = []
    target: list[str] = []
    rule: list[str] = []
    user_id: list[str] = []
    event_id: list[UUID] = []
    failure: list[Failure] = []
    source: list[str] = []
    since: ZonedTime | None = None
    until: ZonedTime | None = None
    """Half-open on `created_at`."""
    failed_since: ZonedTime | None = None
    """Only failed ones, by when they ended."""

    @property
    def is_empty(self) -> bool:
        return self == ActionFilter()


FILTERS = {
    "status": "status = ANY(${n}::text[])",
    "target": "target = ANY(${n}::text[])",
    "rule": "rule_key = ANY(${n}::text[])",
    "user_id": "user_id = ANY(${n}::text[])",
    "event_id": "event_id = ANY(${n}::uuid[])",
    "failure": "failure = ANY(${n}::text[])",
    "source": "event_id IN (SELECT id FROM event WHERE source = ANY(${n}::text[]))",
    "since": "created_at >= ${n}",
    "until": "created_at < ${n}",
    "failed_since": "status = 'failed' AND completed_at >= ${n}",
}


def where(filters: ActionFilter, first: int = 1) -> tuple[str, list[Any]]:
    """A condition on reward_action whose parameters start at `$first`, and their values."""
    given = {name: value for name in FILTERS if (value := getattr(filters, name)) not in ([], None)}
    clauses = [FILTERS[name].replace("{n}", str(first + index)) for index, name in enumerate(given)]
    return " AND ".join(clauses) or "true", list(given.values())


def to_action(row: Any) -> RewardAction:
    return msgspec.convert(dict(row), RewardAction, strict=True)


async def actions_of_events(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, list[RewardAction]]:
    """Every event id of `event_ids` is a key; one without actions has an empty list."""
    actions: dict[UUID, list[RewardAction]] = {event_id: [] for event_id in event_ids}
    for row in await connection.fetch(ACTIONS_OF_EVENTS, list(actions)):
        actions[row["event_id"]].append(to_action(row))
    return actions


async def given_rules(connection: Connection, event_ids: Sequence[UUID]) -> dict[UUID, frozenset[str]]:
    """Rule keys that already gave for each event, in any version: a replay skips them."""
    return {row["event_id"]: frozenset(row["keys"]) for row in await connection.fetch(GIVEN_RULES, list(event_ids))}


async def read_action(connection: Connection, action_id: UUID) -> RewardAction | None:
    row = await connection.fetchrow(ACTION, action_id)
    return to_action(row) if row else None


async def read_attempts(connection: Connection, action_id: UUID) -> list[DispatchAttempt]:
    return [msgspec.convert(dict(row), DispatchAttempt) for row in await connection.fetch(ATTEMPTS, action_id)]


async def list_actions(
    connection: Connection, filters: ActionFilter, *, limit: int, cursor: str | None
) -> Page[RewardAction]:
    condition, values = where(filters)
    return await page(
        connection,
        "reward_action",
        ACTION_COLUMNS,
        to_action,
        condition,
        values,
        order_by="created_at",
        limit=limit,
        cursor=cursor,
    )
