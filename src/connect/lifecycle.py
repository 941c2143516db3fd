"""Every transition of an action, as pure functions: the clock and chance come in as arguments, new states go out.

`store.claims`, `store.results` and `store.operations` carry these out with guarded UPDATEs.
"""

from datetime import datetime, timedelta
from typing import Literal, assert_never

from msgspec import Struct

from connect.model import (
    ActionStatus,
    ClaimedCommand,
    Disposition,
    Failure,
    Operation,
    ResultReport,
    RewardAction,
    Settlement,
    Target,
)

RETRY_AFTER_CAP_S = 3600.0
"""A target may ask for patience, not for eternity."""
DOUBLINGS_MAX = 64
"""Past this many the cap has long been reached; without it 2**n would overflow a float."""
REASON_CHARACTERS_MAX = 1000
REFERENCE_CHARACTERS_MAX = 1024


class Completed(Struct, frozen=True, tag="completed"):
    """The target did it."""

    reference: str | None = None


class Accepted(Struct, frozen=True, tag="accepted"):
    """The target took it and will report."""


class Refused(Struct, frozen=True, tag="refused"):
    """The command is wrong; sending it again cannot help."""

    reason: str


class Misconfigured(Struct, frozen=True, tag="misconfigured"):
    """The target is wrong (a deploy, a key, a route, an address): retried, and somebody is told."""

    reason: str


class Retriable(Struct, frozen=True, tag="retriable"):
    """Not now: the effect may or may not have happened, the same key asks again."""

    reason: str
    retry_after_s: float | None = None
    holds_lane: bool = False
    """The wish of `retry_after_s` is meant for every command to this target, not for this one."""
    alive: bool = False
    """The target answered as one that works does (busy, not yet): no fault of its own."""


Outcome = Completed | Accepted | Refused | Misconfigured | Retriable


class Answer(Struct, frozen=True, kw_only=True):
    """The answer that a transport brings back for one command."""

    outcome: Outcome
    status_code: int | None = None
    excerpt: str | None = None


def is_fault(outcome: Outcome) -> bool:
    """Whether it speaks against the target itself: what its breaker counts."""
    return isinstance(outcome, Misconfigured) or (isinstance(outcome, Retriable) and not outcome.alive)


def outcome_name(outcome: Outcome) -> str:
    """Names an outcome by one word for the table, the log and the metric."""
    return str(outcome.__struct_config__.tag)


def settle(command: ClaimedCommand, target: Target, outcome: Outcome, now: datetime, jitter: float) -> Settlement:
    """Returns what an attempt's outcome makes of its action. `now` is the database's time, `jitter` lies in [0, 1)."""
    match outcome:
        case Completed(reference):
            return Settlement(
                id=command.id, n=command.n, status="completed", retries=command.retries,
                reference=storable(reference, REFERENCE_CHARACTERS_MAX) if reference else None, completed_at=now,
            )  # fmt: skip
        case Accepted():
            return Settlement(
                id=command.id, n=command.n, status="dispatched", retries=command.retries,
                accepted_at=now, due_at=now + timedelta(seconds=target.result_deadline_s),
            )  # fmt: skip
        case Refused(reason):
            return _failed(command, "refused", command.retries, reason, now)
        case Misconfigured(reason):
            return _retried(command, target, reason, _backoff_of(command, target, jitter), now)
        case Retriable(reason, retry_after_s):
            wished_s = None if retry_after_s is None else min(max(retry_after_s, 0.0), RETRY_AFTER_CAP_S)
            delay_s = _backoff_of(command, target, jitter) if wished_s is None else wished_s
            return _retried(command, target, reason, delay_s, now)
        case _:
            assert_never(outcome)


def backoff_s(retries: int, base_s: float, cap_s: float, jitter: float) -> float:
    """Full jitter: uniform in [0, min(cap, base * 2^retries)).

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return jitter * min(cap_s, base_s * 2.0 ** min(retries, DOUBLINGS_MAX))


def _backoff_of(command: ClaimedCommand, target: Target, jitter: float) -> float:
    return backoff_s(command.retries, target.backoff_base_s, target.backoff_cap_s, jitter)


def _retried(command: ClaimedCommand, target: Target, reason: str, delay_s: float, now: datetime) -> Settlement:
    retries = command.retries + 1
    spent = target.attempts_max is not None and retries >= target.attempts_max
    if spent or now >= command.give_up_at:
        return _failed(command, "exhausted", retries, reason, now)
    return Settlement(
        id=command.id, n=command.n, status="pending", retries=retries,
        due_at=now + timedelta(seconds=delay_s), last_error=storable(reason, REASON_CHARACTERS_MAX),
    )  # fmt: skip


def _failed(command: ClaimedCommand, failure: Failure, retries: int, reason: str, now: datetime) -> Settlement:
    return Settlement(
        id=command.id, n=command.n, status="failed", failure=failure, retries=retries,
        last_error=storable(reason, REASON_CHARACTERS_MAX), completed_at=now,
    )  # fmt: skip


class Ending(Struct, frozen=True, kw_only=True):
    """Says what a target's report makes of an action."""

    status: Literal["completed", "failed"]
    failure: Failure | None
    last_error: str | None
    reference: str | None
    completed_at: datetime | None


def report(action: RewardAction, result: ResultReport, now: datetime) -> tuple[Disposition, Ending | None]:
    """Judges a target's later word, whichever attempt it answers. The second value is None when nothing changes.

    A report ends what was sent and has no end. Our own give-up (`exhausted`) was a guess, so any report replaces it.
    After an end that the target reported, or a person's write-off, the same word is a repeat and another contradicts.
    """
    if action.attempts == 0:
        return "refused", None
    if action.status in ("pending", "dispatched", "blocked") or action.failure == "exhausted":
        return "applied", _ending(action, result, now)
    if result.status != ("completed" if action.status == "completed" else "failed"):
        return "contradicted", None
    if action.status == "completed" and action.reference is None and result.reference:
        return "repeated", _ending(action, result, action.completed_at or now)
    return "repeated", None


def _ending(action: RewardAction, result: ResultReport, at: datetime) -> Ending:
    reference = result.reference or action.reference
    if result.status == "completed":
        return Ending(status="completed", failure=None, last_error=None, reference=reference, completed_at=at)
    reason = storable(result.reason or "the target reported a failure", REASON_CHARACTERS_MAX)
    return Ending(status="failed", failure="reported", last_error=reason, reference=reference, completed_at=at)


def allowed(operation: Operation, status: ActionStatus, attempts: int) -> bool:
    """Whether a person may do this to an action in this state. What may be on its way is never cancelled."""
    match operation:
        case "retry":
            return status == "failed"
        case "cancel":
            return status == "failed" or (status == "pending" and attempts == 0)
        case "approve" | "reject":
            return status == "awaiting_approval"
        case _:
            assert_never(operation)


def storable(text: str, characters_max: int) -> str:
    """The text as PostgreSQL can hold it: no NUL, no lone surrogate, and not longer than this."""
    return text[:characters_max].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
