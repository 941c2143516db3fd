"""Counters: what rules remember of each party, kept as values that any order of events leaves the same.

A count, sum or number of distinct values takes events in the order decided, in windows bounded by `occurred_at`. A
streak is the length of the run of steps that the event's own step belongs to, so a late event joins what it belonged to
all along. Each counted event can be taken out again: the link of the event remembers which counters count it.
"""

import re
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from connect.engine.amounts import SCALE_MAX, WHOLE_DIGITS_MAX, plus, round_amount
from connect.engine.expression import Activation, Amount, Condition, Failed, Missing, Value
from connect.engine.limits import Periods, parties
from connect.engine.links import LinkPath, matches
from connect.engine.periods import Step, local, step
from connect.engine.state import ZERO, Memory, StateValue
from connect.engine.state_keys import counter_key
from connect.model import Counter, EconomicEvent

KEPT_PAST_WINDOW = timedelta(days=90)
"""How far behind its newest event a sliding window still takes a late one; what is older is forgotten."""

_json = msgspec.json.Encoder(order="deterministic", decimal_format="number")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")

Number = int | Decimal


class CompiledCounter(Struct, frozen=True):
    """A counter, ready to run. `id` changes with its definition: a changed counter is another one."""

    id: str
    name: str
    counter: Counter
    conditions: tuple[Condition, ...]
    amount: Amount | None
    """The amount that a sum adds."""
    value: Value | None
    """The value that a counter of distinct values tells apart."""
    zone: ZoneInfo | Value
    within: timedelta | None
    link: LinkPath | None
    fraction: Amount | None
    broken: str = ""

    @property
    def items(self) -> bool:
        return self.counter.kind == "distinct"


class Counted(Struct, frozen=True):
    """The addition that one event makes to one subject's counter."""

    subject: str
    label: str
    """The label of the period."""
    at: int
    """Microseconds since 1970, for sliding windows."""
    value: Decimal = ZERO
    item: str = ""
    step: int = 0


def counter_id(name: str, counter: Counter, timezone: str) -> str:
    """`purchases.4f1c09a2`: the name and a digest of the definition, whatever its order of fields."""
    definition = [msgspec.to_builtins(counter), timezone]
    return f"{name}.{sha256(_json.encode(definition)).hexdigest()[:8]}"


def generation_id(identity: str, generation: int) -> str:
    """Names what a counter's values are kept under: another name each time the counter is built again."""
    return f"{identity}.{generation}" if generation else identity


def counts(compiled: CompiledCounter, event: EconomicEvent) -> bool:
    return not compiled.broken and matches(compiled.counter.event_type, event.event_type)


def counted(compiled: CompiledCounter, event: EconomicEvent, activation: Activation) -> tuple[Counted, ...]:
    """Returns what the event adds, for each subject; empty where the counter does not take it."""
    subjects = parties(event, compiled.counter.of)
    if not subjects or any(line.evaluate(activation) is not True for line in compiled.conditions):
        return ()
    zone = _zone(compiled, activation)
    if zone is None:
        return ()
    value, item = Decimal(1), ""
    if compiled.amount is not None:
        found = compiled.amount.evaluate(activation)
        if isinstance(found, Missing | Failed) or found.adjusted() >= WHOLE_DIGITS_MAX:
            return ()
        value = _storable(found)
    if compiled.value is not None:
        named = compiled.value.evaluate(activation)
        if named is None or isinstance(named, Missing | Failed):
            return ()
        item = sha256(_json.encode(named)).hexdigest()[:32]
    return tuple(
        Counted(
            subject=subject, label=_label(compiled, event.occurred_at, zone), at=micros(event.occurred_at),
            value=value, item=item, step=_step(compiled, event.occurred_at, zone),
        )
        for subject in subjects
    )  # fmt: skip


def _storable(value: Decimal) -> Decimal:
    """With as many decimal places as are stored, so that what is taken out later leaves nothing behind."""
    exponent = value.as_tuple().exponent
    fits = isinstance(exponent, int) and exponent >= -SCALE_MAX
    return value if fits else round_amount(value, SCALE_MAX, "half_even")


