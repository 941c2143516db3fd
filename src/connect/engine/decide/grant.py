"""Who gives: groups, `stop`, limits and budgets, and the actions that come of it."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from connect.engine import state_keys
from connect.engine.amounts import WHOLE_DIGITS_MAX, format_amount, plus
from connect.engine.command import action_id
from connect.engine.compile import CompiledEffect, CompiledRule
from connect.engine.decide.consume import Claims, Denial, Entries
from connect.engine.decide.evaluate import Candidate, HeldOut, Weighed
from connect.engine.decide.payouts import Gift, Stopped
from connect.engine.links import key_of_original
from connect.engine.periods import local_date
from connect.engine.state import StateValue
from connect.engine.variants import Assignment
from connect.model import Exposure, Outcome, ReversalTerms, RewardAction, RuleTrace

ACTIONS_MAX = 1_000
"""The most actions of one event: one transaction writes them all. The rule that passes it fails; those before stand."""


class Giving:
    """One weighed event on its way through its rules: what was given, traced and used up so far."""

    def __init__(self, weighed: Weighed, read: dict[str, Any]) -> None:
        self.weighed = weighed
        self.event, self.state = weighed.event, weighed.state
        self.actions: list[RewardAction] = []
        self.exposures: list[Exposure] = []
        self.alerts: list[str] = []
        self._read = read
        self._traces: dict[str, RuleTrace] = {}
        self._verdicts = {compiled.rule.key: verdict for compiled, verdict in weighed.verdicts}
        self._claims = Claims(self.event, self.state.memory, read)
        self._groups: set[str] = set()

    def run(self) -> list[RuleTrace]:
        """Asks every rule in order; returns why each did or did not give."""
        order = [compiled for compiled, _ in self.weighed.verdicts]
        for place, compiled in enumerate(order):
            self._ask(compiled)
            if compiled.rule.stop and self._gave(compiled):
                self._stop(order[place + 1 :], compiled.rule.key)
                break
        return [self._traces[compiled.rule.key] for compiled in order]

    def _gave(self, compiled: CompiledRule) -> bool:
        found = self._traces.get(compiled.rule.key)
        return found is not None and found.outcome in ("gave", "already_gave")

    def _stop(self, rest: list[CompiledRule], by: str) -> None:
        for compiled in rest:
            key = compiled.rule.key
            self._traces.setdefault(key, RuleTrace(key, "stopped", detail=f"{by} gave, and stops"))

    def _ask(self, compiled: CompiledRule) -> None:
        key, verdict = compiled.rule.key, self._verdicts[compiled.rule.key]
        if key in self._traces:
            return
        match verdict:
            case Candidate() if compiled.rule.group is not None:
                self._ask_group(compiled.rule.group, compiled.pick or "first")
            case Candidate():
                self._give(verdict)
            case HeldOut():
                self._expose(compiled, verdict.arm, verdict.by)
                self._traces[key] = verdict.trace
            case RuleTrace():
                self._traces[key] = verdict

    def _ask_group(self, group: str, pick: str) -> None:
        """The pick of the group gives; when it is denied, the next. Decided where its first rule stands."""
        members = [
            (compiled, self._verdicts[compiled.rule.key])
            for compiled, _ in self.weighed.verdicts
            if compiled.rule.group == group
        ]
        candidates = [verdict for _, verdict in members if isinstance(verdict, Candidate)]
        if pick != "first":
            candidates.sort(key=lambda one: one.total, reverse=pick == "highest")  # stable: ties by priority, then key
        winner = next((compiled.rule.key for compiled, _ in members if self._already(compiled)), None)
        for candidate in candidates:
            if candidate.arm is not None:
                self._expose(candidate.compiled, candidate.arm, candidate.by)
        for candidate in candidates:
            key = candidate.compiled.rule.key
            if winner is not None:
                would = f"{format_amount(candidate.total)} {candidate.gifts[0][0].effect.unit}"
                self._traces[key] = RuleTrace(key, "lost_group", None, candidate.values, f"{winner} gave, not {would}")
            elif self._give(candidate, exposed=True):
                winner = key

    def _already(self, compiled: CompiledRule) -> bool:
        verdict = self._verdicts[compiled.rule.key]
        return isinstance(verdict, RuleTrace) and verdict.outcome == "already_gave"

    def _give(self, candidate: Candidate, *, exposed: bool = False) -> bool:
        """Gives what limits and budgets admit; says whether that is anything."""
        key = candidate.compiled.rule.key
        if candidate.arm is not None and not exposed:
            self._expose(candidate.compiled, candidate.arm, candidate.by)
        try:
            if len(self.actions) + len(candidate.gifts) > ACTIONS_MAX:
                raise Stopped("error", f"with these the event would have more than {ACTIONS_MAX} actions")
            self._refuse_beyond(candidate)
            granted, denials = self._claims.admit(candidate)
            self.actions += [self._action(candidate, effect, gift) for effect, gift in granted]
        except Stopped as stopped:
            self._traces[key] = RuleTrace(key, stopped.outcome, None, candidate.values, stopped.detail)
            return False
        self._traces[key] = _trace(candidate, bool(granted), denials)
        return bool(granted)

    def _refuse_beyond(self, candidate: Candidate) -> None:
        """Before anything is claimed: what could not be an action."""
        known: set[tuple[str, str]] = set()
        for effect, gift in candidate.gifts:
            if (effect.key, gift.user_id) in known:
                raise Stopped("error", f"two of its actions are {effect.key} for {gift.user_id}: give them keys")
            known.add((effect.key, gift.user_id))
            if gift.amount.adjusted() >= WHOLE_DIGITS_MAX:
                raise Stopped("error", f"the amount for {gift.user_id} has more than {WHOLE_DIGITS_MAX} digits")
            _held(self.event.occurred_at, effect)

    def _expose(self, compiled: CompiledRule, arm: Assignment | None, user_id: str) -> None:
        if arm is not None and compiled.rule.variants is not None:
            self.exposures.append(
                Exposure(
                    experiment=compiled.rule.variants.seed,
                    user_id=user_id,
                    arm=arm.arm,
                    propensity=arm.propensity,
                    rule=compiled.rule.key,
                )
            )

    def _action(self, candidate: Candidate, effect: CompiledEffect, gift: Gift) -> RewardAction:
        event, terms, compiled = self.event, effect.effect, candidate.compiled
        hold_until = _held(event.occurred_at, effect)
        waits = self._beyond_rails(effect, gift.amount) or terms.review  # the day's rail counts reviewed ones, too
        now = self.state.now
        return RewardAction(
            id=action_id(event.source, event.external_id, compiled.rule.identity, effect.key, gift.user_id),
            event_id=event.id,
            rule_key=compiled.rule.key,
            rule_version=compiled.version,
            effect_key=effect.key,
            target=terms.target,
            command=terms.command,
            recipient_role=gift.role,
            user_id=gift.user_id,
            amount=format_amount(gift.amount),
            unit=terms.unit,
            params=gift.params,
            status="awaiting_approval" if waits else "pending",
            due_at=None if waits else max(now, hold_until or now),
            hold_until=hold_until,
            created_at=now,
            occurred_at=event.occurred_at,
            budget=None if compiled.budget is None else compiled.budget.name,
            refills=compiled.budget is not None and compiled.budget.refills,
            arm=None if candidate.arm is None else candidate.arm.arm,
            reversal=self._terms(compiled, effect),
        )

    def _terms(self, compiled: CompiledRule, effect: CompiledEffect) -> ReversalTerms | None:
        """How the action can be taken back; None where the event holds no value to link by."""
        written, path = compiled.rule.reversal, compiled.reversal
        link = None if path is None else key_of_original(path, self.event)
        if written is None or link is None:
            return None
        return ReversalTerms(
            link=link,
            fraction=str(written.fraction),
            after_completion=written.after_completion,
            scale=effect.scale,
            round=effect.effect.round,
        )

    def _beyond_rails(self, effect: CompiledEffect, amount: Decimal) -> bool:
        """Whether the action is too large, or too much was given today; the first beyond the day's rail alerts."""
        beyond = effect.review_above is not None and amount > effect.review_above
        if effect.day_cap is None:
            return beyond
        key = self.safety_key(effect.effect.unit)
        before = self._claims.stored(key)
        after = plus(before.value, amount)
        self.state.memory.put(key, StateValue(after, before.detail))
        if before.value <= effect.day_cap < after:
            cap = f"{format_amount(effect.day_cap)} {effect.effect.unit}"
            self.alerts.append(f"more than {cap} were given today: further actions await approval")
        return beyond or after > effect.day_cap

    def safety_key(self, unit: str) -> str:
        return safety_key(self.weighed, unit)


