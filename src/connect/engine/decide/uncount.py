"""Events that no longer count: taken out of the counters, and the actions that hung on them listed for a person."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from connect.engine.amounts import format_amount
from connect.engine.command import reversal_id
from connect.engine.compile import CompiledRule
from connect.engine.counters import (
    CompiledCounter,
    Counted,
    Number,
    apply,
    counted,
    item_key,
    keys_changed,
    read,
    recorded,
)
from connect.engine.decide.state import Cascade, State
from connect.engine.decide.take_back import UNDO_UNKNOWN, evaluated_fraction, live
from connect.engine.expression import make_activation
from connect.engine.index import Rulebook
from connect.engine.limits import parties
from connect.engine.links import Link, LinkPath, event_values
from connect.engine.state import Memory
from connect.model import EconomicEvent, RewardAction, RuleTrace


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
    shares = (evaluated_fraction(counter.fraction, by, original) for by in reversers)
    return sum((share for share in shares if isinstance(share, Fraction)), Fraction(0))


def uncounted_keys(found: Iterable[Uncounted]) -> list[str]:
    return [key for one in found for key in keys_changed(one.counter, one.parts)]


def take_out(found: Iterable[Uncounted], memory: Memory) -> None:
    for one in found:
        apply(one.counter, one.parts, memory, sign=-1)


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
        if compiled is None or hung.is_reversed or hung.event.id in originals:
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
    counters = dict(hung.counters)
    for one in found:
        before = recorded(counters, one.counter.name)
        if before is not None and _included(one, hung.event):
            counters[one.counter.name] = _less(one, before, hung.event, state)
    if counters == dict(hung.counters):
        return None
    activation = make_activation({**event_values(hung.event), "counters": counters})
    for number, line in enumerate(compiled.conditions, start=1):
        if any(path.startswith("counters.") for path in line.reads) and line.evaluate(activation) is not True:
            return number
    return None


def _included(one: Uncounted, reader: EconomicEvent) -> bool:
    """Whether the reader's value had the original in it: decided before, in its window, of the same subject."""
    original, counter = one.original, one.counter
    if counter.counter.kind != "streak" and _order(original) > _order(reader):
        return False
    mine = counted(counter, reader, make_activation(event_values(reader)))
    subjects = {part.subject for part in one.parts}
    if not any(part.subject in subjects for part in mine):
        return bool(not mine and subjects.intersection(parties(reader, counter.counter.of)))
    if counter.within is not None:
        return timedelta(0) <= reader.occurred_at - original.occurred_at < counter.within
    return counter.counter.kind == "streak" or bool({part.label for part in mine} & {part.label for part in one.parts})


def _order(event: EconomicEvent) -> tuple[Any, ...]:
    return event.decided_at or event.received_at, event.received_at, event.id


def _less(one: Uncounted, before: Number, reader: EconomicEvent, state: State) -> Number:
    """The reader's value without the original."""
    match one.counter.counter.kind:
        case "count":
            return before - 1
        case "sum":
            return before - sum(part.value for part in one.parts)
        case "distinct":
            gone = all(state.memory.get(item_key(one.counter, part)).value <= 0 for part in one.parts)
            return before - 1 if gone else before
        case "streak":
            now = read(one.counter, reader, make_activation(event_values(reader)), state.memory)
            return before if now is None else now


def _listed(event: EconomicEvent, action: RewardAction, amount: str, state: State) -> RewardAction:
    undo = state.undo.get(action.target, {}).get(action.command, UNDO_UNKNOWN)
    return replace(
        action, id=reversal_id(event.source, event.external_id, action.id), event_id=event.id, command=undo,
        amount=amount, status="awaiting_approval", failure=None, attempts=0, due_at=None, hold_until=None,
        last_error=None, reference=None, reverses=action.id, created_at=state.now, dispatched_at=None,
        completed_at=None, occurred_at=event.occurred_at, arm=None, reversal=None, reversed="0", frees_claim=False,
        refills=False,
    )  # fmt: skip
