"""The walk that turns the tree of an amount into functions over exact numbers, or says what may not stand there."""

import decimal
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, TypeAlias, cast

import msgspec

from connect.engine.amounts import SCALE_MAX
from connect.engine.expression import environment, names, paths, tokens
from connect.engine.expression.arithmetic import (
    DECIMALS,
    FRACTIONS,
    Arithmetic,
    NoNumberError,
    exact,
    from_text,
    from_units,
    literal,
    places_of,
)
from connect.engine.expression.ast import Call, Comprehension, Constant, Ident, Node, Select, children
from connect.engine.expression.condition import Condition, bool_program
from connect.engine.expression.environment import Activation
from connect.engine.expression.paths import Path
from connect.engine.expression.problems import ExpressionError, Failed, Missing, Source

Run: TypeAlias = Callable[[Activation], Any]
Lookup: TypeAlias = Callable[[Mapping[str, Any]], tuple[Path, Any]]

ALLOWED: Final = (
    "an amount has numbers, fields, + - * /, test ? a : b, min(a, b), max(a, b), decimal(text) and scaled(text, 18)"
)
_OPERATIONS: Final = {"_+_": "add", "_-_": "subtract", "_*_": "multiply", "_/_": "divide"}
_COMPARISONS: Final = frozenset("_&&_ _||_ !_ _==_ _!=_ _<_ _<=_ _>_ _>=_ @in".split())
_TEXT_NAMES: Final = frozenset(
    {"actor_user_id", "primary_subject_user_id", "parties", "event_type", "source", "external_id", "occurred_at"}
)
_OBJECT_NAMES: Final = frozenset({"context", "counters", "variant", "original"})
_PRESUMED_INTEGRAL: Final = 0


class StopError(Exception):
    """Carries a Missing or Failed out of the functions to `Amount.evaluate`."""

    def __init__(self, outcome: Missing | Failed) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Part(msgspec.Struct, frozen=True):
    """A piece of an amount. `places` bounds its digits after the point (None: no bound); constants have `value`."""

    run: Run
    places: int | None
    value: Fraction | None = None


