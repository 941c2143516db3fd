"""What one fact earns by a ruleset: pure, the same answer for the same arguments, here and in a backtest.

`needs` names the state an event can touch, the shell locks and loads it into a `State`, and `decide` returns the
actions and the reasons. No clock: `State.now` is the moment of deciding, and the only one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import msgspec
from msgspec import Struct

from connect.engine.amounts import CONTEXT, WHOLE_DIGITS_MAX, format_amount, round_amount
from connect.engine.command import action_id
from connect.engine.expression import Activation, Amount, Failed, Missing, Value, make_activation
from connect.engine.index import PARAMS_BYTES_MAX, RANK, CompiledEach, CompiledEffect, CompiledRule, Rulebook, Template
from connect.model import Decision, EconomicEvent, Outcome, RewardAction, RuleTrace, Warning_

ACTIONS_MAX = 1_000
"""Of one event: one transaction writes them all. The rule that would pass it is an error, rules before it stand."""
EACH_MAX = 1_000
"""Elements of one `each`: what an event body of 256 KiB can reasonably list; each costs an evaluation or two."""
TRACE_VALUE_CHARS_MAX = 200
"""Of a value in the trace, as JSON: enough to recognise it; the event itself keeps the whole."""
USER_ID_CHARS_MAX = 255
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no user id may hold: control characters, and halves of surrogate pairs, which no UTF-8 can carry."""

_json = msgspec.json.Encoder(order="deterministic", decimal_format="number")


class Needs(Struct, frozen=True):
    """What must be locked and loaded before an event is decided: keys of state rows, sorted, in the order to lock."""

    state_keys: tuple[str, ...] = ()


class State(Struct, frozen=True, kw_only=True):
    """What deciding may know beside the event and the rules, as loaded under the locks that `needs` asked for."""

    now: datetime
    given: frozenset[str] = frozenset()
    """Keys of rules that already gave for this event, in any version: a replay leaves them out."""


class Gift(Struct, frozen=True):
    """What one recipient gets by one effect, before it is an action."""

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


def needs(event: EconomicEvent, rulebook: Rulebook) -> Needs:
    """What `decide` will want to know of the state: nothing yet, as no rule has a limit, a budget or a counter."""
    return Needs()


def decide(event: EconomicEvent, rulebook: Rulebook, state: State) -> Decision:
    """Decides `event` by every rule of its type, in order. Never raises for what a rule or an event holds.

    An event reported with `effects` none is traced, and gives nothing.
    """
    deciding = _Deciding(event, state)
    rules = rulebook.of_type(event.event_type)
    for compiled in rules:
        deciding.apply(compiled)
    if not rules:
        deciding.warnings.append(_no_rule(event.event_type, rulebook))
    return Decision(
        event_id=event.id,
        ruleset_version=rulebook.version,
        actions=tuple(deciding.actions),
        trace=tuple(deciding.trace),
        warnings=tuple(deciding.warnings),
    )


def _no_rule(event_type: str, rulebook: Rulebook) -> Warning_:
    nearest = rulebook.nearest_type(event_type)
    meant = f"; did you mean {nearest}?" if nearest else ""
    return Warning_(kind="no_rule_for_type", detail=f"no rule is for {event_type}{meant}", nearest=nearest)


