"""Taking back: what a later fact undoes of what an earlier one gave, whichever of them came first.

The total reversed of an action is its amount times the sum of all fractions, at most 1, rounded once; each reversing
fact brings the difference to the total before it. So the parts add up to the whole, and the same facts come to the
same in any order.
"""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

from msgspec.structs import replace

from connect.engine.amounts import format_amount, minus, plus, round_fraction
from connect.engine.command import reversal_id
from connect.engine.compile import CompiledRule, compiled_fraction
from connect.engine.decide.state import State
from connect.engine.expression import Amount, Failed, Missing, make_activation
from connect.engine.index import Rulebook
from connect.engine.limits import Periods, Slot, contribution, slots_of
from connect.engine.links import Link, event_values
from connect.engine.state import ZERO, Memory
from connect.engine.state_keys import budget_key
from connect.model import ActionStatus, EconomicEvent, ReversalTerms, RewardAction, RuleTrace, TakenBack

UNDO_UNKNOWN = "reverse"
"""The command where the target declares none: a person approves it, or settles the matter by hand and rejects it."""
WHOLE = Fraction(1)


class Taking:
    """Collects what taking back comes to: new actions, changed ones, and why."""

    def __init__(self, event: EconomicEvent, state: State, rulebook: Rulebook) -> None:
        self.event, self.state, self.rulebook = event, state, rulebook
        self.actions: list[RewardAction] = []
        self.taken_back: dict[UUID, TakenBack] = {}
        self.trace: list[RuleTrace] = []

    # --- as the later fact ---

    def reverse(self, link: Link, key: str) -> None:
        """Takes back what the originals of a link gave, as far as this event and those before it say.

        Only what is tied by this link (`key`): the originals may have given something on other terms, too.
        """
        for original in link.originals:
            before = list(original.actions)
            after = [
                self._reversed(action, action.reversal, original.event, link)
                if action.reversal is not None and action.reversal.link == key
                else action
                for action in before
            ]
            give_back(self.rulebook, self.state.memory, original.event, before, after)

    def _reversed(
        self, action: RewardAction, terms: ReversalTerms, original: EconomicEvent, link: Link
    ) -> RewardAction:
        if action.reverses is not None or action.status == "cancelled":
            return action
        share = fraction_of(terms.fraction, self.event, original)
        if not isinstance(share, Fraction):
            self.trace.append(_untaken(action, share))
            return action
        prior = sum_of(terms.fraction, link.reversers, original)
        part = minus(reversed_total(action, terms, prior + share), reversed_total(action, terms, prior))
        part = min(part, live(action))  # a person may have taken back what was listed after an uncounted event
        whole = reversed_total(action, terms, prior + share) == Decimal(action.amount)
        return self._take(action, terms, self.event, part, whole=whole) if part else action

    def _take(
        self, action: RewardAction, terms: ReversalTerms, by: EconomicEvent, part: Decimal, *, whole: bool
    ) -> RewardAction:
        """One reversal of one action, by where the action stands. Returns the action as it then is."""
        never_sent = action.attempts == 0 and action.status in ("pending", "awaiting_approval", "blocked")
        if never_sent and whole:
            return self._cancelled(action)
        if action.status == "failed" and action.failure != "exhausted":
            self._say(action, part, "it had no effect, so nothing is sent")
            return self._less(action, part)
        status, why = self._next(action, terms)
        if status is None:
            self._say(action, part, why)
            return action
        frees = status == "pending" or (status == "blocked" and self._follows_by_itself(action, terms))
        self.actions.append(self._undo(action, by, part, status, frees=frees))
        self._say(action, part, why)
        return self._less(action, part) if frees else action

    def _next(self, action: RewardAction, terms: ReversalTerms) -> tuple[ActionStatus | None, str]:
        """The state a reversal begins in; None where nothing is to be sent."""
        if action.status == "failed":
            return "awaiting_approval", "its effect is unknown: a person decides"
        if terms.after_completion == "keep":  # also of what will be sent yet: as a whole, since commands are frozen
            return None, "kept, as its terms say"
        if action.status != "completed":
            return "blocked", "waits for the original's end"
        if terms.after_completion == "review":
            return "awaiting_approval", "awaits approval, as its terms say"
        if self._undo_of(action) is None:
            return "awaiting_approval", f"{action.target} declares no undo of {action.command}: a person decides"
        return "pending", "one undo is sent"

    def _follows_by_itself(self, action: RewardAction, terms: ReversalTerms) -> bool:
        """Whether no person stands between the original's end and its undo."""
        return terms.after_completion == "compensate" and self._undo_of(action) is not None

    def _undo_of(self, action: RewardAction) -> str | None:
        return self.state.undo.get(action.target, {}).get(action.command)

    def _undo(
        self, action: RewardAction, by: EconomicEvent, part: Decimal, status: ActionStatus, *, frees: bool
    ) -> RewardAction:
        now = self.state.now
        return RewardAction(
            id=reversal_id(by.source, by.external_id, action.id),
            event_id=by.id,
            rule_key=action.rule_key,
            rule_version=action.rule_version,
            effect_key=action.effect_key,
            target=action.target,
            command=self._undo_of(action) or UNDO_UNKNOWN,
            recipient_role=action.recipient_role,
            user_id=action.user_id,
            amount=format_amount(part),
            unit=action.unit,
            params=action.params,
            status=status,
            due_at=now if status == "pending" else None,
            completed_at=now if status == "cancelled" else None,
            reverses=action.id,
            created_at=now,
            occurred_at=by.occurred_at,
            budget=action.budget,
            frees_claim=frees,
        )

    def _cancelled(self, action: RewardAction) -> RewardAction:
        self._say(
            action, minus(Decimal(action.amount), Decimal(action.reversed)), "it was never sent, and is cancelled"
        )
        self.taken_back[action.id] = TakenBack(action_id=action.id, cancel=True, reversed=action.amount)
        return replace(action, status="cancelled", due_at=None, reversed=action.amount)

    def _less(self, action: RewardAction, part: Decimal) -> RewardAction:
        total = format_amount(plus(Decimal(action.reversed), part))
        self.taken_back[action.id] = TakenBack(action_id=action.id, cancel=False, reversed=total)
        return replace(action, reversed=total)

    def _say(self, action: RewardAction, part: Decimal, why: str) -> None:
        taken = f"{format_amount(part)} {action.unit} of {action.user_id}"
        self.trace.append(RuleTrace(action.rule_key, "took_back", None, {}, f"{taken}: {why}"))

    # --- as the earlier fact, come late ---

    def reversed_early(
        self, given: Sequence[RewardAction], reversers: Mapping[str, Sequence[EconomicEvent]]
    ) -> list[RewardAction]:
        """Returns what the event gave, after what already takes it back. `reversers`: by the key of their link."""
        before, after = list(given), list[RewardAction]()
        for action in given:
            earlier = reversers.get(action.reversal.link, ()) if action.reversal else ()
            after.append(self._after_all(action, earlier) if earlier else action)
        if after != before:
            give_back(self.rulebook, self.state.memory, self.event, before, after)
        return [
            replace(action, completed_at=self.state.now) if action.status == "cancelled" else action for action in after
        ]

    def _after_all(self, action: RewardAction, reversers: Sequence[EconomicEvent]) -> RewardAction:
        terms = action.reversal
        if terms is None:
            return action
        known, prior = len(self.actions), Fraction(0)
        for by in reversers:
            share = fraction_of(terms.fraction, by, self.event)
            if not isinstance(share, Fraction) or by.effects == "none" or action.status == "cancelled":
                continue
            part = minus(reversed_total(action, terms, prior + share), reversed_total(action, terms, prior))
            prior += share
            whole = reversed_total(action, terms, prior) == Decimal(action.amount)
            action = self._take(action, terms, by, part, whole=whole) if part else action
        if action.status == "cancelled":
            self.actions[known:] = [_moot(undo, self.state) for undo in self.actions[known:]]
        self.taken_back.pop(action.id, None)  # the row is new: it is written as it comes out
        return action


