"""The ruleset document that economists write, rule by rule."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from connect.model.facts import ReportedEvent
from connect.model.values import (
    COUNTER_NAME,
    FIELD_NAME,
    UNIT_WORTH,
    Cap,
    Duration,
    EventPattern,
    EventType,
    Every,
    Name,
    Party,
    Per,
    Rounding,
    RuleKey,
    Symbol,
    ZonedTime,
)


class Unit(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The thing that an amount counts. `scale`: decimal places; `worth`: shown beside it, e.g. `0.01 EUR`."""

    scale: Annotated[int, Meta(ge=0, le=18)] = 0
    worth: Annotated[str, Meta(pattern=UNIT_WORTH)] | None = None


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
    name: Annotated[str, Meta(pattern=FIELD_NAME)]
    recipient: str
    amount: str | int | None = None
    share: str | None = None
    """Basis points of the effect's amount, an expression; the shares of all elements sum to 10,000."""


class Effect(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule promises an effect: one command to one target for each recipient."""

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


class Limit(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a rule gives to one subject in one period, by `occurred_at`."""

    per: Per
    every: Every | None = None
    within: Duration | None = None
    """A sliding window instead of the calendar: holds in every window of this length that contains the event."""
    uses: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    """Events in which the rule gave to the subject."""
    amount: Cap | None = None
    """The sum of what it gave, in the rule's one unit."""


class Budget(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A cap that rules share."""

    unit: Symbol
    cap: Cap
    refill_on_reversal: bool = False
    closes: bool = False
    """true: after the first denial nothing more is given, also where something smaller would still fit."""


class BudgetUse(
    Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"name": "from"}
):
    name: Symbol
    when_short: Literal["deny", "clip"] = "deny"


class Safety(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Rails, by unit: what is beyond them waits for a person."""

    review_above: dict[Symbol, Cap] = {}
    """The amount of a single action above which a person approves it."""
    per_day: dict[Symbol, Cap] = {}
    """The most that all actions decided on one day in the ruleset's zone may give; one alert a day."""


class SamePath(
    Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"event": "this"}
):
    """Where the later event and the original hold the value that links them, when the places differ."""

    event: str
    original: str


class Counter(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """State per party that expressions read as `counters.<name>`, the current event included."""

    event_type: EventPattern
    of: Party
    kind: Literal["count", "sum", "distinct", "streak"]
    value: str | None = None
    """The expression that is summed (an amount) or told apart (any value)."""
    condition: str | list[str] = []
    """Which events of the type count."""
    every: Every | None = None
    """The step of a streak; the calendar window of the others (absent: of all time)."""
    within: Duration | None = None
    """A sliding window that ends with the event."""
    grace: Annotated[int, Meta(ge=0, le=366)] = 0
    """Steps that may be missed without breaking a streak."""
    zone: str | None = None
    """The zone of the counter's calendar: a name of the IANA database, or an expression such as context.timezone."""
    undone_by: EventPattern | None = None
    same: str | SamePath | None = None
    fraction: str | int = 1
    """How much of the event an undoing event takes back; it is undone once when these sum to 1."""
    start: Literal["history", "publish"] = "history"
    """publish: begins at zero; history: rebuilt from the stored events, and not read before that is done."""

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.condition,) if isinstance(self.condition, str) else tuple(self.condition)


class Group(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Rules of which one gives."""

    pick: Literal["first", "highest", "lowest"]
    unit: Symbol | None = None
    """The unit that highest and lowest compare."""


class Reversal(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a later fact takes back what the rule gave. The terms are frozen with each action."""

    event_type: EventPattern
    same: str | SamePath
    """The path whose value both facts share."""
    source: Literal["same", "any"] = "same"
    fraction: str | int = 1
    """The fraction of the original amount, 0 to 1; several reversals add up to 1 at the most."""
    after_completion: Literal["compensate", "review", "keep"] = "compensate"


class Namespace(
    Struct,
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"start": "from", "end": "to"},
):
    """A share of users that experiments of one name divide among themselves, in percent: [from, to)."""

    name: Symbol
    start: Cap
    end: Cap


class Variants(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An experiment inside a rule. Percentages of `arms` (their `weight`) and `holdout` sum to 100."""

    by: Party
    seed: Annotated[str, Meta(min_length=1, max_length=255)]
    arms: Annotated[dict[Symbol, dict[str, Any]], Meta(min_length=1, max_length=32)]
    """Name -> its weight and the values that expressions read as `variant.<name>`."""
    holdout: Cap = 0
    coverage: Cap = 100
    """Percent of the users who take part at all."""
    namespace: Namespace | None = None


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
    group: Symbol | None = None
    stop: bool = False
    """true: once the rule gave, the rules after it are not asked."""
    all_or_nothing: bool = False
    limits: Annotated[list[Limit], Meta(max_length=16)] = []
    budget: BudgetUse | None = None
    variants: Variants | None = None
    reversal: Reversal | None = None
    formerly: RuleKey | None = None
    """The key the rule had when it first gave: ids of actions and usage of limits stay those of that key."""

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.condition,) if isinstance(self.condition, str) else tuple(self.condition)

    @property
    def identity(self) -> str:
        return self.formerly or self.key


class ExpectedAction(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The action that a test expects an event to give, or with a minus to take back. Absent fields are not compared."""

    rule: RuleKey
    amount: Cap
    user_id: Name | None = None
    unit: Symbol | None = None
    target: Symbol | None = None
    command: Symbol | None = None
    status: Literal["pending", "awaiting_approval"] | None = None


class RulesetTest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A story told to the rules alone: these events, in this order, give exactly that."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    given: Annotated[list[ReportedEvent], Meta(min_length=1, max_length=1000)]
    expect: dict[str, list[ExpectedAction]]
    """external_id -> all that the event gives and takes back; events that are not named are not compared."""
    at: ZonedTime | None = None
    """When the first event without `occurred_at` occurs; each next one a second later."""
    arms: dict[RuleKey, Symbol] = {}
    """Pins rules' variants."""


class Ruleset(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole document economists write, YAML or JSON."""

    version: Literal[1] = 1
    """The version of the format, not of the content."""
    timezone: str = "UTC"
    units: dict[Symbol, Unit] = {}
    budgets: dict[Symbol, Budget] = {}
    safety: Safety = Safety()
    counters: dict[Annotated[str, Meta(pattern=COUNTER_NAME)], Counter] = {}
    groups: dict[Symbol, Group] = {}
    schemas: dict[EventType, dict[str, Any]] = {}
    """JSON Schemas of `context` by event type: with one, a mistyped field is an error when a rule is saved."""
    rules: list[RewardRule] = []
    tests: Annotated[list[RulesetTest], Meta(max_length=1000)] = []


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
