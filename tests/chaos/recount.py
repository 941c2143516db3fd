"""Judges a run of `model_rules` from outside: what rules remember is recounted from the stored events and actions.

Nothing here uses the engine: periods, fractions and keys are worked out anew, in the plainest way. `faults_of` returns
a sentence for each thing that is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from tests.chaos import model_rules as rules
from tests.chaos.checker import Observed, illegal_changes, lost_or_doubled_events
from tests.chaos.feeder import History

ZONE = ZoneInfo("Europe/Berlin")
Row = Mapping[str, Any]


def faults_of(history: History, _rulebook: object, observed: Observed) -> list[str]:
    """Everything that is wrong with a run at whose end all is decided and sent, or waits for a person."""
    return [
        *lost_or_doubled_events(history, observed),
        *illegal_changes(observed),
        *wrong_traces(observed),
        *wrong_reversals(observed),
        *wrong_effects(observed),
        *wrong_state(observed),
        *passed_caps(observed),
    ]


def wrong_state(observed: Observed) -> Iterator[str]:
    """Rows of limits, budgets and counters that are not what events and actions come to."""
    stored = {row["key"]: Decimal(row["value"]) for row in observed.state if _is_kept(row)}
    stored = {key: value for key, value in stored.items() if not key.startswith(("link|", "safety|"))}
    actions = [row for row in observed.actions if row["reverses"] is None]
    expected = {**_budgets(actions), **_limits(observed.events, actions), **_counters(observed.events)}
    named = {_without_digest(key): value for key, value in stored.items()}
    for key in sorted(expected.keys() | named.keys()):
        if (held := named.get(key, Decimal(0))) != (due := expected.get(key, Decimal(0))):
            yield f"{key} holds {held}, the stored rows come to {due}"


def _is_kept(row: Row) -> bool:
    """A limit or budget that was locked and never asked holds nothing yet."""
    return row["key"].startswith("counter|") or row["computed_at"] is not None


def _without_digest(key: str) -> str:
    """A counter's key without the digest of its definition."""
    kind, first, rest = key.split("|", 2)
    return f"{kind}|{first.partition('.')[0]}|{rest}" if kind == "counter" else key


# --- budgets and limits ---------------------------------------------------------------------------


def live(action: Row) -> Decimal:
    return Decimal(0) if action["status"] == "cancelled" else Decimal(action["amount"]) - Decimal(action["reversed"])


def _budgets(actions: Sequence[Row]) -> dict[str, Decimal]:
    """Recounts the one budget, which is refilled."""
    spent = sum((live(action) for action in actions if action["rule_key"] == "bonus"), Decimal(0))
    return {"budget|pot|points": spent}


def _limits(events: Sequence[Row], actions: Sequence[Row]) -> dict[str, Decimal]:
    by_id = {event["id"]: event for event in events}
    sums: dict[str, Decimal] = defaultdict(Decimal)
    users_of: dict[str, set[Any]] = defaultdict(set)
    for action in actions:
        amount = live(action)
        if amount <= 0 or action["rule_key"] not in ("cashback", "third", "friend"):
            continue
        event = by_id[action["event_id"]]
        at = event["occurred_at"].astimezone(ZONE)
        user, actor, zone = action["user_id"], event["actor_user_id"], ZONE.key
        match action["rule_key"]:
            case "cashback":
                users_of[f"limit|cashback|uses|recipient|role|day|{zone}|{at:%Y-%m-%d}|{user}"].add(event["id"])
                sums[f"limit|cashback|amount:points|recipient|role|month|{zone}|{at:%Y-%m}|{user}"] += amount
            case "third":
                users_of[f"limit|third|uses|actor|role|ever|{zone}||{user}"].add(event["id"])
            case _:
                users_of[f"limit|friend|uses|parties.referrer|role|week|{zone}|{_monday(at)}|{user}"].add(event["id"])
                users_of[f"limit|friend|uses|actor|rule|ever|{zone}||{actor}"].add(event["id"])
    return {**sums, **{key: Decimal(len(found)) for key, found in users_of.items()}}


def _monday(at: datetime) -> str:
    return (at - timedelta(days=at.weekday())).strftime("%Y-%m-%d")


def passed_caps(observed: Observed) -> Iterator[str]:
    """Yields what is live beyond a cap."""
    actions = [row for row in observed.actions if row["reverses"] is None]
    caps = {
        "limit|cashback|uses": rules.CASHBACKS_A_DAY, "limit|cashback|amount": rules.CASHBACK_A_MONTH,
        "limit|third|uses": 1, "limit|friend|uses|parties.referrer": rules.FRIENDS_A_WEEK,
        "limit|friend|uses|actor": 1, "budget|pot": rules.POT,
    }  # fmt: skip
    for key, value in {**_budgets(actions), **_limits(observed.events, actions)}.items():
        [cap] = [cap for prefix, cap in caps.items() if key.startswith(prefix)]
        if value > cap:
            yield f"{key} has {value} of {cap}"


