"""Actions: rewards that are owed because of a fact, and their way to the service that pays."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

from connect.model.values import NO_NUL, Amount, Rounding

ActionStatus = Literal["pending", "blocked", "awaiting_approval", "dispatched", "completed", "failed", "cancelled"]
Failure = Literal["refused", "exhausted", "reported"]
"""refused: the command is wrong, says its target; exhausted: given up, effect unknown; reported: by the target."""


class ReversalTerms(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How an action can be taken back, frozen when it was given."""

    link: str
    """The key of the value that ties later facts to this one (`engine.links`)."""
    fraction: str
    after_completion: Literal["compensate", "review", "keep"]
    scale: int
    round: Rounding | None


class RewardAction(Struct, kw_only=True, frozen=True):
    """One effect owed because of one event. Its id comes from the fact and is the idempotency key all the way down."""

    id: UUID
    event_id: UUID
    rule_key: str
    rule_version: int
    effect_key: str
    target: str
    command: str
    recipient_role: str
    user_id: str
    amount: Amount
    unit: str
    params: dict[str, Any] = {}
    status: ActionStatus = "pending"
    failure: Failure | None = None
    attempts: int = 0
    due_at: datetime | None = None
    """When it is next to be claimed: a hold's end, a retry, a crashed sender's lease, a report's deadline."""
    hold_until: datetime | None = None
    last_error: str | None = None
    reference: str | None = None
    reverses: UUID | None = None
    created_at: datetime
    dispatched_at: datetime | None = None
    completed_at: datetime | None = None
    occurred_at: datetime
    """The moment at which the action's event occurred: limits keep their periods by it."""
    budget: str | None = None
    refills: bool = False
    """true: an amount that is taken back returns to the budget."""
    arm: str | None = None
    """The variant of its rule that the user met."""
    reversal: ReversalTerms | None = None
    reversed: Amount = "0"
    """How much of it was taken back and no longer counts in limits."""
    frees_claim: bool = False
    """true: the reversal's amount is in the original's `reversed`. One that awaits approval frees nothing yet."""


class DispatchAttempt(Struct, kw_only=True, frozen=True):
    """One sending of a command, and what came of it."""

    n: int
    started_at: datetime
    duration_ms: float
    outcome: str
    status_code: int | None = None
    error: str | None = None
    excerpt: str | None = None
    """The first 1,000 characters of the reply."""


class ClaimedCommand(Struct, kw_only=True, frozen=True):
    """A command this process holds under a lease: what a transport sends, and what settling it needs to know."""

    id: UUID
    event_id: UUID
    target: str
    body: str
    """The bytes every attempt sends, made once at deciding."""
    n: int
    """The number of this attempt and the fencing token: only who holds the newest may settle."""
    retries: int
    """Failed sendings before this one, since the first or since a person's retry: the n of the backoff."""
    give_up_at: datetime
    claimed_at: datetime
    """By the database's clock, as is `lease_until`."""
    lease_until: datetime


class Settlement(Struct, kw_only=True, frozen=True):
    """Says what an attempt makes of its action, which happens only while the action is dispatched as attempt `n`."""

    id: UUID
    n: int
    status: ActionStatus
    retries: int
    failure: Failure | None = None
    due_at: datetime | None = None
    accepted_at: datetime | None = None
    last_error: str | None = None
    reference: str | None = None
    completed_at: datetime | None = None


class ResultReport(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A target's later word on a command it accepted."""

    status: Literal["completed", "failed"]
    reference: Annotated[str, Meta(max_length=1024, pattern=NO_NUL)] | None = None
    reason: Annotated[str, Meta(max_length=4096, pattern=NO_NUL)] | None = None


Disposition = Literal["applied", "repeated", "contradicted", "refused"]
"""A report ended the action, said again what was known, contradicted an end, or was of a command never sent."""

Operation = Literal["retry", "cancel", "approve", "reject"]
"""The operations that a person may carry out on an action."""


class CommandEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fact behind a command, as its target sees it: only what was reported, so that its bytes never change."""

    id: UUID
    source: str
    external_id: str
    event_type: str
    occurred_at: datetime | None = None
    """Absent where the reporter left it out."""


class CommandRule(Struct, frozen=True, kw_only=True):
    key: str
    version: int


class Command(Struct, frozen=True, kw_only=True):
    """The message a target receives; its bytes are made once, at deciding, and stored with the action."""

    id: UUID
    type: str
    user_id: str
    amount: Amount
    unit: str
    params: dict[str, Any]
    event: CommandEvent
    rule: CommandRule
    reverses: UUID | None = None
