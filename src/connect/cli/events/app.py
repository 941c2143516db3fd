"""`connect events`: send, import, find, explain and replay facts."""

from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal, cast

from cyclopts import App, Parameter

from connect.cli.operate.bulk import Bulk, DryRun, Yes, bulk
from connect.cli.output import (
    Cell,
    Exit,
    InputFile,
    Output,
    Strings,
    fail,
    say,
    say_fields,
    say_json,
    say_page,
    say_table,
    tell,
)
from connect.cli.remote import Remote, given, remote, segment

app = App(name="events", help="Send, import, find, explain and replay events.", help_format="plaintext")

EVENTS = "/internal/events"
COLUMNS: dict[str, Cell] = {
    "RECEIVED": "received_at",
    "ID": "id",
    "SOURCE": "source",
    "EXTERNAL ID": "external_id",
    "TYPE": "event_type",
    "ACTOR": "actor_user_id",
    "STATUS": "status",
}
ACTION_COLUMNS: dict[str, Cell] = {
    "ACTION": "id",
    "RULE": "rule_key",
    "COMMAND": lambda row: f"{row['target']}.{row['command']}",
    "AMOUNT": "amount",
    "UNIT": "unit",
    "USER": "user_id",
    "STATUS": "status",
}
EventStatus = Literal["received", "decided", "failed"]
Outcome = Literal[
    "gave", "not_matched", "missing", "limited", "short_of_budget", "lost_group", "held_out", "not_live", "error",
    "already_gave", "took_back", "no_recipient", "zero", "stopped",
]  # fmt: skip
"""The statuses and outcomes of `connect.model`, copied: the command line starts without it. A test compares the two."""


@app.command
def send(
    file: Annotated[str | None, InputFile] = None,
    /,
    *,
    external_id: Annotated[str | None, Parameter(name=["--id", "--external-id"])] = None,
    event_type: Annotated[str | None, Parameter(name=["--type", "--event-type"])] = None,
    source: str | None = None,
    occurred_at: str | None = None,
    actor: str | None = None,
    subject: str | None = None,
    party: Strings = None,
    context: Annotated[Strings, Parameter(name=["--context", "-x"])] = None,
    effects: Annotated[bool, Parameter(negative="--no-effects")] = True,
    output: Output = "table",
) -> int:
    """Report one event and show what it earned.

    Sending the same event again is safe: it is known by its source and id, and earns nothing twice.

    For example:

    connect events send --id order-1001 --type purchase.completed --actor u1 -x amount_minor=12990 -x currency=EUR

    connect events send event.json

    Parameters
    ----------
    file
        A file with the event as JSON; - reads stdin. Options replace its fields.
    external_id
        The event's id at its source; with the source its identity, for ever.
    event_type
        For example purchase.completed.
    source
        The source where the event happened (default: the key's source, else "default").
    occurred_at
        RFC 3339 with offset, for example 2026-11-22T10:00:00Z (default: now).
    actor
        The user who did it.
    subject
        The user it was done to.
    party
        ROLE=USER; a role given twice has several users.
    context
        NAME=VALUE. What reads as JSON is JSON (12990, true, ["a"]); anything else is text.
    effects
        --no-effects records history: nothing is given.
    """
    from connect.cli.events.reading import merge_event

    flags = given(
        external_id=external_id,
        event_type=event_type,
        source=source,
        occurred_at=occurred_at,
        actor_user_id=actor,
        primary_subject_user_id=subject,
    )
    body = merge_event(file, flags, parties=party or [], context=context or [])
    return _send(body, {} if effects else {"effects": "none"}, output)


def _send(body: Any, query: dict[str, str], output: Output) -> int:
    answer = remote().post(EVENTS, body, query).json
    if output == "json":
        say_json(answer)
    else:
        _say_recorded(answer)
    return Exit.OK


