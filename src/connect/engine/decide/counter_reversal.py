"""Events that no longer count: taken out of the counters, and the actions that hung on them listed for a person."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from connect.engine.amounts import format_amount, plus
from connect.engine.command import reversal_id
from connect.engine.compile import CompiledRule
from connect.engine.counters import (
    CompiledCounter,
    Counted,
    Number,
    apply,
    counted,
    is_within,
    item_key,
    items_within,
    keys_changed,
    micros,
    number,
    place_read,
    read,
    recorded,
    total_key,
    undone_key,
)
from connect.engine.decide.reversal import UNDO_UNKNOWN, Taking, evaluated_fraction, live
from connect.engine.decide.state import Cascade, Reading, State
from connect.engine.expression import Activation, make_activation
from connect.engine.index import Rulebook
from connect.engine.links import Link, LinkPath, event_values
from connect.engine.state import Memory, StateValue
from connect.model import EconomicEvent, RewardAction, RuleTrace

Order = tuple[int, int, str]
"""Sorts events as they were decided."""
UNDONE_KEPT_MAX = 1_000
"""Notes of what was taken out, of one subject and period: a reader older than so many is judged by the later ones."""


class Uncounted(Struct, frozen=True):
    """One original that one counter no longer counts."""

    counter: CompiledCounter
    original: EconomicEvent
    parts: tuple[Counted, ...]


def uncounted(event: EconomicEvent, rulebook: Rulebook, links: Mapping[LinkPath, Link]) -> list[Uncounted]:
    """Returns what the event takes out of counters: originals that are wholly reversed with it and still counted."""
    found: list[Uncounted] = []
    for counter in rulebook.counters.values():
        link = links.get(counter.link) if counter.link is not None else None
        if link is None:
            continue
        for original in link.originals:
            if counter.id not in original.counters:
                continue
            if _sum(counter, (*link.reversers, event), original.event) >= 1:
                parts = counted(counter, original.event, make_activation(event_values(original.event)))
                found.append(Uncounted(counter, original.event, parts))
    return found


def undone_early(
    event: EconomicEvent, rulebook: Rulebook, reversers: Mapping[LinkPath, Sequence[EconomicEvent]]
) -> frozenset[str]:
    """Ids of the counters that never take the event, as it is wholly reversed before it came."""
    return frozenset(
        counter.id
        for counter in rulebook.plan(event.event_type).counting
        if counter.link is not None and _sum(counter, reversers.get(counter.link, ()), event) >= 1
    )


def _sum(counter: CompiledCounter, reversers: Iterable[EconomicEvent], original: EconomicEvent) -> Fraction:
    if counter.fraction is None:
        return Fraction(0)
    others = (by for by in reversers if by.id != original.id)
    shares = (evaluated_fraction(counter.fraction, by, original) for by in others)
    return sum((share for share in shares if isinstance(share, Fraction)), Fraction(0))


def uncounted_keys(found: Iterable[Uncounted]) -> list[str]:
    keys: list[str] = []
    for one in found:
        keys += keys_changed(one.counter, one.parts)
        keys += [undone_key(one.counter, part.label, part.subject) for part in one.parts]
    return keys


def take_out(found: Iterable[Uncounted], memory: Memory) -> None:
    for one in found:
        apply(one.counter, one.parts, memory, sign=-1)


class Undone(Struct, frozen=True, array_like=True):
    """A note: an event that was counted and is no more."""

    counted: Order
    undone: Order
    at: int
    value: str
    item: str


def note(found: Iterable[Uncounted], event: EconomicEvent, state: State) -> None:
    """Keeps what was taken out for the decisions that had read it: what they read then is judged by all such notes."""
    since = _order(replace(event, decided_at=state.now))
    for one in found:
        for part in one.parts:
            if one.counter.counter.kind == "streak" or not _is_gone(one.counter, part, state.memory):
                continue
            key = undone_key(one.counter, part.label, part.subject)
            stored = state.memory.get(key)
            made = Undone(_order(one.original), since, part.at, format(part.value, "f"), part.item)
            notes = [*undone(stored), made][-UNDONE_KEPT_MAX:]
            state.memory.put(key, StateValue(stored.value, {"undone": msgspec.to_builtins(notes)}))


def _is_gone(counter: CompiledCounter, part: Counted, memory: Memory) -> bool:
    """Whether no other event holds what this one held. In a sliding window that depends on who looks."""
    return not counter.items or counter.within is not None or memory.get(item_key(counter, part)).value <= 0


def undone(stored: StateValue) -> list[Undone]:
    return msgspec.convert((stored.detail or {}).get("undone", []), list[Undone])


def _order(event: EconomicEvent) -> Order:
    return micros(event.decided_at or event.received_at), micros(event.received_at), str(event.id)


# --- what hung on it -----------------------------------------------------------------------------


def readers(rulebook: Rulebook, found: Iterable[Uncounted]) -> dict[str, frozenset[str]]:
    """Rule key -> the counters among these that it reads."""
    names = {one.counter.name for one in found}
    return {key: compiled.counters & names for key, compiled in rulebook.rules.items() if compiled.counters & names}


def cascade(taking: Taking, found: Sequence[Uncounted]) -> tuple[list[RewardAction], list[RuleTrace]]:
    """Reversals that await approval, of actions whose lines that read counters no longer hold without the uncounted.

    What the event takes back by the action's own terms, or undoes itself where it has terms, is left to these.
    """
    event, rulebook, state = taking.event, taking.rulebook, taking.state
    actions: list[RewardAction] = []
    traces: list[RuleTrace] = []
    originals = {one.original.id for one in found}
    taken = {one.reverses for one in taking.actions} | taking.taken_back.keys()
    for hung in state.cascades:
        compiled = rulebook.rules.get(hung.action.rule_key)
        own = hung.action.id in taken or (hung.event.id in originals and hung.action.reversal is not None)
        if compiled is None or hung.is_reversed or own:
            continue
        line = _broken_line(compiled, hung, found, state)
        left = live(hung.action)
        if line is None or not left:
            continue
        actions.append(_listed(event, hung.action, format_amount(left), state))
        detail = f"{format_amount(left)} {hung.action.unit} of {hung.action.user_id}: line {line} no longer holds"
        traces.append(RuleTrace(hung.action.rule_key, "took_back", None, {}, f"{detail}; awaits approval"))
    return actions, traces


def _broken_line(compiled: CompiledRule, hung: Cascade, found: Sequence[Uncounted], state: State) -> int | None:
    """The first line that reads a counter and is no longer true."""
    reader = Reading(hung.event)
    read_then = {name: value for name in compiled.counters if (value := recorded(hung.counters, name)) is not None}
    counters = dict(read_then)
    for one in found:
        before = read_then.get(one.counter.name)
        less = None if before is None else _less(one, before, hung.event, reader.activation, state.memory)
        if less is not None:
            counters[one.counter.name] = less
    if counters == read_then:
        return None
    activation = reader.activation.bind({"counters": counters})
    for place, line in enumerate(compiled.conditions, start=1):
        if any(path.startswith("counters.") for path in line.reads) and line.evaluate(activation) is not True:
            return place
    return None


def _less(one: Uncounted, before: Number, reader: EconomicEvent, known: Activation, memory: Memory) -> Number | None:
    """The reader's value without all that was taken out since; None where it did not have the original in it."""
    counter, place = one.counter, place_read(one.counter, reader, known)
    mine = [part for part in one.parts if (part.label, part.subject) == place]
    if place is None or not mine:
        return None
    if counter.counter.kind == "streak":
        now = read(counter, reader, known, memory)
        return None if now is None else min(before, now)
    until, at = _order(reader), micros(reader.occurred_at)
    if _order(one.original) > until or not _is_near(counter, mine[0].at, at):
        return None
    left_out = [
        entry
        for entry in undone(memory.get(undone_key(counter, *place)))
        if entry.counted <= until < entry.undone and _is_near(counter, entry.at, at)
    ]
    if not counter.items:
        return number(plus(Decimal(before), *(Decimal(entry.value).copy_negate() for entry in left_out)))
    items = {entry.item for entry in left_out}
    if counter.within is not None:
        items -= items_within(counter, memory.get(total_key(counter, *place)), at)
    return before - len(items)


def _is_near(counter: CompiledCounter, moment: int, at: int) -> bool:
    return counter.within is None or is_within(counter, moment, at)


def _listed(event: EconomicEvent, action: RewardAction, amount: str, state: State) -> RewardAction:
    undo = state.undo.get(action.target, {}).get(action.command, UNDO_UNKNOWN)
    return replace(
        action, id=reversal_id(event.source, event.external_id, action.id), event_id=event.id, command=undo,
        amount=amount, status="awaiting_approval", failure=None, attempts=0, due_at=None, hold_until=None,
        last_error=None, reference=None, reverses=action.id, created_at=state.now, dispatched_at=None,
        completed_at=None, occurred_at=event.occurred_at, arm=None, reversal=None, reversed="0", frees_claim=False,
        refills=False,
    )  # fmt: skip
