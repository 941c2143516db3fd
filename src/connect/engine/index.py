"""Which rules can match an event: a ruleset compiled once, and looked up by event type for each event."""

import re
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import TypeAlias

from msgspec import Struct

from connect.engine.expression import (
    Amount,
    Condition,
    ExpressionError,
    Value,
    compile_amount,
    compile_condition,
    compile_value,
)
from connect.model import Each, Effect, RewardRule, Ruleset, Unit

RANK = "rank"
"""The position of an element in `each`, from 0, as its expressions call it."""

PARAMS_BYTES_MAX = 16_384
"""Of an action's `params` as JSON: brokers carry 256 KiB, and a command is kept for good."""
PREFIX_TYPES_MAX = 1_024
"""Event types whose rules are remembered: more than a deployment has, few enough that made-up types fill no memory."""
NEAREST_CANDIDATES_MAX = 100
"""Known types compared with an unknown one: it bounds what a flood of made-up types costs (about 10 us each)."""
NEAREST_REMEMBERED_MAX = 1_024
NEAREST_LIKENESS = 0.75
"""Of difflib's ratio: a slip in a word or two, not merely the same last part (`order.completed`)."""

_RECIPIENT = re.compile(r"(actor|subject|parties\.([A-Za-z0-9_][A-Za-z0-9_-]{0,254}))", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_HOLD = re.compile(r"([1-9][0-9]{0,4})([smhdw])", re.ASCII)


Template: TypeAlias = "str | int | float | bool | Value | list[Template] | dict[str, Template] | None"
"""`params` with its expressions compiled in their places."""


class CompiledEach(Struct, frozen=True):
    """`each`, ready to run. `amount` is the effect's own where `each` has none."""

    name: str
    items: Value
    recipient: Value


class CompiledEffect(Struct, frozen=True):
    """One promise of a rule, ready to run."""

    effect: Effect
    key: str
    scale: int
    """Decimal places of its unit."""
    hold: timedelta | None
    role: str | None
    """The role in `parties`, for `parties.<role>`."""
    each: CompiledEach | None
    amount: Amount
    params: Template
    params_vary: bool


class CompiledRule(Struct, frozen=True):
    """A rule, ready to run. `broken` says why one that no longer compiles always ends in `error`."""

    rule: RewardRule
    version: int
    conditions: tuple[Condition, ...] = ()
    effects: tuple[CompiledEffect, ...] = ()
    amount_reads: tuple[str, ...] = ()
    """The fields its amounts and lists read: what the trace shows of a rule that gave."""
    broken: str = ""


class Uncompilable(ValueError):
    """A rule that says what this version cannot run. `check_ruleset` finds the same beforehand, with positions."""


class Rulebook:
    """A ruleset version, compiled. Immutable but for its bounded memories; shared by everything in a process."""

    def __init__(self, version: int, document: Ruleset, rules: tuple[CompiledRule, ...]) -> None:
        self.version = version
        self.document = document
        self.known_types = frozenset(compiled.rule.event_type for compiled in rules)
        self._exact: dict[str, tuple[CompiledRule, ...]] = {}
        self._prefixed: dict[str, tuple[CompiledRule, ...]] = {}
        for compiled in sorted(rules, key=_deciding_order):
            pattern = compiled.rule.event_type
            into, key = (self._prefixed, pattern[:-1]) if pattern.endswith(".*") else (self._exact, pattern)
            into[key] = (*into.get(key, ()), compiled)
        self._merged: dict[str, tuple[CompiledRule, ...]] = {}
        self._nearest: dict[str, str | None] = {}

    @classmethod
    def compile(cls, version: int, document: Ruleset, rule_versions: Mapping[str, int]) -> "Rulebook":
        """Compiles every rule of `document`; never fails for a rule's sake, so that a stored ruleset always starts.

        `rule_versions` gives each rule's own version by key; a rule it does not name (a draft's) has version 1.
        """
        units = document.units
        rules = (compile_rule(rule, units, rule_versions.get(rule.key, 1)) for rule in document.rules)
        return cls(version, document, tuple(rules))

    def of_type(self, event_type: str) -> tuple[CompiledRule, ...]:
        """Every rule for the type, in deciding order: larger priority first, then by key. Disabled ones included."""
        if not self._prefixed:
            return self._exact.get(event_type, ())
        found = self._merged.get(event_type)
        if found is None:
            found = self._merge(event_type)
            if found and len(self._merged) < PREFIX_TYPES_MAX:
                self._merged[event_type] = found
        return found

    def _merge(self, event_type: str) -> tuple[CompiledRule, ...]:
        found = list(self._exact.get(event_type, ()))
        for dot in re.finditer(r"\.", event_type):
            found += self._prefixed.get(event_type[: dot.end()], ())
        return tuple(sorted(found, key=_deciding_order))

    def nearest_type(self, event_type: str) -> str | None:
        """The known type that an unknown one most likely means, or None."""
        if event_type not in self._nearest:
            if len(self._nearest) >= NEAREST_REMEMBERED_MAX:
                self._nearest.clear()
            self._nearest[event_type] = _nearest(event_type, self.known_types)
        return self._nearest[event_type]


def _deciding_order(compiled: CompiledRule) -> tuple[int, str]:
    return -compiled.rule.priority, compiled.rule.key


def _nearest(event_type: str, known: frozenset[str]) -> str | None:
    """By spelling, with case and separators (`_`, `-`, `:` for `.`) read alike; exact types before prefixes."""
    meant = {_concrete(pattern, event_type) for pattern in known} - {""}
    alike = sorted(meant, key=lambda name: (name not in known, abs(len(name) - len(event_type)), name))
    candidates = {_plain(name): name for name in reversed(alike[:NEAREST_CANDIDATES_MAX])}
    found = get_close_matches(_plain(event_type), candidates, n=1, cutoff=NEAREST_LIKENESS)
    return candidates[found[0]] if found else None


def _plain(event_type: str) -> str:
    return re.sub(r"[_:-]", ".", event_type.casefold())


def _concrete(pattern: str, event_type: str) -> str:
    """What a type is called under a pattern: by `purchase.*` `purchse.completed` is `purchase.completed`."""
    if not pattern.endswith(".*"):
        return pattern
    rest = event_type.split(".")[pattern.count(".") :]
    return pattern[:-1] + ".".join(rest) if rest else ""


# --- compiling -----------------------------------------------------------------------------------


def compile_rule(rule: RewardRule, units: Mapping[str, Unit], version: int) -> CompiledRule:
    """The rule, ready to run; one that cannot be compiled comes back `broken`, and gives nothing."""
    try:
        conditions = tuple(compile_condition(line) for line in rule.lines)
        effects = tuple(_compile_effect(effect, units) for effect in rule.actions)
    except ExpressionError as error:
        return CompiledRule(rule, version, broken=error.problems[0].message)
    except Uncompilable as error:
        return CompiledRule(rule, version, broken=str(error))
    reads = {field for compiled in effects for field in _amount_reads(compiled)}
    return CompiledRule(rule, version, conditions, effects, tuple(sorted(reads)))


def _compile_effect(effect: Effect, units: Mapping[str, Unit]) -> CompiledEffect:
    unit = units.get(effect.unit)
    each = effect.each
    scope = names_in(each)
    amount = amount_text(effect)
    if amount is None:
        raise Uncompilable(f"the effect {effect.effect_key} has no amount")
    if (each is None) == (effect.recipient is None):
        raise Uncompilable(f"the effect {effect.effect_key} needs either a recipient or each")
    params = compile_params(effect.params, scope)
    return CompiledEffect(
        effect=effect,
        key=effect.effect_key,
        scale=unit.scale if unit else 0,
        hold=None if effect.hold is None else parse_duration(effect.hold),
        role=None if effect.recipient is None else role_of(effect.recipient),
        each=None
        if each is None
        else CompiledEach(each.name, compile_value(each.items), compile_value(each.recipient, scope)),
        amount=compile_amount(amount, scope),
        params=params,
        params_vary=_has_expressions(params),
    )


def names_in(each: Each | None) -> frozenset[str]:
    """The names that an effect's expressions know beside the event's own."""
    return frozenset() if each is None else frozenset({each.name, RANK})


def amount_text(effect: Effect) -> str | None:
    """The amount's expression: `each` may have it, or the effect itself (which then still speaks of each element)."""
    amount = effect.amount if effect.each is None or effect.each.amount is None else effect.each.amount
    return None if amount is None else str(amount)


def role_of(recipient: str) -> str | None:
    """The role in `parties` that a recipient names, None for `actor` and `subject`. Raises `Uncompilable`."""
    match = _RECIPIENT.fullmatch(recipient)
    if match is None:
        raise Uncompilable(f"{recipient!r} is no recipient: write actor, subject or parties.<role>")
    return match[2]


def parse_duration(text: str) -> timedelta:
    """`14d` as a length of time. A day is 24 hours, a week 7 such days. Raises `Uncompilable`."""
    match = _HOLD.fullmatch(text)
    if match is None:
        raise Uncompilable(f"{text!r} is no length of time: write a number and one of s, m, h, d, w, such as 14d")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def compile_params(params: Template, scope: frozenset[str]) -> Template:
    """`params` with each text that starts with `=` compiled, and `==` cut to a plain `=`."""
    match params:
        case str():
            if not params.startswith("="):
                return params
            return params[1:] if params.startswith("==") else compile_value(params[1:], scope)
        case dict():
            return {key: compile_params(value, scope) for key, value in params.items()}
        case list():
            return [compile_params(value, scope) for value in params]
        case _:
            return params


def _has_expressions(params: Template) -> bool:
    if isinstance(params, dict):
        return any(_has_expressions(value) for value in params.values())
    if isinstance(params, list):
        return any(_has_expressions(value) for value in params)
    return isinstance(params, Value)


def _amount_reads(compiled: CompiledEffect) -> set[str]:
    listed = compiled.each.items.reads if compiled.each else ()
    return {*listed, *compiled.amount.reads}
