"""Whether a ruleset says what can be run: every error and warning, each with its place."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final, Literal, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from connect.engine.expression import (
    Amount,
    Condition,
    ExpressionError,
    Failed,
    Problem,
    Value,
    compile_amount,
    compile_condition,
    compile_value,
    make_activation,
)
from connect.engine.index import PARAMS_BYTES_MAX, RANK, Template, Uncompilable, names_in, parse_duration, role_of
from connect.engine.ruleset.positions import Place, Positions, child
from connect.engine.ruleset.quoting import cut_by_comma, cut_by_comment
from connect.model import Each, Effect, RewardRule, Ruleset

NOT_YET: Final = frozenset({"counters", "variant", "original"})
"""Names that expressions know and this version has no values for."""

EVENT_NAMES: Final = frozenset(
    "context actor_user_id primary_subject_user_id parties event_type source external_id occurred_at".split()
)

_Compiled = TypeVar("_Compiled", Condition, Amount, Value)


class RuleProblem(Struct, frozen=True, omit_defaults=True):
    """One finding about a ruleset or a rule.

    `line` and `column` count from 1: in the document where one was read, else within the expression at `pointer`.
    """

    severity: Literal["error", "warning"]
    pointer: str
    message: str
    hint: str | None = None
    line: int | None = None
    column: int | None = None
    caret: str | None = None
    """The line of the expression with a caret under the fault, for a fixed-width font."""


def check_ruleset(ruleset: Ruleset, positions: Positions | None = None) -> list[RuleProblem]:
    """All errors and warnings of the document, in its order; `positions` give them lines and columns in it."""
    check = _Check(ruleset, positions)
    check.timezone()
    first_with: dict[str, int] = {}
    for place, rule in enumerate(ruleset.rules):
        pointer = f"#/rules/{place}"
        if (first := first_with.setdefault(rule.key, place)) != place:
            check.add(f"{pointer}/key", f"rule {first + 1} has the key {rule.key} already: keys name rules for ever")
        check.rule(rule, pointer)
    return check.problems


def check_rule(rule: RewardRule, ruleset: Ruleset) -> list[RuleProblem]:
    """What `check_ruleset` says of the rule once it stands in the ruleset, in place of its namesake.

    Pointers start from the rule (`#/actions/0/amount`).
    """
    check = _Check(ruleset, None)
    check.rule(rule, "#")
    return check.problems


class _Check:
    """The findings so far, and what they are measured by."""

    def __init__(self, ruleset: Ruleset, positions: Positions | None) -> None:
        self.ruleset = ruleset
        self.positions = positions
        self.problems: list[RuleProblem] = []

    def add(self, pointer: str, message: str, hint: str | None = None, *, warning: bool = False) -> None:
        line, column = self.positions.at(pointer) if self.positions else (None, None)
        self.problems.append(RuleProblem("warning" if warning else "error", pointer, message, hint, line, column))

    def timezone(self) -> None:
        try:
            ZoneInfo(self.ruleset.timezone)
        except (ValueError, KeyError, OSError):
            hint = "write a name of the IANA database, such as Europe/Berlin or UTC"
            self.add("#/timezone", f"no timezone is called {self.ruleset.timezone}", hint)

    def rule(self, rule: RewardRule, pointer: str) -> None:
        if rule.starts_at is not None and rule.ends_at is not None and rule.starts_at >= rule.ends_at:
            self.add(f"{pointer}/ends_at", "the rule ends before it starts, so it can never give")
        many = isinstance(rule.condition, list)
        for place, line in enumerate(rule.lines):
            self._expression(
                f"{pointer}/condition/{place}" if many else f"{pointer}/condition", line, compile_condition
            )
        effects: dict[str, int] = {}
        for place, effect in enumerate(rule.actions):
            inner = f"{pointer}/actions/{place}"
            if (first := effects.setdefault(effect.effect_key, place)) != place:
                hint = "give one of them a `key` of its own: ids of actions are made of it"
                self.add(inner, f"action {first + 1} is {effect.effect_key} too", hint)
            self._effect(effect, inner)

    def _effect(self, effect: Effect, pointer: str) -> None:
        if effect.unit not in self.ruleset.units:
            known = ", ".join(self.ruleset.units) or "none"
            hint = f"declare it under units, such as `{effect.unit}: {{ scale: 0 }}` (declared: {known})"
            message = f"the unit {effect.unit} is not declared, so its amounts are whole numbers"
            self.add(f"{pointer}/unit", message, hint, warning=True)
        if effect.hold is not None:
            self._syntax(f"{pointer}/hold", parse_duration, effect.hold)
        if (effect.recipient is None) == (effect.each is None):
            self.add(pointer, "an action needs either `recipient` or `each`")
        elif effect.recipient is not None:
            self._syntax(f"{pointer}/recipient", role_of, effect.recipient)
        if effect.each is not None:
            self._each(effect.each, f"{pointer}/each")
        self._amounts(effect, pointer)
        self._params(effect, pointer)

    def _syntax(self, pointer: str, read: Callable[[str], object], text: str) -> None:
        try:
            read(text)
        except Uncompilable as error:
            self.add(pointer, str(error))

    def _each(self, each: Each, pointer: str) -> None:
        if each.name in EVENT_NAMES | NOT_YET | {RANK}:
            self.add(f"{pointer}/as", f"{each.name} has a meaning of its own in expressions: choose another name")
        self._expression(f"{pointer}/in", each.items, compile_value)
        self._expression(f"{pointer}/recipient", each.recipient, compile_value, names_in(each))

    def _amounts(self, effect: Effect, pointer: str) -> None:
        given = [(f"{pointer}/amount", effect.amount)]
        if effect.each is not None:
            given.append((f"{pointer}/each/amount", effect.each.amount))
        present = [(place, str(amount)) for place, amount in given if amount is not None]
        if len(present) != 1:
            self.add(pointer, "an action needs one amount" + (", of its own or in `each`" if effect.each else ""))
        for place, text in present:
            amount = self._expression(place, text, compile_amount, names_in(effect.each))
            if amount is not None:
                self._amount(amount, effect, place)

    def _amount(self, amount: Amount, effect: Effect, pointer: str) -> None:
        unit = self.ruleset.units.get(effect.unit)
        scale = unit.scale if unit else 0
        if effect.round is None and amount.can_exceed_scale(scale):
            message = f"the amount can have more than the {scale} decimal places of {effect.unit}"
            self.add(pointer, message, "say how to round it: `round: down`, up, half_even or half_up")
        if amount.reads:
            return
        constant = amount.evaluate(make_activation({}))
        if isinstance(constant, Failed):
            self.add(pointer, constant.reason)
        elif constant == 0:
            self.add(pointer, "the amount is 0, so this action never gives", warning=True)
        elif isinstance(constant, Decimal) and constant < 0:
            hint = "taking back is a reversal, never a negative amount"
            self.add(pointer, f"the amount is negative: {constant}", hint)

    def _params(self, effect: Effect, pointer: str) -> None:
        for inner, text in _expressions_in(effect.params, f"{pointer}/params"):
            self._expression(inner, text, compile_value, names_in(effect.each), shift=1)
        if len(msgspec.json.encode(effect.params)) > PARAMS_BYTES_MAX:
            self.add(f"{pointer}/params", f"the params are over {PARAMS_BYTES_MAX} bytes of JSON")

    def _expression(
        self,
        pointer: str,
        text: str,
        compile_: Callable[[str, frozenset[str]], _Compiled],
        scope: frozenset[str] = frozenset(),
        *,
        shift: int = 0,
    ) -> _Compiled | None:
        """The compiled expression; None, and its problems told, where it is wrong. `shift`: characters before it."""
        try:
            compiled = compile_(text, scope)
        except ExpressionError as error:
            cut = self._cut(pointer)
            for problem in error.problems:
                self._add_problem(pointer, text, problem, shift, cut)
            return None
        for problem in compiled.warnings:
            self._add_problem(pointer, text, problem, shift, None)
        for name in sorted({_root(path) for path in compiled.reads} & (NOT_YET - scope)):
            self.add(pointer, f"this version of Connect does not know {name}")
        return compiled

    def _cut(self, pointer: str) -> str | None:
        """What YAML took away from the expression, if that is why it is wrong."""
        if self.positions is None:
            return None
        place: Place | None = self.positions.values.get(pointer)
        return cut_by_comma(self.positions.text, place) or cut_by_comment(self.positions.text, place)

    def _add_problem(self, pointer: str, text: str, problem: Problem, shift: int, cut: str | None) -> None:
        line, column = problem.line, problem.column
        if self.positions is not None:
            line, column = self.positions.within(pointer, line, column + (shift if line == 1 else 0))
        hint, caret = cut or problem.hint, problem.caret(text)
        self.problems.append(RuleProblem(problem.severity, pointer, problem.message, hint, line, column, caret))


def _root(path: str) -> str:
    return path.split(".")[0].split("[")[0]


def _expressions_in(params: Template, pointer: str) -> Iterator[tuple[str, str]]:
    """Each expression in `params` with its pointer, without its `=`."""
    if isinstance(params, str) and params.startswith("=") and not params.startswith("=="):
        yield pointer, params[1:]
    elif isinstance(params, dict):
        for key, value in params.items():
            yield from _expressions_in(value, child(pointer, key))
    elif isinstance(params, list):
        for place, value in enumerate(params):
            yield from _expressions_in(value, child(pointer, place))