def _moot(undo: RewardAction, state: State) -> RewardAction:
    return replace(undo, status="cancelled", due_at=None, completed_at=state.now)


def _untaken(action: RewardAction, why: Missing | Failed) -> RuleTrace:
    if isinstance(why, Missing):
        return RuleTrace(action.rule_key, "missing", None, {}, f"the fraction reads {why.field}, which is missing")
    return RuleTrace(action.rule_key, "error", None, {}, f"the fraction: {why.reason}")


# --- fractions -----------------------------------------------------------------------------------


def fraction_of(text: str, by: EconomicEvent, original: EconomicEvent) -> Fraction | Missing | Failed:
    """How much of the original one reversing fact takes back, 0 to 1 and exact."""
    amount = compiled_fraction(text)
    if amount is None:
        return Failed(f"{text} can no longer be read")
    return evaluated_fraction(amount, by, original)


def evaluated_fraction(amount: Amount, by: EconomicEvent, original: EconomicEvent) -> Fraction | Missing | Failed:
    if not amount.reads:
        found = amount.exact(_NOBODY)
    else:
        found = amount.exact(make_activation({**event_values(by), "original": event_values(original)}))
    if isinstance(found, Missing | Failed):
        return found
    share = Fraction(found)
    return min(share, WHOLE) if share >= 0 else Failed(f"{amount.text} is negative")


