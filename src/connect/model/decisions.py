"""Decisions: the actions, the changes of state and the reasons that deciding a fact gives."""

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

from connect.model.actions import RewardAction
from connect.model.values import Amount

Outcome = Literal[
    "gave", "not_matched", "missing", "limited", "short_of_budget", "lost_group", "held_out", "not_live", "error",
    "already_gave", "took_back", "no_recipient", "zero", "stopped",
]  # fmt: skip


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


class Exposure(Struct, frozen=True, kw_only=True):
    """A user met an arm of an experiment (`holdout` among them): the first time counts."""

    experiment: str
    user_id: str
    arm: str
    propensity: float
    """The chance the user had of this arm, of all whom the rule's condition lets in."""
    rule: str


class TakenBack(Struct, frozen=True, kw_only=True):
    """Tells what a decision does to an action that stood before it."""

    action_id: UUID
    cancel: bool
    """true: it was never sent and is cancelled as a whole."""
    reversed: Amount
    """How much of it no longer counts, in limits and budgets, from now on: the new total."""


class Decision(Struct, frozen=True, kw_only=True):
    """Tells what one fact earns by one ruleset version, and why."""

    event_id: UUID
    ruleset_version: int
    actions: tuple[RewardAction, ...] = ()
    trace: tuple[RuleTrace, ...] = ()
    warnings: tuple[Warning_, ...] = ()
    exposures: tuple[Exposure, ...] = ()
    taken_back: tuple[TakenBack, ...] = ()
    read: dict[str, Any] = {}
    """The state values it was made with: deciding again with these gives the same."""
    alerts: tuple[str, ...] = ()
    """Sentences for an operator: a rail was passed."""
