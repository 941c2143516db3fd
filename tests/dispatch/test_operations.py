"""People operate on actions, one by one and by filter."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest

from connect.dispatch import operating
from connect.engine.index import Rulebook
from connect.errors import CountChanged, Invalid, NotAllowedNow, NotFound
from connect.lifecycle import allowed
from connect.model import ActionStatus, Operation, RewardAction, Ruleset
from connect.store.actions import ActionFilter
from connect.store.operations import count_operable
from tests.conftest import eventually
from tests.dispatch.stand_in import action_of, add_actions, answer, dispatching, has_ended, standing_in, target_at

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
AFTER = {"retry": "pending", "cancel": "cancelled", "approve": "pending", "reject": "cancelled"}


NO_RULES = Rulebook.compile(0, Ruleset(), {})


async def operate(pool: Any, operation: Operation, id: UUID, **how: Any) -> RewardAction:
    async with pool.acquire() as connection:
        return await operating.operate(connection, NO_RULES, operation, id, **how)


async def operate_all(pool: Any, operation: Operation, filters: ActionFilter, **how: Any) -> int:
    async with pool.acquire() as connection:
        return await operating.operate_all(connection, NO_RULES, operation, filters, **how)


def state(status: str, attempts: int = 0) -> dict[str, Any]:
    """Columns of an action in this status, as the table's checks want them."""
    open_ended = status in ("pending", "dispatched")
    return {
        "status": status,
        "attempts": max(attempts, 1 if status == "dispatched" else 0),
        "failure": "exhausted" if status == "failed" else None,
        "due_at": datetime.now(UTC) + timedelta(hours=1) if open_ended else None,
    }


FAILED = state("failed", 5)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_guards_in_sql_allow_what_the_lifecycle_allows(pool: Any, operation: Operation):
    for status in get_args(ActionStatus):
        for attempts in (0, 1):
            columns = state(status, attempts)
            (id,) = await add_actions(pool, 1, **columns)
            if allowed(operation, status, columns["attempts"]):
                action = await operate(pool, operation, id, actor="ann")
                assert (action.status, action.attempts) == (AFTER[operation], columns["attempts"])
            else:
                with pytest.raises(NotAllowedNow):
                    await operate(pool, operation, id, actor="ann")
                assert (await action_of(pool, id)).status == status
            await pool.execute("DELETE FROM reward_action")


async def test_each_operation_leaves_an_audit_row(pool: Any):
    (id,) = await add_actions(pool, 1, **FAILED)
    await operate(pool, "retry", id, actor="ann", note="the target is back")
    with pytest.raises(NotAllowedNow):
        await operate(pool, "retry", id, actor="ann")
    rows = await pool.fetch("SELECT actor, verb, subject, note FROM audit")
    assert [tuple(row) for row in rows] == [("ann", "retry", f"action/{id}", "the target is back")]


async def test_a_retry_by_a_person_is_a_new_attempt_with_the_same_key_and_new_patience(pool: Any):
    past = datetime.now(UTC) - timedelta(days=1)
    (id,) = await add_actions(pool, 1, **FAILED, retries=7, give_up_at=past, completed_at=past)
    async with standing_in() as points, dispatching(pool, {"points": target_at(points.url)}):
        points.behave = points.in_turn(answer(500), answer(200))
        await operate(pool, "retry", id, actor="ann")
        action = await eventually(lambda: has_ended(pool, id, "completed"))
    assert points.keys == [str(id)] * 2
    assert action.attempts == 7
    assert await pool.fetchval("SELECT give_up_at FROM reward_action") > datetime.now(UTC) + timedelta(days=2)


async def test_what_may_be_on_its_way_is_not_cancelled(pool: Any):
    (sent,) = await add_actions(pool, 1, **state("pending", 1))
    with pytest.raises(NotAllowedNow, match="never sent"):
        await operate(pool, "cancel", sent, actor="ann")


