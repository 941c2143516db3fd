"""Decides how much a rule may give of what it would: limits and budgets, read and used up in memory.

Each gift is judged alone, in the order of the effects: what does not fit is denied (or clipped to what a budget has
left), and a later, smaller one may still fit.
"""

from bisect import insort
from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal

from msgspec import Struct

from connect.engine.amounts import CONTEXT, format_amount, minus, plus
from connect.engine.compile import CompiledBudget, CompiledEffect
from connect.engine.decide.evaluate import Candidate
from connect.engine.decide.payouts import Gift
from connect.engine.limits import ONE, Slot, fits_window
from connect.engine.state import ZERO, Memory, StateValue
from connect.model import EconomicEvent

Entries = list[tuple[datetime, Decimal]]


class Denial(Struct, frozen=True):
    """A gift that was not given, or not wholly."""

    outcome: Literal["limited", "short_of_budget"]
    reason: str
    gift: Gift
    unit: str
    clipped_to: Decimal | None = None

    @property
    def words(self) -> str:
        gift = self.gift
        amount = f"{format_amount(gift.amount)} {self.unit} for {gift.user_id} ({gift.role})"
        if self.clipped_to is not None:
            return f"{amount}: cut to {format_amount(self.clipped_to)}, {self.reason}"
        return f"{amount}: {self.reason}"


class Claims:
    """The claims of one event: what each rule's gifts use up is put into memory once the rule gives."""

    def __init__(self, event: EconomicEvent, memory: Memory, read: dict[str, Any]) -> None:
        self.event = event
        self._memory = memory
        self._read = read
        self._seen: set[str] = set()

    def admit(self, candidate: Candidate) -> tuple[list[tuple[CompiledEffect, Gift]], list[Denial]]:
        """The gifts that may be given, which are then claimed, and those that may not.

        A rule that is all or nothing claims nothing where any of its gifts is denied.
        """
        trying = _Trying(self, candidate)
        granted: list[tuple[CompiledEffect, Gift]] = []
        denials: list[Denial] = []
        for place, (effect, gift) in enumerate(candidate.gifts):
            denial = trying.denial(effect, gift, candidate.slots[place] if candidate.slots else ())
            final = gift
            if denial is not None:
                denials.append(denial)
                if denial.clipped_to is None:
                    continue
                final = Gift(gift.role, gift.user_id, denial.clipped_to, gift.params)
            trying.take(final)
            granted.append((effect, final))
        if denials and candidate.compiled.rule.all_or_nothing:
            trying.commit(claimed=False)
            return [], denials
        trying.commit(claimed=True)
        return granted, denials

    def stored(self, key: str) -> StateValue:
        found = self._memory.get(key)
        if key not in self._seen:
            self._seen.add(key)
            if found.value or found.detail:
                written = format(found.value, "f")
                self._read.setdefault("usage", {})[key] = [written, found.detail] if found.detail else written
        return found

    def window(self, key: str) -> Entries:
        found = self._memory.windows.setdefault(key, [])
        if found and key not in self._seen:
            self._read.setdefault("windows", {})[key] = [[at.isoformat(), str(value)] for at, value in found]
        self._seen.add(key)
        return found

    def put(self, key: str, value: StateValue) -> None:
        self._memory.put(key, value)


class _Trying:
    """One rule's gifts, tried one after the other; nothing is in memory before `commit`."""

    def __init__(self, claims: Claims, candidate: Candidate) -> None:
        self._claims = claims
        self._budget = candidate.compiled.budget
        self._used: dict[str, Decimal] = {}
        self._slots: dict[str, Slot] = {}
        self._touched: Sequence[Slot] = ()
        self._spent = ZERO
        self._closed = False
        """Whether this rule's gifts closed the budget."""

    def denial(self, effect: CompiledEffect, gift: Gift, slots: Sequence[Slot]) -> Denial | None:
        self._touched = slots
        for found in slots:
            if not self._fits(found, gift):
                return Denial("limited", self._over(found), gift, effect.effect.unit)
        if self._budget is None:
            return None
        return self._short(self._budget, effect, gift)

    def _wants(self, found: Slot, gift: Gift) -> Decimal:
        """One use an event, however many gifts; all of each amount."""
        if found.meter.measure == "amount":
            return gift.amount
        return ZERO if found.key in self._used else ONE

    def _fits(self, found: Slot, gift: Gift) -> bool:
        meter, wanted = found.meter, self._wants(found, gift)
        if not wanted:
            return True
        tried = self._used.get(found.key, ZERO)
        if meter.within is not None:
            entries = self._claims.window(found.key)
            return fits_window(entries, self._claims.event.occurred_at, meter.within, plus(tried, wanted), meter.cap)
        return plus(self._claims.stored(found.key).value, tried, wanted) <= meter.cap

    def _over(self, found: Slot) -> str:
        meter = found.meter
        what = "uses" if meter.measure == "uses" else meter.unit
        if meter.within is not None:
            return f"a window of {meter.within} would have more than {format_amount(meter.cap)} {what} {meter.words}"
        used = plus(self._claims.stored(found.key).value, self._used.get(found.key, ZERO))
        return f"{format_amount(used)} of {format_amount(meter.cap)} {what} {meter.words} are used"

    def _short(self, budget: CompiledBudget, effect: CompiledEffect, gift: Gift) -> Denial | None:
        stored = self._claims.stored(budget.key)
        unit = effect.effect.unit
        left = minus(budget.cap, plus(stored.value, self._spent))
        closed = self._closed or bool((stored.detail or {}).get("closed"))
        if not closed and gift.amount <= left:
            return None
        self._closed = closed or budget.closes
        if closed:
            return Denial("short_of_budget", f"the budget {budget.name} is closed", gift, unit)
        reason = f"the budget {budget.name} has {format_amount(max(left, ZERO))} of {format_amount(budget.cap)} left"
        part = left.quantize(Decimal((0, (1,), -effect.scale)), ROUND_DOWN, CONTEXT) if left > 0 else ZERO
        if budget.clips and part > 0:
            return Denial("short_of_budget", reason, gift, unit, part)
        return Denial("short_of_budget", reason, gift, unit)

    def take(self, gift: Gift) -> None:
        """Uses up what the gift that was just asked about touches, for its final amount."""
        for found in {one.key: one for one in self._touched}.values():  # two limits may share one meter
            self._slots[found.key] = found
            self._used[found.key] = plus(self._used.get(found.key, ZERO), self._wants(found, gift))
        if self._budget is not None:
            self._spent = plus(self._spent, gift.amount)

    def commit(self, *, claimed: bool) -> None:
        """Uses up what was taken; a budget that closes does so at its first denial, whatever becomes of the rule."""
        for key, used in self._used.items() if claimed else ():
            if self._slots[key].meter.within is not None:
                insort(self._claims.window(key), (self._claims.event.occurred_at, used))
            else:
                stored = self._claims.stored(key)
                self._claims.put(key, StateValue(plus(stored.value, used), stored.detail))
        spent = self._spent if claimed else ZERO
        if self._budget is not None and (spent or self._closed):
            stored = self._claims.stored(self._budget.key)
            detail = {**(stored.detail or {}), "closed": True} if self._closed else stored.detail
            self._claims.put(self._budget.key, StateValue(plus(stored.value, spent), detail))
