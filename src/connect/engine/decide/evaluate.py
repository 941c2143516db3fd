"""Before anything is claimed: what the event adds to counters, and what each rule would give.

Rules are weighed by the event, the counters and the variants alone. What they would give then names the limits and
budgets to lock; `give` settles who gets it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from connect.engine.amounts import CONTEXT
from connect.engine.compile import CompiledEffect, CompiledRule
from connect.engine.counters import CompiledCounter, Counted, apply, read, recorded
from connect.engine.decide.counter_reversal import Uncounted, take_out, uncounted
from connect.engine.decide.payouts import Gift, Stopped, clipped, gifts_of, recipient_name
from connect.engine.decide.state import Reading, State
from connect.engine.expression import Activation, Failed, Missing
from connect.engine.index import Plan, Rulebook
from connect.engine.limits import Periods, Slot, parties, slot, subjects
from connect.engine.periods import utc_text
from connect.engine.state import ZERO
from connect.engine.variants import Assignment, assign
from connect.model import EconomicEvent, RewardRule, RuleTrace, Warning_


class Candidate(Struct, frozen=True):
    """A rule that would give, before groups, limits and budgets."""

    compiled: CompiledRule
    gifts: tuple[tuple[CompiledEffect, Gift], ...]
    values: Mapping[str, Any]
    """The values that the amounts read, for the trace."""
    arm: Assignment | None = None
    by: str = ""
    """The user its variant was chosen by."""
    slots: tuple[tuple[Slot, ...], ...] = ()
    """The slots of the rule's limits that each gift uses up; two limits may share one. Empty without limits."""

    @property
    def total(self) -> Decimal:
        """Returns the sum that the rule's group compares: all that the rule would give."""
        total = ZERO
        for _, gift in self.gifts:
            total = CONTEXT.add(total, gift.amount)
        return total


class HeldOut(Struct, frozen=True):
    """A rule whose user is in its holdout, or takes no part in its experiment (`arm` None)."""

    compiled: CompiledRule
    arm: Assignment | None
    by: str
    trace: RuleTrace


Verdict = Candidate | HeldOut | RuleTrace


class Weighed(Struct, frozen=True):
    """An event and what its rules would give, in deciding order."""

    event: EconomicEvent
    rulebook: Rulebook
    plan: Plan
    state: State
    verdicts: tuple[tuple[CompiledRule, Verdict], ...]
    counters: Mapping[str, Any]
    """The values that rules read, by name."""
    added: tuple[tuple[CompiledCounter, tuple[Counted, ...]], ...]
    """The additions that the event made to each counter that takes it."""
    gone: Sequence[Uncounted]
    """The originals that the event took out of counters."""
    warnings: tuple[Warning_, ...]


def weigh(event: EconomicEvent, rulebook: Rulebook, state: State) -> Weighed:
    """Counts the event in `state.memory`, and evaluates every rule of its type. Never raises for what they hold.

    What it undoes is taken out of the counters first: its rules read them as it leaves them.
    """
    plan = rulebook.plan(event.event_type)
    weighing = _Weighing(event, rulebook, plan, state)
    verdicts = tuple((compiled, weighing.verdict(compiled)) for compiled in plan.rules)
    return Weighed(
        event=event, rulebook=rulebook, plan=plan, state=state, verdicts=verdicts, counters=weighing.counters,
        added=weighing.added, gone=weighing.gone, warnings=tuple(weighing.warnings),
    )  # fmt: skip


