"""A whole Connect in memory: events decided one after the other, each seeing what the one before it left.

For inline tests, backtests and dry runs of a story. What the store would load, this finds in what it decided itself.
Nothing is ever sent here: actions stay as they were decided.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from connect.engine.amounts import minus
from connect.engine.decide import (
    Cascade,
    Claimable,
    State,
    Weighed,
    claims,
    link_keys,
    readers,
    settle,
    uncounted,
    undone_early,
    weigh,
)
from connect.engine.index import Rulebook
from connect.engine.limits import Slot, contribution, parties
from connect.engine.links import Link, LinkPath, Original, originals_in, reversers_in
from connect.engine.state import Memory, StateValue
from connect.model import Decision, EconomicEvent, RewardAction

Before = Callable[[Claimable], Mapping[str, StateValue]]
"""What keys held before the first event of the simulation, for those asked for."""


def nothing_before(_: Claimable) -> Mapping[str, StateValue]:
    return {}


class Simulation:
    """Decides events by one rulebook and remembers everything. `undo`: what targets declare, as in `State`."""

    def __init__(
        self,
        rulebook: Rulebook,
        *,
        undo: Mapping[str, Mapping[str, str]] | None = None,
        before: Before = nothing_before,
    ) -> None:
        self.rulebook = rulebook
        self.memory = Memory()
        self.events: dict[UUID, EconomicEvent] = {}
        self.actions: dict[UUID, RewardAction] = {}
        self._undo = undo or {}
        self._before = before
        self._of_event: dict[UUID, list[UUID]] = defaultdict(list)
        self._of_rule: dict[str, list[UUID]] = defaultdict(list)
        self._counters: dict[UUID, Mapping[str, Any]] = {}

    def decide(self, event: EconomicEvent, now: datetime, arms: Mapping[str, str] | None = None) -> Decision:
        """Decides one event and takes its changes in."""
        keys = link_keys(event, self.rulebook)
        reverses = {path: self._link(key, event) for path, key in keys.reverses.items()} if keys.reverses else {}
        reversers = {path: self._reversers(key, event) for path, key in keys.original.items()} if keys.original else {}
        reversers = {path: found for path, found in reversers.items() if found}
        state = State(
            now=now, memory=self.memory, links=keys, reverses=reverses, reversers=reversers, undo=self._undo,
            undone=undone_early(event, self.rulebook, reversers) if reversers else frozenset(),
            cascades=self._cascades(event, reverses) if reverses else (), arms=arms or {},
        )  # fmt: skip
        weighed = weigh(event, self.rulebook, state)
        self._load(weighed)
        decision = settle(weighed)
        self._keep(replace(event, status="decided", decided_at=now), decision)
        return decision

    def _load(self, weighed: Weighed) -> None:
        wanted = claims(weighed)
        unknown = Claimable(
            tuple(slot for slot in wanted.slots if slot.period is not None and slot.key not in self.memory.values),
            tuple(key for key in wanted.keys if key not in self.memory.values),
        )
        if unknown.slots or unknown.keys:
            self.memory.values.update(self._before(unknown))
        for slot in wanted.slots:
            if slot.period is None and slot.key not in self.memory.windows:
                self.memory.windows[slot.key] = self._window(slot)

    def _window(self, slot: Slot) -> list[tuple[datetime, Decimal]]:
        """The entries of a sliding limit, from what was given."""
        entries: list[tuple[datetime, Decimal]] = []
        events = {self.actions[found].event_id for key in slot.meter.keys for found in self._of_rule[key]}
        for event_id in events:
            event = self.events[event_id]
            mine = [one for one in self._actions(event_id) if one.rule_key in slot.meter.keys]
            value = contribution(slot.meter, event, slot.subject, mine)
            if value:
                entries.append((event.occurred_at, value))
        return sorted(entries)

    def _actions(self, event_id: UUID) -> list[RewardAction]:
        return [self.actions[found] for found in self._of_event[event_id]]

    def _link(self, key: str, event: EconomicEvent) -> Link:
        stored = self.memory.get(key)
        originals = [
            Original(self.events[UUID(found)], tuple(self._actions(UUID(found))), tuple(counters))
            for found, counters in originals_in(stored).items()
            if UUID(found) != event.id
        ]
        return Link(tuple(originals), self._reversers(key, event))

    def _reversers(self, key: str, event: EconomicEvent) -> tuple[EconomicEvent, ...]:
        found = (UUID(one) for one in reversers_in(self.memory.get(key)))
        return tuple(self.events[one] for one in found if one != event.id)

    def _cascades(self, event: EconomicEvent, reverses: Mapping[LinkPath, Link]) -> tuple[Cascade, ...]:
        gone = uncounted(event, self.rulebook, reverses)
        subjects = {part.subject for one in gone for part in one.parts}
        reversed_ids = {one.reverses for one in self.actions.values() if not one.frees_claim}
        return tuple(
            Cascade(
                action, self.events[action.event_id], self._counters.get(action.event_id, {}), action.id in reversed_ids
            )
            for key, names in readers(self.rulebook, gone).items()
            for action in (self.actions[found] for found in self._of_rule[key])
            if action.reverses is None and self._is_read_for(action, names, subjects)
        )

    def _is_read_for(self, action: RewardAction, names: Iterable[str], subjects: set[str]) -> bool:
        event = self.events[action.event_id]
        return any(subjects.intersection(parties(event, self.rulebook.counters[name].counter.of)) for name in names)

    def _keep(self, event: EconomicEvent, decision: Decision) -> None:
        self.events[event.id] = event
        self._counters[event.id] = decision.read.get("counters", {})
        for action in decision.actions:
            self.actions[action.id] = action
            self._of_event[action.event_id].append(action.id)
            self._of_rule[action.rule_key].append(action.id)
        for taken in decision.taken_back:
            self._take(taken.action_id, taken.reversed, cancel=taken.cancel)

    def _take(self, action_id: UUID, reversed_: str, *, cancel: bool) -> None:
        action = replace(self.actions[action_id], reversed=reversed_)
        if not cancel:
            self.actions[action_id] = action
            return
        self.actions[action_id] = replace(action, status="cancelled", due_at=None)
        for found, other in list(self.actions.items()):
            if other.reverses == action_id and other.status in ("blocked", "awaiting_approval"):
                self.actions[found] = replace(other, status="cancelled")


def taken(decision: Decision, before: Mapping[UUID, RewardAction]) -> Sequence[tuple[RewardAction, Decimal]]:
    """What a decision takes back, by cancelling or an undo: (original, how much). `before`: actions as they were."""
    undone = [
        (before[action.reverses], Decimal(action.amount))
        for action in decision.actions
        if action.reverses is not None and action.reverses in before
    ]
    cancelled = [
        (before[one.action_id], minus(Decimal(one.reversed), Decimal(before[one.action_id].reversed)))
        for one in decision.taken_back
        if one.cancel and one.action_id in before
    ]
    return [*undone, *cancelled]
