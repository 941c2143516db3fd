"""Judges a run from outside: what was answered, what is stored, what the targets did, and every transition in between.

`faults_of` returns a sentence for each thing that is wrong, none for a sound run; test_mutants.py proves that it sees
what it is for.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from connect.engine.decide import State, decide
from connect.engine.index import Rulebook
from connect.intake.normalize import Terms, convert_reported, normalize
from connect.model import Command, RewardAction
from tests.chaos.feeder import Fact, History

# Tests may have what the product must not: triggers that write down every change of a row.
WATCH = """
CREATE TABLE watched (
    n bigint GENERATED ALWAYS AS IDENTITY, kind text, id uuid, before text, after text,
    attempts_before integer, attempts_after integer, frozen_parts_changed boolean
);
CREATE FUNCTION watch_action() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO watched (kind, id, before, after, attempts_before, attempts_after, frozen_parts_changed)
    VALUES ('action', OLD.id, OLD.status, NEW.status, OLD.attempts, NEW.attempts,
        (OLD.event_id, OLD.body, OLD.amount, OLD.user_id, OLD.target, OLD.rule_version)
        IS DISTINCT FROM (NEW.event_id, NEW.body, NEW.amount, NEW.user_id, NEW.target, NEW.rule_version));
    RETURN NEW;
END $$;
CREATE FUNCTION watch_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO watched (kind, id, before, after, attempts_before, attempts_after, frozen_parts_changed)
    VALUES ('event', OLD.id, OLD.status, NEW.status, 0, 0,
        (OLD.external_id, OLD.context, OLD.fingerprint, OLD.occurred_at)
        IS DISTINCT FROM (NEW.external_id, NEW.context, NEW.fingerprint, NEW.occurred_at));
    RETURN NEW;
END $$;
CREATE TRIGGER watch AFTER UPDATE ON reward_action FOR EACH ROW EXECUTE FUNCTION watch_action();
CREATE TRIGGER watch AFTER UPDATE ON event FOR EACH ROW EXECUTE FUNCTION watch_event();
"""

LEGAL = {
    "action": {
        ("pending", "dispatched"), ("dispatched", "dispatched"), ("dispatched", "pending"), ("dispatched", "completed"),
        ("dispatched", "failed"), ("pending", "completed"), ("pending", "failed"), ("failed", "completed"),
        ("completed", "completed"),
        # what a later fact does: taken back before it was sent, or wholly or in part after it; an undo waits its turn
        ("pending", "cancelled"), ("pending", "pending"), ("blocked", "pending"), ("blocked", "cancelled"),
    },
    "event": {("received", "received"), ("received", "decided"), ("received", "failed")},
}  # fmt: skip
"""Without a person's retry, cancel or replay, which no run here makes."""

EVENTS = """
SELECT id, source, external_id, event_type, occurred_at, actor_user_id, status, context, trace, ruleset_version,
    decided_at
FROM event
"""
ACTIONS = """
SELECT id, event_id, rule_key, rule_version, user_id, amount, unit, target, command, status, failure, attempts,
    last_error, body, reverses, reversed, frees_claim, created_at
FROM reward_action
"""
STATE = "SELECT key, value, computed_at FROM state"
WATCHED = (
    "SELECT kind, id, before, after, attempts_before, attempts_after, frozen_parts_changed FROM watched ORDER BY n"
)
UNENDED = """
SELECT (SELECT count(*) FROM event WHERE status = 'received')
    + (SELECT count(*) FROM reward_action
        WHERE status NOT IN ('completed', 'failed', 'cancelled', 'awaiting_approval'))
"""


class Observed(Struct):
    """Holds what there is at the end of a run."""

    events: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    changes: list[dict[str, Any]]
    effects: list[dict[str, Any]]
    """The sandbox's ledger."""
    state: list[dict[str, Any]] = []
    """The rows that rules remember."""


async def observe(pool: Any, ledger: list[dict[str, Any]]) -> Observed:
    async with pool.acquire() as connection:
        events, actions, changes, state = [
            [dict(row) for row in await connection.fetch(query)] for query in (EVENTS, ACTIONS, WATCHED, STATE)
        ]
    return Observed(events, actions, changes, ledger, state)


def decided_in_memory(facts: Mapping[str, Fact], rulebook: Rulebook) -> dict[str, RewardAction]:
    """Returns what the facts earn, by action id, decided here without any database."""
    now = datetime.now(UTC)
    expected: dict[str, RewardAction] = {}
    for fact in facts.values():
        event = normalize(convert_reported(fact), Terms(), now).event
        expected |= {str(action.id): action for action in decide(event, rulebook, State(now=now)).actions}
    return expected


