"""The exact numbers amounts are made of: from the event's values, through the operators, to the result."""

import decimal
import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, TypeAlias

import msgspec

from connect.engine.amounts import AMOUNT_PATTERN, SCALE_MAX, WHOLE_DIGITS_MAX
from connect.engine.expression.paths import kind_of

Number: TypeAlias = Decimal | Fraction

LITERAL_DIGITS_MAX: Final = 15  # significant; what a double holds, so every reader of the text agrees
_LIMIT: Final = 10**WHOLE_DIGITS_MAX
_UNITS_PATTERN: Final = re.compile(r"0|[1-9][0-9]{0,59}")
_SHOWN_MAX: Final = 40
_EXPONENT_MAX: Final = 308  # of a float; Fraction(Decimal("1e999999999")) would write out every zero

_EXACT: Final = decimal.Context(
    prec=100, Emin=-999, Emax=999, traps=[decimal.InvalidOperation, decimal.Overflow, decimal.Inexact]
)
_CUT: Final = decimal.Context(prec=100, rounding=decimal.ROUND_05UP, Emin=-999, Emax=999, traps=[])


class NoNumberError(Exception):
    """A value or a result that is no amount; the message is the reason told in `Failed`."""


class Arithmetic(msgspec.Struct, frozen=True):
    """The operators over one kind of number: decimals, which are faster, or fractions, which can divide."""

    of: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]
    subtract: Callable[[Any, Any], Any]
    multiply: Callable[[Any, Any], Any]
    divide: Callable[[Any, Any], Any]
    negate: Callable[[Any], Any]


DECIMALS: Final = Arithmetic(Decimal, _EXACT.add, _EXACT.subtract, _EXACT.multiply, _EXACT.divide, _EXACT.minus)
FRACTIONS: Final = Arithmetic(Fraction, operator.add, operator.sub, operator.mul, Fraction.__truediv__, operator.neg)


def exact(value: object, name: str) -> Decimal | int:
    """The number a value of the event is. `name` tells which one in the reason.

    A float has at most 15 significant digits when it comes from intake, so its shortest text is what was sent.
    """
    if type(value) is int:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return Decimal(repr(value))
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= _EXPONENT_MAX:
        return value
    if isinstance(value, str):
        raise NoNumberError(f"{name} is text, not a number: write decimal({name}) or scaled({name}, 18)")
    if isinstance(value, (float, Decimal)):
        raise NoNumberError(f"{name} is {value:.5g}, which is no amount")
    raise NoNumberError(f"{name} is {kind_of(value)}, not a number")


def from_text(value: object, name: str) -> Decimal:
    """The number a text holds, for `decimal(...)`. The pattern is tested before any Decimal is made."""
    text = _text(value, name, "decimal")
    if AMOUNT_PATTERN.fullmatch(text) is None:
        raise NoNumberError(
            f"{name} is {text[:_SHOWN_MAX]!r}: decimal() takes digits, up to {WHOLE_DIGITS_MAX} before the point and "
            f"up to {SCALE_MAX} after it"
        )
    return Decimal(text)


def from_units(value: object, scale: int, name: str) -> Decimal:
    """The number a text holds in smallest units, for `scaled(text, scale)`: wei become ether with 18."""
    text = _text(value, name, "scaled")
    if _UNITS_PATTERN.fullmatch(text) is None:
        raise NoNumberError(f"{name} is {text[:_SHOWN_MAX]!r}: scaled() takes up to {WHOLE_DIGITS_MAX} digits only")
    return Decimal(text).scaleb(-scale, _EXACT)


def _text(value: object, name: str, function: str) -> str:
    if isinstance(value, str):
        return value
    raise NoNumberError(f"{name} is {kind_of(value)}: {function}() takes text")


def finished(value: Number) -> Decimal:
    """The result as a Decimal; only a quotient that does not end is cut. Raises NoNumberError past 60 whole digits."""
    if not -_LIMIT < value < _LIMIT:
        raise NoNumberError(f"the amount has more than {WHOLE_DIGITS_MAX} digits before the point")
    if isinstance(value, Fraction):
        return _CUT.divide(Decimal(value.numerator), Decimal(value.denominator))
    return value


def places_of(value: Fraction) -> int | None:
    """The digits after the point of a number written out, None when they do not end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def literal(digits: str) -> Fraction:
    """The number a literal writes. Raises NoNumberError for more digits than allowed."""
    value = Decimal(digits)
    significant = "".join(map(str, value.as_tuple().digits)).strip("0")
    if len(significant) > LITERAL_DIGITS_MAX:
        raise NoNumberError(f"{digits[:_SHOWN_MAX]} has more than {LITERAL_DIGITS_MAX} significant digits")
    if value and not -SCALE_MAX <= value.adjusted() < WHOLE_DIGITS_MAX:
        raise NoNumberError(
            f"{digits[:_SHOWN_MAX]} is out of range: {WHOLE_DIGITS_MAX} digits before the point, {SCALE_MAX} after"
        )
    return Fraction(value) if value else Fraction(0)
