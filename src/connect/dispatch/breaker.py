"""The breaker of each target as one process sees it: what is shared of it lies in the database.

Faults of the target itself, one after the other, open it for a while: nothing is claimed, so no attempt is counted.
Then one process sends one command, the probe; its answer closes the breaker or opens it for longer.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from connect.lifecycle import RETRY_AFTER_CAP_S, Misconfigured, Outcome, Refused, Retriable, is_fault, storable
from connect.model import Target
from connect.store import targets
from connect.store.targets import Gate, Health
from connect.telemetry import log

REFRESH_S: Final = 0.5
"""How late a process knows of a pause; what it claims meanwhile is refused by the claim itself."""
FAILURE_CHARACTERS_MAX: Final = 500


class Sent(Struct, frozen=True, kw_only=True):
    """One answered sending of a command, as the breaker looks at it."""

    target: str
    outcome: Outcome
    started_at: datetime
    is_probe: bool


class Gates:
    """This process's view, at most `REFRESH_S` old."""

    def __init__(self, lanes: Mapping[str, Target]) -> None:
        self._targets = lanes
        self._gates: dict[str, Gate] = {}
        self._troubled: set[str] = set()
        self._looked_at = float("-inf")

    def is_stale(self, now: float) -> bool:
        return now - self._looked_at > REFRESH_S

    async def refresh(self, connection: Any, now: float) -> None:
        self._gates = await targets.read_gates(connection)
        self._troubled = {name for name, gate in self._gates.items() if gate.failures or gate.open_until is not None}
        self._looked_at = now

    def lets_through(self, name: str) -> bool:
        """Whether claiming for it is worth the asking."""
        return name not in self._gates or self._gates[name].standing in ("closed", "half_open")

    async def probes(self, connection: Any, names: Iterable[str]) -> set[str]:
        """Returns those of the names that are half open and that this process is to probe now."""
        asked = [name for name in names if name in self._gates and self._gates[name].probeable]
        return await targets.take_probes(connection, {name: self._targets[name].lease_s for name in asked})

    def is_half_open(self, name: str) -> bool:
        return name in self._gates and self._gates[name].standing == "half_open"

    async def tell(self, connection: Any, sent: Sequence[Sent]) -> None:
        """Takes to all processes what these answers say of their targets. Raises what the database raises."""
        seen = {
            name: health
            for name in {one.target for one in sent}
            if self._is_news(name, health := self._health([one for one in sent if one.target == name]))
        }
        if not seen:
            return
        self._troubled |= seen.keys()
        for name in await targets.tell_health(connection, seen):
            log.warning("breaker_opened", target=name, last_failure=seen[name].last_failure)
        self._looked_at = float("-inf")

    def _is_news(self, name: str, health: Health) -> bool:
        return bool(health.failures or health.held_s or health.probe) or name in self._troubled

    def _health(self, sent: Sequence[Sent]) -> Health:
        alive_at, failures, last, held_s = None, 0, None, 0.0
        for one in sent:
            if is_fault(one.outcome):
                failures += 1
                last = _reason(one.outcome)
            else:
                alive_at, failures = max(alive_at or one.started_at, one.started_at), 0
            if isinstance(one.outcome, Retriable) and one.outcome.holds_lane:
                held_s = max(held_s, min(one.outcome.retry_after_s or 0.0, RETRY_AFTER_CAP_S))
        probed = [one for one in sent if one.is_probe]
        return Health(
            alive_at=alive_at,
            failures=failures,
            last_failure=last,
            probe=None if not probed else "fault" if is_fault(probed[-1].outcome) else "alive",
            held_s=held_s,
            open_base_s=self._targets[sent[0].target].backoff_base_s,
        )


def _reason(outcome: Outcome) -> str | None:
    said = isinstance(outcome, Refused | Misconfigured | Retriable)
    return storable(outcome.reason, FAILURE_CHARACTERS_MAX) if said else None
