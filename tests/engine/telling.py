"""Stories told to a ruleset in memory, in few words: what each fact gives, and what it takes back."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from connect.authoring import convert_ruleset
from connect.engine.amounts import format_amount, minus
from connect.engine.index import Rulebook
from connect.engine.simulate import Simulation, taken
from connect.model import Decision, EconomicEvent, RewardAction

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
CREDIT: dict[str, Any] = {"target": "points", "command": "credit", "recipient": "actor", "amount": 10, "unit": "points"}
REFUND: dict[str, Any] = {"event_type": "refunded", "same": "context.order"}
UNDO = {"points": {"credit": "debit"}}


def rule(key: str = "r", **fields: Any) -> dict[str, Any]:
    """Ten points for every purchase, unless told otherwise; `amount` is the one effect's."""
    effect = {
        **CREDIT,
        **{name: fields.pop(name) for name in ("amount", "recipient", "unit", "round") if name in fields},
    }
    return {"key": key, "event_type": "bought", "actions": [effect], **fields}


class Told:
    """A ruleset, and all that was told to it."""

    def __init__(self, *rules: dict[str, Any], timezone: str = "UTC", **document: Any) -> None:
        units = {"points": {"scale": 0}, "money": {"scale": 2}, "token": {"scale": 18}, "nft": {"scale": 0}}
        made = convert_ruleset({"timezone": timezone, "units": units, "rules": list(rules), **document})
        self.rulebook = Rulebook.compile(1, made, {})
        broken = [one.broken for one in (*self.rulebook.rules.values(), *self.rulebook.counters.values()) if one.broken]
        assert not broken, broken
        self.simulation = Simulation(self.rulebook, undo=UNDO)
        self.now = NOON + timedelta(days=100)
        self.decision: Decision | None = None
        self._numbers = 0

    def tell(
        self, event_type: str = "bought", user: str | None = "u1", at: str | datetime = NOON, *,
        subject: str | None = None, parties: dict[str, Any] | None = None, source: str = "shop",
        effects: Any = "all", **context: Any,
    ) -> str:  # fmt: skip
        """Decides one fact. What it gave and took back, as `u1 +10 u2 -5`; the outcomes where that is nothing."""
        self._numbers += 1
        self.now += timedelta(seconds=1)
        event = EconomicEvent(
            id=UUID(int=self._numbers),
            external_id=f"e{self._numbers}",
            source=source,
            event_type=event_type,
            occurred_at=datetime.fromisoformat(at) if isinstance(at, str) else at,
            received_at=self.now,
            actor_user_id=user,
            primary_subject_user_id=subject,
            parties=parties or {},
            context=context,
            effects=effects,
        )
        before = dict(self.simulation.actions)
        self.decision = self.simulation.decide(event, self.now)
        gave = [f"{one.user_id} +{one.amount}" for one in self.decision.actions if one.reverses is None]
        took = [f"{one.user_id} -{format_amount(part)}" for one, part in taken(self.decision, before)]
        return " ".join([*gave, *took]) or " ".join(trace.outcome for trace in self.decision.trace)

    def bought(self, order: str = "o1", user: str | None = "u1", **more: Any) -> str:
        return self.tell("bought", user, order=order, **more)

    def refunded(self, order: str = "o1", **more: Any) -> str:
        return self.tell("refunded", order=order, **more)

    @property
    def outcomes(self) -> dict[str, str]:
        """Returns the outcomes of the last decision, by rule."""
        assert self.decision is not None
        return {trace.rule: trace.outcome for trace in self.decision.trace}

    @property
    def details(self) -> list[str]:
        assert self.decision is not None
        return [trace.detail for trace in self.decision.trace]

    @property
    def given(self) -> list[RewardAction]:
        return [one for one in self.simulation.actions.values() if one.reverses is None]

    @property
    def reversals(self) -> list[tuple[str, str]]:
        """(status, amount) of each."""
        return [(one.status, one.amount) for one in self.simulation.actions.values() if one.reverses is not None]

    def live(self) -> list[str]:
        """Returns what each action that was given still is worth, in the order given."""
        return [format_amount(live(one)) for one in self.given]

    def sent(self, nth: int = 0, status: str = "completed", failure: str | None = None) -> None:
        """The n-th action was sent, and came to this."""
        action = self.given[nth]
        self.simulation.actions[action.id] = replace(action, status=status, failure=failure, attempts=1)

    def stored(self, kind: str) -> list[str]:
        """Returns what keys of a kind hold, but nothing, in the order of the keys."""
        values = sorted((key, one.value) for key, one in self.simulation.memory.values.items())
        return [format_amount(value) for key, value in values if key.startswith(kind) and value]


def live(action: RewardAction) -> Decimal:
    return Decimal(0) if action.status == "cancelled" else minus(Decimal(action.amount), Decimal(action.reversed))
