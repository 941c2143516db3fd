"""Recording once, deciding inline, and what happens when the database or a neighbour misbehaves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from connect.engine.command import action_id
from connect.errors import DatabaseUnavailable, EventConflict, EventTooOld, Overloaded
from connect.intake.answers import Recorded
from connect.intake.backlog import Backlog, replay
from connect.intake.live import LiveRules
from connect.intake.normalize import NormalEvent, Terms, convert_reported, normalize
from connect.intake.record import Processing, Recorder
from connect.model import EconomicEvent, Effect, RewardRule, Ruleset
from connect.store.events.rows import read_event
from connect.store.pool import open_pool
from connect.store.rules import change
from tests.chaos.test_bus_outages import database_away
from tests.conftest import eventually

CASHBACK = RewardRule(
    key="cashback",
    event_type="purchase.completed",
    condition="context.amount_minor >= 1000",
    actions=[
        Effect(
            target="points",
            command="credit",
            unit="points",
            recipient="actor",
            amount="context.amount_minor * 0.02",
            round="down",
        )
    ],
)


def fact(
    external_id: str, *, amount: int = 12990, source: str = "shop", terms: Terms | None = None, **fields: Any
) -> NormalEvent:
    document = {
        "external_id": external_id,
        "source": source,
        "event_type": "purchase.completed",
        "actor_user_id": "u1",
        "context": {"amount_minor": amount},
        **fields,
    }
    return normalize(convert_reported(document), terms or Terms(), datetime.now(UTC))


class Intake(msgspec.Struct):
    pool: Any
    rules: LiveRules
    recorder: Recorder

    async def report(self, *facts: NormalEvent, processing: Processing = "inline") -> list[Any]:
        return await self.recorder.submit(facts, processing)


@pytest.fixture
async def intake(pool: "asyncpg.Pool[Any]") -> AsyncIterator[Intake]:
    async with pool.acquire() as connection:
        await change(connection, lambda _: Ruleset(rules=[CASHBACK]), "test", "")
    rules = LiveRules(pool)
    await rules.refresh()
    recorder = Recorder(pool, rules)
    flusher = asyncio.create_task(recorder.run())
    yield Intake(pool, rules, recorder)
    recorder.close()
    await flusher


async def count(pool: Any, table: str) -> int:
    return await pool.fetchval(f"SELECT count(*) FROM {table}")


async def test_a_fact_is_recorded_and_decided_in_one_step(intake: Intake) -> None:
    [answer] = await intake.report(fact("e1"))
    assert isinstance(answer, Recorded)
    assert (answer.result, answer.event.status, [action.amount for action in answer.actions]) == (
        "created",
        "decided",
        ["259"],
    )
    row = await intake.pool.fetchrow("SELECT * FROM reward_action")
    assert (row["id"], row["amount"], row["status"]) == (
        action_id("shop", "e1", "cashback", "points.credit.points", "u1"),
        "259",
        "pending",
    )
    body = msgspec.json.decode(row["body"])
    assert (body["id"], body["event"]["external_id"], body["rule"]) == (
        str(row["id"]),
        "e1",
        {"key": "cashback", "version": 1},
    )


async def test_a_purchase_is_rewarded_once_however_often_it_is_reported(intake: Intake) -> None:
    answers = await asyncio.gather(*(intake.report(fact("e1")) for _ in range(50)))
    results = [answer[0].result for answer in answers]
    assert sorted(results) == ["created", *["duplicate"] * 49]
    assert len({answer[0].event.id for answer in answers}) == 1
    assert {tuple(action.id for action in answer[0].actions) for answer in answers} == {
        (action_id("shop", "e1", "cashback", "points.credit.points", "u1"),)
    }
    assert (await count(intake.pool, "event"), await count(intake.pool, "reward_action")) == (1, 1)


async def test_two_recorders_give_one_set_of_actions(intake: Intake, database_url: str) -> None:
    pool = await open_pool(database_url)
    other = Recorder(pool, intake.rules)
    flusher = asyncio.create_task(other.run())
    facts = [fact(f"e{n}") for n in range(40)]
    both = await asyncio.gather(
        *([intake.report(one) for one in facts] + [other.submit([one], "inline") for one in reversed(facts)])
    )
    assert sorted(answer[0].result for answer in both) == ["created"] * 40 + ["duplicate"] * 40
    assert (await count(intake.pool, "event"), await count(intake.pool, "reward_action")) == (40, 40)
    other.close()
    await flusher
    await pool.close()


async def test_other_content_under_a_known_identity_is_a_conflict(intake: Intake) -> None:
    [first], [second] = await intake.report(fact("e1")), await intake.report(fact("e1", amount=5))
    assert isinstance(second, EventConflict)
    assert second.extra["event_id"] == str(first.event.id)
    within_a_batch = await intake.report(fact("e2"), fact("e2", amount=7), fact("e2"))
    assert [type(each).__name__ for each in within_a_batch] == ["Recorded", "EventConflict", "Recorded"]
    assert [each.result for each in within_a_batch if isinstance(each, Recorded)] == ["created", "duplicate"]


async def test_a_known_fact_is_a_duplicate_even_when_it_has_become_too_old(intake: Intake) -> None:
    old = datetime.now(UTC) - timedelta(days=100)
    [refused] = await intake.report(fact("e1", occurred_at=old.isoformat()))
    assert isinstance(refused, EventTooOld)
    assert await count(intake.pool, "event") == 0
    [created] = await intake.report(fact("e1", occurred_at=old.isoformat(), terms=Terms(age_max_days=0)))
    [again] = await intake.report(fact("e1", occurred_at=old.isoformat()))
    assert (created.result, again.result) == ("created", "duplicate")


async def test_history_is_recorded_and_traced_and_gives_nothing(intake: Intake) -> None:
    [answer] = await intake.report(fact("e1", terms=Terms(effects="none")))
    assert (answer.event.status, list(answer.actions)) == ("decided", [])
    [[rule, outcome, *_, detail]] = await intake.pool.fetchval("SELECT trace FROM event")
    assert (rule, outcome, "effects=none" in detail) == ("cashback", "not_live", True)


async def test_a_poison_row_fails_alone(intake: Intake) -> None:
    await intake.pool.execute("ALTER TABLE event ADD CHECK (external_id <> 'poison')")
    answers = await intake.report(fact("e1"), fact("poison"), fact("e2"))
    assert [type(answer).__name__ for answer in answers] == ["Recorded", "InvalidEvent", "Recorded"]
    assert await count(intake.pool, "event") == 2


async def test_a_held_row_lock_leaves_events_undecided_and_a_worker_decides_them_later(
    intake: Intake, database_url: str
) -> None:
    held: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    transaction = held.transaction()
    await transaction.start()
    await held.execute("LOCK TABLE reward_action IN SHARE MODE")
    begun = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(intake.report(fact(f"e{n}")) for n in range(20)))
    later = await intake.report(fact("late"))
    assert asyncio.get_running_loop().time() - begun < 2
    assert {each[0].event.status for each in [*answers, later]} == {"received"}
    await transaction.rollback()
    await held.close()
    backlog = Backlog(intake.pool, intake.rules)
    await eventually(backlog.tick)
    assert await intake.pool.fetchval("SELECT count(*) FROM event WHERE status = 'decided'") == 21
    assert await count(intake.pool, "reward_action") == 21


async def test_an_identity_that_another_process_holds_open_delays_its_neighbours_by_less_than_two_seconds(
    intake: Intake, database_url: str
) -> None:
    held: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    transaction = held.transaction()
    await transaction.start()
    await held.execute(
        "INSERT INTO event (id, source, external_id, event_type, occurred_at, received_at, parties, context,"
        " extensions, effects, status, fingerprint, decide_at) VALUES"
        " (gen_random_uuid(), 'shop', 'e3', 'x', now(), now(), '{}', '{}', '{}', 'all', 'received', sha256('x'), now())"
    )
    begun = asyncio.get_running_loop().time()
    answers = await intake.report(*(fact(f"e{n}") for n in range(10)))
    assert asyncio.get_running_loop().time() - begun < 2
    assert [type(answer).__name__ for answer in answers] == ["Recorded"] * 3 + ["Overloaded"] + ["Recorded"] * 6
    await transaction.rollback()
    await held.close()
    [mended] = await intake.report(fact("e3"))
    assert mended.result == "created"


async def test_a_full_queue_sheds_load_and_takes_nothing(intake: Intake) -> None:
    small = Recorder(intake.pool, intake.rules, queue_max=3)
    with pytest.raises(Overloaded) as shed:
        await small.submit([fact(f"e{n}") for n in range(4)], "inline")
    assert shed.value.retry_after_s == 1
    assert await count(intake.pool, "event") == 0


async def test_a_database_that_went_away_is_told_and_nothing_is_half_done(database_url: str) -> None:
    pool = await open_pool(database_url)
    recorder = Recorder(pool, LiveRules(pool))
    flusher = asyncio.create_task(recorder.run())
    await pool.close()
    [answer] = await recorder.submit([fact("e1")], "inline")
    assert isinstance(answer, DatabaseUnavailable)
    recorder.close()
    await flusher


async def test_a_database_that_takes_no_connections_is_not_asked_once_for_each_event(
    database_url: str, intake: Intake
) -> None:
    """A bus's batch comes again and again while it is away: 500 tries for a connection each time took a whole core."""
    facts = [fact(f"e{n}") for n in range(50)]
    async with database_away(database_url):
        await eventually(lambda: intake.pool.get_idle_size() == 0)
        answers = await intake.report(*facts)
    assert {answer.detail for answer in answers} == {"the database does not answer; send again"}
    assert {answer.result for answer in await intake.report(*facts)} == {"created"}


