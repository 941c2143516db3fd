"""One rule: its window, its condition and what it promises."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from connect.authoring.check.budgets import check_budget_use
from connect.authoring.check.expressions import Expression, Reader, Refused, check_lines, compile_at, field_path
from connect.authoring.check.findings import Findings
from connect.authoring.check.limits import Payout, check_limits
from connect.authoring.check.reversal import check_reversal
from connect.authoring.check.variants import arms_of, check_variants
from connect.authoring.positions import child
from connect.engine.compile import PARAMS_BYTES_MAX, RANK, Template, Uncompilable, names_in, role_of
from connect.engine.expression import Amount, Failed, compile_amount, compile_value, make_activation
from connect.engine.expression.names import KNOWN_NAMES
from connect.model import Each, Effect, RewardRule

_CONDITION: Final[Refused] = {
    "variant": (
        "a condition cannot read variant: an arm is drawn only once the condition holds",
        "read it in amounts and params; to give nothing in an arm let its amount be 0",
    )
}
_ORIGINAL: Final = ("original is known only in a reversal's fraction", "fields of the event itself are context.<field>")
_NO_VARIANTS: Final = ("this rule has no variants", "declare them under `variants` of this rule, or write the number")


def check_rule_itself(findings: Findings, rule: RewardRule, pointer: str) -> None:
    """All that can be said of the rule without looking at the other rules."""
    if rule.starts_at is not None and rule.ends_at is not None and rule.starts_at >= rule.ends_at:
        findings.error(
            f"{pointer}/ends_at",
            "the rule ends before it starts, so it can never give",
            "the window is [starts_at, ends_at): write a later ends_at",
        )
    check_lines(findings, rule.condition, f"{pointer}/condition", Reader(rule.event_type, _CONDITION))
    check_variants(findings, rule.variants, f"{pointer}/variants")
    payouts = _actions(findings, rule, pointer)
    check_limits(findings, rule, payouts, pointer)
    check_budget_use(findings, rule, payouts, pointer)
    check_reversal(findings, rule, f"{pointer}/reversal")
    if not rule.limits and rule.budget is None:
        _unbounded(findings, payouts, pointer)


def _unbounded(findings: Findings, payouts: list[Payout], pointer: str) -> None:
    reads = sorted({read for payout in payouts for read in payout.reads})
    much = f", and how much each time is up to {', '.join(reads)}" if reads else ""
    hint = "add `limits`, such as [ { per: recipient, every: month, uses: 10 } ], or a `budget` that is shared"
    findings.warning(pointer, f"the rule is unbounded: nothing limits how often it gives{much}", hint)


def _actions(findings: Findings, rule: RewardRule, pointer: str) -> list[Payout]:
    refused = {"original": _ORIGINAL} if rule.variants else {"original": _ORIGINAL, "variant": _NO_VARIANTS}
    reader = Reader(rule.event_type, refused, arms_of(rule.variants))
    payouts: list[Payout] = []
    for place, effect in enumerate(rule.actions):
        inner = f"{pointer}/actions/{place}"
        _effect_key(findings, rule.actions[:place], effect, inner)
        payouts.append(_Action(findings, effect, inner, reader).check())
    return payouts


def _effect_key(findings: Findings, before: list[Effect], effect: Effect, pointer: str) -> None:
    """Ids of actions are made of the effect's key and the recipient: one of the two has to differ."""
    alike = [place for place, other in enumerate(before) if other.effect_key == effect.effect_key]
    if not alike:
        return
    others = [before[place] for place in alike]
    told = f"action {alike[0] + 1} is {effect.effect_key} too"
    hint = "give one of them a `key` of its own: ids of actions are made of it"
    apart = all(other.recipient != effect.recipient and other.each is None for other in others)
    if apart and effect.each is None and effect.key is None:
        findings.warning(pointer, f"{told}: when both are for one user, the rule is an error", hint)
    else:
        findings.error(pointer, told, hint)


