"""Rules, ready to run: expressions compiled, recipients and durations read, limits made into meters."""

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Struct

from connect.engine.amounts import parse_amount
from connect.engine.counters import CompiledCounter, counter_id, generation_id
from connect.engine.expression import (
    Amount,
    Condition,
    ExpressionError,
    Value,
    compile_amount,
    compile_condition,
    compile_value,
)
from connect.engine.limits import Meter, meters
from connect.engine.links import LinkPath, link_path
from connect.engine.state_keys import budget_key
from connect.engine.variants import CompiledVariants, compile_variants
from connect.model import Counter, Each, Effect, RewardRule, Ruleset

RANK = "rank"
"""The position of an element in `each`, from 0, as its expressions call it."""

PARAMS_BYTES_MAX = 16_384
"""The most bytes of an action's `params` as JSON: brokers carry 256 KiB, and a command is kept for good."""

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
    share: Amount | None
    """Basis points of the effect's amount, which is then the whole."""


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
    review_above: Decimal | None
    """A single action of more than this waits for a person."""
    day_cap: Decimal | None
    """The most that all actions decided on a day may give of the unit."""


class CompiledBudget(Struct, frozen=True):
    key: str
    name: str
    unit: str
    cap: Decimal
    clips: bool
    closes: bool
    refills: bool


