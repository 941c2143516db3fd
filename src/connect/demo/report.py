"""Sets what was given beside what the recount expects: differences in words, and a table for people."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct
from rich.table import Table

from connect.demo.recount import Recount


class Given(Struct, frozen=True, kw_only=True):
    """What one rule gave, as Connect's actions tell. `amount`: the sum, a decimal text."""

    actions: int
    amount: str
    unit: str = ""
    completed: int = 0
    failed: int = 0


NOTHING = Given(actions=0, amount="0")


def compare(expected: Recount, actual: Mapping[str, Given]) -> list[str]:
    """Every difference as a sentence; empty when all is as it should be. An unended action is a difference, too."""
    found: list[str] = []
    for key in _keys(expected, actual):
        actions, amount = expected.rules.get(key, (0, "0"))
        given = actual.get(key, NOTHING)
        if given.actions != actions:
            found.append(f"{key}: {given.actions:,} actions, {actions:,} expected")
        if Decimal(given.amount) != Decimal(amount):
            found.append(f"{key}: {given.amount} in all, {amount} expected")
        if given.failed:
            found.append(f"{key}: {given.failed:,} failed")
        if open_ := given.actions - given.completed - given.failed:
            found.append(f"{key}: {open_:,} not ended")
    return found


def summary(expected: Recount, actual: Mapping[str, Given]) -> Table:
    """A row for each rule, those that gave most first."""
    table = Table(title=f"{expected.events:,} events")
    table.add_column("rule")
    for name in ("actions", "amount", "completed", "failed", "expected actions", "expected amount"):
        table.add_column(name, justify="right")
    table.add_column("unit")
    table.add_column("as expected")
    for key in sorted(_keys(expected, actual), key=lambda key: (-expected.rules.get(key, (0, ""))[0], key)):
        table.add_row(*_row(key, expected.rules.get(key, (0, "0")), actual.get(key, NOTHING)))
    return table


def _row(key: str, expected: tuple[int, str], given: Given) -> Iterable[str]:
    actions, amount = expected
    one = Recount(0, {key: expected})
    agrees = not compare(one, {key: given})
    yield key
    yield from (f"{given.actions:,}", _grouped(given.amount), f"{given.completed:,}", f"{given.failed:,}")
    yield from (f"{actions:,}", _grouped(amount), given.unit)
    yield "yes" if agrees else "[red]no[/red]"


def _grouped(amount: str) -> str:
    """Thousands apart; digits after the point as they are."""
    whole, point, rest = amount.partition(".")
    return f"{int(whole):,}{point}{rest}"


def _keys(expected: Recount, actual: Mapping[str, Given]) -> list[str]:
    return sorted({*expected.rules, *actual})