async def test_an_approved_action_still_waits_for_its_hold(pool: Any):
    until = datetime.now(UTC) + timedelta(days=14)
    (held,) = await add_actions(pool, 1, **state("awaiting_approval"), hold_until=until)
    (free,) = await add_actions(pool, 1, **state("awaiting_approval"))
    assert (await operate(pool, "approve", held, actor="ann")).due_at == until
    due_at = (await operate(pool, "approve", free, actor="ann")).due_at
    assert due_at is not None
    assert abs(due_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_an_unknown_action_is_not_found(pool: Any):
    with pytest.raises(NotFound):
        await operate(pool, "retry", uuid4(), actor="ann")


async def test_many_are_counted_first_and_changed_together(pool: Any):
    await add_actions(pool, 5, **FAILED)
    await add_actions(pool, 3, **FAILED, target="nft")
    await add_actions(pool, 2, **state("completed", 1))
    points = ActionFilter(target=["points"])
    assert await count_operable(pool, "retry", points) == 5
    assert await operate_all(pool, "retry", points, expect=5, actor="ann", note="all clear") == 5
    assert await count_operable(pool, "retry", points) == 0
    (row,) = await pool.fetch("SELECT actor, verb, subject, note, detail FROM audit")
    assert tuple(row) == ("ann", "retry", "actions", "all clear", {"count": 5, "filter": {"target": ["points"]}})
    statuses = await pool.fetch("SELECT target, status, count(*) AS n FROM reward_action GROUP BY 1, 2 ORDER BY 1, 2")
    assert [tuple(row) for row in statuses] == [
        ("nft", "failed", 3),
        ("points", "completed", 2),
        ("points", "pending", 5),
    ]


async def test_a_count_that_changed_changes_nothing(pool: Any):
    await add_actions(pool, 3, **FAILED)
    with pytest.raises(CountChanged) as refused:
        await operate_all(pool, "cancel", ActionFilter(status=["failed"]), expect=2, actor="ann")
    assert (refused.value.status, refused.value.extra) == (409, {"matched": 3})
    assert await pool.fetchval("SELECT count(*) FROM reward_action WHERE status = 'failed'") == 3
    assert await pool.fetchval("SELECT count(*) FROM audit") == 0


async def test_nothing_matched_and_nothing_expected_is_no_change(pool: Any):
    assert await operate_all(pool, "reject", ActionFilter(user_id=["nobody"]), expect=0, actor="ann") == 0
    assert await pool.fetchval("SELECT count(*) FROM audit") == 0


async def test_an_empty_filter_is_refused(pool: Any):
    with pytest.raises(Invalid):
        await count_operable(pool, "retry", ActionFilter())
    with pytest.raises(Invalid):
        await operate_all(pool, "retry", ActionFilter(), expect=0, actor="ann")


async def test_failures_since_a_moment_are_recovered(pool: Any):
    now = datetime.now(UTC)
    await add_actions(pool, 2, **FAILED, completed_at=now - timedelta(hours=2))
    await add_actions(pool, 1, **FAILED, completed_at=now - timedelta(minutes=5))
    recent = ActionFilter(target=["points"], failed_since=now - timedelta(hours=1))
    assert await count_operable(pool, "retry", recent) == 1
    assert await operate_all(pool, "retry", recent, expect=1, actor="ann") == 1


async def test_a_note_that_cannot_be_stored_is_refused(pool: Any):
    (id,) = await add_actions(pool, 1, **FAILED)
    with pytest.raises(Invalid):
        await operate(pool, "retry", id, actor="ann", note="a\0b")


@pytest.mark.parametrize(
    ("pending", "expected", "changed"),
    [("keep", {"pending", "awaiting_approval"}, 0), ("review", {"awaiting_approval"}, 2), ("cancel", {"cancelled"}, 3)],
)
async def test_stopping_a_rule_settles_what_was_never_sent(pool: Any, pending: Any, expected: set[str], changed: int):
    unsent = await add_actions(pool, 2, **state("pending")) + await add_actions(pool, 1, **state("awaiting_approval"))
    (sent,) = await add_actions(pool, 1, **state("pending", 1))
    (other,) = await add_actions(pool, 1, **state("pending"), rule_key="other")
    async with pool.acquire() as connection:
        stopped = await operating.stop_pending(connection, NO_RULES, "cashback", pending, by="ann", note="a bug")
    assert stopped == changed

    async def statuses(*ids: UUID) -> set[str]:
        return {(await action_of(pool, id)).status for id in ids}

    assert await statuses(*unsent) == expected
    assert await statuses(sent, other) == {"pending"}
    details = [row["detail"] for row in await pool.fetch("SELECT detail FROM audit WHERE subject = 'rule/cashback'")]
    assert details == ([{"pending": pending, "count": changed}] if changed else [])