def faults_of(history: History, rulebook: Rulebook, observed: Observed) -> list[str]:
    """Everything that is wrong with a run in which each action is to end as completed."""
    expected = decided_in_memory(history.facts, rulebook)
    return [
        *lost_or_doubled_events(history, observed),
        *_wrong_actions(expected, observed),
        *_wrong_effects(expected, history.facts, observed),
        *illegal_changes(observed),
    ]


def lost_or_doubled_events(history: History, observed: Observed) -> Iterator[str]:
    stored: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in observed.events:
        stored[row["source"], row["external_id"]].append(row)
    for external_id, fact in history.facts.items():
        acknowledged = history.acknowledged(external_id)
        rows = stored.pop((fact["source"], external_id), [])
        ids = {str(row["id"]) for row in rows}
        if not acknowledged:
            told = [answer.status for answer in history.answers.get(external_id, ())][-3:]
            yield f"event {external_id} was never acknowledged: {told}"
        if acknowledged - ids:
            yield f"event {external_id} is lost: acknowledged as {sorted(acknowledged)}, stored as {sorted(ids)}"
        if len(rows) > 1:
            yield f"event {external_id} is stored {len(rows)} times"
        for row in rows:
            if row["status"] != "decided":
                yield f"event {external_id} is {row['status']}, not decided"
            if row["context"] != fact["context"]:
                yield f"event {external_id} is stored as {row['context']}, reported as {fact['context']}"
    yield from (f"event {identity} was never reported" for identity in stored)


def _wrong_actions(expected: Mapping[str, RewardAction], observed: Observed) -> Iterator[str]:
    actions = {str(row["id"]): row for row in observed.actions}
    yield from (f"action {id} ({expected[id].rule_key}) is missing" for id in expected.keys() - actions.keys())
    yield from (f"action {id} ({actions[id]['rule_key']}) is owed to nobody" for id in actions.keys() - expected.keys())
    event_ids = {row["id"] for row in observed.events}
    for id, row in actions.items():
        if row["event_id"] not in event_ids:
            yield f"action {id} has no event"
        if row["status"] != "completed":
            reason = row["failure"] or row["last_error"]
            yield f"action {id} has not ended well: {row['status']} after {row['attempts']} attempts ({reason})"
        owed = expected.get(id)
        if owed is None:
            continue
        for name in ("rule_key", "user_id", "amount", "unit", "target", "command"):
            if row[name] != getattr(owed, name):
                yield f"action {id}: {name} is {row[name]}, deciding in memory gives {getattr(owed, name)}"


Owed = tuple[str, str, str, str, str]
"""One effect by what it is, whatever key it went under: source, external_id, rule, type, user."""


def _wrong_effects(
    expected: Mapping[str, RewardAction], facts: Mapping[str, Fact], observed: Observed
) -> Iterator[str]:
    bodies = {str(row["id"]): row["body"] for row in observed.actions}
    counts: Counter[Owed] = Counter(_of_effect(effect) for effect in observed.effects)
    for id, body in bodies.items():
        command = msgspec.json.decode(body, type=Command)
        event, rule = command.event, command.rule
        owed = (event.source, event.external_id, rule.key, command.type, command.user_id)
        if (count := counts.pop(owed, 0)) != 1:
            yield f"action {id} ({owed}) had {count} effects"
    yield from (f"{count} effects of {owed} are owed to nobody" for owed, count in counts.items())
    for effect in observed.effects:
        key = effect["key"]
        if effect["external_id"] not in facts:
            yield f"effect {key} is of an event that was never reported"
        if key in expected and effect["amount"] != expected[key].amount:
            yield f"effect {key}: the amount is {effect['amount']}, owed is {expected[key].amount}"
        if key in bodies and effect["body_sha256"] != hashlib.sha256(bodies[key].encode()).hexdigest():
            yield f"effect {key}: the body that was sent is not the one that is stored"


def _of_effect(effect: Mapping[str, Any]) -> Owed:
    return effect["source"], effect["external_id"], effect["rule"], effect["type"], effect["user_id"]


def illegal_changes(observed: Observed) -> Iterator[str]:
    ends: Counter[Any] = Counter()
    for change in observed.changes:
        kind, id, before, after = (change[name] for name in ("kind", "id", "before", "after"))
        was, attempts = change["attempts_before"], change["attempts_after"]
        if (before, after) not in LEGAL[kind]:
            yield f"{kind} {id} went from {before} to {after}"
        if attempts < was or attempts > was + 1:
            yield f"{kind} {id}: attempts went from {was} to {attempts}"
        if change["frozen_parts_changed"]:
            yield f"{kind} {id}: a part that was frozen at deciding changed"
        ends[id] += kind == "action" and after == "completed" != before
    yield from (f"action {id} was completed {count} times" for id, count in ends.items() if count > 1)
