"""Limits of a rule: whether each says something, and whether they say it together."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final, Literal

from msgspec import Struct

from connect.authoring.check.amount_cap import read_cap
from connect.authoring.check.findings import Findings
from connect.engine.amounts import format_amount, round_amount
from connect.engine.compile import parse_duration
from connect.model import Effect, Every, Limit, RewardRule

_INSIDE: Final[dict[Every, frozenset[Every]]] = {
    "hour": frozenset({"hour", "day", "week", "month", "ever"}),
    "day": frozenset({"day", "week", "month", "ever"}),
    "week": frozenset({"week", "ever"}),
    "month": frozenset({"month", "ever"}),
    "ever": frozenset({"ever"}),
}
"""A period -> those that always hold the whole of it. A week lies in two months."""
_LONGEST: Final[dict[Every, timedelta]] = {
    "hour": timedelta(hours=1),
    "day": timedelta(hours=25),
    "week": timedelta(days=7, hours=1),
    "month": timedelta(days=31, hours=1),
}
"""With the hour that a change of clocks adds."""
_MOST_IN: Final[dict[tuple[Every, Every], int]] = {
    ("hour", "day"): 25,
    ("hour", "week"): 169,
    ("hour", "month"): 745,
    ("day", "week"): 7,
    ("day", "month"): 31,
}


class Payout(Struct, frozen=True):
    """The amount that one action gives: the same each time (`constant`), or by what the event says (`reads`)."""

    effect: Effect
    constant: Decimal | None = None
    """The amount that each recipient gets; None with shares, which divide it."""
    reads: tuple[str, ...] = ()

    def rounded(self, amount: Decimal, scale: int) -> Decimal:
        return round_amount(amount, scale, self.effect.round or "down")


class _Measure(Struct, frozen=True):
    """One cap of one limit."""

    place: int
    limit: Limit
    kind: Literal["uses", "amount"]
    cap: Decimal
    within: timedelta | None

    @property
    def period(self) -> str:
        return self.limit.every or f"{self.limit.within}"

    @property
    def words(self) -> str:
        per = "" if self.limit.per == "rule" else f" per {self.limit.per}"
        return f"the {self.period} limit of {format_amount(self.cap)}{' uses' if self.kind == 'uses' else ''}{per}"

    @property
    def key(self) -> tuple[str, str, str | float]:
        span = self.within.total_seconds() if self.within else str(self.limit.every)
        return self.kind, self.limit.per, span


def check_limits(findings: Findings, rule: RewardRule, payouts: list[Payout], pointer: str) -> None:
    measures: list[_Measure] = []
    for place, limit in enumerate(rule.limits):
        measures += _measures(findings, rule, place, f"{pointer}/limits/{place}")
        if limit.amount is not None:
            _one_unit(findings, rule, f"{pointer}/limits/{place}/amount")
    first_with: dict[tuple[str, str, str | float], _Measure] = {}
    single: list[_Measure] = []
    for measure in measures:
        inner = f"{pointer}/limits/{measure.place}"
        if (first := first_with.setdefault(measure.key, measure)) is not measure:
            hint = "the smaller cap decides: leave one of them out"
            findings.error(inner, f"limit {first.place + 1} caps the same: {first.words}", hint)
        else:
            single.append(measure)
    for measure in single:
        _never_binds(findings, measure, single, f"{pointer}/limits/{measure.place}")
        _never_gives(findings, rule, measure, payouts, pointer)


def _measures(findings: Findings, rule: RewardRule, place: int, pointer: str) -> Iterator[_Measure]:
    limit = rule.limits[place]
    within: timedelta | None = None
    timed = (limit.every is None) != (limit.within is None)
    if not timed:
        hint = "`every: day` follows the calendar, `within: 6h` slides; leave one of them out"
        findings.error(pointer, "a limit needs either `every` or `within`", hint)
    elif limit.within is not None:
        within = parse_duration(limit.within)
    if limit.uses is None and limit.amount is None:
        findings.error(
            pointer,
            "a limit needs `uses` or `amount`, or both",
            "uses: how often the rule gives; amount: how much in all",
        )
    unit = rule.actions[0].unit
    amount = None if limit.amount is None else read_cap(findings, f"{pointer}/amount", limit.amount, unit)
    if timed and limit.uses is not None:
        yield _Measure(place, limit, "uses", Decimal(limit.uses), within)
    if timed and amount is not None:
        yield _Measure(place, limit, "amount", amount, within)


def _one_unit(findings: Findings, rule: RewardRule, pointer: str) -> None:
    units = list(dict.fromkeys(effect.unit for effect in rule.actions))
    if len(units) > 1:
        hint = "limit `uses` instead, or give each unit a rule of its own"
        findings.error(pointer, f"an amount is limited in one unit, and the rule gives {' and '.join(units)}", hint)


def _never_binds(findings: Findings, measure: _Measure, others: list[_Measure], pointer: str) -> None:
    """At most one warning for a cap that another one always reaches first."""
    for other in others:
        if other is measure or other.kind != measure.kind or other.limit.per not in (measure.limit.per, "rule"):
            continue
        message = f"{measure.words} can never bind"
        if other.cap <= measure.cap and _lasts(measure, other):
            hint = "lower it, raise the other, or leave it out"
            findings.warning(pointer, f"{message}: {other.words} is reached first", hint)
            return
        times = _most_in(other, measure)
        if times is not None and times * other.cap <= measure.cap:
            most = format_amount(times * other.cap)
            findings.warning(
                pointer,
                f"{message}: {other.words} lets through {most} a {measure.period} at the most",
                f"lower it below {most}, or leave it out",
            )
            return


def _lasts(inner: _Measure, outer: _Measure) -> bool:
    """Whether a period of `outer` always holds the whole of each period of `inner`."""
    every = outer.limit.every
    if every == "ever":
        return True
    if outer.within is not None:
        length = inner.within if inner.limit.every is None else _LONGEST.get(inner.limit.every)
        return length is not None and length <= outer.within
    return inner.limit.every is not None and every in _INSIDE[inner.limit.every]


def _most_in(shorter: _Measure, longer: _Measure) -> int | None:
    """The most periods of `shorter` that make up one of `longer`."""
    if shorter.limit.every is None or longer.limit.every is None:
        return None
    return _MOST_IN.get((shorter.limit.every, longer.limit.every))


def _never_gives(findings: Findings, rule: RewardRule, measure: _Measure, payouts: list[Payout], pointer: str) -> None:
    """An action that always gives more than the whole cap is denied each time."""
    if measure.kind != "amount":
        return
    per = measure.limit.per
    only_role = any(payout.effect.recipient == per for payout in payouts)
    measured = [payout for payout in payouts if not only_role or payout.effect.recipient == per]
    scale = findings.scale(rule.actions[0].unit)
    above = [
        payout
        for payout in measured
        if payout.constant is not None and payout.rounded(payout.constant, scale) > measure.cap
    ]
    if above:
        amount = format_amount(above[0].rounded(above[0].constant or Decimal(0), scale))
        all_of_it = len(above) == len(payouts) or rule.all_or_nothing
        who = "this rule" if all_of_it else f"its action {payouts.index(above[0]) + 1}"
        findings.error(
            f"{pointer}/limits/{measure.place}/amount",
            f"{who} can never give: it gives {amount} at once, and {measure.words} lets through less",
            f"raise the limit to {amount} at least, or lower the amount",
        )