# --- counters -------------------------------------------------------------------------------------


def refunded(events: Sequence[Row]) -> dict[str, Fraction]:
    """Order -> the share of it that its refunds come to, at most all."""
    bought = {event["context"]["order"]: event for event in events if event["event_type"] == "purchase.completed"}
    shares: dict[str, Fraction] = defaultdict(Fraction)
    for event in events:
        if event["event_type"] == "purchase.refunded" and (original := bought.get(event["context"]["order"])):
            part = Fraction(event["context"]["refunded_minor"], original["context"]["amount_minor"])
            shares[event["context"]["order"]] += min(part, Fraction(1))
    return {order: min(share, Fraction(1)) for order, share in shares.items()}


def _counters(events: Sequence[Row]) -> dict[str, Decimal]:
    counted: dict[str, Decimal] = defaultdict(Decimal)
    shops: Counter[tuple[str, str]] = Counter()
    gone = {order for order, share in refunded(events).items() if share == 1}
    for event in events:
        if event["event_type"] != "purchase.completed":
            continue
        user, context = event["actor_user_id"], event["context"]
        shops[user, context["shop"]] += 1
        if context["order"] not in gone:
            day = event["occurred_at"].astimezone(ZONE).strftime("%Y-%m-%d")
            counted[f"counter|purchases|||{user}"] += 1
            counted[f"counter|spent|{day}||{user}"] += context["amount_minor"]
    for (user, shop), times in shops.items():
        counted[f"counter|shops|||{user}"] += 1
        counted[f"counter|shops||{_digest(shop)}|{user}"] = Decimal(times)
    return dict(counted)


def _digest(value: str) -> str:
    """Returns the digest of a distinct value, as its row's key has it."""
    return sha256(f'"{value}"'.encode()).hexdigest()[:32]


# --- actions --------------------------------------------------------------------------------------


def wrong_traces(observed: Observed) -> Iterator[str]:
    """A rule gave, says the trace, exactly where there is an action of it."""
    given: dict[Any, set[str]] = defaultdict(set)
    for action in observed.actions:
        if action["reverses"] is None:
            given[action["event_id"]].add(action["rule_key"])
    for event in observed.events:
        told = {entry[0] for entry in event["trace"] or () if entry[1] == "gave"}
        if told != given.pop(event["id"], set()):
            yield f"event {event['external_id']} gave by {sorted(told)}, says its trace, and its actions are others"
    yield from (f"actions of {keys} have no event" for keys in given.values())


def wrong_reversals(observed: Observed) -> Iterator[str]:
    """Each original is reversed by what its order's refunds come to, rounded once; and undone by no more than that."""
    orders = {event["id"]: event["context"].get("order") for event in observed.events}
    shares = refunded(observed.events)
    undone: dict[Any, Decimal] = defaultdict(Decimal)
    for action in observed.actions:
        if action["reverses"] is not None and action["frees_claim"] and action["status"] != "cancelled":
            undone[action["reverses"]] += Decimal(action["amount"])
    for action in observed.actions:
        if action["reverses"] is not None or action["rule_key"] not in ("cashback", "bonus"):
            continue
        share = shares.get(orders[action["event_id"]], Fraction(0))
        due = Decimal(Fraction(action["amount"]) * share // 1)
        if Decimal(action["reversed"]) != due:
            yield f"action {action['id']} of {action['amount']} is reversed by {action['reversed']}, due is {due}"
        sent = Decimal(0) if action["status"] == "cancelled" else due
        if undone[action["id"]] != sent:
            yield f"action {action['id']} is undone by {undone[action['id']]}, due is {sent}"


def wrong_effects(observed: Observed) -> Iterator[str]:
    """Yields actions that have not ended well, and effects that a completed action lacks or another one has."""
    effects = Counter(effect["key"] for effect in observed.effects)
    for action in observed.actions:
        id, status = str(action["id"]), action["status"]
        if status not in ("completed", "cancelled", "awaiting_approval"):
            reason = action["failure"] or action["last_error"]
            yield f"action {id} has not ended well: {status} after {action['attempts']} attempts ({reason})"
        if (count := effects.pop(id, 0)) != (status == "completed"):
            yield f"action {id}, which is {status}, had {count} effects"
    yield from (f"effect {key} is owed to nobody" for key in effects)


WHOLE_MODEL: dict[str, Any] = {"rules": rules.model_rules(), "judge": faults_of, **rules.UNDO}
"""The arguments that a `cluster` runs with and is judged by."""