class _Deciding:
    """One event on its way through the rules: what was given, traced and warned of so far."""

    def __init__(self, event: EconomicEvent, state: State) -> None:
        self.event = event
        self.state = state
        self.actions: list[RewardAction] = []
        self.trace: list[RuleTrace] = []
        self.warnings: list[Warning_] = []
        self._activation: Activation | None = None
        self._values_of: dict[tuple[str, ...], dict[str, Any]] = {}

    @property
    def activation(self) -> Activation:
        """Made once an event, and only when a rule is evaluated at all (35 us)."""
        if self._activation is None:
            self._activation = make_activation(_names(self.event))
        return self._activation

    def apply(self, compiled: CompiledRule) -> None:
        key = compiled.rule.key
        if key in self.state.given:
            self.trace.append(RuleTrace(key, "already_gave"))
        elif detail := _not_live(compiled, self.event.occurred_at):
            self.trace.append(RuleTrace(key, "not_live", detail=detail))
        elif compiled.broken:
            self.trace.append(RuleTrace(key, "error", detail=compiled.broken))
        elif self._conditions_hold(compiled):
            self._give(compiled)

    def _conditions_hold(self, compiled: CompiledRule) -> bool:
        for line, condition in enumerate(compiled.conditions, start=1):
            held = condition.evaluate(self.activation)
            if held is not True:
                self._trace_line(compiled.rule.key, line, held, self._values(condition.reads))
                return False
        return True

    def _trace_line(self, key: str, line: int, held: bool | Missing | Failed, values: Mapping[str, Any]) -> None:
        match held:
            case Missing(field):
                self.trace.append(RuleTrace(key, "missing", line, values, f"{field} is missing"))
                self._warn_of_missing(key, line, field)
            case Failed(reason):
                self.trace.append(RuleTrace(key, "error", line, values, reason))
            case _:
                self.trace.append(RuleTrace(key, "not_matched", line, values))

    def _warn_of_missing(self, key: str, line: int | None, field: str) -> None:
        where = f"line {line} of its condition" if line else "its actions"
        detail = f"the rule {key} reads {field} in {where}, and the event has no such field"
        self.warnings.append(Warning_(kind="field_missing", detail=detail, rule=key, line=line, field=field))

    def _give(self, compiled: CompiledRule) -> None:
        rule = compiled.rule
        values = self._values(compiled.amount_reads)
        if self.event.effects == "none":
            self.trace.append(RuleTrace(rule.key, "not_live", None, values, "reported with effects=none"))
            return
        try:
            actions = self._actions(compiled)
        except Stopped as stopped:
            self.trace.append(RuleTrace(rule.key, stopped.outcome, None, values, stopped.detail))
            if stopped.field is not None:
                self._warn_of_missing(rule.key, None, stopped.field)
        else:
            self.actions += actions
            self.trace.append(RuleTrace(rule.key, "gave", None, values))

    def _actions(self, compiled: CompiledRule) -> list[RewardAction]:
        """Every action of one rule, or `Stopped`: a rule gives wholly or not at all, but for recipients it lacks."""
        actions: list[RewardAction] = []
        anyone = False
        for effect in compiled.effects:
            gifts = merge_gifts(_gifts(effect, self.event, self.activation))
            if not gifts and compiled.rule.all_or_nothing:
                raise Stopped(
                    "no_recipient", f"no {_recipient_name(effect)} for {effect.key}, and the rule is all or nothing"
                )
            anyone = anyone or bool(gifts)
            actions += [self._action(compiled, effect, gift) for gift in gifts if gift.amount]
            if len(self.actions) + len(actions) > ACTIONS_MAX:
                raise Stopped("error", f"with these the event would have more than {ACTIONS_MAX} actions")
        if not anyone:
            raise Stopped("no_recipient", f"the event has no {_recipient_name(compiled.effects[0])}")
        if not actions:
            raise Stopped("zero", "every amount is 0")
        return actions

    def _action(self, compiled: CompiledRule, effect: CompiledEffect, gift: Gift) -> RewardAction:
        event, terms = self.event, effect.effect
        if gift.amount.adjusted() >= WHOLE_DIGITS_MAX:
            raise Stopped("error", f"the amount for {gift.user_id} has more than {WHOLE_DIGITS_MAX} digits")
        hold_until = None if effect.hold is None else _held(event.occurred_at, effect)
        return RewardAction(
            id=action_id(event.source, event.external_id, compiled.rule.key, effect.key, gift.user_id),
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
            status="awaiting_approval" if terms.review else "pending",
            due_at=None if terms.review else max(self.state.now, hold_until or self.state.now),
            hold_until=hold_until,
            created_at=self.state.now,
        )

    def _values(self, reads: tuple[str, ...]) -> dict[str, Any]:
        """What the trace shows of the fields read. Remembered: the rules of a type read much the same."""
        if reads not in self._values_of:
            self._values_of[reads] = {f: _clipped(value) for f, value in self.activation.values_read(reads).items()}
        return self._values_of[reads]


def _names(event: EconomicEvent) -> dict[str, Any]:
    """The event as expressions know it (3-rules, "Names in expressions")."""
    return {
        "context": event.context,
        "actor_user_id": event.actor_user_id,
        "primary_subject_user_id": event.primary_subject_user_id,
        "parties": event.parties,
        "event_type": event.event_type,
        "source": event.source,
        "external_id": event.external_id,
        "occurred_at": event.occurred_at,
    }


def _not_live(compiled: CompiledRule, occurred_at: datetime) -> str:
    """Why the rule does not apply at that moment, or nothing. The window is half-open: [starts_at, ends_at)."""
    rule = compiled.rule
    if not rule.enabled:
        return "disabled"
    if rule.starts_at is not None and occurred_at < rule.starts_at:
        return f"starts {_utc(rule.starts_at)}"
    if rule.ends_at is not None and occurred_at >= rule.ends_at:
        return f"ended {_utc(rule.ends_at)}"
    return ""


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _held(occurred_at: datetime, effect: CompiledEffect) -> datetime:
    try:
        return occurred_at + effect.hold if effect.hold else occurred_at
    except OverflowError:
        raise Stopped("error", f"the hold {effect.effect.hold} ends beyond the year 9999") from None


def _clipped(value: Any) -> Any:
    """The value as JSON has it, where that is short, else the beginning of its JSON."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = _json.encode(value)
    if len(text) > TRACE_VALUE_CHARS_MAX:
        return text.decode()[: TRACE_VALUE_CHARS_MAX - 1] + "…"
    return value if isinstance(value, str) else msgspec.json.decode(text)


# --- who gets how much ---------------------------------------------------------------------------


def _gifts(effect: CompiledEffect, event: EconomicEvent, activation: Activation) -> Iterator[Gift]:
    """What each recipient of an effect gets; one recipient may come several times. Raises `Stopped`."""
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
    found = _evaluated(each.items, activation)
    if not isinstance(found, list):
        raise Stopped("error", f"{each.items.text} is not a list")
    items = cast("list[Any]", found)
    if len(items) > EACH_MAX:
        raise Stopped("error", f"{each.items.text} has {len(items)} elements, {EACH_MAX} is the most")
    for rank, item in enumerate(items):
        scope = activation.bind({each.name: item, RANK: rank})
        recipient = _evaluated(each.recipient, scope)
        if recipient is None:
            continue
        amount = _amount(effect, scope)
        yield Gift("each", _user_id(recipient, each), amount, _params(effect, scope) if amount else {})


def _user_id(recipient: object, each: CompiledEach) -> str:
    if not isinstance(recipient, str) or not 0 < len(recipient) <= USER_ID_CHARS_MAX or _CONTROL.search(recipient):
        wanted = f"a text of 1 to {USER_ID_CHARS_MAX} characters without control characters"
        raise Stopped("error", f"{each.recipient.text} is no user id: {wanted} is needed, not {_clipped(recipient)!r}")
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


def _recipient_name(effect: CompiledEffect) -> str:
    return effect.effect.recipient or (f"element in {effect.each.items.text}" if effect.each else "recipient")