class Walk:
    """One walk over one amount. `tests` collects the conditions before each `?`."""

    def __init__(self, source: Source, root: Node, extra: frozenset[str]) -> None:
        self._source = source
        self._extra = extra
        self._arithmetic: Arithmetic = FRACTIONS if _divides(root) else DECIMALS
        self.tests: list[Condition] = []

    def part(self, node: Node) -> Part:
        """Raises ExpressionError for what an amount may not hold."""
        match node:
            case Constant(kind="int" | "double"):
                return self._number(node)
            case Constant():
                raise self._refused(node, f"{node.kind} is not a number", _constant_hint(node))
            case Ident() | Select(test_only=False) | Call(function="_[_]"):
                return self._field(node)
            case Call(function="_?_:_"):
                return self._branch(node)
            case Call(function="-_"):
                return self._negation(node)
            case Call(function="_+_" | "_-_" | "_*_" | "_/_"):
                return self._operation(node)
            case Call(function="min" | "max", target=None):
                return self._extreme(node)
            case Call(function="decimal" | "scaled", target=None):
                return self._from_text(node)
            case _:
                raise self._refused(node, _misplaced(node), ALLOWED)

    def _refused(self, node: Node, message: str, hint: str | None = None) -> ExpressionError:
        return ExpressionError(self._source.problem(node.at, message, hint=hint))

    def _number(self, node: Constant) -> Part:
        digits = tokens.number_at(self._source.text, node.at) if node.kind == "double" else str(node.value)
        if digits is None or float(digits) != node.value:
            raise self._refused(node, "this number cannot be read", "write it in decimal digits")
        try:
            return self._constant(node, literal(digits))
        except NoNumberError as error:
            raise self._refused(node, str(error), "a longer number is sent as text and read with decimal()") from None

    def _constant(self, node: Node, value: Fraction) -> Part:
        try:
            number = _as_decimal(value) if self._arithmetic is DECIMALS else value
        except decimal.Inexact:
            raise self._refused(node, "this constant needs more than 100 digits") from None
        return Part(lambda _: number, places_of(value), value)

    def _field(self, node: Node) -> Part:
        root = _root_name(node)
        if root not in names.KNOWN_NAMES | self._extra:
            raise self._refused(node, f"{root or 'this'} is not a field", ALLOWED)
        if root in _TEXT_NAMES:
            raise self._refused(node, f"{root} is not a number", "numbers sent as text are read with decimal(text)")
        if isinstance(node, Ident) and root in _OBJECT_NAMES:
            raise self._refused(node, f"{root} is an object, not a number", f"name one of its fields: {root}.field")
        read, of = self._value(node), self._arithmetic.of

        def run(activation: Activation) -> Any:
            path, value = read(activation.values)
            return of(exact(value, paths.render(path)) if type(value) is not int else value)

        return Part(run, None if root == "variant" else _PRESUMED_INTEGRAL)

    def _value(self, node: Node) -> Lookup:
        """Reads the value a field stands for; the path it took goes into reasons."""
        path = paths.path_of(node)
        if path is not None:
            return lambda values: (path, _found(paths.resolve(values, path)))
        match node:
            case Select(test_only=False):
                return _step(self._value(node.operand), lambda _: node.field)
            case Call(function="_[_]", args=(operand, index)):
                key = self._value(index)
                return _step(self._value(operand), lambda values: key(values)[1])
            case _:
                raise self._refused(node, "only a field can stand here", ALLOWED)

    def _operation(self, node: Call) -> Part:
        left, right = (self.part(arg) for arg in node.args)
        if node.function == "_/_" and right.value == 0:
            raise self._refused(node, "division by zero has no value")
        if left.value is not None and right.value is not None:
            return self._constant(node, getattr(FRACTIONS, _OPERATIONS[node.function])(left.value, right.value))
        apply = getattr(self._arithmetic, _OPERATIONS[node.function])
        run_left, run_right = left.run, right.run
        return Part(lambda activation: apply(run_left(activation), run_right(activation)), _places(node, left, right))

    def _negation(self, node: Call) -> Part:
        part = self.part(node.args[0])
        if part.value is not None:
            return self._constant(node, -part.value)
        run, negate = part.run, self._arithmetic.negate
        return Part(lambda activation: negate(run(activation)), part.places)

    def _extreme(self, node: Call) -> Part:
        if len(node.args) < 2:
            raise self._refused(node, f"{node.function} takes two or more numbers: {node.function}(a, b)")
        parts = [self.part(arg) for arg in node.args]
        runs, choose = [part.run for part in parts], min if node.function == "min" else max
        return Part(lambda activation: choose([run(activation) for run in runs]), _most_places(*parts))

    def _from_text(self, node: Call) -> Part:
        scale = self._scale(node)
        argument = node.args[0]

        def number(value: Any, name: str) -> Decimal:
            return from_text(value, name) if scale is None else from_units(value, scale, name)

        if isinstance(argument, Constant):
            try:
                return self._constant(argument, Fraction(number(argument.value, "the literal")))
            except NoNumberError as error:
                raise self._refused(argument, str(error)) from None
        read, of = self._value(argument), self._arithmetic.of

        def run(activation: Activation) -> Any:
            path, value = read(activation.values)
            return of(number(value, paths.render(path)))

        return Part(run, SCALE_MAX if scale is None else scale)

    def _scale(self, node: Call) -> int | None:
        """The second argument of `scaled`; None for `decimal`, which has one argument."""
        match node.args:
            case (_,) if node.function == "decimal":
                return None
            case (_, Constant(kind="int", value=int(scale))) if node.function == "scaled" and 0 <= scale <= SCALE_MAX:
                return scale
            case _ if node.function == "decimal":
                raise self._refused(node, "decimal takes one text: decimal(context.amount)")
            case _:
                raise self._refused(
                    node, f"scaled takes a text and its scale, 0 to {SCALE_MAX}: scaled(context.wei, 18)"
                )

    def _branch(self, node: Call) -> Part:
        test = self._test(node)
        chosen, otherwise = self.part(node.args[1]), self.part(node.args[2])
        run_chosen, run_otherwise = chosen.run, otherwise.run

        def run(activation: Activation) -> Any:
            outcome = test.evaluate(activation)
            if outcome is True:
                return run_chosen(activation)
            if outcome is False:
                return run_otherwise(activation)
            raise StopError(outcome)

        return Part(run, _most_places(chosen, otherwise))

    def _test(self, node: Call) -> Condition:
        source = Source(tokens.test_before(self._source.text, node.at))
        program = bool_program(source, names.KNOWN_NAMES, self._extra)
        if environment.parse(source, self._extra) != node.args[0]:
            raise self._refused(node, "the test before this ? cannot be told apart", "put the test in brackets")
        condition = Condition(program)
        self.tests.append(condition)
        return condition


