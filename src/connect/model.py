"""The nouns, once: each struct is the wire form, the domain value and the database row.

A second struct stands only where the wire truly differs, and is named for the difference
(`ReportedEvent`: a fact as its reporter sends it, before Connect knows it).
Amounts are decimal strings everywhere (never floats, never exponents): `Amount`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta, Struct

Amount = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,59})(\.[0-9]{1,18})?\Z")]
"""A non-negative decimal as text: at most 60 digits before and 18 after the point."""

Name = Annotated[str, Meta(min_length=1, max_length=255)]
EventType = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")]
ZonedTime = Annotated[datetime, Meta(tz=True)]
NO_NUL = r"^[^\x00]*\Z"
"""PostgreSQL's text holds every character but this one."""

# --- facts ---------------------------------------------------------------------------------------

EventStatus = Literal["received", "decided", "failed"]
"""received: recorded, a worker will decide it; decided; failed: five tries at deciding failed, a replay mends it."""

Effects = Literal["all", "none"]
"""none: recorded and traced, nothing given (history)."""


class ReportedEvent(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A fact as its reporter sends it. Identity is (`source`, `external_id`), for ever."""

    external_id: Name
    event_type: EventType
    source: Name | None = None
    occurred_at: ZonedTime | None = None
    actor_user_id: Name | None = None
    primary_subject_user_id: Name | None = None
    parties: dict[Name, Name | Annotated[list[Name], Meta(max_length=64)]] | None = None
    context: dict[str, Any] | None = None


class EconomicEvent(Struct, kw_only=True, frozen=True):
    """A recorded fact, immutable but for the outcome of deciding it."""

    id: UUID
    external_id: str
    source: str
    event_type: str
    occurred_at: datetime
    received_at: datetime
    actor_user_id: str | None = None
    primary_subject_user_id: str | None = None
    parties: dict[str, str | list[str]] = {}
    context: dict[str, Any] = {}
    extensions: dict[str, Any] = {}
    """CloudEvents extension attributes that Connect does not know: kept, never read."""
    effects: Effects = "all"
    status: EventStatus = "received"
    ruleset_version: int | None = None
    decided_at: datetime | None = None


# --- rules ---------------------------------------------------------------------------------------

Rounding = Literal["down", "up", "half_even", "half_up"]
RuleKey = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")]
Symbol = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}\Z")]
"""The name of a target, a command or a unit."""
EventPattern = Annotated[
    str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.:-]{0,127}|[A-Za-z0-9][A-Za-z0-9_.:-]{0,125}\.\*)\Z")
]
"""An event type, or a prefix of types: `purchase.*`."""
Duration = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}[smhdw]\Z")]
"""A length of time: 30s, 15m, 6h, 14d, 2w."""


class Unit(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an amount counts. `scale`: decimal places; `worth`: shown beside it, e.g. `0.01 EUR`."""

    scale: Annotated[int, Meta(ge=0, le=18)] = 0
    worth: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)? [A-Z]{3}\Z")] | None = None


class Each(
    Struct,
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"items": "in", "name": "as"},
):
    """One action for each element of a list; in its expressions the element is called `name`, its position `rank`."""

    items: str
    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
    recipient: str
    amount: str | int | None = None


class Effect(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a rule promises: one command to one target for each recipient."""

    target: Symbol
    command: Symbol
    unit: Symbol
    recipient: str | None = None
    """`actor`, `subject` or `parties.<role>`; absent where `each` names it."""
    amount: str | int | None = None
    """An expression over exact decimals; absent where `each` has it."""
    each: Each | None = None
    round: Rounding | None = None
    hold: Duration | None = None
    review: bool = False
    """true: a person approves each action before it is sent."""
    params: dict[str, Any] = {}
    """Sent along with the command. A text that starts with `=` is an expression; `==` escapes."""
    key: Symbol | None = None

    @property
    def effect_key(self) -> str:
        """Names the effect within its rule, never its position, so that ids survive a reordering."""
        return self.key or f"{self.target}.{self.command}.{self.unit}"


class RewardRule(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a fact of a type meets a condition, what it earns and for whom."""

    key: RuleKey
    event_type: EventPattern
    actions: Annotated[list[Effect], Meta(min_length=1, max_length=32)]
    name: Annotated[str, Meta(max_length=255)] = ""
    description: Annotated[str, Meta(max_length=4096)] = ""
    enabled: bool = True
    starts_at: ZonedTime | None = None
    ends_at: ZonedTime | None = None
    """The window is half-open, [starts_at, ends_at), judged by the fact's `occurred_at`."""
    priority: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] = 0
    condition: str | list[str] = []
    """One CEL text, or a list of which all must hold."""
    all_or_nothing: bool = False

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.condition,) if isinstance(self.condition, str) else tuple(self.condition)


