"""A whole Connect in memory: events decided one after the other, each seeing what the one before it left.

For inline tests, backtests and dry runs of a story. What the store would load, this finds in what it decided itself.
Nothing is ever sent here: actions stay as they were decided, unless the caller says what became of them (`fare`,
`change`). A backtest over a long history names the links that matter (`Matters`), and what nothing can take back or
read again is forgotten once it is decided.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from connect.engine.amounts import minus
from connect.engine.decide import (
    Cascade,
    Claimable,
    LinkKeys,
    State,
    Weighed,
    claims,
    keys_given_back,
    link_keys,
    readers,
    settle,
    uncounted,
    undone_early,
    weigh,
)
from connect.engine.decide.reversal import give_back, rules_behind
from connect.engine.index import Rulebook
from connect.engine.limits import Periods, Slot, parties, slots_of
from connect.engine.links import Link, LinkPath, Original, originals_in, reversers_in, with_original
from connect.engine.state import Memory, StateValue
from connect.model import ActionStatus, Decision, EconomicEvent, Failure, RewardAction

Entries = list[tuple[datetime, Decimal]]


class Before:
    """Tells what limits and budgets held before the first event: nothing, unless a subclass knows more."""

    def values(self, wanted: Claimable) -> Mapping[str, StateValue]:
        """Returns the values of those keys that held something."""
        del wanted
        return {}

    def window(self, slot: Slot) -> Entries:
        """Returns what a sliding limit knows, sorted."""
        del slot
        return []


class Matters(Struct, frozen=True):
    """Names what must be remembered of a history whose later events are known."""

    links: Container[str]
    """Keys of the links of every event that takes something back."""
    events: Container[UUID] = ()
    """Events whose actions are changed by hand later."""


class Simulation:
    """Decides events by one rulebook and remembers everything. `undo`: what targets declare, as in `State`."""

    def __init__(
        self,
        rulebook: Rulebook,
        *,
        undo: Mapping[str, Mapping[str, str]] | None = None,
        before: Before | None = None,
        matters: Matters | None = None,
    ) -> None:
        self.rulebook = rulebook
        self.memory = Memory()
        self.events: dict[UUID, EconomicEvent] = {}
        self.actions: dict[UUID, RewardAction] = {}
        self._undo = undo or {}
        self._before = before or Before()
        self._matters = matters
        self._of_event: dict[UUID, list[UUID]] = defaultdict(list)
        self._undoing: dict[UUID, list[UUID]] = defaultdict(list)
        self._counters: dict[UUID, Mapping[str, Any]] = {}
        self._readers: dict[tuple[str, str], dict[UUID, None]] = defaultdict(dict)
        """By a counter that can be undone and whom it is about: what was given by rules that read it."""

    def decide(
        self,
        event: EconomicEvent,
        now: datetime,
        arms: Mapping[str, str] | None = None,
        *,
        uncounted_by: frozenset[str] = frozenset(),
    ) -> Decision:
        """Decides one event and takes its changes in. `uncounted_by`: ids of counters that do not take it."""
        keys = self._links(event)
        reverses = {path: self._link(key, event) for path, key in keys.reverses.items()} if keys.reverses else {}
        reversers = {path: self._reversers(key, event) for path, key in keys.original.items()} if keys.original else {}
        reversers = {path: found for path, found in reversers.items() if found}
        undone = undone_early(event, self.rulebook, reversers) if reversers else frozenset[str]()
        state = State(
            now=now, memory=self.memory, links=keys, reverses=reverses, reversers=reversers, undo=self._undo,
            undone=undone | uncounted_by if uncounted_by else undone,
            cascades=self._cascades(event, reverses) if reverses else (), arms=arms or {},
            shows_values=self._matters is None,
        )  # fmt: skip
        weighed = weigh(event, self.rulebook, state)
        self._load(weighed)
        decision = settle(weighed)
        self._keep(event, now, keys, decision)
        return decision

    def adopt(self, event: EconomicEvent, actions: Iterable[RewardAction], links: Iterable[str]) -> None:
        """Takes over what was given before the simulation began, and can be taken back by these links."""
        self.events[event.id] = event
        for action in actions:
            self._add(action)
        mine = self._actions(event.id)
        for compiled in rules_behind(self.rulebook, mine):
            given = [(action.user_id, action.recipient_role) for action in mine if action.rule_key in compiled.keys]
            self._know_windows(slots_of(compiled.meters, event, given, Periods(event.occurred_at)))
        for key in links:
            stored = self.memory.get(key)
            known = originals_in(stored).get(str(event.id), ())
            self.memory.put(key, with_original(stored, str(event.id), known))

    def standing_to(self, event: EconomicEvent) -> list[RewardAction]:
        """The actions that the event may take something back of."""
        keys = link_keys(event, self.rulebook).reverses.values()
        ids = {UUID(found) for key in keys for found in originals_in(self.memory.get(key))} - {event.id}
        return [action for found in sorted(ids) for action in self._actions(found)]

    def fare(self, action_id: UUID, *, status: ActionStatus, attempts: int, failure: Failure | None) -> None:
        """Says what became of an action on its way, which decides how it can be taken back."""
        action = self.actions[action_id]
        self.actions[action_id] = replace(action, status=status, attempts=attempts, failure=failure)

    def change(self, action_id: UUID, *, reversed_: str | None = None, cancel: bool = False) -> None:
        """Does to an action what a person did to it: limits and budgets follow."""
        action = self.actions[action_id]
        event = self.events[action.event_id]
        before = self._actions(event.id)
        self._know(Claimable((), tuple(keys_given_back(self.rulebook, event, before))))
        self._take(action_id, action.reversed if reversed_ is None else reversed_, cancel=cancel)
        give_back(self.rulebook, self.memory, event, before, self._actions(event.id))

    def _links(self, event: EconomicEvent) -> LinkKeys:
        """Those of the event's that matter."""
        keys = link_keys(event, self.rulebook)
        if self._matters is None or not (keys.reverses or keys.original):
            return keys
        known = self._matters.links
        return LinkKeys(
            {path: key for path, key in keys.reverses.items() if key in known},
            {path: key for path, key in keys.original.items() if key in known},
        )

    def _load(self, weighed: Weighed) -> None:
        wanted = claims(weighed)
        self._know(wanted)
        self._know_windows(wanted.slots)

    def _know(self, wanted: Claimable) -> None:
        unknown = Claimable(
            tuple(slot for slot in wanted.slots if slot.period is not None and slot.key not in self.memory.values),
            tuple(key for key in wanted.keys if key not in self.memory.values),
        )
        if unknown.slots or unknown.keys:
            self.memory.values.update(self._before.values(unknown))

    def _know_windows(self, slots: Iterable[Slot]) -> None:
        """Asked once for each key: what was given since is put into memory as it is given."""
        for slot in slots:
            if slot.period is None and slot.key not in self.memory.windows:
                self.memory.windows[slot.key] = self._before.window(slot)

    def _actions(self, event_id: UUID) -> list[RewardAction]:
        return [self.actions[found] for found in self._of_event.get(event_id, ())]

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
        found = {
            action_id: self.actions[action_id]
            for key, names in readers(self.rulebook, gone).items()
            for name in sorted(names)
            for subject in sorted(subjects)
            for action_id in self._readers.get((name, subject), ())
            if self.actions[action_id].rule_key == key
        }
        return tuple(
            Cascade(
                action, self.events[action.event_id], self._counters.get(action.event_id, {}), self._is_reversed(action)
            )
            for action in found.values()
        )

    def _is_reversed(self, action: RewardAction) -> bool:
        return any(not self.actions[undo].frees_claim for undo in self._undoing.get(action.id, ()))

    def _keep(self, event: EconomicEvent, now: datetime, keys: LinkKeys, decision: Decision) -> None:
        if self._is_kept(event, keys, decision):
            self.events[event.id] = replace(event, status="decided", decided_at=now)
            self._counters[event.id] = decision.read.get("counters", {})
            for action in decision.actions:
                self._add(action)
                self._note_reader(event, action)
        for taken in decision.taken_back:
            self._take(taken.action_id, taken.reversed, cancel=taken.cancel)
        self.memory.changed.clear()

    def _is_kept(self, event: EconomicEvent, keys: LinkKeys, decision: Decision) -> bool:
        """Whether anything can need the event again."""
        matters = self._matters
        if matters is None or event.id in matters.events or keys.reverses or keys.original:
            return True
        return any(self._undoable(action.rule_key) for action in decision.actions)

    def _undoable(self, rule_key: str) -> list[str]:
        """The counters that the rule reads and a later event can undo."""
        compiled = self.rulebook.rules.get(rule_key)
        counters = self.rulebook.counters
        names = sorted(compiled.counters) if compiled and compiled.counters else ()
        return [name for name in names if name in counters and counters[name].link is not None]

    def _note_reader(self, event: EconomicEvent, action: RewardAction) -> None:
        if action.reverses is None:
            for name in self._undoable(action.rule_key):
                for subject in parties(event, self.rulebook.counters[name].counter.of):
                    self._readers[name, subject][action.id] = None

    def _add(self, action: RewardAction) -> None:
        self.actions[action.id] = action
        self._of_event[action.event_id].append(action.id)
        if action.reverses is not None:
            self._undoing[action.reverses].append(action.id)

    def _take(self, action_id: UUID, reversed_: str, *, cancel: bool) -> None:
        action = replace(self.actions[action_id], reversed=reversed_)
        if not cancel:
            self.actions[action_id] = action
            return
        self.actions[action_id] = replace(action, status="cancelled", due_at=None)
        for found in self._undoing.get(action_id, ()):
            undo = self.actions[found]
            if undo.status in ("blocked", "awaiting_approval"):
                self.actions[found] = replace(undo, status="cancelled")


def taken(decision: Decision, before: Mapping[UUID, RewardAction]) -> Sequence[tuple[RewardAction, Decimal]]:
    """Returns what a decision takes back, by cancelling or an undo: (original, how much). `before`: earlier actions."""
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
