"""Sets what was given beside what the recount expects: differences in words, and a summary for people."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct

from connect.demo.recount import Expected, Recount


class Given(Struct, frozen=True, kw_only=True):
    """Tells what one rule gave and what was taken back of it, as Connect's actions tell. Amounts: sums, decimal texts.

    Both are the same whether a refund found an action unsent, and cancelled it, or sent, and had it undone.
    """

    actions: int
    """Given, the cancelled included; those that undo are not counted."""
    amount: str
    taken_back: str = "0"
    unit: str = ""
    cancelled: int = 0
    """The number of actions that were taken back before they were sent."""
    failed: int = 0
    """Here and in `open` those that undo are counted, too."""
    open: int = 0
    """Not ended."""


NOTHING = Given(actions=0, amount="0")
NONE_EXPECTED = Expected(0, "0")


def compare(expected: Recount, actual: Mapping[str, Given]) -> list[str]:
    """Every difference as a sentence; empty when all is as it should be. An unended action is a difference, too."""
    return [
        f"{key}: {difference}"
        for key in _keys(expected, actual)
        for difference in _differences(expected.rules.get(key, NONE_EXPECTED), actual.get(key, NOTHING))
    ]


def _differences(expected: Expected, given: Given) -> Iterable[str]:
    if given.actions != expected.actions:
        yield f"{given.actions:,} actions, {expected.actions:,} expected"
    if Decimal(given.amount) != Decimal(expected.amount):
        yield f"{given.amount} in all, {expected.amount} expected"
    if Decimal(given.taken_back) != Decimal(expected.taken_back):
        yield f"{given.taken_back} taken back, {expected.taken_back} expected"
    if given.failed:
        yield f"{given.failed:,} failed"
    if given.open:
        yield f"{given.open:,} not ended"


HEADINGS = ("RULE", "ACTIONS", "GIVEN", "TAKEN BACK", "UNIT", "EQUAL")
TEXTS = {"RULE", "UNIT", "EQUAL"}
"""Columns that begin at the left; numbers end at the right."""


def summary(expected: Recount, actual: Mapping[str, Given]) -> list[str]:
    """Lines: a row for each rule, those that gave most often first. No value is cut, however narrow the terminal.

    What was expected stands in it where it was given: `compare` says what differs.
    """
    keys = sorted(_keys(expected, actual), key=lambda key: (-expected.rules.get(key, NONE_EXPECTED).actions, key))
    rows = [_cells(key, expected.rules.get(key, NONE_EXPECTED), actual.get(key, NOTHING)) for key in keys]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if heading in TEXTS else cell.rjust(width)
            for heading, cell, width in zip(HEADINGS, row, widths, strict=True)
        ).rstrip()
        for row in (HEADINGS, *rows)
    ]
    return ["", f"{expected.events:,} events", *lines, ""]


def _cells(key: str, expected: Expected, given: Given) -> tuple[str, ...]:
    same = "no" if list(_differences(expected, given)) else "yes"
    return key, f"{given.actions:,}", _grouped(given.amount), _grouped(given.taken_back), given.unit, same


def _grouped(amount: str) -> str:
    """Thousands apart; digits after the point as they are."""
    whole, point, rest = amount.partition(".")
    return f"{int(whole):,}{point}{rest}"


def _keys(expected: Recount, actual: Mapping[str, Given]) -> list[str]:
    return sorted({*expected.rules, *actual})