class Ruleset(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole document economists write, YAML or JSON."""

    version: Literal[1] = 1
    """Of the format, not of the content."""
    timezone: str = "UTC"
    units: dict[Symbol, Unit] = {}
    rules: list[RewardRule] = []


class RulesetVersion(Struct, kw_only=True, frozen=True):
    """One immutable state of the ruleset. `published_at` is null for a draft that never went live."""

    version: int
    document: Ruleset
    rule_versions: dict[str, int] = {}
    """Rule key -> the rule's own version; filled when published."""
    author: str = ""
    note: str = ""
    created_at: datetime
    published_at: datetime | None = None


# --- decisions -----------------------------------------------------------------------------------

Outcome = Literal["gave", "not_matched", "missing", "not_live", "error", "already_gave", "no_recipient", "zero"]


class RuleTrace(Struct, frozen=True, array_like=True, omit_defaults=True):
    """Why one rule did or did not give. An array in the table, spelled out by API and CLI."""

    rule: str
    outcome: Outcome
    line: int | None = None
    """1-based line of the condition, where the outcome is a line's."""
    values: Mapping[str, Any] = {}
    """The values that line (or the amounts) read, by field path."""
    detail: str = ""


class Warning_(Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"kind": "code"}):
    """Something the reporter may want to mend, told in the answer of an accepted event."""

    kind: Literal["no_rule_for_type", "field_missing"]
    detail: str
    rule: str | None = None
    line: int | None = None
    field: str | None = None
    nearest: str | None = None


class Decision(Struct, frozen=True, kw_only=True):
    """What one fact earns by one ruleset version, and why."""

    event_id: UUID
    ruleset_version: int
    actions: tuple["RewardAction", ...] = ()
    trace: tuple[RuleTrace, ...] = ()
    warnings: tuple[Warning_, ...] = ()


# --- actions -------------------------------------------------------------------------------------

ActionStatus = Literal["pending", "blocked", "awaiting_approval", "dispatched", "completed", "failed", "cancelled"]
Failure = Literal["refused", "exhausted", "reported"]
"""refused: the command is wrong, says its target; exhausted: given up, effect unknown; reported: by the target."""


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
    """What an attempt makes of its action, carried out only while the action is still dispatched as attempt `n`."""

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
"""What a report did: ended the action; said again what was known; contradicted an end; was of a command never sent."""

Operation = Literal["retry", "cancel", "approve", "reject"]
"""What a person may do to an action."""


class CommandEvent(Struct, frozen=True, kw_only=True):
    """The fact behind a command, as its target sees it."""

    id: UUID
    source: str
    external_id: str
    event_type: str
    occurred_at: datetime


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


# --- targets -------------------------------------------------------------------------------------

TEN_YEARS_S = 315_360_000
"""No patience is longer, so that a moment plus a patience is always a moment."""
LEASE_MARGIN_S = 20.0


class Target(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service that pays: where its commands go and how patiently. Times in seconds (`_s`)."""

    url: str
    """The scheme picks the transport."""
    secret: tuple[str, ...] = ()
    """`whsec_` + base64; several while one is rotated out: each signs."""
    internal: bool = False
    """Private and loopback addresses are allowed."""
    max_inflight: Annotated[int, Meta(ge=1, le=10_000)] = 20
    rate: Annotated[float, Meta(gt=0)] | None = None
    connect_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 2
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10
    backoff_base_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 5
    backoff_cap_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 3600
    give_up_after_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 259_200
    attempts_max: Annotated[int, Meta(ge=1)] | None = None
    result_deadline_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 86_400
    lease_margin_s: Annotated[float, Meta(gt=0, le=600)] = LEASE_MARGIN_S
    """Another than this is taken under CONNECT_ENV=test only, where a lease has to end while one watches."""

    @property
    def lease_s(self) -> float:
        """How long a claim lasts: longer than a sending can take, so that only a dead or paused sender outlives it."""
        return self.timeout_s + self.lease_margin_s

    def __repr__(self) -> str:
        return f"Target(url={self.url.split('?')[0].rpartition('@')[2]!r}, internal={self.internal})"


# --- access --------------------------------------------------------------------------------------

Scope = Literal[
    "events:write", "events:read", "events:backfill", "rules:read", "rules:write",
    "actions:read", "actions:operate", "results:write", "analytics:read", "admin",
]  # fmt: skip


class ApiKey(Struct, kw_only=True, frozen=True):
    """A credential. Only the SHA-256 of its secret is stored."""

    id: UUID
    name: str
    scopes: list[Scope]
    source: str | None = None
    """Bound: its events carry this source, and it sees no other's."""
    target: str | None = None
    """Bound: it may report results of this target's actions only."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
