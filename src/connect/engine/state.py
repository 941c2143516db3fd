"""State that rules remember: one row a key (`state_keys`), locked by the shell before an event is decided."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from connect.engine.amounts import plus

ZERO = Decimal(0)


class StateValue(Struct, frozen=True):
    """The value that one key holds."""

    value: Decimal = ZERO
    detail: Mapping[str, Any] | None = None


NOTHING = StateValue()


class Memory:
    """The values that deciding works with: as loaded, then as changed by each event in turn.

    `changed` collects the keys to be written back. Shared by the events of one batch; made anew for each batch.
    """

    def __init__(self, values: Mapping[str, StateValue] | None = None) -> None:
        self.values: dict[str, StateValue] = dict(values or {})
        self.windows: dict[str, list[tuple[datetime, Decimal]]] = {}
        """The entries that sliding limits know, by key: moments near the event and what was given at each, sorted."""
        self.changed: set[str] = set()

    def get(self, key: str) -> StateValue:
        return self.values.get(key, NOTHING)

    def put(self, key: str, value: StateValue) -> None:
        self.values[key] = value
        self.changed.add(key)

    def add(self, key: str, amount: Decimal) -> None:
        before = self.get(key)
        self.put(key, StateValue(plus(before.value, amount), before.detail))

    def changes(self) -> dict[str, StateValue]:
        """The values to write back, in the order of their keys."""
        return {key: self.values[key] for key in sorted(self.changed)}