def keys_read(compiled: CompiledCounter, event: EconomicEvent, activation: Activation) -> list[str]:
    """The key behind `counters.<name>` at this event, if it has one."""
    place = place_read(compiled, event, activation)
    return [] if place is None else [total_key(compiled, *place)]


def place_read(compiled: CompiledCounter, event: EconomicEvent, activation: Activation) -> tuple[str, str] | None:
    """The period and the subject that `counters.<name>` is about at this event: the first whom it names."""
    subjects, zone = parties(event, compiled.counter.of), _zone(compiled, activation)
    if not subjects or zone is None:
        return None
    return _label(compiled, event.occurred_at, zone), subjects[0]


def keys_changed(compiled: CompiledCounter, added: Iterable[Counted]) -> list[str]:
    keys: list[str] = []
    for one in added:
        keys.append(total_key(compiled, one.label, one.subject))
        if compiled.items and compiled.within is None:
            keys.append(item_key(compiled, one))
    return keys


def total_key(compiled: CompiledCounter, label: str, subject: str) -> str:
    return counter_key(compiled.id, label, "", subject)


def item_key(compiled: CompiledCounter, one: Counted) -> str:
    return counter_key(compiled.id, one.label, one.item, one.subject)


def undone_key(compiled: CompiledCounter, label: str, subject: str) -> str:
    """Where it is noted what was taken out: whoever read the counter with it is judged by that."""
    return counter_key(compiled.id, label, "undone", subject)


def apply(compiled: CompiledCounter, added: Iterable[Counted], memory: Memory, *, sign: int = 1) -> None:
    """Adds an event to the counter, or with `sign` -1 takes one out again."""
    for one in added:
        total = total_key(compiled, one.label, one.subject)
        if compiled.within is not None:
            memory.put(total, _with_entry(memory.get(total), compiled, one, sign))
        elif compiled.counter.kind == "streak":
            tally = compiled.link is not None
            memory.put(total, _with_step(memory.get(total), one.step, sign, tally=tally))
        elif compiled.items:
            memory.add(total, Decimal(sign * _first_or_last(memory, item_key(compiled, one), sign)))
        else:
            memory.add(total, one.value if sign > 0 else one.value.copy_negate())


def _first_or_last(memory: Memory, key: str, sign: int) -> int:
    """1 where the item is new, or gone."""
    before = memory.get(key).value
    after = max(before + sign, ZERO)
    memory.put(key, StateValue(after))
    return int((before > 0) != (after > 0))


def read(compiled: CompiledCounter, event: EconomicEvent, activation: Activation, memory: Memory) -> Number | None:
    """`counters.<name>` at this event; None where the event does not have the counter's party."""
    place, zone = place_read(compiled, event, activation), _zone(compiled, activation)
    if place is None or zone is None:
        return None
    stored = memory.get(total_key(compiled, *place))
    if compiled.within is not None:
        return _of_window(compiled, stored, micros(event.occurred_at))
    if compiled.counter.kind == "streak":
        return run_length(_runs(stored), _step(compiled, event.occurred_at, zone), compiled.counter.grace)
    return number(stored.value)


def number(value: Decimal) -> Number:
    """As expressions know it: whole numbers are integers."""
    return int(value) if value == value.to_integral_value() else value


def _zone(compiled: CompiledCounter, activation: Activation) -> ZoneInfo | None:
    if isinstance(compiled.zone, ZoneInfo):
        return compiled.zone
    named = compiled.zone.evaluate(activation)
    if not isinstance(named, str) or not _ZONE_NAME.fullmatch(named):
        return None
    try:
        return ZoneInfo(named)
    except (ValueError, OSError, KeyError):
        return None


def _label(compiled: CompiledCounter, moment: datetime, zone: ZoneInfo) -> str:
    every = compiled.counter.every
    if every is None or every == "ever" or compiled.within is not None or compiled.counter.kind == "streak":
        return ""
    return Periods(moment).of(every, zone).label


def _step(compiled: CompiledCounter, moment: datetime, zone: ZoneInfo) -> int:
    if compiled.counter.kind != "streak":
        return 0
    every = compiled.counter.every
    steps: Step = every if every in ("week", "month") else "day"
    return step(local(moment, zone), steps, zone)


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


