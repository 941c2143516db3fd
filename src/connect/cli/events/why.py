"""A trace in plain words: what each rule made of an event."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from connect.cli.output import Cell, Exit, Output, printable, say_page
from connect.cli.remote import Remote

Fields = Mapping[str, Any]


REASONS: dict[str, Cell] = {
    "RECEIVED": "received_at",
    "EXTERNAL ID": "external_id",
    "ACTOR": "actor_user_id",
    "RULE": "rule",
    "REASON": "sentence",
}
"""The columns that tell of each event and rule, where many are asked about."""


def why_each(api: Remote, filters: dict[str, Any], output: Output) -> int:
    """A row for each event and rule that match."""
    page = api.get("/internal/events", filters).json
    items = [row for event in page["items"] for row in _reasons(api, event, filters)]
    say_page({"items": items, "next_cursor": page["next_cursor"]}, REASONS, output)
    return Exit.OK


def _reasons(api: Remote, event: Fields, filters: Fields) -> Iterator[dict[str, Any]]:
    """Yields what the rules made of an event; only the keys and outcomes asked for, where any are."""
    about = {name: event.get(name) for name in ("received_at", "id", "source", "external_id", "actor_user_id")}
    rules, outcomes = filters.get("rule"), filters.get("outcome")
    for told in cast("list[Fields]", api.get(f"/internal/events/{event['id']}/trace").json["rules"]):
        if (not rules or told["rule"] in rules) and (not outcomes or told["outcome"] in outcomes):
            yield {**about, **told}


def explain(event: Fields, actions: Sequence[Fields], trace: Fields) -> Iterator[str]:
    """Lines for a terminal; rules that gave come first, with their actions and how those ended."""
    yield from _heading(event)
    if event["status"] == "failed":
        yield f"deciding it failed: {printable(trace.get('failure') or 'no reason was kept')}"
        yield f"`connect events replay {event['id']}` decides it again"
        return
    if event["status"] == "received":
        yield "it is recorded and not decided yet: a worker will"
        return
    yield f"decided by ruleset version {trace['ruleset_version']}"
    if event["effects"] == "none":
        yield "recorded as history (effects=none): nothing is given, whatever the rules say"
    rules: list[Fields] = trace["rules"]
    if not rules:
        yield f"\nno rule is for events of type {printable(event['event_type'])}, and nothing was taken back"
    for rule in sorted(rules, key=lambda rule: rule["outcome"] != "gave"):
        yield from _rule(rule, [action for action in actions if action["rule_key"] == rule["rule"]])
    told = {rule["rule"] for rule in rules}
    if others := [action for action in actions if action["rule_key"] not in told]:
        yield "\nearlier decisions gave:"
        yield from map(_action, others)


def _heading(event: Fields) -> Iterator[str]:
    yield printable(f"{event['event_type']} {event['external_id']} from {event['source']}")
    who = f" by {event['actor_user_id']}" if event.get("actor_user_id") else ""
    yield printable(f"  event {event['id']}, happened {event['occurred_at']}{who}")


def _rule(rule: Fields, actions: Sequence[Fields]) -> Iterator[str]:
    yield ""
    yield printable(f"{rule['rule']}: {SENTENCES.get(rule['outcome'], rule['sentence'])}")
    if rule.get("line"):
        yield printable(f"  line {rule['line']}: {rule.get('text') or ''}".rstrip())
    for name, value in cast("Fields", rule.get("values") or {}).items():
        yield printable(f"  {name} = {value!r}" if isinstance(value, str) else f"  {name} = {_json(value)}")
    if rule.get("detail"):
        yield printable(f"  {rule['detail']}")
    yield from map(_action, actions)


SENTENCES = {
    "gave": "gave",
    "not_matched": "did not give: this line of its condition does not hold",
    "missing": "did not give: the event lacks a field the rule reads",
    "not_live": "did not give: it was not live",
    "error": "did not give: it failed",
    "no_recipient": "did not give: nobody has the role it gives to",
    "zero": "did not give: its amount came to zero",
    "limited": "did not give: a limit was reached",
    "short_of_budget": "did not give: its budget did not suffice",
    "lost_group": "did not give: another rule of its group did",
    "held_out": "did not give: the user is not among those who get it",
    "stopped": "was not asked: a rule before it stopped the rest",
    "already_gave": "gave for this event before",
    "took_back": "took back",
}
"""The words for each outcome; the line, the values and the detail follow on lines of their own."""


def _action(action: Fields) -> str:
    line = f"  {action['amount']} {action['unit']} to {action['user_id']} ({action['recipient_role']}) "
    line += f"by {action['target']}.{action['command']}: {action['status']}"
    if action.get("last_error"):
        line += f", {action['last_error']}"
    return printable(f"{line}  [{action['id']}]")


def _json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
