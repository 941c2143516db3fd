"""Decimals that are written 500 or "500": caps of limits and budgets, and thresholds."""

from decimal import Decimal

from connect.authoring.check.findings import Findings
from connect.engine.amounts import format_amount, parse_amount
from connect.model import Cap


def read_cap(findings: Findings, pointer: str, cap: Cap, unit: str, *, zero: bool = False) -> Decimal | None:
    """The decimal; None, and the reason told, where it is none, not above 0, or finer than its unit."""
    text = str(cap)
    try:
        value = parse_amount(text.removeprefix("+"))
    except ValueError:
        findings.error(
            pointer,
            f"{_shown(text)} is no amount",
            'write plain digits without signs or exponents, such as 500 or "12.50"',
        )
        return None
    scale = findings.scale(unit)
    if value == 0 and not zero:
        findings.error(pointer, "the cap is 0, so nothing could ever be given", "write a cap above 0, or leave it out")
    elif value != round(value, scale):
        places = f"{scale} decimal places" if scale else "no decimal places"
        hint = f"round it, or give {unit} a larger scale under units"
        findings.error(pointer, f"{format_amount(value)} has more digits than {unit}, which has {places}", hint)
    else:
        return value
    return None


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"'{text[:39]}…'"