def _say_recorded(answer: dict[str, Any]) -> None:
    event = answer["event"]
    if event["status"] == "received":
        what = "recorded; a worker will decide it"
    else:
        what = f"decided by ruleset version {event['ruleset_version']}"
    known = "already known, " if answer["duplicate"] else ""
    say(f"{event['source']} {event['external_id']} is event {event['id']}: {known}{what}")
    if answer.get("actions"):
        say_table(answer["actions"], ACTION_COLUMNS)
    elif event["status"] == "decided":
        say("it earned nothing" + (" (recorded as history)" if event["effects"] == "none" else ""))
    for warning in cast("list[dict[str, Any]]", answer.get("warnings") or []):
        tell(f"warning: {warning['detail']}")


@app.command(name="import")
def import_(
    file: Annotated[str, InputFile],
    /,
    *,
    effects: Annotated[bool, Parameter(negative="--no-effects")] = True,
    batch: int = 500,
    rejects: str | None = None,
    patience: float = 120.0,
    output: Output = "table",
) -> int:
    """Report all events of a file, in its order.

    Importing a file again is safe: events that Connect has are duplicates, and nothing doubles. Ends with 1 if
    any event was refused, with 3 if Connect did not take them all.

    For example:

    connect events import events.ndjson --rejects rejects.ndjson

    connect events import history.ndjson --no-effects

    Parameters
    ----------
    file
        NDJSON (an event a line), a JSON array of events, or a --rejects file of an earlier run; - reads stdin.
    effects
        --no-effects records history: nothing is given (scope events:backfill).
    batch
        Events in one request, 1 to 1000.
    rejects
        Where to write the refused events, each with its line and the reason. Mend them there and import that file.
    patience
        Seconds to go on trying while Connect does not answer.
    """
    from connect.cli.events.reading import import_events

    return import_events(
        remote(), file, effects=effects, batch=batch, rejects=rejects, patience_s=patience, output=output
    )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which events: every option given must match; one given several times matches any of its values."""

    event_type: Annotated[Strings, Parameter(name=["--type", "--event-type"])] = None
    actor_user_id: Annotated[Strings, Parameter(name=["--actor", "--user"])] = None
    source: Strings = None
    external_id: Annotated[Strings, Parameter(name=["--id", "--external-id"], help="The id at its source.")] = None
    status: Annotated[list[EventStatus] | None, Parameter(negative="")] = None
    rule: Annotated[Strings, Parameter(help="Events that this rule was asked about.")] = None
    outcome: Annotated[
        list[Outcome] | None,
        Parameter(negative="", help="The outcome that the rule (--rule) had for them, such as limited."),
    ] = None
    since: Annotated[str | None, Parameter(help="Received at or after this moment (RFC 3339).")] = None
    until: Annotated[str | None, Parameter(help="Received before this moment.")] = None

    def given(self) -> dict[str, Any]:
        return given(**asdict(self))


ANY = Filters()


@app.command(name="list")
def list_(*, which: Filters = ANY, limit: int = 50, cursor: str | None = None, output: Output = "table") -> int:
    """List events, newest first.

    Options that may be given several times match any of their values.

    For example:

    connect events list --type purchase.completed --actor u1 --since 2026-11-01T00:00:00Z

    Parameters
    ----------
    limit
        1 to 500.
    cursor
        Where the previous page ended.
    """
    say_page(remote().get(EVENTS, {**which.given(), "limit": limit, "cursor": cursor}).json, COLUMNS, output)
    return Exit.OK


@app.command
def show(event: str, /, *, source: str | None = None, output: Output = "table") -> int:
    """Show one event and its actions.

    Parameters
    ----------
    event
        The event's id, or its external id.
    source
        The source of the external id, where several have one.
    """
    found = find_event(remote(), event, source)
    if output == "json":
        say_json(found)
        return Exit.OK
    say_fields(found["event"])
    if found["actions"]:
        say()
        say_table(found["actions"], ACTION_COLUMNS)
    return Exit.OK


@app.command
def why(
    event: str | None = None,
    /,
    *,
    which: Filters = ANY,
    limit: int = 20,
    cursor: str | None = None,
    output: Output = "table",
) -> int:
    """Say why an event earned what it earned, or what a rule made of many.

    For one event, the command shows of each rule whether it gave, which line did not hold and the values it read, and
    what became of its actions. With options in place of an event, it lists the events that match, newest first, with a
    line for each of their rules (only for those that --rule and --outcome name).

    For example:

    connect events why order-1001 --source shop

    connect events why --user u1 --rule cashback-2 --outcome limited

    Parameters
    ----------
    event
        The event's id, or its external id (with --source, where several have one).
    limit
        Events at most, 1 to 500.
    cursor
        Where the previous page ended.
    """
    api, filters = remote(), which.given()
    if event is None:
        if not filters:
            fail(Exit.USAGE, "name an event, or say which, for example with --user, --rule and --outcome.")
        from connect.cli.events.why import why_each

        return why_each(api, {**filters, "limit": limit, "cursor": cursor}, output)
    sources = filters.pop("source", [None])
    if filters or len(sources) > 1:
        fail(Exit.USAGE, "name one event, or options that match many: not both.")
    found = find_event(api, event, sources[0])
    trace = api.get(f"{EVENTS}/{found['event']['id']}/trace").json
    if output == "json":
        say_json({**trace, "event": found["event"], "actions": found["actions"]})
    else:
        from connect.cli.events.why import explain

        for line in explain(found["event"], found["actions"], trace):
            say(line)
    return Exit.OK


@app.command
def replay(
    event: str | None = None,
    /,
    *,
    which: Filters = ANY,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = "table",
) -> int:
    """Decide events again by the live rules.

    Rules that already gave for an event are left out: nothing is given twice.
    With options in place of an event, the command takes all that match: it says how many and asks, or goes on with
    --yes.

    For example:

    connect events replay order-1001

    connect events replay --status failed --since 2026-11-22T00:00:00Z

    Parameters
    ----------
    event
        The event's id, or its external id (with --source, where several have one).
    """
    api, filters = remote(), which.given()
    if event is None:
        return bulk(api, Bulk(f"{EVENTS}/replay", "replay", "event", filters), yes=yes, dry_run=dry_run, output=output)
    sources = filters.pop("source", [None])
    if filters or dry_run or len(sources) > 1:
        fail(Exit.USAGE, "name one event, or options that match many: not both.")
    found = find_event(api, event, sources[0])
    answer = api.post(f"{EVENTS}/{found['event']['id']}/replay").json
    if output == "json":
        say_json(answer)
    else:
        _say_replayed(answer, len(answer["actions"]) - len(found["actions"]))
    return Exit.OK


def _say_replayed(answer: dict[str, Any], fresh: int) -> None:
    say(f"decided again by ruleset version {answer['event']['ruleset_version']}: {fresh} new action(s)")
    if answer["actions"]:
        say_table(answer["actions"], ACTION_COLUMNS)


def find_event(api: Remote, event: str, source: str | None) -> dict[str, Any]:
    """The one event of this id, else of this external id, with its actions. Ends the command on none and on several."""
    if source is None and _is_uuid(event):
        answer = api.ask("GET", f"{EVENTS}/{segment(event)}")
        if answer.status == HTTPStatus.OK:
            return answer.json
        if answer.status != HTTPStatus.NOT_FOUND:
            api.refuse(answer)
    found = api.get(EVENTS, given(external_id=event, source=source)).json["items"]
    if not found:
        fail(Exit.REFUSED, f"there is no event {event!r}" + (f" of source {source!r}" if source else "") + ".")
    if len(found) > 1:
        sources = ", ".join(sorted(item["source"] for item in found))
        fail(Exit.USAGE, f"{event!r} is an external id at several sources: add --source with one of {sources}.")
    return api.get(f"{EVENTS}/{found[0]['id']}").json


def _is_uuid(text: str) -> bool:
    from uuid import UUID

    try:
        UUID(text)
    except ValueError:
        return False
    return True
