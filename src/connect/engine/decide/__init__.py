"""Decides what one fact earns by a ruleset: pure, the same answer for the same arguments, here and in a backtest.

The shell locks and loads in three steps, each named by a function here, and decides with what it found:

1. `link_keys`: the links of the event. With them `undone_early` and `uncounted` say what counters are touched.
2. `counter_keys`, then `weigh`: the event is counted, and every rule of its type is evaluated.
3. `claims`: the limits, budgets and rails that what the rules would give can use up. Then `settle`.

`decide` is all of it at once, for who has everything in memory. No clock: `State.now` is the moment of deciding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from connect.engine.counters import keys_changed, keys_read
from connect.engine.decide.counter_reversal import (
    Uncounted,
    cascade,
    note,
    readers,
    uncounted,
    uncounted_keys,
    undone_early,
)
from connect.engine.decide.evaluate import Candidate, Weighed, weigh
from connect.engine.decide.grant import Giving, safety_key, usage_of, windows_of
from connect.engine.decide.reversal import Taking, keys_given_back
from connect.engine.decide.state import Cascade, LinkKeys, Reading, State
from connect.engine.index import Rulebook
from connect.engine.limits import Slot
from connect.engine.links import (
    LinkPath,
    key_of_original,
    key_of_reverser,
    originals_in,
    reversers_in,
    with_original,
    with_reverser,
)
from connect.model import Decision, EconomicEvent, RewardAction, RuleTrace, Warning_

__all__ = [
    "Cascade", "Claimable", "LinkKeys", "Reading", "State", "Uncounted", "Weighed", "claims", "counter_keys", "decide",
    "keys_given_back", "link_keys", "readers", "settle", "uncounted", "undone_early", "weigh",
]  # fmt: skip


class Claimable(Struct, frozen=True):
    """Names what an event may use up or give back."""

    slots: tuple[Slot, ...] = ()
    keys: tuple[str, ...] = ()


def link_keys(event: EconomicEvent, rulebook: Rulebook) -> LinkKeys:
    plan = rulebook.plan(event.event_type)
    if not plan.reverses and not plan.links:
        return LinkKeys()
    reverses = {path: key_of_reverser(path, event) for path in plan.reverses}
    original = {path: key_of_original(path, event) for path in plan.links}
    return LinkKeys(
        {path: key for path, key in reverses.items() if key is not None},
        {path: key for path, key in original.items() if key is not None},
    )


def counter_keys(
    event: EconomicEvent, rulebook: Rulebook, reading: Reading, found: Sequence[Uncounted] = ()
) -> set[str]:
    """Keys of the counters that the event changes or its rules read."""
    plan = rulebook.plan(event.event_type)
    if not plan.counting and not plan.read and not found:
        return set()
    keys = set(uncounted_keys(found))
    for counter in plan.counting:
        keys.update(keys_changed(counter, reading.counted(counter)))
    for counter in plan.read:
        keys.update(keys_read(counter, event, reading.activation))
    return keys


def claims(weighed: Weighed) -> Claimable:
    """The limits, budgets and rails that the event may use up, and those of what it takes back."""
    slots: dict[str, Slot] = {}
    keys: set[str] = set()
    for _, verdict in weighed.verdicts:
        if not isinstance(verdict, Candidate):
            continue
        slots.update((slot.key, slot) for found in verdict.slots for slot in found)
        if verdict.compiled.budget is not None:
            keys.add(verdict.compiled.budget.key)
        keys.update(
            safety_key(weighed, effect.effect.unit) for effect, _ in verdict.gifts if effect.day_cap is not None
        )
    for link in weighed.state.reverses.values():
        for original in link.originals:
            keys.update(keys_given_back(weighed.rulebook, original.event, original.actions))
    return Claimable(tuple(slots.values()), tuple(keys))


def settle(weighed: Weighed) -> Decision:
    """Decides a weighed event. Never raises for what a rule or an event holds; changes `State.memory`."""
    event, rulebook, state = weighed.event, weighed.rulebook, weighed.state
    if state.recorded is not None:
        state.memory.values.update(usage_of(state.recorded.get("usage", {})))
        state.memory.windows.update(windows_of(state.recorded.get("windows", {})))
    read = _read_before(weighed)
    giving = Giving(weighed, read)
    trace = giving.run()
    taking = Taking(event, state, rulebook)
    given: Sequence[RewardAction] = giving.actions
    if state.reversers:
        by_key = {state.links.original[path]: found for path, found in state.reversers.items()}
        given = taking.reversed_early(given, by_key)
    listed, reasons = _take_back(taking, weighed.gone, read) if state.reverses else ((), ())
    if state.links.all:
        _remember_links(weighed, given)
    return Decision(
        event_id=event.id,
        ruleset_version=rulebook.version,
        actions=(*given, *taking.actions, *listed),
        trace=(*trace, *taking.trace, *reasons),
        warnings=_warnings(weighed),
        exposures=tuple(giving.exposures),
        taken_back=tuple(taking.taken_back.values()),
        read=read,
        alerts=tuple(giving.alerts),
    )


def _read_before(weighed: Weighed) -> dict[str, Any]:
    """Returns what the decision knew before it gave anything: enough to make it again."""
    state, plan = weighed.state, weighed.plan
    read: dict[str, Any] = {"counters": _plain(weighed.counters)} if weighed.counters else {}
    if state.counted:
        read["again"] = True
    building = weighed.rulebook.published.building
    if building and (names := [counter.name for counter in plan.read if counter.id in building]):
        read["building"] = names
    if state.reverses or state.reversers:
        read["undo"] = {target: dict(commands) for target, commands in state.undo.items()}
    known = [one for link in state.reverses.values() for one in link.reversers]
    known += [one for found in state.reversers.values() for one in found]
    if known:
        read["reversers"] = sorted({str(one.id) for one in known})
    return read


def _take_back(
    taking: Taking, found: Sequence[Uncounted], read: dict[str, Any]
) -> tuple[Sequence[RewardAction], Sequence[RuleTrace]]:
    """Returns what the event takes back, with a line for a person, as the event leaves counters.

    A replay did so before, but for links that no rule knew then: of counters, those are built from history.
    """
    event, state = taking.event, taking.state
    read["originals"] = {
        str(action.id): [action.status, action.attempts, action.failure, action.reversed]
        for link in state.reverses.values()
        for original in link.originals
        for action in original.actions
    }
    late = _links_known_late(event, state) if state.counted else []
    if late:
        read["late"] = late
    if event.effects == "all":
        for path, link in state.reverses.items():
            if not state.counted or state.links.reverses[path] in late:
                taking.reverse(link, state.links.reverses[path])
    if state.counted:
        return (), ()
    note(found, event, state)
    for path, key in state.links.reverses.items():
        stored = state.memory.get(key)
        for one in found:
            if one.counter.link == path:
                left = [name for name in originals_in(stored)[str(one.original.id)] if name != one.counter.id]
                stored = with_original(stored, str(one.original.id), left)
        state.memory.put(key, stored)
    return cascade(taking, found) if event.effects == "all" else ((), ())


def _links_known_late(event: EconomicEvent, state: State) -> list[str]:
    """Links that a decided event has no place in, as what takes back: their paths were published after it."""
    if state.recorded is not None:
        return state.recorded.get("late", [])
    keys = state.links.reverses.values()
    return sorted(key for key in keys if str(event.id) not in reversers_in(state.memory.get(key)))


def _remember_links(weighed: Weighed, given: Sequence[RewardAction]) -> None:
    """The event takes its place in its links: as what takes back, and as what can be taken back."""
    event, state = weighed.event, weighed.state
    for key in state.links.reverses.values():
        state.memory.put(key, with_reverser(state.memory.get(key), str(event.id)))
    counting: dict[LinkPath | None, list[str]] = {}
    for counter, _ in weighed.added:
        counting.setdefault(counter.link, []).append(counter.id)
    promised = {action.reversal.link for action in given if action.reversal is not None}
    for path, key in state.links.original.items():
        if path in counting or key in promised:
            stored = state.memory.get(key)
            before = originals_in(stored).get(str(event.id), ()) if state.counted else ()  # those that count it stay
            state.memory.put(key, with_original(stored, str(event.id), counting.get(path, before)))


def _plain(counters: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them: exact numbers with a fraction are text."""
    return {name: value if isinstance(value, int) else format(value, "f") for name, value in counters.items()}


def _warnings(weighed: Weighed) -> tuple[Warning_, ...]:
    plan, event = weighed.plan, weighed.event
    if plan.rules or plan.counting or plan.reverses:
        return weighed.warnings
    nearest = weighed.rulebook.nearest_type(event.event_type)
    meant = f"; did you mean {nearest}?" if nearest else ""
    detail = f"no rule is for {event.event_type}{meant}"
    return (Warning_(kind="no_rule_for_type", detail=detail, nearest=nearest),)


def decide(event: EconomicEvent, rulebook: Rulebook, state: State) -> Decision:
    """Decides `event` by every rule of its type, in order, with the state that `state` holds.

    An event reported with `effects` none is counted and traced, and gives nothing.
    """
    return settle(weigh(event, rulebook, state))