class _Weighing:
    """One event on its way through the rules: the names they know, and what was found missing."""

    def __init__(self, event: EconomicEvent, rulebook: Rulebook, plan: Plan, state: State) -> None:
        self.event, self.rulebook, self.state = event, rulebook, state
        self.warnings: list[Warning_] = []
        self._reading = state.reading or Reading(event)
        self._bound: Activation | None = None
        self._values_of: dict[tuple[str, ...], dict[str, Any]] = {}
        self.gone = self._take_out() if state.reverses else ()
        self.added = self._count(plan.counting) if plan.counting else ()
        self.counters = self._read(plan.read) if plan.read else {}
        if plan.read:
            self._bound = self._reading.activation.bind({"counters": self.counters})

    @property
    def activation(self) -> Activation:
        return self._bound or self._reading.activation

    def _take_out(self) -> Sequence[Uncounted]:
        if self.state.counted or self.state.recorded is not None:
            return ()
        gone = uncounted(self.event, self.rulebook, self.state.reverses)
        take_out(gone, self.state.memory)
        return gone

    def _count(self, counting: Iterable[CompiledCounter]) -> tuple[tuple[CompiledCounter, tuple[Counted, ...]], ...]:
        if self.state.counted or self.state.recorded is not None:
            return ()
        added: list[tuple[CompiledCounter, tuple[Counted, ...]]] = []
        for counter in counting:
            parts = () if counter.id in self.state.undone else self._reading.counted(counter)
            if parts:
                apply(counter, parts, self.state.memory)
                added.append((counter, parts))
        return tuple(added)

    def _read(self, counters: Iterable[CompiledCounter]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for counter in counters:
            if self.state.recorded is not None:
                found = recorded(self.state.recorded.get("counters", {}), counter.name)
            else:
                found = read(counter, self.event, self.activation, self.state.memory)
            if found is not None:
                values[counter.name] = found
        return values

    def verdict(self, compiled: CompiledRule) -> Verdict:
        key = compiled.rule.key
        if not self.state.given.isdisjoint(compiled.keys):
            return RuleTrace(key, "already_gave")
        if detail := self._not_live(compiled):
            return RuleTrace(key, "not_live", detail=detail)
        if compiled.broken:
            return RuleTrace(key, "error", detail=compiled.broken)
        return self._failed_line(compiled) or self._weigh(compiled)

    def _not_live(self, compiled: CompiledRule) -> str:
        """Why the rule does not apply to the event, or nothing. The window is half-open: [starts_at, ends_at)."""
        if detail := closed_window(compiled.rule, self.event.occurred_at):
            return detail
        building = self.rulebook.published.building
        if building and compiled.counters:
            names = [name for name in sorted(compiled.counters) if self.rulebook.counters[name].id in building]
            return f"the counter {names[0]} is being built from history" if names else ""
        return ""

    def _failed_line(self, compiled: CompiledRule) -> RuleTrace | None:
        for line, condition in enumerate(compiled.conditions, start=1):
            held = condition.evaluate(self.activation)
            if held is not True:
                return self._trace_line(compiled.rule.key, line, held, self.values(condition.reads))
        return None

    def _trace_line(self, key: str, line: int, held: bool | Missing | Failed, values: Mapping[str, Any]) -> RuleTrace:
        match held:
            case Missing(field):
                self._warn_of_missing(key, line, field)
                return RuleTrace(key, "missing", line, values, f"{field} is missing")
            case Failed(reason):
                return RuleTrace(key, "error", line, values, reason)
            case _:
                return RuleTrace(key, "not_matched", line, values)

    def _warn_of_missing(self, key: str, line: int | None, field: str) -> None:
        where = f"line {line} of its condition" if line else "its actions"
        detail = f"the rule {key} reads {field} in {where}, and the event has no such field"
        self.warnings.append(Warning_(kind="field_missing", detail=detail, rule=key, line=line, field=field))

    def _weigh(self, compiled: CompiledRule) -> Verdict:
        key = compiled.rule.key
        values = self.values(compiled.amount_reads)
        if self.event.effects == "none":
            return RuleTrace(key, "not_live", None, values, "reported with effects=none")
        activation, arm, by = self.activation, None, ""
        if compiled.variants is not None:
            found = self._assigned(compiled)
            if isinstance(found, RuleTrace | HeldOut):
                return found
            arm, by = found
            activation = activation.bind({"variant": arm.values})
            values = {**values, **activation.values_read(("variant.name",))}
        try:
            gifts = self._gifts(compiled, activation)
        except Stopped as stopped:
            if stopped.field is not None:
                self._warn_of_missing(key, None, stopped.field)
            return RuleTrace(key, stopped.outcome, None, values, stopped.detail)
        return Candidate(compiled, gifts, values, arm, by, self._slots(compiled, gifts) if compiled.meters else ())

    def _slots(
        self, compiled: CompiledRule, gifts: tuple[tuple[CompiledEffect, Gift], ...]
    ) -> tuple[tuple[Slot, ...], ...]:
        periods = Periods(self.event.occurred_at)
        return tuple(
            tuple(
                slot(meter, subject, periods)
                for meter in compiled.meters
                for subject in subjects(meter, self.event, gift.user_id, gift.role)
            )
            for _, gift in gifts
        )

    def _assigned(self, compiled: CompiledRule) -> tuple[Assignment, str] | HeldOut | RuleTrace:
        """The arm of the rule's experiment that the user is in."""
        key, variants = compiled.rule.key, compiled.variants
        written = compiled.rule.variants
        if variants is None or written is None:
            raise AssertionError(key)
        users = parties(self.event, written.by)
        if not users:
            return RuleTrace(key, "no_recipient", detail=f"the event has no {written.by} to choose a variant by")
        arm = assign(variants, users[0], self.state.arms.get(key))
        if arm is None or arm.arm == "holdout":
            why = "in the holdout" if arm else "not in the experiment"
            return HeldOut(compiled, arm, users[0], RuleTrace(key, "held_out", detail=f"{users[0]} is {why}"))
        return arm, users[0]

    def _gifts(self, compiled: CompiledRule, activation: Activation) -> tuple[tuple[CompiledEffect, Gift], ...]:
        """Every gift of one rule, or `Stopped`: a rule gives wholly or not at all, but for recipients it lacks."""
        gifts: list[tuple[CompiledEffect, Gift]] = []
        anyone = False
        for effect in compiled.effects:
            found = gifts_of(effect, self.event, activation)
            if not found and compiled.rule.all_or_nothing:
                raise Stopped(
                    "no_recipient", f"no {recipient_name(effect)} for {effect.key}, and the rule is all or nothing"
                )
            anyone = anyone or bool(found)
            gifts += [(effect, gift) for gift in found if gift.amount]
        if not anyone:
            raise Stopped("no_recipient", f"the event has no {recipient_name(compiled.effects[0])}")
        if not gifts:
            raise Stopped("zero", "every amount is 0")
        return tuple(gifts)

    def values(self, reads: tuple[str, ...]) -> dict[str, Any]:
        """Returns what the trace shows of the fields read. Remembered: the rules of a type read much the same."""
        if not self.state.shows_values:
            return {}
        if reads not in self._values_of:
            self._values_of[reads] = {f: clipped(value) for f, value in self.activation.values_read(reads).items()}
        return self._values_of[reads]


def closed_window(rule: RewardRule, moment: datetime) -> str:
    """Why a rule does not apply at a moment, or nothing. The window is half-open: [starts_at, ends_at)."""
    if not rule.enabled:
        return "disabled"
    if rule.starts_at is not None and moment < rule.starts_at:
        return f"starts {utc_text(rule.starts_at)}"
    if rule.ends_at is not None and moment >= rule.ends_at:
        return f"ended {utc_text(rule.ends_at)}"
    return ""
