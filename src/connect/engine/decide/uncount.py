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
from connect.engine.decide.state import Cascade, Reading, State
from connect.engine.decide.take_back import UNDO_UNKNOWN, evaluated_fraction, live
from connect.engine.expression import Activation, make_activation
from connect.engine.index import Rulebook
from connect.engine.links import Link, LinkPath, event_values
from connect.engine.state import Memory, StateValue
from connect.model import EconomicEvent, RewardAction, RuleTrace

UNDONE_KEPT_MAX = 1_000
"""Notes of what was taken out, of one subject and period: a reader older than so many is judged by the later ones."""


class Uncounted(Struct, frozen=True):
    """One original that one counter no longer counts."""

    counter: CompiledCounter
    original: EconomicEvent
    parts: tuple[Counted, ...]


def uncounted(event: EconomicEvent, rulebook: Rulebook, links: Mapping[LinkPath, Link]) -> list[Uncounted]:
    """What the event takes out of counters: originals that are wholly reversed with it and still counted."""
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
    """Takes the originals out of their counters, and notes it for the decisions that had read them."""
    for one in found:
        apply(one.counter, one.parts, memory, sign=-1)
        for part in one.parts:
            if one.counter.counter.kind != "streak" and _is_gone(one.counter, part, memory):
                _note(undone_key(one.counter, part.label, part.subject), one.original, part, memory)


def _is_gone(counter: CompiledCounter, part: Counted, memory: Memory) -> bool:
    """Whether no other event holds what this one held. In a sliding window that depends on who looks."""
    return not counter.items or counter.within is not None or memory.get(item_key(counter, part)).value <= 0


class Undone(Struct, frozen=True, array_like=True):
    """An event that was counted and is no more."""

    order: tuple[int, int, str]
    at: int
    value: str
    item: str


def _note(key: str, original: EconomicEvent, part: Counted, memory: Memory) -> None:
    stored = memory.get(key)
    entry = Undone(_order(original), part.at, format(part.value, "f"), part.item)
    entries = [*undone(stored), entry][-UNDONE_KEPT_MAX:]
    memory.put(key, StateValue(stored.value, {"undone": msgspec.to_builtins(entries)}))


def undone(stored: StateValue) -> list[Undone]:
    return msgspec.convert((stored.detail or {}).get("undone", []), list[Undone])


def _order(event: EconomicEvent) -> tuple[int, int, str]:
    """Sorts events as they were decided."""
    return micros(event.decided_at or event.received_at), micros(event.received_at), str(event.id)


# --- what hung on it -----------------------------------------------------------------------------


def readers(rulebook: Rulebook, found: Iterable[Uncounted]) -> dict[str, frozenset[str]]:
    """Rule key -> the counters among these that it reads."""
    names = {one.counter.name for one in found}
    return {key: compiled.counters & names for key, compiled in rulebook.rules.items() if compiled.counters & names}


def cascade(
    event: EconomicEvent, rulebook: Rulebook, state: State, found: Sequence[Uncounted]
) -> tuple[list[RewardAction], list[RuleTrace]]:
    """Reversals that await approval, of actions whose lines that read counters no longer hold without the uncounted."""
    actions: list[RewardAction] = []
    traces: list[RuleTrace] = []
    originals = {one.original.id for one in found}
    for hung in state.cascades:
        compiled = rulebook.rules.get(hung.action.rule_key)
        if compiled is None or hung.is_reversed or (hung.event.id in originals and hung.action.reversal is not None):
            continue  # what is undone itself is taken back by its own terms, where it has any
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
    counters = dict(hung.counters)
    for one in found:
        before = recorded(hung.counters, one.counter.name)
        if before is not None and (less := _less(one, before, hung.event, reader.activation, state.memory)) is not None:
            counters[one.counter.name] = less
    if counters == dict(hung.counters):
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
        if entry.order <= until and _is_near(counter, entry.at, at)
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