class _Action(Struct, frozen=True):
    """One action of a rule and where it stands."""

    findings: Findings
    effect: Effect
    pointer: str
    reader: Reader

    def check(self) -> Payout:
        findings, effect, pointer = self.findings, self.effect, self.pointer
        findings.unit(f"{pointer}/unit", effect.unit)
        if (effect.recipient is None) == (effect.each is None):
            findings.error(
                pointer,
                "an action needs either `recipient` or `each`",
                "recipient: actor, subject or parties.<role>; each: one action for each element of a list",
            )
        elif effect.recipient is not None:
            self._syntax(f"{pointer}/recipient", role_of, effect.recipient)
        if effect.each is not None:
            self._each(effect.each, f"{pointer}/each")
        payout = self._amount()
        self._params()
        return payout

    def _syntax(self, pointer: str, read: Callable[[str], object], text: str) -> None:
        try:
            read(text)
        except Uncompilable as error:
            self.findings.error(pointer, str(error))

    def _each(self, each: Each, pointer: str) -> None:
        if each.name in KNOWN_NAMES | {RANK}:
            self.findings.error(
                f"{pointer}/as",
                f"{each.name} has a meaning of its own in expressions",
                "choose another name, such as `as: item`",
            )
        elements = Expression(f"{pointer}/in", each.items, wanted="list")
        compile_at(self.findings, elements, compile_value, self.reader)
        recipient = self._within_each(f"{pointer}/recipient", each.recipient)
        compile_at(self.findings, recipient, compile_value, self.reader)

    def _within_each(self, pointer: str, text: str, shift: int = 0) -> Expression:
        """An expression that may name the element."""
        each = self.effect.each
        path = field_path(each.items) if each else None
        return Expression(pointer, text, names_in(each), shift, {each.name: path} if each and path else {})

    def _amount(self) -> Payout:
        """The one amount, wherever it stands; with shares the whole, and each share in basis points."""
        effect, each, pointer = self.effect, self.effect.each, self.pointer
        if each is not None and each.share is not None:
            return self._shares(each)
        given = [(f"{pointer}/amount", effect.amount), (f"{pointer}/each/amount", each.amount if each else None)]
        present = [(place, str(amount)) for place, amount in given if amount is not None]
        if len(present) != 1:
            self.findings.error(
                pointer,
                "an action needs one amount" + (", of its own or in `each`" if each else ""),
                "leave one of them out" if present else "write a number or an expression, such as `amount: 5`",
            )
        payouts = [self._payout(self._within_each(place, text)) for place, text in present]
        return payouts[0] if payouts else Payout(effect)

    def _shares(self, each: Each) -> Payout:
        pointer = self.pointer
        if each.amount is not None:
            hint = "leave one of them out: an amount for each element, or shares of one whole"
            self.findings.error(f"{pointer}/each/share", "`share` and `amount` of each exclude each other", hint)
        share = self._within_each(f"{pointer}/each/share", str(each.share))
        compile_at(self.findings, share, compile_amount, self.reader)
        if self.effect.amount is None:
            hint = "write the whole as `amount` of the action; the shares of all elements sum to 10,000"
            self.findings.error(f"{pointer}/each/share", "a share needs a whole to be a share of", hint)
            return Payout(self.effect)
        whole = self._payout(Expression(f"{pointer}/amount", str(self.effect.amount)))
        return Payout(self.effect, None, whole.reads)

    def _payout(self, expression: Expression) -> Payout:
        amount = compile_at(self.findings, expression, compile_amount, self.reader)
        if amount is None:
            return Payout(self.effect)
        constant = self._constant(amount, expression.pointer)
        return Payout(self.effect, constant, amount.reads)

    def _constant(self, amount: Amount, pointer: str) -> Decimal | None:
        """The amount that is always the same; None where it is not, or where it can never be given."""
        findings, effect = self.findings, self.effect
        scale = findings.scale(effect.unit)
        if effect.round is None and amount.can_exceed_scale(scale):
            message = f"the amount can have more than the {scale} decimal places of {effect.unit}"
            findings.error(pointer, message, "say how to round it: `round: down`, up, half_even or half_up")
        if amount.reads:
            return None
        constant = amount.evaluate(make_activation({}))
        if isinstance(constant, Failed):
            findings.error(pointer, constant.reason, "the amount is the same each time: write one that can be given")
        elif constant == 0:
            findings.warning(pointer, "the amount is 0, so this action never gives", "write an amount above 0")
        elif isinstance(constant, Decimal) and constant < 0:
            hint = "taking back is a reversal, never a negative amount"
            findings.error(pointer, f"the amount is negative: {constant}", hint)
        elif isinstance(constant, Decimal):
            return constant
        return None

    def _params(self) -> None:
        effect, pointer = self.effect, f"{self.pointer}/params"
        for inner, text in _expressions_in(effect.params, pointer):
            compile_at(self.findings, self._within_each(inner, text, shift=1), compile_value, self.reader)
        size = len(msgspec.json.encode(effect.params))
        if size > PARAMS_BYTES_MAX:
            hint = "a command carries what its target needs; leave the rest to the target"
            self.findings.error(pointer, f"the params are over {PARAMS_BYTES_MAX} bytes of JSON: {size:,}", hint)


def _expressions_in(params: Template, pointer: str) -> Iterator[tuple[str, str]]:
    """Each expression in `params` with its pointer, without its `=`."""
    if isinstance(params, str) and params.startswith("=") and not params.startswith("=="):
        yield pointer, params[1:]
    elif isinstance(params, dict):
        for key, value in params.items():
            yield from _expressions_in(value, child(pointer, key))
    elif isinstance(params, list):
        for place, value in enumerate(params):
            yield from _expressions_in(value, child(pointer, place))
