"""A stored trace is compact; this spells it out for people, with the lines of the rules that were live then.

What a rule read of its event is not stored beside it: the event is stored whole and never changes, and so are the
ruleset version and the counters that deciding read. Spelling out reads them there again. So a trace takes some 30 bytes
a rule, and an erased event has erased values.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from connect.engine.compile import CompiledRule, compile_rule
from connect.engine.counters import recorded
from connect.engine.decide.evaluate import closed_window
from connect.engine.decide.payouts import clipped
from connect.engine.expression import Activation, make_activation
from connect.engine.links import event_values
from connect.model import EconomicEvent, Outcome, RewardRule, Ruleset, RuleTrace

SENTENCES: dict[Outcome, str] = {
    "gave": "gave",
    "not_matched": "its condition did not hold",
    "missing": "it reads a field that the event does not have",
    "limited": "a limit was reached",
    "short_of_budget": "its budget did not suffice",
    "lost_group": "another rule of its group gave",
    "held_out": "the user is not among those who get it",
    "stopped": "a rule before it stopped the rest",
    "took_back": "took back",
    "not_live": "it was not live",
    "error": "it failed",
    "already_gave": "it already gave for this event",
    "no_recipient": "nobody had the role it gives to",
    "zero": "its amount came to zero",
}


class SpelledOut(Struct, frozen=True, kw_only=True):
    """Why one rule did or did not give. `text` is the condition line `line` (1-based) where the outcome is a line's."""

    rule: str
    outcome: Outcome
    sentence: str
    line: int | None = None
    text: str | None = None
    values: dict[str, Any] = {}
    detail: str = ""


KEPT = "variant."
"""The prefix of the values that a stored trace keeps: neither the event nor the counters hold these."""
SHOW_AMOUNTS: frozenset[Outcome] = frozenset(
    {"gave", "limited", "short_of_budget", "lost_group", "zero", "no_recipient", "missing", "error", "not_live"}
)
"""Outcomes that, where they are no line's, come after the amounts were read."""
HISTORY = "reported with effects=none"
IS_MISSING = " is missing"

_json = msgspec.json.Encoder(order="deterministic", decimal_format="number")


class Read(Struct, frozen=True):
    """The things that a decision read, as they are stored beside its trace."""

    event: EconomicEvent
    counters: Mapping[str, Any] = {}
    compiled: Mapping[str, CompiledRule] = {}
    """Rules of that ruleset version that are compiled already: the others take a millisecond or two each."""


def compact(trace: Iterable[RuleTrace]) -> str:
    """The trace as it is stored, JSON: without what `spell_out` finds in the event, the ruleset and the counters."""
    return _json.encode([_shortened(entry) for entry in trace]).decode()


def _shortened(entry: RuleTrace) -> list[Any]:
    values = {name: value for name, value in entry.values.items() if name.startswith(KEPT)}
    detail = entry.detail
    if entry.outcome == "missing" and entry.line:
        detail = detail.removesuffix(IS_MISSING)
    elif entry.outcome == "not_live" and _is_window(detail):
        detail = ""
    return [entry.rule, entry.outcome, *(part for part in (entry.line, values, detail) if part)]


def expanded(rows: Iterable[Sequence[Any]]) -> list[RuleTrace]:
    """Reads what `compact` wrote, as entries whose values `spell_out` completes: types tell the parts apart."""
    return [_expanded(rule, outcome, parts) for rule, outcome, *parts in rows]


def _expanded(rule: str, outcome: Outcome, parts: Iterable[Any]) -> RuleTrace:
    line: int | None = None
    values: Mapping[str, Any] = {}
    detail = ""
    for part in parts:
        if isinstance(part, int):
            line = part
        elif isinstance(part, str):
            detail = part
        elif part is not None:
            values = part
    if outcome == "missing" and line:
        detail = detail.removesuffix(IS_MISSING) + IS_MISSING
    return RuleTrace(rule, outcome, line, values, detail)


def spell_out(trace: Iterable[RuleTrace], document: Ruleset, read: Read | None = None) -> list[SpelledOut]:
    """`document`: the ruleset version the trace was made by. `read`: for a stored trace, what it left out."""
    rules = {rule.key: rule for rule in document.rules}
    entries = trace if read is None else _completed(trace, rules, document, read)
    return [_spell(entry, rules[entry.rule].lines if entry.rule in rules else ()) for entry in entries]


def _completed(
    trace: Iterable[RuleTrace], rules: Mapping[str, RewardRule], document: Ruleset, read: Read
) -> Iterable[RuleTrace]:
    counters = {name: recorded(read.counters, name) for name in read.counters}
    activation = make_activation(event_values(read.event)).bind({"counters": counters})
    for entry in trace:
        rule = rules.get(entry.rule)
        if rule is None:
            yield entry
            continue
        detail = entry.detail
        if entry.outcome == "not_live" and not detail:
            detail = closed_window(rule, read.event.occurred_at)
        values = {**_values(entry, rule, document, read, activation), **entry.values}
        yield msgspec.structs.replace(entry, values=values, detail=detail)


def _values(
    entry: RuleTrace, rule: RewardRule, document: Ruleset, read: Read, activation: Activation
) -> dict[str, Any]:
    """Returns what the line read, or the amounts where the outcome is not a line's."""
    history = entry.detail == HISTORY
    if entry.line is None and (entry.outcome not in SHOW_AMOUNTS or (entry.outcome == "not_live" and not history)):
        return {}
    compiled = read.compiled.get(rule.key) or compile_rule(rule, document, 1)
    if entry.line is None:
        reads = compiled.amount_reads
    else:
        reads = compiled.conditions[entry.line - 1].reads if entry.line <= len(compiled.conditions) else ()
    return {name: clipped(value) for name, value in activation.values_read(reads).items()}


def _is_window(detail: str) -> bool:
    return detail == "disabled" or detail.startswith(("starts ", "ended "))


def _spell(entry: RuleTrace, lines: tuple[str, ...]) -> SpelledOut:
    text = lines[entry.line - 1] if entry.line and entry.line <= len(lines) else None
    sentence = SENTENCES[entry.outcome]
    if entry.line:
        sentence += f": line {entry.line}" + (f" `{text}`" if text else "")
    if entry.values:
        sentence += ", with " + ", ".join(f"{name} = {value!r}" for name, value in entry.values.items())
    if entry.detail:
        sentence += f" ({entry.detail})"
    return SpelledOut(
        rule=entry.rule,
        outcome=entry.outcome,
        sentence=sentence,
        line=entry.line,
        text=text,
        values=dict(entry.values),
        detail=entry.detail,
    )