def _divides(root: Node) -> bool:
    """Whether the amount itself divides; a division inside a test is CEL's own."""
    if isinstance(root, Call):
        below = root.args[1:] if root.function == "_?_:_" else children(root)
        return root.function == "_/_" or any(_divides(child) for child in below)
    return False


def _as_decimal(value: Fraction) -> Decimal:
    """Exact: without a division every constant ends."""
    return DECIMALS.divide(Decimal(value.numerator), Decimal(value.denominator))


def _places(node: Call, left: Part, right: Part) -> int | None:
    if left.places is None or (right.places is None and right.value is None):
        return None
    if node.function == "_/_":
        reciprocal = None if right.value is None else places_of(1 / right.value)
        return None if reciprocal is None else left.places + reciprocal
    if right.places is None:
        return None
    return left.places + right.places if node.function == "_*_" else max(left.places, right.places)


def _most_places(*parts: Part) -> int | None:
    bounds = [part.places for part in parts]
    return None if None in bounds else max(cast("list[int]", bounds))


def _root_name(node: Node) -> str | None:
    """The name a field starts from: context of `context.rates[context.tier]`."""
    while not isinstance(node, Ident):
        match node:
            case Select():
                node = node.operand
            case Call(function="_[_]", args=(operand, _)):
                node = operand
            case _:
                return None
    return node.name


def _found(value: Any) -> Any:
    if isinstance(value, (Missing, Failed)):
        raise StopError(value)
    return value


def _step(operand: Lookup, key: Callable[[Mapping[str, Any]], Any]) -> Lookup:
    """One step with a key that is known only when it runs."""

    def look(values: Mapping[str, Any]) -> tuple[Path, Any]:
        path, value = operand(values)
        step = key(values)
        if type(step) not in (str, int):
            kind = paths.kind_of(step)
            raise StopError(Failed(f"{paths.render(path)} is indexed by {kind}, not by text or a whole number"))
        longer = (*path, step)
        try:
            return longer, _found(paths.resolve({"": value}, ("", step)))
        except StopError as stop:
            if isinstance(stop.outcome, Missing):
                raise StopError(Missing(paths.render(longer))) from None
            raise StopError(Failed(paths.not_a_container(longer, len(path), value))) from None

    return look


def _constant_hint(node: Constant) -> str:
    return 'a number written as text is read with decimal("12.50")' if node.kind == "string" else ALLOWED


def _misplaced(node: Node) -> str:
    match node:
        case Call(function=function) if function in _COMPARISONS:
            return f"{function.strip('_@')} gives true or false, which only the test of a ? : can use"
        case Call(function=function):
            return f"{function.strip('_@')} cannot stand in an amount"
        case Select():
            return "has() gives true or false, which only the test of a ? : can use"
        case Comprehension():
            return "a loop over a list cannot stand in an amount; give an action for each element with each"
        case _:
            return "this cannot stand in an amount"
