"""The state that deciding may know beside the event and the rules."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from connect.engine.counters import CompiledCounter, Counted, counted
from connect.engine.expression import Activation, make_activation
from connect.engine.links import Link, LinkPath, event_values
from connect.engine.state import Memory
from connect.model import EconomicEvent, RewardAction


class LinkKeys(Struct, frozen=True):
    """The links of an event, by path: where it takes back, and where it can be taken back."""

    reverses: Mapping[LinkPath, str] = {}
    original: Mapping[LinkPath, str] = {}

    @property
    def all(self) -> set[str]:
        return {*self.reverses.values(), *self.original.values()}


class Cascade(Struct, frozen=True):
    """An action whose rule read a counter that an event leaves smaller, with what its decision had read."""

    action: RewardAction
    event: EconomicEvent
    counters: Mapping[str, Any]
    is_reversed: bool = False
    """Whether a reversal waits for a person to approve it, or was rejected: one that took something does not count."""


class Reading:
    """One event as expressions read it, and what it adds to counters: each worked out once, by whoever asks first."""

    def __init__(self, event: EconomicEvent) -> None:
        self._event = event
        self._activation: Activation | None = None
        self._parts: dict[str, tuple[Counted, ...]] = {}

    @property
    def activation(self) -> Activation:
        """Made only when an expression is evaluated at all (35 us)."""
        if self._activation is None:
            self._activation = make_activation(event_values(self._event))
        return self._activation

    def counted(self, counter: CompiledCounter) -> tuple[Counted, ...]:
        parts = self._parts.get(counter.id)
        if parts is None:
            parts = self._parts[counter.id] = counted(counter, self._event, self.activation)
        return parts


class State(Struct, frozen=True, kw_only=True):
    """Loaded by the shell under the locks that `needs` and `claims` asked for. `memory` is changed by deciding."""

    now: datetime
    today: datetime | None = None
    """The day that rails are kept for, where it was settled before `now`."""
    memory: Memory = field(default_factory=Memory)
    given: frozenset[str] = frozenset()
    """Keys of rules that already gave for this event, in any version: a replay leaves them out."""
    counted: bool = False
    """The event was decided before, so counters have it already."""
    undone: frozenset[str] = frozenset()
    """Ids of counters that do not take the event, as what takes it back came first."""
    links: LinkKeys = LinkKeys()
    reverses: Mapping[LinkPath, Link] = {}
    """The facts that the event takes back, by the path that links them."""
    reversers: Mapping[LinkPath, Sequence[EconomicEvent]] = {}
    """The facts that came before the event and take it back."""
    cascades: tuple[Cascade, ...] = ()
    undo: Mapping[str, Mapping[str, str]] = {}
    """Target -> command -> the command that takes it back."""
    reading: Reading | None = None
    """The reading of the event, where the shell had to read it already."""
    arms: Mapping[str, str] = {}
    """Rule key -> the arm to take, whatever the hash says."""
    shows_values: bool = True
    """false: traces come without the values that were read. Nothing is decided by them, and a backtest shows none."""
    recorded: Mapping[str, Any] | None = None
    """The values that an earlier decision read: this one is to come out the same."""
