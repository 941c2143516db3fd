"""Nothing is decided by rules that are no longer live, whoever decides: real processes' parts on one real database."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from connect.authoring import read_and_check
from connect.intake.backlog import Backlog, replay
from connect.intake.deciding import decide_plain
from connect.intake.live import LiveRules
from connect.intake.record import decided_row
from connect.store.events.fence import Outdated, outlast
from connect.store.events.record import record
from connect.store.rules import change
from tests.conftest import eventually
from tests.intake.rule_model import Intake, intake_on, purchase

PLAIN = (
    "version: 1\nunits: {{ points: {{ scale: 0 }} }}\nrules:\n"
    + """
  - key: cashback
    event_type: purchase.completed
    actions: [ {{ target: points, command: credit, recipient: actor, amount: {amount}, unit: points }} ]
"""
)
LIMITED = PLAIN + "    limits: [ {{ per: actor, every: day, uses: 500 }} ]\n"
OTHERS = """
  - {{ key: other-{n}, event_type: other.thing, condition: "context.amount > {n} && context.kind == 'k{n}'",
      actions: [ {{ target: points, command: credit, recipient: actor, amount: {n}, unit: points }} ] }}"""
STATES = pytest.mark.parametrize("rules", [PLAIN, LIMITED], ids=["plain", "with a limit"])


@pytest.fixture
async def intake(pool: Any) -> AsyncIterator[Intake]:
    async with intake_on(pool, PLAIN.format(amount=1)) as made:
        yield made


async def publish_elsewhere(pool: Any, text: str) -> int:
    """As another process does: this one learns of it by itself, and has not yet."""
    document, problems = read_and_check(text)
    assert not [one for one in problems if one.severity == "error"]
    async with pool.acquire() as connection:
        return (await change(connection, lambda _: document, "elsewhere", "")).version


def amounts(answers: list[Any]) -> set[str]:
    return {action.amount for answer in answers for action in answer.actions}


async def drained(intake: Intake) -> bool:
    """Decides what waits, as a worker does, until nothing does."""
    await Backlog(intake.pool, intake.rules).tick()
    return not await intake.pool.fetchval("SELECT EXISTS (SELECT FROM event WHERE status = 'received')")


@STATES
async def test_events_after_a_publish_elsewhere_are_decided_by_it(rules: str, pool: Any) -> None:
    """At once, or undecided at first where this machine is too busy to compile so soon; never by the older rules."""
    async with intake_on(pool, rules.format(amount=1)) as intake:
        assert amounts(await intake.report(purchase(1))) == {"1"}
        version = await publish_elsewhere(pool, rules.format(amount=2))
        answers = await intake.report(*(purchase(n) for n in range(2, 12)))
        assert {answer.event.ruleset_version for answer in answers} <= {version, None}
        await eventually(lambda: drained(intake))
        later = await pool.fetch("SELECT DISTINCT ruleset_version FROM event WHERE external_id <> 'p1'")
        assert [row["ruleset_version"] for row in later] == [version]
        assert sorted(row[2] for row in await intake.given()) == ["1", *["2"] * 10]


@STATES
async def test_events_are_recorded_undecided_while_the_new_rules_cannot_be_had(rules: str, pool: Any) -> None:
    """Compiling takes longer than events wait, here because the text cannot be read; a worker decides by it later."""
    async with intake_on(pool, rules.format(amount=1)) as intake:
        version = await publish_elsewhere(pool, rules.format(amount=2))
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("LOCK TABLE ruleset_version")
            [answer] = await intake.report(purchase(1))
        assert (answer.event.status, answer.actions) == ("received", [])
        await intake.rules.refresh()
        await Backlog(pool, intake.rules).tick()
        assert await pool.fetchval("SELECT ruleset_version FROM event") == version
        assert await intake.given() == [("cashback", "u1", "2", "pending", "0", False)]


async def test_a_worker_with_old_rules_decides_what_waits_by_the_new_ones(intake: Intake) -> None:
    await intake.report(*(purchase(n) for n in range(20)), processing="queued")
    version = await publish_elsewhere(intake.pool, PLAIN.format(amount=2))
    await eventually(lambda: drained(intake))
    rows = await intake.pool.fetch("SELECT DISTINCT ruleset_version, status, tries FROM event")
    assert [tuple(row) for row in rows] == [(version, "decided", 1)]


async def test_a_replay_by_old_rules_writes_nothing(intake: Intake) -> None:
    [answer] = await intake.report(purchase(1))
    old = intake.rules.rulebook
    await publish_elsewhere(intake.pool, PLAIN.format(amount=2).replace("cashback", "other"))
    async with intake.pool.acquire() as connection:
        with pytest.raises(Outdated):
            await replay(connection, [answer.event.id], old)
    assert [row[0] for row in await intake.given()] == ["cashback"]


async def test_duplicates_are_known_however_old_the_rules_are(intake: Intake) -> None:
    await intake.report(purchase(1))
    await publish_elsewhere(intake.pool, PLAIN.format(amount=2))
    [again] = await intake.report(purchase(1))
    assert (again.result, amounts([again])) == ("duplicate", {"1"})


class PublishesAfterTheWrite:
    """A connection beside which somebody publishes as soon as the events are written."""

    def __init__(self, connection: Any, pool: Any) -> None:
        self._connection = connection
        self._pool = pool

    async def fetch(self, *query: Any) -> Any:
        rows = await self._connection.fetch(*query)
        await publish_elsewhere(self._pool, PLAIN.format(amount=2))
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_what_was_written_before_a_publish_is_no_refusal_though_a_duplicate_came_with_it(intake: Intake) -> None:
    """Told as refused, it would be written again, and the reporter of a new event would be answered "duplicate"."""
    await intake.report(purchase(1))
    rows = [
        decided_row(one, decide_plain(one.event, intake.rules.rulebook, datetime.now(UTC)))
        for one in (purchase(1), purchase(2))
    ]
    async with intake.pool.acquire() as connection:
        new = await record(PublishesAfterTheWrite(connection, intake.pool), rows)  # pyright: ignore[reportArgumentType]
    assert new == {rows[1].event.id}


async def test_whoever_publishes_waits_for_what_began_before_and_cuts_off_what_never_ends(
    pool: Any, database_url: str
) -> None:
    working = await asyncpg.connect(database_url, server_settings={"application_name": "connect-api"})
    async with pool.acquire() as publisher:
        await working.execute("BEGIN")
        waiting = asyncio.create_task(outlast(publisher, patience_s=60))
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
        await working.execute("COMMIT")
        await asyncio.wait_for(waiting, 10)
        await working.execute("BEGIN")
        await asyncio.wait_for(outlast(publisher, patience_s=0.1), 10)
        await eventually(working.is_closed)


async def test_many_refreshes_at_once_compile_once(intake: Intake) -> None:
    version = await publish_elsewhere(intake.pool, PLAIN.format(amount=2))
    await asyncio.gather(*(intake.rules.refresh() for _ in range(20)))
    assert intake.rules.rulebook.version == version
    stale = LiveRules(intake.pool)
    await asyncio.gather(*(stale.catch_up(5) for _ in range(5)))
    assert stale.rulebook.version == version


async def test_events_do_not_wait_for_rules_that_are_being_compiled(intake: Intake) -> None:
    """Also where this process has not looked for a while: the fence judges what it decides meanwhile."""
    await publish_elsewhere(intake.pool, PLAIN.format(amount=2) + "".join(OTHERS.format(n=n + 1) for n in range(4000)))
    compiling = asyncio.create_task(intake.rules.refresh())
    await asyncio.sleep(0)
    intake.rules.looked_at = 0.0
    reporting = asyncio.create_task(intake.report(purchase(1)))
    first, _ = await asyncio.wait({compiling, reporting}, return_when=asyncio.FIRST_COMPLETED)
    assert first == {reporting}
    assert reporting.result()[0].event.status == "received"
    await compiling
