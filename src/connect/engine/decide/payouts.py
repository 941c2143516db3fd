"""Who gets how much by one effect of one rule."""

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, cast

import msgspec
from msgspec import Struct

from connect.engine.amounts import BASIS_POINTS_WHOLE, CONTEXT, round_amount, split_amount
from connect.engine.compile import PARAMS_BYTES_MAX, RANK, CompiledEach, CompiledEffect, Template
from connect.engine.expression import Activation, Amount, Failed, Missing, Value
from connect.model import EconomicEvent, Outcome

EACH_MAX = 1_000
"""Elements of one `each`: what an event body of 256 KiB can reasonably list; each costs an evaluation or two."""
TRACE_VALUE_CHARS_MAX = 200
"""The longest value in the trace, as JSON: enough to recognise it; the event itself keeps the whole."""
USER_ID_CHARS_MAX = 255
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that no user id may hold: control characters, and halves of surrogate pairs, which no UTF-8 can carry."""

_json = msgspec.json.Encoder(order="deterministic", decimal_format="number")


class Gift(Struct, frozen=True):
    """The gift that one recipient gets by one effect, before it is an action."""

    role: str
    user_id: str
    amount: Decimal
    params: dict[str, Any]


class Stopped(Exception):
    """A rule ends without giving. Raised at any depth of an effect, caught where the rule is traced."""

    def __init__(self, outcome: Outcome, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.outcome: Outcome = outcome
        self.detail = detail
        self.field = field


def gifts_of(effect: CompiledEffect, event: EconomicEvent, activation: Activation) -> list[Gift]:
    """One gift a recipient, zero ones included. Raises `Stopped`."""
    return merge_gifts(_gifts(effect, event, activation))


def _gifts(effect: CompiledEffect, event: EconomicEvent, activation: Activation) -> Iterator[Gift]:
    """Yields what each recipient of an effect gets; one recipient may come several times. Raises `Stopped`."""
    if effect.each is not None and effect.each.share is not None:
        yield from _gifts_of_shares(effect, effect.each, effect.each.share, activation)
        return
    if effect.each is not None:
        yield from _gifts_of_each(effect, effect.each, activation)
        return
    recipients = _recipients(effect, event)
    if not recipients:
        return
    amount = _amount(effect, activation)
    params = _params(effect, activation) if amount else {}
    for user_id in recipients:
        yield Gift(effect.effect.recipient or "", user_id, amount, params)


def _recipients(effect: CompiledEffect, event: EconomicEvent) -> Iterable[str]:
    if effect.role is None:
        user_id = event.actor_user_id if effect.effect.recipient == "actor" else event.primary_subject_user_id
        return () if user_id is None else (user_id,)
    named = event.parties.get(effect.role, ())
    return (named,) if isinstance(named, str) else named


def _gifts_of_each(effect: CompiledEffect, each: CompiledEach, activation: Activation) -> Iterator[Gift]:
    for recipient, scope in _elements(each, activation):
        amount = _amount(effect, scope)
        yield Gift("each", recipient, amount, _params(effect, scope) if amount else {})


def _gifts_of_shares(
    effect: CompiledEffect, each: CompiledEach, share: Amount, activation: Activation
) -> Iterator[Gift]:
    """The whole, split by basis points: the parts sum to it exactly (`split_amount`)."""
    elements = list(_elements(each, activation))
    if not elements:
        return
    whole = _amount(effect, activation)
    shares: list[int] = []
    for _, scope in elements:
        points: Decimal = _evaluated(share, scope)
        if points != points.to_integral_value() or not 0 <= points <= BASIS_POINTS_WHOLE:
            raise Stopped("error", f"the share {share.text} is {points}: whole basis points from 0 to 10000 are needed")
        shares.append(int(points))
    try:
        parts = split_amount(whole, shares, effect.scale)
    except ValueError as error:
        raise Stopped("error", f"the shares {share.text}: {error}") from None
    for (recipient, scope), part in zip(elements, parts, strict=True):
        yield Gift("each", recipient, part, _params(effect, scope) if part else {})


def _elements(each: CompiledEach, activation: Activation) -> Iterator[tuple[str, Activation]]:
    """Each element's recipient, and the names its expressions know; elements without a recipient are left out."""
    found = _evaluated(each.items, activation)
    if not isinstance(found, list):
        raise Stopped("error", f"{each.items.text} is not a list")
    items = cast("list[Any]", found)
    if len(items) > EACH_MAX:
        raise Stopped("error", f"{each.items.text} has {len(items)} elements, {EACH_MAX} is the most")
    for rank, item in enumerate(items):
        scope = activation.bind({each.name: item, RANK: rank})
        recipient = _evaluated(each.recipient, scope)
        if recipient is not None:
            yield _user_id(recipient, each), scope


