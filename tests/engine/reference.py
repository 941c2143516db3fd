"""The rule model once more: slow, plain, and written from the specification (3-rules) instead of from the engine.

It keeps the full list of facts and of all that was given, and works out usage, budgets, counters, streaks and reversals
from their beginning whenever it needs them. It shares with the engine the structs, the expressions and the rounding of
amounts.

Where the specification leaves a choice, this is the reading:
- `per` of a limit: where an effect of the rule is for that role, the limit is about what that role gets, and only such
  gifts are measured and denied; otherwise it is about all that the rule gives because of that person. `per: recipient`
  measures by the user, whatever the role. An event that names nobody in the role is not limited by it.
- Limits and budgets judge gift by gift in the order of the effects. A clipped gift counts as a denial: for
  `all_or_nothing`, which then gives nothing, and for a budget that `closes`. A closed budget stays closed.
- A group is decided where the first of its rules that would give stands.
- What a rail of the day holds is what was decided on that day, waiting actions included; the action that passes it is
  the first to wait.
- A reversal rounds as its effect did, and down where the effect names no mode. One that awaits approval, or
  will when its original ends, frees nothing.
- History (`effects: none`) is counted, and undoes in counters; it gives nothing and takes nothing back.
- A streak is the number of steps with an event in a run; `grace` may be missed at each gap.
- A cascade compares what a decision read with what it would read without the events undone since. Of values told apart,
  those still held by another event stay; a streak that late events made longer is not shorter.
- What has reversal terms of its own is taken back by these, not listed, when its own event is undone, or when the
  same fact takes a part of it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from fractions import Fraction
from typing import Any, Literal
from zoneinfo import ZoneInfo

from connect.engine.amounts import CONTEXT, round_fraction
from connect.engine.expression import Failed, Missing, make_activation
from connect.model import EconomicEvent, Limit, RewardRule, Ruleset
from tests.engine.reference_counters import (
    Recount,
    at_path,
    condition,
    duration,
    matches,
    names,
    original_path,
    people,
    period,
    reversers,
    share,
)
from tests.engine.reference_gifts import ZERO, Answer, Gift, Given, NoGiftError, exact, gifts, total


class Reference:
    def __init__(self, document: Ruleset, undo: Mapping[str, Mapping[str, str]]) -> None:
        self.document, self.undo = document, undo
        self.zone = ZoneInfo(document.timezone)
        self.counters = {name: Recount(one, document.timezone) for name, one in document.counters.items()}
        self.facts: list[EconomicEvent] = []
        self.given: list[Given] = []
        self.read: dict[str, dict[str, int | Decimal]] = {}
        """external_id -> the counters its rules read."""
        self.closed: set[str] = set()

    @property
    def originals(self) -> list[Given]:
        return [one for one in self.given if one.reverses is None]

    def decide(self, event: EconomicEvent, now: datetime, arms: Mapping[str, str]) -> Answer:
        self.facts.append(event)
        values = {name: one.value(event, self.facts, self.facts) for name, one in self.counters.items()}
        self.read[event.external_id] = {name: found for name, found in values.items() if found is not None}
        rules = [rule for rule in self.document.rules if matches(rule.event_type, event.event_type)]
        rules.sort(key=lambda rule: (-rule.priority, rule.key))
        answer = Answer()
        wishes = {rule.key: self.wish(rule, event, arms.get(rule.key)) for rule in rules}
        for rule in rules:
            if rule.key not in answer.outcomes:
                self.ask(rule, rules, wishes, event, now, answer)
            if rule.stop and answer.outcomes[rule.key] == "gave":
                break
        for rule in rules:
            answer.outcomes.setdefault(rule.key, "stopped")
        for given in list(answer.actions):
            self.take_back_early(given, now, answer)
        if event.effects == "all":
            for given in [one for one in self.originals if one.event is not event]:
                self.take_back(given, event, now, answer)
            self.list_cascades(event, now, answer)
        return answer

    # --- what a rule would give ---

    def wish(self, rule: RewardRule, event: EconomicEvent, arm: str | None) -> list[Gift] | str:
        """The gifts of a rule before groups, limits and budgets, or the outcome without any."""
        late = rule.ends_at is not None and event.occurred_at >= rule.ends_at
        early = rule.starts_at is not None and event.occurred_at < rule.starts_at
        if not rule.enabled or early or late:
            return "not_live"
        known = make_activation(names(event, counters=self.read[event.external_id]))
        for line in rule.lines:
            held = condition(line).evaluate(known)
            if held is not True:
                return (
                    "missing" if isinstance(held, Missing) else "error" if isinstance(held, Failed) else "not_matched"
                )
        if event.effects == "none":
            return "not_live"
        if rule.variants is not None:
            if not people(event, rule.variants.by):
                return "no_recipient"
            assert arm is not None
            if arm == "holdout":
                return "held_out"
            values = {name: exact(found) for name, found in rule.variants.arms[arm].items() if name != "weight"}
            known = known.bind({"variant": {"name": arm, **values}})
        try:
            return gifts(self.document, rule, event, known)
        except NoGiftError as none:
            return str(none)

    # --- who gives ---

    def ask(
        self, rule: RewardRule, rules: Sequence[RewardRule], wishes: Mapping[str, list[Gift] | str],
        event: EconomicEvent, now: datetime, answer: Answer,
    ) -> None:  # fmt: skip
        wish = wishes[rule.key]
        if isinstance(wish, str):
            answer.outcomes[rule.key] = wish
            return
        rivals = [rule]
        if rule.group is not None:
            rivals = [one for one in rules if one.group == rule.group and not isinstance(wishes[one.key], str)]
            pick = self.document.groups[rule.group].pick
            if pick != "first":
                rivals.sort(key=lambda one: total(wishes[one.key]), reverse=pick == "highest")
        won = False
        for rival in rivals:
            gifts = wishes[rival.key]
            assert not isinstance(gifts, str)
            answer.outcomes[rival.key] = "lost_group" if won else self.give(rival, gifts, event, now, answer)
            won = won or answer.outcomes[rival.key] == "gave"

    def give(self, rule: RewardRule, gifts: Sequence[Gift], event: EconomicEvent, now: datetime, answer: Answer) -> str:
        granted: list[Gift] = []
        denials: list[str] = []
        for gift in gifts:
            if any(not self.fits(limit, rule, event, gift, granted) for limit in rule.limits):
                denials.append("limited")
                continue
            admitted = self.afforded(rule, gift, granted)
            if admitted < gift.amount:
                denials.append("short_of_budget")
            if admitted:
                granted.append(Gift(gift.effect, gift.role, gift.user, admitted))
        if denials and rule.all_or_nothing:
            granted = []
        for gift in granted:
            given = Given(event, rule, gift.effect, gift.role, gift.user, gift.amount, now)
            given.status = "awaiting_approval" if self.waits(given) else "pending"
            self.given.append(given)
            answer.actions.append(given)
        return "gave" if granted else denials[0]

    def waits(self, given: Given) -> bool:
        unit, safety = given.effect.unit, self.document.safety
        above, cap = safety.review_above.get(unit), safety.per_day.get(unit)
        day = [
            one.amount
            for one in self.originals
            if one.effect.unit == unit
            and period(one.decided_at, "day", self.zone) == period(given.decided_at, "day", self.zone)
        ]
        beyond = above is not None and given.amount > Decimal(above)
        return given.effect.review or beyond or (cap is not None and sum(day, given.amount) > Decimal(cap))

    # --- limits and budgets ---

    def measured(self, limit: Limit, rule: RewardRule, event: EconomicEvent, role: str, user: str) -> list[str]:
        """On whose measures a gift is."""
        if limit.per == "recipient":
            return [user]
        if limit.per == "rule":
            return [""]
        if any(effect.recipient == limit.per for effect in rule.actions):
            return [user] if role == limit.per else []
        return people(event, limit.per)

    def usage(self, limit: Limit, rule: RewardRule, subject: str, measure: str) -> list[tuple[datetime, Decimal]]:
        """(moment, what it holds) of each event in which the rule gave to the subject something that is still live."""
        found: dict[str, tuple[datetime, Decimal]] = {}
        for one in self.originals:
            mine = one.rule.key == rule.key and one.live > 0
            if mine and subject in self.measured(limit, rule, one.event, one.role, one.user):
                before = found.get(one.event.external_id, (one.event.occurred_at, ZERO))[1]
                after = Decimal(1) if measure == "uses" else before + one.live
                found[one.event.external_id] = (one.event.occurred_at, after)
        return list(found.values())

    def fits(self, limit: Limit, rule: RewardRule, event: EconomicEvent, gift: Gift, granted: Sequence[Gift]) -> bool:
        for subject in self.measured(limit, rule, event, gift.role, gift.user):
            here = [one for one in granted if subject in self.measured(limit, rule, event, one.role, one.user)]
            wanted: dict[str, Decimal] = {}
            if limit.uses is not None:
                wanted["uses"] = Decimal(1)
            if limit.amount is not None:
                wanted["amount"] = sum((one.amount for one in here), gift.amount)
            for measure, more in wanted.items():
                cap = Decimal(str(limit.uses if measure == "uses" else limit.amount))
                used = self.usage(limit, rule, subject, measure)
                if self.fullest(limit, event.occurred_at, used) + more > cap:
                    return False
        return True

    def fullest(self, limit: Limit, moment: datetime, used: Sequence[tuple[datetime, Decimal]]) -> Decimal:
        """The most that is used in any period of the limit that holds the moment."""
        if limit.within is None:
            every = str(limit.every)
            here = period(moment, every, self.zone)
            return sum((held for at, held in used if period(at, every, self.zone) == here), ZERO)
        length = duration(limit.within)
        tick = timedelta(microseconds=1)
        starts = [moment - length + tick, moment, *(at for at, _ in used if moment - length < at <= moment)]
        return max(sum((held for at, held in used if start <= at < start + length), ZERO) for start in starts)

    def spent(self, budget: str) -> Decimal:
        refills = self.document.budgets[budget].refill_on_reversal
        drawn = [one for one in self.originals if one.rule.budget is not None and one.rule.budget.name == budget]
        return sum((one.live if refills else one.amount for one in drawn), ZERO)

    def afforded(self, rule: RewardRule, gift: Gift, granted: Sequence[Gift]) -> Decimal:
        """How much of a gift its budget has."""
        if rule.budget is None:
            return gift.amount
        name = rule.budget.name
        budget = self.document.budgets[name]
        if name in self.closed:
            return ZERO
        left = Decimal(budget.cap) - self.spent(name) - sum((one.amount for one in granted), ZERO)
        if gift.amount <= left:
            return gift.amount
        if budget.closes:
            self.closed.add(name)
        if rule.budget.when_short == "deny" or left <= 0:
            return ZERO
        scale = self.document.units[gift.effect.unit].scale
        return left.quantize(Decimal((0, (1,), -scale)), ROUND_DOWN, CONTEXT)

    # --- taking back ---

    def take_back_early(self, given: Given, now: datetime, answer: Answer) -> None:
        if given.rule.reversal is not None:
            for by in reversers(given.rule.reversal, given.event, self.facts):
                self.take_back(given, by, now, answer)

    def take_back(self, given: Given, by: EconomicEvent, now: datetime, answer: Answer) -> None:
        """Takes back what one fact takes of one action, in the state the action is in."""
        terms = given.rule.reversal
        if terms is None or given.status == "cancelled":
            return
        known = reversers(terms, given.event, self.facts)
        if by not in known:
            return
        after, before = self.total(given, known[: known.index(by) + 1]), self.total(given, known[: known.index(by)])
        part = after - before if share(str(terms.fraction), by, given.event) is not None else ZERO
        if not part:
            return
        if given.attempts == 0 and after == given.amount:
            self.cancel(given, answer)
        elif given.attempts == 0 or given.status in ("pending", "dispatched"):
            if terms.after_completion != "keep":
                self.reverse(given, by, part, "blocked", now, answer)
        elif given.failure == "exhausted":
            self.reverse(given, by, part, "awaiting_approval", now, answer)
        elif given.status == "failed":
            given.freed += part
        elif terms.after_completion == "compensate":
            self.reverse(given, by, part, "pending" if self.knows_undo(given) else "awaiting_approval", now, answer)
        elif terms.after_completion == "review":
            self.reverse(given, by, part, "awaiting_approval", now, answer)

    def total(self, given: Given, by: Sequence[EconomicEvent]) -> Decimal:
        assert given.rule.reversal is not None
        shares = [share(str(given.rule.reversal.fraction), one, given.event) or Fraction(0) for one in by]
        scale = self.document.units[given.effect.unit].scale
        return round_fraction(
            Fraction(given.amount) * min(sum(shares, Fraction(0)), Fraction(1)), scale, given.effect.round or "down"
        )

    def cancel(self, given: Given, answer: Answer) -> None:
        if given not in answer.actions:
            answer.cancelled.append((given, given.amount - given.freed))
        given.status, given.freed = "cancelled", given.amount
        for other in self.given:
            if other.reverses is given and other.status in ("blocked", "awaiting_approval"):
                other.status = "cancelled"

    def reverse(
        self, given: Given, by: EconomicEvent, part: Decimal,
        status: Literal["blocked", "pending", "awaiting_approval"], now: datetime, answer: Answer,
    ) -> None:  # fmt: skip
        undo = Given(by, given.rule, given.effect, given.role, given.user, part, now, status, reverses=given)
        terms = given.rule.reversal
        by_itself = terms is not None and terms.after_completion == "compensate" and self.knows_undo(given)
        undo.frees = status == "pending" or (status == "blocked" and by_itself)
        if undo.frees:
            given.freed += part
        self.given.append(undo)
        answer.actions.append(undo)

    def knows_undo(self, given: Given) -> bool:
        return given.effect.command in self.undo.get(given.effect.target, {})

    # --- cascades ---

    def list_cascades(self, by: EconomicEvent, now: datetime, answer: Answer) -> None:
        before = [one for one in self.facts if one is not by]
        gone = {
            name: [one for one in before if counter.is_counted(one, before) and not counter.is_counted(one, self.facts)]
            for name, counter in self.counters.items()
        }
        for given in [one for one in self.originals if one.event is not by]:
            undone = any(given.event in events for events in gone.values())
            taken = any(one.reverses is given for one in answer.actions)
            waits = any(one.reverses is given and not one.frees for one in self.given)
            if given.live and not waits and not (undone and has_terms(given)) and not taken:
                read = self.read[given.event.external_id]
                again = {
                    name: self.read_again(name, given.event, gone[name]) for name in counters_read(given.rule, read)
                }
                if again != {name: read[name] for name in again} and not holds(given, {**read, **again}):
                    self.reverse(given, by, given.live, "awaiting_approval", now, answer)

    def read_again(self, name: str, reader: EconomicEvent, gone: Sequence[EconomicEvent]) -> int | Decimal:
        """Returns what the reader would read without all that is undone; what it read, where none of that is gone."""
        counter, read = self.counters[name], self.read[reader.external_id][name]
        subject = people(reader, counter.counter.of)[0]
        mine = [one for one in gone if counter.counts(one, subject)]
        decided = self.facts[: self.facts.index(reader) + 1]
        if counter.counter.kind == "streak":
            found = counter.value(reader, self.facts, self.facts)
            return min(read, found) if mine and found is not None else read
        if not any(one in decided and counter.is_near(one, reader) for one in mine):
            return read
        if counter.counter.kind == "distinct":
            near = [one for one in self.facts if counter.counts(one, subject) and counter.is_near(one, reader)]
            seen = {str(counter.added(one)) for one in near if one in decided}
            return len(seen & {str(counter.added(one)) for one in near if counter.is_counted(one, self.facts)})
        found = counter.value(reader, decided, self.facts)
        assert found is not None
        return found


def has_terms(given: Given) -> bool:
    terms = given.rule.reversal
    return terms is not None and at_path(given.event, original_path(terms.same)) is not None


def counters_read(rule: RewardRule, read: Mapping[str, Any]) -> set[str]:
    paths = [path for line in rule.lines for path in condition(line).reads]
    return {path.split(".")[1] for path in paths if path.startswith("counters.")} & read.keys()


def holds(given: Given, counters: Mapping[str, Any]) -> bool:
    """Whether the lines of its rule that read counters are true with these."""
    known = make_activation(names(given.event, counters=counters))
    lines = [condition(line) for line in given.rule.lines]
    return all(
        line.evaluate(known) is True for line in lines if any(path.startswith("counters.") for path in line.reads)
    )