# --- sliding windows -----------------------------------------------------------------------------

Entry = tuple[int, str, str]
"""Microseconds, value, item."""


def _entries(stored: StateValue) -> list[Entry]:
    return [(at, value, item) for at, value, item in (stored.detail or {}).get("entries", ())]


def _with_entry(stored: StateValue, compiled: CompiledCounter, one: Counted, sign: int) -> StateValue:
    entries, entry = _entries(stored), (one.at, str(one.value), one.item)
    if sign > 0:
        insort(entries, entry)
    elif entry in entries:
        entries.remove(entry)
    if entries:
        oldest = entries[-1][0] - ((compiled.within or timedelta()) + KEPT_PAST_WINDOW) // _MICROSECOND
        entries = [kept for kept in entries if kept[0] >= oldest or kept == entry]  # it reads itself, however late
    return StateValue(detail={"entries": [list(kept) for kept in entries]})


def _of_window(compiled: CompiledCounter, stored: StateValue, at: int) -> Number:
    """Returns what lies in (at - within, at]."""
    inside = [entry for entry in _entries(stored) if is_within(compiled, entry[0], at)]
    if compiled.items:
        return len({item for _, _, item in inside})
    return number(plus(*(Decimal(value) for _, value, _ in inside)))


def is_within(compiled: CompiledCounter, moment: int, at: int) -> bool:
    """Whether the sliding window that ends at `at` holds the moment."""
    return at - (compiled.within or timedelta()) // _MICROSECOND < moment <= at


def items_within(compiled: CompiledCounter, stored: StateValue, at: int) -> set[str]:
    return {item for moment, _, item in _entries(stored) if is_within(compiled, moment, at)}


# --- streaks -------------------------------------------------------------------------------------

Runs = list[list[int]]
"""[first, last] of each unbroken run of steps, sorted; steps with several events are counted beside them."""


def _runs(stored: StateValue) -> Runs:
    return [list(run) for run in (stored.detail or {}).get("runs", ())]


def _with_step(stored: StateValue, at: int, sign: int, *, tally: bool) -> StateValue:
    """The runs with an event more, or less, at this step.

    `more` counts a step's events beyond the first; kept (`tally`) only where one of them may be taken out again.
    """
    runs = _runs(stored)
    more: dict[str, int] = dict((stored.detail or {}).get("more", {}))
    holds = any(first <= at <= last for first, last in runs)
    extra = more.pop(str(at), 0)
    if sign > 0:
        extra, runs = (extra + int(tally), runs) if holds else (0, _joined(runs, at))
    elif extra:
        extra -= 1
    elif holds:
        runs = _parted(runs, at)
    if extra:
        more[str(at)] = extra
    return StateValue(detail={"runs": runs, "more": more} if more else {"runs": runs})


def _joined(runs: Runs, at: int) -> Runs:
    joined: Runs = []
    for first, last in sorted([*runs, [at, at]]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return joined


def _parted(runs: Runs, at: int) -> Runs:
    parted: Runs = []
    for first, last in runs:
        if first <= at <= last:
            parted += [[low, high] for low, high in ((first, at - 1), (at + 1, last)) if low <= high]
        else:
            parted.append([first, last])
    return parted


def run_length(runs: Sequence[Sequence[int]], at: int, grace: int) -> int:
    """Steps with an event in the run that `at` belongs to, over gaps of up to `grace` steps.

    A step that has no event itself belongs to the run before it while that can still go on.
    """
    chains: list[list[int]] = []  # first, last, steps with an event
    for first, last in runs:
        if chains and first - chains[-1][1] - 1 <= grace:
            chains[-1][1], chains[-1][2] = last, chains[-1][2] + last - first + 1
        else:
            chains.append([first, last, last - first + 1])
    return next((steps for first, last, steps in reversed(chains) if first <= at <= last + grace + 1), 0)


def recorded(values: Mapping[str, Any], name: str) -> Number | None:
    """A counter's value as a decision recorded it."""
    found = values.get(name)
    if isinstance(found, bool) or not isinstance(found, int | str):
        return None
    return found if isinstance(found, int) else Decimal(found)