async def test_queued_events_are_decided_in_order_of_receipt_by_a_worker(intake: Intake) -> None:
    answers = await intake.report(*(fact(f"e{n}") for n in range(30)), processing="queued")
    assert {answer.event.status for answer in answers} == {"received"}
    assert await Backlog(intake.pool, intake.rules).tick() == 30
    assert await count(intake.pool, "reward_action") == 30


async def test_an_event_that_ends_its_worker_five_times_fails_alone_and_a_replay_mends_it(intake: Intake) -> None:
    answers = await intake.report(*(fact(f"e{n}") for n in range(3)), processing="queued")
    poison: EconomicEvent = answers[0].event
    await intake.pool.execute("UPDATE event SET tries = 5 WHERE id = $1", poison.id)
    await Backlog(intake.pool, intake.rules).tick()
    statuses = dict(await intake.pool.fetch("SELECT status, count(*) FROM event GROUP BY 1"))
    assert statuses == {"failed": 1, "decided": 2}
    async with intake.pool.acquire() as connection:
        await replay(connection, [poison.id], intake.rules.rulebook)
        mended = await read_event(connection, poison.id)
    assert mended is not None
    assert mended.status == "decided"
    assert await count(intake.pool, "reward_action") == 3


async def test_a_replay_gives_what_a_new_rule_adds_and_nothing_twice(intake: Intake) -> None:
    [answer] = await intake.report(fact("e1"))
    second = msgspec.structs.replace(CASHBACK, key="second")
    async with intake.pool.acquire() as connection:
        await change(connection, lambda old: Ruleset(rules=[*old.rules, second]), "test", "")
        await intake.rules.refresh()
        for _ in range(2):
            await replay(connection, [answer.event.id], intake.rules.rulebook)
    rows = await intake.pool.fetch("SELECT rule_key FROM reward_action ORDER BY 1")
    assert [row["rule_key"] for row in rows] == ["cashback", "second"]


async def test_a_thousand_reports_of_one_event_in_a_batch_are_answered_together(intake: Intake) -> None:
    """One look at what is stored for all of them: a look for each took seconds."""
    looks = await intake.pool.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    answers = await intake.report(*(fact("e1") for _ in range(1000)), fact("e1", amount=5))
    assert [answer.result for answer in answers[:-1]] == ["created", *["duplicate"] * 999]
    assert isinstance(answers[-1], EventConflict)

    async def commits() -> int:
        return await intake.pool.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")

    assert await commits() - looks < 100


async def test_repeats_of_a_refused_event_are_all_refused(intake: Intake) -> None:
    answers = await intake.report(*(fact("old", occurred_at="2001-01-01T00:00:00Z") for _ in range(50)))
    assert {type(answer) for answer in answers} == {EventTooOld}