def safety_key(weighed: Weighed, unit: str) -> str:
    """Names the rail of the day of deciding: the rail bounds what leaves in a day, whenever it was earned."""
    zone = weighed.rulebook.zone
    return state_keys.safety_key(unit, zone.key, local_date(weighed.state.today or weighed.state.now, zone))


def _trace(candidate: Candidate, gave: bool, denials: list[Denial]) -> RuleTrace:
    outcome: Outcome = "gave" if gave else denials[0].outcome
    detail = "; ".join(denial.words for denial in denials[:4])
    if len(denials) > 4:
        detail += f"; and {len(denials) - 4} more"
    return RuleTrace(candidate.compiled.rule.key, outcome, None, candidate.values, detail)


def _held(occurred_at: datetime, effect: CompiledEffect) -> datetime | None:
    if effect.hold is None:
        return None
    try:
        return occurred_at + effect.hold
    except OverflowError:
        raise Stopped("error", f"the hold {effect.effect.hold} ends beyond the year 9999") from None


def usage_of(values: Mapping[str, Any]) -> dict[str, StateValue]:
    """The state values of a recorded decision, as memory holds them."""
    found: dict[str, StateValue] = {}
    for key, written in values.items():
        if isinstance(written, list):
            value, detail = cast("list[Any]", written)
            found[key] = StateValue(Decimal(str(value)), detail)
        else:
            found[key] = StateValue(Decimal(str(written)))
    return found


def windows_of(values: Mapping[str, Any]) -> dict[str, Entries]:
    """Returns what a recorded decision knew of sliding limits."""
    return {
        key: [(datetime.fromisoformat(at), Decimal(value)) for at, value in entries] for key, entries in values.items()
    }
