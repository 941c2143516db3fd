"""One target's lane: how many of its commands may be on their way, and how soon the next may follow."""

from collections.abc import Sequence

from connect.dispatch.targets import Transport
from connect.model import ClaimedCommand, Target

CLAIM_MAX = 500
"""Commands one claim takes for one lane: a crash leaves no more of them to their leases."""
BURST_S = 0.1
"""A rate is kept by a token bucket that holds what comes in over this time, and at least one token."""


class Lane:
    """Lives in one process: `max_inflight` and `rate` hold for each dispatcher, so N of them send N times as much.

    In flight are sendings; one may carry several commands. Times are of a monotonic clock, in seconds.
    """

    def __init__(self, target: Target, transport: Transport, now: float) -> None:
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
        free = min((self.target.max_inflight - self._inflight) * self.transport.batch_max, CLAIM_MAX)
        return free if self.target.rate is None else min(free, int(self._fill(now, self.target.rate)))

    def next_slot_s(self, now: float) -> float | None:
        """When time alone gives the next slot; None where only an answer or a poll does."""
        wait_s = max(self._held_until - now, 0.0)
        if self.target.rate is not None and self._fill(now, self.target.rate) < 1:
            wait_s = max(wait_s, (1 - self._tokens) / self.target.rate)
        return wait_s if self.more and wait_s > 0 else None

    def took(self, commands: Sequence[ClaimedCommand], slots: int) -> list[Sequence[ClaimedCommand]]:
        """Cuts the claimed commands into sendings of as many as one may carry; each sending ends with `freed`."""
        most = self.transport.batch_max
        sendings = [commands[start : start + most] for start in range(0, len(commands), most)]
        self._inflight += len(sendings)
        self._tokens -= len(commands)
        self.more = len(commands) == slots
        return sendings

    def freed(self) -> None:
        self._inflight -= 1

    def hold(self, until: float) -> None:
        """The target asked for patience: nothing new is claimed for it before."""
        self._held_until = max(self._held_until, until)

    def _fill(self, now: float, rate: float) -> float:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        return self._tokens
