"""Does to the candidate's actions what people did to the real ones meanwhile, at the moment they did it.

A cancelled or rejected action gives its claims back, an approved reversal takes its amount out then, a reversal that
was cancelled before it was sent puts it back. So these never look like differences of rules.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from heapq import heapify, heappop, heappush
from uuid import UUID

from connect.engine.amounts import format_amount, minus, plus
from connect.engine.simulate import Simulation
from connect.engine.state import ZERO
from connect.model import RewardAction
from connect.store.history import Undo

Told = Callable[[RewardAction, Decimal, Decimal], None]
"""Hears of each action how much more of it is taken back, and how much of it a person cancelled."""


class People:
    """Holds what is still to be done, in order of time."""

    def __init__(
        self,
        simulation: Simulation,
        cancelled: list[tuple[datetime, UUID, UUID]],
        undos: Mapping[UUID, Undo],
        told: Told,
    ) -> None:
        self._simulation, self._undos, self._told = simulation, undos, told
        self._due: list[tuple[datetime, UUID, Decimal | None]] = [(at, found, None) for at, found, _ in cancelled]
        heapify(self._due)

    def until(self, moment: datetime) -> None:
        while self._due and self._due[0][0] <= moment:
            _, action_id, amount = heappop(self._due)
            action = self._simulation.actions.get(action_id)
            if action is None or action.status == "cancelled":
                continue
            if amount is None:
                self._simulation.change(action_id, cancel=True)
                self._told(action, ZERO, minus(Decimal(action.amount), Decimal(action.reversed)))
            else:
                self._reverse(action, amount)

    def _reverse(self, action: RewardAction, amount: Decimal) -> None:
        before = Decimal(action.reversed)
        after = max(ZERO, min(Decimal(action.amount), plus(before, amount)))
        self._simulation.change(action.id, reversed_=format_amount(after))
        self._told(action, minus(after, before), ZERO)

    def hear(self, undo: RewardAction) -> None:
        """Notes, for a reversal that the candidate made, whether a person decided otherwise about the real one."""
        real = self._undos.get(undo.id)
        if real is None or undo.reverses is None or real.frees_claim == undo.frees_claim:
            return
        amount = Decimal(undo.amount)
        if real.frees_claim and real.approved_at is not None:
            heappush(self._due, (real.approved_at, undo.reverses, amount))
        elif real.cancelled and real.completed_at is not None:
            heappush(self._due, (real.completed_at, undo.reverses, amount.copy_negate()))
