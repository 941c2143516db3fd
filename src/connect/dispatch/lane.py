"""One target's lane: how many of its commands may be on their way, and how soon the next may follow."""

from connect.dispatch.targets.http import HttpTransport
from connect.model import Target

BURST_S = 0.1
"""A rate is kept by a token bucket that holds what comes in over this time, and at least one token."""


class Lane:
    """Lives in one process: `max_inflight` and `rate` hold for each dispatcher, so N of them send N times as much.

    Times are of a monotonic clock, in seconds.
    """

    def __init__(self, target: Target, transport: HttpTransport, now: float) -> None:
        self.target = target
        self.transport = transport
        self.more = True
        """The last claim filled every slot: a slot that comes free is worth another claim at once."""
        self._inflight = 0
        self._held_until = now
        self._tokens = self._burst = max(1.0, (target.rate or 0.0) * BURST_S)
        self._filled_at = now

    def slots(self, now: float) -> int:
        """How many commands may be claimed now."""
        if now < self._held_until:
            return 0
        free = self.target.max_inflight - self._inflight
        return free if self.target.rate is None else min(free, int(self._fill(now, self.target.rate)))

    def next_slot_s(self, now: float) -> float | None:
        """When time alone gives the next slot; None where only an answer or a poll does."""
        wait_s = max(self._held_until - now, 0.0)
        if self.target.rate is not None and self._fill(now, self.target.rate) < 1:
            wait_s = max(wait_s, (1 - self._tokens) / self.target.rate)
        return wait_s if self.more and wait_s > 0 else None

    def took(self, count: int, slots: int) -> None:
        self._inflight += count
        self._tokens -= count
        self.more = count == slots

    def freed(self) -> None:
        self._inflight -= 1

    def hold(self, until: float) -> None:
        """The target asked for patience: nothing new is claimed for it before."""
        self._held_until = max(self._held_until, until)

    def _fill(self, now: float, rate: float) -> float:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        return self._tokens