class CompiledRule(Struct, frozen=True):
    """A rule, ready to run. `broken` says why one that no longer compiles always ends in `error`."""

    rule: RewardRule
    version: int
    conditions: tuple[Condition, ...] = ()
    effects: tuple[CompiledEffect, ...] = ()
    amount_reads: tuple[str, ...] = ()
    """The fields its amounts and lists read: what the trace shows of a rule that gave."""
    counters: frozenset[str] = frozenset()
    """Names of the counters its expressions read."""
    meters: tuple[Meter, ...] = ()
    budget: CompiledBudget | None = None
    variants: CompiledVariants | None = None
    reversal: LinkPath | None = None
    pick: str | None = None
    """How its group chooses."""
    broken: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names its actions may be stored under."""
        return (self.rule.key,) if self.rule.formerly is None else (self.rule.key, self.rule.formerly)


class Uncompilable(ValueError):
    """A rule that says what this version cannot run. `check_ruleset` finds the same beforehand, with positions."""


def compile_rule(rule: RewardRule, document: Ruleset, version: int) -> CompiledRule:
    """The rule, ready to run; one that cannot be compiled comes back `broken`, and gives nothing."""
    try:
        return _compile_rule(rule, document, version)
    except ExpressionError as error:
        return CompiledRule(rule, version, broken=error.problems[0].message)
    except (ValueError, KeyError) as error:
        return CompiledRule(rule, version, broken=str(error))


def _compile_rule(rule: RewardRule, document: Ruleset, version: int) -> CompiledRule:
    conditions = tuple(compile_condition(line) for line in rule.lines)
    effects = tuple(_compile_effect(effect, document) for effect in rule.actions)
    reads = {field for compiled in effects for field in _amount_reads(compiled)}
    others = (*(line.reads for line in conditions), *(_param_reads(one.params) for one in effects))
    everything = reads.union(*others, *(one.each.recipient.reads for one in effects if one.each is not None))
    group = None if rule.group is None else document.groups[rule.group]
    return CompiledRule(
        rule=rule,
        version=version,
        conditions=conditions,
        effects=effects,
        amount_reads=tuple(sorted(reads)),
        counters=frozenset(read.split(".")[1].split("[")[0] for read in everything if read.startswith("counters.")),
        meters=_meters(rule, document),
        budget=_compile_budget(rule, document),
        variants=None if rule.variants is None else compile_variants(rule.variants),
        reversal=None
        if rule.reversal is None
        else link_path(rule.reversal.event_type, rule.reversal.same, rule.reversal.source),
        pick=None if group is None else group.pick,
    )


def _meters(rule: RewardRule, document: Ruleset) -> tuple[Meter, ...]:
    return meters(
        rule.limits,
        identity=rule.identity,
        keys=(rule.key,) if rule.formerly is None else (rule.key, rule.formerly),
        roles=frozenset(effect.recipient for effect in rule.actions if effect.recipient is not None),
        unit=rule.actions[0].unit,
        zone=ZoneInfo(document.timezone),
        durations=[None if limit.within is None else parse_duration(limit.within) for limit in rule.limits],
    )


def _compile_budget(rule: RewardRule, document: Ruleset) -> CompiledBudget | None:
    if rule.budget is None:
        return None
    name = rule.budget.name
    budget = document.budgets.get(name)
    if budget is None:
        raise Uncompilable(f"the budget {name} is not declared")
    if any(effect.unit != budget.unit for effect in rule.actions):
        raise Uncompilable(f"the budget {name} is in {budget.unit}, and the rule gives something else")
    return CompiledBudget(
        key=budget_key(name, budget.unit),
        name=name,
        unit=budget.unit,
        cap=parse_amount(str(budget.cap)),
        clips=rule.budget.when_short == "clip",
        closes=budget.closes,
        refills=budget.refill_on_reversal,
    )


def _compile_effect(effect: Effect, document: Ruleset) -> CompiledEffect:
    unit = document.units.get(effect.unit)
    each = effect.each
    scope = names_in(each)
    amount = amount_text(effect)
    if amount is None:
        raise Uncompilable(f"the effect {effect.effect_key} has no amount")
    if (each is None) == (effect.recipient is None):
        raise Uncompilable(f"the effect {effect.effect_key} needs either a recipient or each")
    params = compile_params(effect.params, scope)
    whole = each is not None and each.share is not None
    return CompiledEffect(
        effect=effect,
        key=effect.effect_key,
        scale=unit.scale if unit else 0,
        hold=None if effect.hold is None else parse_duration(effect.hold),
        role=None if effect.recipient is None else role_of(effect.recipient),
        each=None if each is None else _compile_each(each, scope),
        amount=compile_amount(amount, frozenset() if whole else scope),
        params=params,
        params_vary=_has_expressions(params),
        review_above=_cap(document.safety.review_above.get(effect.unit)),
        day_cap=_cap(document.safety.per_day.get(effect.unit)),
    )


def _compile_each(each: Each, scope: frozenset[str]) -> CompiledEach:
    return CompiledEach(
        name=each.name,
        items=compile_value(each.items),
        recipient=compile_value(each.recipient, scope),
        share=None if each.share is None else compile_amount(each.share, scope),
    )


def _cap(written: str | int | None) -> Decimal | None:
    return None if written is None else parse_amount(str(written))


def compile_counter(
    name: str, counter: Counter, timezone: str, generations: Mapping[str, int] | None = None
) -> CompiledCounter:
    """The counter, ready to run; one that cannot be compiled comes back `broken`, and counts nothing.

    `generations`: by the id of the definition, how often it was built anew.
    """
    identity = counter_id(name, counter, timezone)
    identity = generation_id(identity, (generations or {}).get(identity, 0))
    try:
        return CompiledCounter(
            id=identity,
            name=name,
            counter=counter,
            conditions=tuple(compile_condition(line) for line in counter.lines),
            amount=compile_amount(counter.value) if counter.kind == "sum" and counter.value else None,
            value=compile_value(counter.value) if counter.kind == "distinct" and counter.value else None,
            zone=_zone(counter.zone, timezone),
            within=None if counter.within is None else parse_duration(counter.within),
            link=None
            if counter.undone_by is None or counter.same is None
            else link_path(counter.undone_by, counter.same),
            fraction=compile_amount(str(counter.fraction)),
        )
    except (ExpressionError, ValueError, KeyError) as error:
        return CompiledCounter(identity, name, counter, (), None, None, ZoneInfo("UTC"), None, None, None, str(error))


def _zone(written: str | None, timezone: str) -> "ZoneInfo | Value":
    if written is None:
        return ZoneInfo(timezone)
    try:
        return ZoneInfo(written)
    except (ValueError, KeyError, OSError):
        return compile_value(written)


@lru_cache(maxsize=1024)
def compiled_fraction(text: str) -> Amount | None:
    """The frozen fraction of an action's terms; None where this version can no longer read it."""
    try:
        return compile_amount(text)
    except ExpressionError:
        return None


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


def _param_reads(params: Template) -> set[str]:
    if isinstance(params, dict):
        return {read for value in params.values() for read in _param_reads(value)}
    if isinstance(params, list):
        return {read for value in params for read in _param_reads(value)}
    return set(params.reads) if isinstance(params, Value) else set()


def _amount_reads(compiled: CompiledEffect) -> set[str]:
    each = compiled.each
    listed = (*each.items.reads, *(each.share.reads if each.share else ())) if each else ()
    return {*listed, *compiled.amount.reads}
