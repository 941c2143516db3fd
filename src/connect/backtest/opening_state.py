"""Works out what limits, budgets and links held when the window begins, from the actions of the events before it."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from connect.engine.amounts import plus
from connect.engine.compile import CompiledRule
from connect.engine.decide import Claimable
from connect.engine.index import Rulebook
from connect.engine.limits import Meter, Periods, Slot, contribution, slots_of
from connect.engine.periods import FIRST, period
from connect.engine.simulate import Before, Entries
from connect.engine.state import StateValue
from connect.engine.state_keys import budget_key
from connect.model import EconomicEvent, RewardAction
from connect.store import history
from connect.store.history import Then


class Beginning(Before):
    """Holds what each key held, for the keys that held something."""

    def __init__(self) -> None:
        self.held: dict[str, StateValue] = {}
        self.windows: dict[str, Entries] = {}

    def values(self, wanted: Claimable) -> Mapping[str, StateValue]:
        keys = (*(slot.key for slot in wanted.slots), *wanted.keys)
        return {key: self.held.get(key, StateValue()) for key in keys}

    def window(self, slot: Slot) -> Entries:
        return sorted(self.windows.pop(slot.key, []))


async def work_out(connection: Any, rulebook: Rulebook, since: datetime, then: Mapping[UUID, Then]) -> Beginning:
    """`then`: how actions stood, of which something was taken back later."""
    beginning = Beginning()
    first = await history.first_occurred(connection, since)
    limited = {key: rule for rule in rulebook.rules.values() if rule.meters for key in rule.keys}
    if first is not None and limited:
        reach = {key: min(_earliest(meter, first) for meter in rule.meters) for key, rule in limited.items()}
        rest: list[tuple[EconomicEvent, RewardAction]] = []
        async for rows in history.given_before(connection, since, reach):
            rows = rest + [(event, as_it_stood(action, then, since)) for event, action in rows]
            last = rows[-1][0].id  # its actions may go on in the next chunk
            rest = [row for row in rows if row[0].id == last]
            _fold(beginning, limited, [row for row in rows if row[0].id != last])
        _fold(beginning, limited, rest)
    await _budgets(connection, rulebook, since, then, beginning)
    return beginning


def _earliest(meter: Meter, first: datetime) -> datetime:
    """From when on given things can be in a period, or a sliding window, of an event at `first` or later."""
    if meter.every is not None:
        return period(first, meter.every, meter.zone).start
    within = meter.within or timedelta()
    return first - within if first - FIRST > within else FIRST


def _fold(
    beginning: Beginning, limited: Mapping[str, CompiledRule], rows: Iterable[tuple[EconomicEvent, RewardAction]]
) -> None:
    """Adds to each slot what one event after the other holds of it."""
    for _, grouped in groupby(rows, key=lambda row: row[0].id):
        of_event = list(grouped)
        event, periods = of_event[0][0], Periods(of_event[0][0].occurred_at)
        by_rule = sorted(((limited[action.rule_key].rule.key, action) for _, action in of_event), key=itemgetter(0))
        for key, mine in groupby(by_rule, key=itemgetter(0)):
            actions = [action for _, action in mine]
            given = [(action.user_id, action.recipient_role) for action in actions]
            for slot in slots_of(limited[key].meters, event, given, periods):
                value = contribution(slot.meter, event, slot.subject, actions)
                if value and slot.period is None:
                    beginning.windows.setdefault(slot.key, []).append((event.occurred_at, value))
                elif value:
                    beginning.held[slot.key] = StateValue(plus(beginning.held.get(slot.key, StateValue()).value, value))


async def _budgets(
    connection: Any, rulebook: Rulebook, since: datetime, then: Mapping[UUID, Then], beginning: Beginning
) -> None:
    budgets = {rule.budget.key: rule.budget for rule in rulebook.rules.values() if rule.budget is not None}
    if not budgets:
        return
    names = sorted({budget.name for budget in budgets.values()})
    for (name, unit), amount in (await history.spent_before(connection, since, names, then)).items():
        key = budget_key(name, unit)
        if amount and key in budgets:
            closed = budgets[key].closes and await history.was_closed(connection, since, key)
            beginning.held[key] = StateValue(amount, {"closed": True} if closed else None)


def as_it_stood(action: RewardAction, then: Mapping[UUID, Then], since: datetime) -> RewardAction:
    """The action at the window's start."""
    if action.id in then:
        return stood(action, then[action.id])
    if action.status == "cancelled" and action.completed_at is not None and action.completed_at >= since:
        return replace(action, status="pending")
    return action


def stood(action: RewardAction, then: Then) -> RewardAction:
    return replace(action, status=then.status, attempts=then.attempts, failure=then.failure, reversed=then.reversed)