def _user_id(recipient: object, each: CompiledEach) -> str:
    if not isinstance(recipient, str) or not 0 < len(recipient) <= USER_ID_CHARS_MAX or _CONTROL.search(recipient):
        wanted = f"a text of 1 to {USER_ID_CHARS_MAX} characters without control characters"
        raise Stopped("error", f"{each.recipient.text} is no user id: {wanted} is needed, not {clipped(recipient)!r}")
    return recipient


def _amount(effect: CompiledEffect, activation: Activation) -> Decimal:
    """The amount at its unit's scale, zero or more."""
    exact: Decimal = _evaluated(effect.amount, activation)
    if exact < 0:
        raise Stopped("error", f"the amount {effect.amount.text} is negative: {exact}")
    try:
        return round_amount(exact, effect.scale, effect.effect.round)
    except ValueError as error:
        raise Stopped("error", f"the amount {effect.amount.text}: {error}") from None


def merge_gifts(gifts: Iterable[Gift]) -> list[Gift]:
    """One gift a recipient, with the sum of its amounts, in the order of first appearance.

    Each part was rounded by itself: the sum is that of the parts a person sees. `params` and role are the first part's.
    """
    merged: dict[str, Gift] = {}
    for gift in gifts:
        before = merged.get(gift.user_id)
        if before is None:
            merged[gift.user_id] = gift
        else:
            params = before.params if before.amount else gift.params
            merged[gift.user_id] = Gift(before.role, gift.user_id, CONTEXT.add(before.amount, gift.amount), params)
    return list(merged.values())


def _params(effect: CompiledEffect, activation: Activation) -> dict[str, Any]:
    if not effect.params_vary:
        return cast("dict[str, Any]", effect.params)
    params = _rendered(effect.params, activation)
    if len(_json.encode(params)) > PARAMS_BYTES_MAX:
        raise Stopped("error", f"the params of {effect.key} are over {PARAMS_BYTES_MAX} bytes of JSON")
    return params


def _rendered(params: Template, activation: Activation) -> Any:
    match params:
        case Value():
            return _evaluated(params, activation)
        case dict():
            return {key: _rendered(value, activation) for key, value in params.items()}
        case list():
            return [_rendered(value, activation) for value in params]
        case _:
            return params


def _evaluated(expression: Amount | Value, activation: Activation) -> Any:
    """The expression's value; `Stopped` where a field is missing or the evaluation fails."""
    value = expression.evaluate(activation)
    if isinstance(value, Missing):
        raise Stopped("missing", f"{expression.text} reads {value.field}, which is missing", value.field)
    if isinstance(value, Failed):
        raise Stopped("error", f"{expression.text}: {value.reason}")
    return value


def recipient_name(effect: CompiledEffect) -> str:
    return effect.effect.recipient or (f"element in {effect.each.items.text}" if effect.each else "recipient")


def clipped(value: Any) -> Any:
    """The value as JSON has it, where that is short, else the beginning of its JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = _json.encode(value)
    if len(text) > TRACE_VALUE_CHARS_MAX:
        return text.decode()[: TRACE_VALUE_CHARS_MAX - 1] + "…"
    return value if isinstance(value, str) else msgspec.json.decode(text)
