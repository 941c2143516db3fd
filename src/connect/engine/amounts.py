"""Amounts: exact decimals, written as text, rounded once and split without losing a unit.

An amount has up to 60 digits before the point and 18 after it: wei of any token and points of any programme fit.
"""

import decimal
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal, TypeAlias

Rounding: TypeAlias = Literal["down", "up", "half_even", "half_up"]

WHOLE_DIGITS_MAX: Final = 60
SCALE_MAX: Final = 18
BASIS_POINTS_WHOLE: Final = 10_000

AMOUNT_PATTERN: Final = re.compile(r"(0|[1-9][0-9]{0,59})(\.[0-9]{1,18})?")
"""Tested with `fullmatch` before any Decimal: `1e1000000`, `NaN`, `1_000` and Arabic digits never reach one."""

CONTEXT: Final = decimal.Context(
    prec=100,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=-999,
    Emax=999,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
"""100 digits: the product of an amount (78) and a rate (15) is exact. Inexact is not trapped, so a quotient is cut to
100 digits; amounts of rules divide as fractions instead and are cut only once (see `expression.amount`).
Use its methods (`CONTEXT.multiply`); it is shared, so never change it, and never make it a thread's own."""

_MODES: Final[dict[Rounding, str]] = {
    "down": decimal.ROUND_DOWN,
    "up": decimal.ROUND_UP,
    "half_even": decimal.ROUND_HALF_EVEN,
    "half_up": decimal.ROUND_HALF_UP,
}
_EXACT: Final = decimal.Context(prec=200, Emin=-999, Emax=999, traps=[decimal.InvalidOperation])


def parse_amount(text: str) -> Decimal:
    """The amount a text names. Raises ValueError with what is allowed."""
    if AMOUNT_PATTERN.fullmatch(text) is None:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise ValueError(
            f"{shown!r} is not an amount: write digits, up to {WHOLE_DIGITS_MAX} before the point "
            f'and up to {SCALE_MAX} after it, such as "12.50"'
        )
    return Decimal(text)


def round_amount(value: Decimal, scale: int, mode: Rounding | None) -> Decimal:
    """The value with at most `scale` digits after the point; `down` is towards zero, `up` away from it.

    Raises ValueError when digits would be lost and no mode says how, and for what is no amount at all.
    """
    if not (value.is_finite() and value.adjusted() < 2 * WHOLE_DIGITS_MAX):  # sums of amounts fit
        raise ValueError(f"{value:.5g} is too large to be rounded")
    step = Decimal((0, (1,), -scale))
    if mode is not None:
        return value.quantize(step, _MODES[mode], _EXACT)
    rounded = value.quantize(step, decimal.ROUND_DOWN, _EXACT)
    if rounded != value:
        raise ValueError(
            f"{format_amount(value):.60} has more than {scale} digits after the point: "
            f"say how to round it (down, up, half_even or half_up)"
        )
    return rounded


def round_fraction(value: Fraction, scale: int, mode: Rounding) -> Decimal:
    """As `round_amount` for a value that no decimal may hold: exact, however long its digits are."""
    units, rest = divmod(abs(value.numerator) * 10**scale, value.denominator)
    twice = 2 * rest - value.denominator
    match mode:
        case "down":
            up = False
        case "up":
            up = rest > 0
        case "half_up":
            up = twice >= 0
        case "half_even":
            up = twice > 0 or (twice == 0 and units % 2 == 1)
    rounded = units + up
    return Decimal(-rounded if value < 0 else rounded).scaleb(-scale, _EXACT)


def plus(*amounts: Decimal) -> Decimal:
    """Their sum to the last digit: `+` itself keeps 28 digits, and a token's amounts have more."""
    total = Decimal(0)
    for amount in amounts:
        total = CONTEXT.add(total, amount)
    return total


def minus(amount: Decimal, other: Decimal) -> Decimal:
    """The difference to the last digit, as `plus`."""
    return CONTEXT.subtract(amount, other)


def format_amount(value: Decimal) -> str:
    """Plain digits, no exponent, no zeros at the end of the fraction: `259`, `2.5`, `0`."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def split_amount(total: Decimal, basis_points: Sequence[int], scale: int) -> list[Decimal]:
    """The parts of a whole, in the order of the shares; they sum to it exactly.

    Largest remainder (Hamilton): every part is rounded down, then the smallest units left over go one each to the parts
    that lost most, the earlier first among equals. Raises ValueError for shares that are negative or
    do not sum to 10,000, for a negative total and one with more digits than the scale.
    """
    if any(share < 0 for share in basis_points) or sum(basis_points) != BASIS_POINTS_WHOLE:
        raise ValueError(f"shares in basis points must sum to 10,000, these sum to {sum(basis_points):,}")
    units = int(round_amount(total, scale, None).scaleb(scale, _EXACT))
    if units < 0:
        raise ValueError(f"{format_amount(total)} is negative and cannot be split")
    parts = [units * share // BASIS_POINTS_WHOLE for share in basis_points]
    lost = [units * share % BASIS_POINTS_WHOLE for share in basis_points]
    most_lost = sorted(range(len(parts)), key=lambda place: (-lost[place], place))
    for place in most_lost[: units - sum(parts)]:
        parts[place] += 1
    return [Decimal(part).scaleb(-scale, _EXACT) for part in parts]
