"""Decides a window of the stored history by a candidate ruleset, in the order it was decided live; sums both sides.

The engine is the one that decides live (`engine.simulate`). What it knows when the window begins is worked out from
what is stored: limits and budgets from the actions of earlier events, counters by counting those events.

Delivery is not simulated. Where the candidate gives what was given, a refund finds the action as the real one stood;
what only the candidate gives was never sent, and a refund takes all of it back unless its terms say to keep or review
what was completed.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from connect.backtest.opening_state import Beginning, as_it_stood, work_out
from connect.backtest.operator_actions import People
from connect.backtest.projection import fields_read
from connect.backtest.totals import Key, Tally
from connect.engine.amounts import format_amount, minus, plus
from connect.engine.decide import link_keys
from connect.engine.index import PublishedContext, Rulebook
from connect.engine.periods import FIRST, LAST
from connect.engine.requirements import requirements
from connect.engine.simulate import Matters, Simulation
from connect.engine.state import ZERO, StateValue
from connect.engine.state_keys import budget_key
from connect.model import Decision, EconomicEvent, RewardAction, Ruleset
from connect.store import history, state
from connect.store.events.rows import read_events
from connect.store.history import Past, Then
from connect.store.published_context import read_counters, read_published_context

Progress = Callable[[int], None]
"""Hears how many more events are done."""


class BudgetEnd(Struct, frozen=True):
    """How far a budget went. `day`: of occurrence of the event that used it up; None where it lasts."""

    budget: str
    unit: str
    cap: str
    spent: Decimal
    day: str | None


class Compared(Struct, frozen=True):
    """Both sides of a window."""

    since: datetime
    events: int
    earlier: int
    """Events before the window that were counted."""
    seconds: float
    tally: Tally
    budgets_was: list[BudgetEnd]
    budgets_would: list[BudgetEnd]


async def compare(
    connection: Any, live: Ruleset, candidate: Ruleset, since: datetime, undo: Mapping[str, Mapping[str, str]],
    progress: Progress = lambda _: None,
) -> Compared:  # fmt: skip
    """On a connection of `store.history.snapshot`; `since` FIRST for the whole history."""
    begun = time.perf_counter()
    published = await read_published_context(connection)
    paths = {*published.reversal_paths, *requirements(candidate).paths}
    rulebook = Rulebook.compile(0, candidate, {}, PublishedContext(reversal_paths=tuple(paths)))
    backtest = _Backtest(connection, rulebook, since, undo)
    await backtest.prepare()
    earlier = await backtest.count_earlier()
    events = await backtest.run(progress)
    await backtest.sum_given()
    budgets_was = await _ends_of(connection, live, since, backtest)
    return Compared(
        since=since, events=events, earlier=earlier, seconds=time.perf_counter() - begun, tally=backtest.tally,
        budgets_was=budgets_was, budgets_would=backtest.budget_ends(),
    )  # fmt: skip


class _Backtest:
    """The candidate's side."""

    def __init__(
        self, connection: Any, rulebook: Rulebook, since: datetime, undo: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._connection, self._rulebook, self.since, self._undo = connection, rulebook, since, undo
        self.tally = Tally(rulebook.zone)
        self.then: dict[UUID, Then] = {}
        """How actions stood when something was first taken back of them in the window."""
        self.adopted: dict[UUID, RewardAction] = {}
        """Given before the window, and taken back in it, as they stood at its start."""
        self._now: dict[UUID, RewardAction] = {}
        """The actions of `adopted` as they stand now."""
        self.beginning = Beginning()
        self._fields: frozenset[str] | None = None
        self._since_version: dict[str, int] = {}
        self._beginning_counters = [one for one in rulebook.counters.values() if one.counter.start == "publish"]
        self._budgets = {key: one.budget for key, one in rulebook.rules.items() if one.budget is not None}
        self._short_on: dict[str, str] = {}

    async def prepare(self) -> None:
        """Everything that is asked before the first event is decided."""
        wanted: set[str] = set()
        async for chunk in history.decided_between(self._connection, FIRST, LAST, self._reversing()):
            for past in chunk:
                wanted.update(link_keys(past.event, self._rulebook).reverses.values())
                if past.decided_at >= self.since:
                    self._note_originals(past)
        cancelled = await history.cancelled_by_people(self._connection, self.since)
        undos = await history.undos_since(self._connection, self.since)
        if self.since > FIRST:
            self.beginning = await work_out(self._connection, self._rulebook, self.since, self.then)
        self.simulation = Simulation(
            self._rulebook, undo=self._undo, before=self.beginning,
            matters=Matters(frozenset(wanted), frozenset(event_id for _, _, event_id in cancelled)),
        )  # fmt: skip
        self.people = People(self.simulation, cancelled, undos, self._tell)
        self._cancelled_events = sorted({event_id for _, _, event_id in cancelled})
        self._since_version = {row.id: row.since_version for row in await read_counters(self._connection)}

    def _reversing(self) -> set[str]:
        return {path.event_type for path in self._rulebook.published.reversal_paths}

    def _note_originals(self, past: Past) -> None:
        for found, (status, attempts, failure, reversed_) in past.originals.items():
            self.then.setdefault(UUID(found), Then(status, attempts, failure, reversed_))

    async def count_earlier(self) -> int:
        """Counts the events before the window, and takes over what they gave that the window takes back."""
        if self.since == FIRST:
            return 0
        document = self._rulebook.document
        counting = Rulebook(0, document, (), self._rulebook.published)
        patterns = {counter.event_type for counter in document.counters.values()} | self._reversing()
        done = 0
        self.simulation.rulebook = counting
        async for chunk in history.decided_between(self._connection, FIRST, self.since, patterns):
            for past in chunk:
                self.simulation.decide(past.event, past.decided_at, uncounted_by=self._uncounted_by(past, early=True))
            done += len(chunk)
        self.simulation.rulebook = self._rulebook
        await self._adopt()
        return done

    def _uncounted_by(self, past: Past, *, early: bool) -> frozenset[str]:
        """Counters that begin at their publish take nothing from before it, new ones nothing from before the window."""
        if not self._beginning_counters:
            return frozenset()
        after = self._since_version
        return frozenset(
            one.id
            for one in self._beginning_counters
            if (past.ruleset_version < after[one.id] if one.id in after else early)
        )

    async def _adopt(self) -> None:
        ids = list(self.then)
        actions = await history.actions_before(self._connection, self.since, ids, self._cancelled_events)
        events = await read_events(self._connection, sorted({action.event_id for action in actions}))
        for event_id, event in events.items():
            mine = [as_it_stood(one, self.then, self.since) for one in actions if one.event_id == event_id]
            self.adopted.update((one.id, one) for one in mine)
            links = {one.reversal.link for one in mine if one.reversal is not None}
            self.simulation.adopt(event, mine, sorted(links))
        self._now = {one.id: one for one in actions}

    async def run(self, progress: Progress) -> int:
        done = 0
        self._fields = fields_read(self._rulebook, self.adopted.values())
        async for chunk in history.decided_between(self._connection, self.since, LAST):
            for past in chunk:
                self.people.until(past.decided_at)
                if past.originals or self._rulebook.plan(past.event.event_type).reverses:
                    self._stand_as_real(past)
                self._decide(past)
            done += len(chunk)
            progress(len(chunk))
        self.people.until(LAST)
        return done

    def _decide(self, past: Past) -> None:
        event = self._bare(past.event)
        uncounted_by = self._uncounted_by(past, early=False)
        decision = self.simulation.decide(event, past.decided_at, uncounted_by=uncounted_by)
        tally = self.tally
        for action in decision.actions:
            if action.reverses is not None:
                self.people.hear(action)
                continue
            key = tally.key(action.rule_key, action.unit, action.occurred_at)
            tally.give(tally.would, key, action.user_id, action.id, Decimal(action.amount))
            if action.reversed != "0":
                tally.take(tally.would, key, action.user_id, Decimal(action.reversed))
        for taken in decision.taken_back:
            before = Decimal(decision.read["originals"][str(taken.action_id)][3])
            self._tell(self.simulation.actions[taken.action_id], minus(Decimal(taken.reversed), before), ZERO)
        if self._budgets:
            self._note_short(decision, event.occurred_at)

    def _bare(self, event: EconomicEvent) -> EconomicEvent:
        fields, context = self._fields, event.context
        if fields is None or fields.issuperset(context):
            return event
        return replace(event, context={name: context[name] for name in context if name in fields})

    def _note_short(self, decision: Decision, occurred_at: datetime) -> None:
        for entry in decision.trace:
            if entry.outcome == "short_of_budget" or (entry.outcome == "gave" and entry.detail):
                budget = self._budgets.get(entry.rule)
                if budget is not None and f"the budget {budget.name} " in entry.detail:
                    self._short_on.setdefault(budget.key, self.tally.key("", "", occurred_at)[2])

    def _stand_as_real(self, past: Past) -> None:
        """Before something is taken back: actions stand as the real ones stood, others as they most likely would."""
        actions, now = self.simulation.actions, past.decided_at
        for found, (status, attempts, failure, _) in past.originals.items():
            action = actions.get(UUID(found))
            if action is not None and "cancelled" not in (status, action.status):
                self.simulation.fare(action.id, status=status, attempts=attempts, failure=failure)
        for action in self.simulation.standing_to(past.event):
            terms = action.reversal
            if str(action.id) in past.originals or terms is None or terms.after_completion == "compensate":
                continue
            if action.status == "pending" and action.due_at is not None and action.due_at <= now:
                self.simulation.fare(action.id, status="completed", attempts=1, failure=None)

    def _tell(self, action: RewardAction, taken_back: Decimal, by_people: Decimal) -> None:
        key = self._key(action)
        if taken_back:
            self.tally.take(self.tally.would, key, action.user_id, taken_back)
        if by_people:
            self.tally.would[key].by_people = plus(self.tally.would[key].by_people, by_people)

    def _key(self, action: RewardAction) -> Key:
        return self.tally.key(action.rule_key, action.unit, None if action.id in self.adopted else action.occurred_at)

    # --- what was really given ---

    async def sum_given(self) -> None:
        tally = self.tally
        async for chunk in history.given_since(self._connection, self.since):
            for one in chunk:
                key = tally.key(one.rule_key, one.unit, one.occurred_at)
                tally.give(tally.was, key, one.user_id, one.id, one.amount)
                if one.reversed:
                    tally.take(tally.was, key, one.user_id, one.reversed)
                if one.cancelled and one.reversed < one.amount:
                    tally.was[key].by_people = plus(tally.was[key].by_people, minus(one.amount, one.reversed))
        for found, then in self.adopted.items():
            now, key = self._now[found], self._key(then)
            taken = minus(Decimal(now.reversed), Decimal(then.reversed))
            if taken:
                tally.take(tally.was, key, now.user_id, taken)
            left = minus(Decimal(now.amount), Decimal(now.reversed))
            if now.status == "cancelled" and then.status != "cancelled" and left:
                tally.was[key].by_people = plus(tally.was[key].by_people, left)

    # --- budgets ---

    def budget_ends(self) -> list[BudgetEnd]:
        budgets = {budget.key: budget for budget in self._budgets.values()}
        held = self.simulation.memory.values
        return [
            BudgetEnd(
                budget.name, budget.unit, format_amount(budget.cap),
                (held.get(key) or self.beginning.held.get(key, StateValue())).value, self._short_on.get(key),
            )
            for key, budget in sorted(budgets.items())
        ]  # fmt: skip

    def day_of(self, occurred_at: datetime) -> str:
        return self.tally.key("", "", occurred_at)[2]


async def _ends_of(connection: Any, live: Ruleset, since: datetime, backtest: _Backtest) -> list[BudgetEnd]:
    """How far the live ruleset's budgets really went."""
    keys = {budget_key(name, budget.unit): (name, budget.unit) for name, budget in live.budgets.items()}
    spent = await state.spent(connection, keys)
    ends: list[BudgetEnd] = []
    for key, (name, unit) in sorted(keys.items()):
        short_at = await history.first_short(connection, since, name)
        day = None if short_at is None else backtest.day_of(short_at)
        cap = str(live.budgets[name].cap)
        ends.append(BudgetEnd(name, unit, cap, spent.get(key, StateValue()).value, day))
    return ends