_NOBODY = make_activation({})


def sum_of(text: str, reversers: Iterable[EconomicEvent], original: EconomicEvent) -> Fraction:
    """Sums the reversers' fractions. An event takes nothing of itself back, and history takes nothing back at all."""
    others = (by for by in reversers if by.id != original.id and by.effects == "all")
    shares = (fraction_of(text, by, original) for by in others)
    return sum((share for share in shares if isinstance(share, Fraction)), Fraction(0))


def reversed_total(action: RewardAction, terms: ReversalTerms, fractions: Fraction) -> Decimal:
    """How much of the action is taken back once fractions sum to this: rounded once, down where no mode is named."""
    return round_fraction(Fraction(action.amount) * min(fractions, WHOLE), terms.scale, terms.round or "down")


# --- what is given back --------------------------------------------------------------------------


def give_back(
    rulebook: Rulebook,
    memory: Memory,
    event: EconomicEvent,
    before: Sequence[RewardAction],
    after: Sequence[RewardAction],
) -> None:
    """Takes out of limits and budgets what the event's actions no longer hold.

    Of a sliding limit only what is in memory changes: it is read from the actions each time.
    """
    for compiled in rules_behind(rulebook, before):
        mine = [(old, new) for old, new in zip(before, after, strict=True) if old.rule_key in compiled.keys]
        given = [(old.user_id, old.recipient_role) for old, _ in mine]
        for slot in slots_of(compiled.meters, event, given, Periods(event.occurred_at)):
            held = contribution(slot.meter, event, slot.subject, (old for old, _ in mine))
            holds = contribution(slot.meter, event, slot.subject, (new for _, new in mine))
            if held != holds and slot.period is None:
                _give_back_window(memory, slot, event, held, holds)
            elif held != holds:
                memory.add(slot.key, minus(holds, held))
    for old, new in zip(before, after, strict=True):
        less = minus(live(new), live(old))
        if less and old.budget is not None and old.refills:
            memory.add(budget_key(old.budget, old.unit), less)


def _give_back_window(memory: Memory, slot: Slot, event: EconomicEvent, held: Decimal, holds: Decimal) -> None:
    entries = memory.windows.get(slot.key, [])
    if (event.occurred_at, held) in entries:
        entries.remove((event.occurred_at, held))
        if holds:
            insort(entries, (event.occurred_at, holds))


def live(action: RewardAction) -> Decimal:
    """Returns how much of an action still counts."""
    return ZERO if action.status == "cancelled" else minus(Decimal(action.amount), Decimal(action.reversed))


def rules_behind(rulebook: Rulebook, actions: Iterable[RewardAction]) -> list[CompiledRule]:
    """The live rules that gave these, each once."""
    keys = {action.rule_key for action in actions if action.reverses is None}
    return [compiled for compiled in rulebook.rules.values() if not keys.isdisjoint(compiled.keys)]


def keys_given_back(rulebook: Rulebook, event: EconomicEvent, actions: Sequence[RewardAction]) -> list[str]:
    """The keys that `give_back` may change for an event's actions: what must be locked before it."""
    keys = [budget_key(one.budget, one.unit) for one in actions if one.budget is not None and one.refills]
    for compiled in rules_behind(rulebook, actions):
        given = [(one.user_id, one.recipient_role) for one in actions if one.rule_key in compiled.keys]
        slots = slots_of(compiled.meters, event, given, Periods(event.occurred_at))
        keys += [slot.key for slot in slots if slot.period is not None]
    return keys
