"""`connect actions`: find reward actions and do to them what only a person may."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from cyclopts import App, Parameter

from connect.cli.operate.bulk import Bulk, DryRun, Yes, bulk
from connect.cli.output import Cell, Exit, Output, Strings, fail, say, say_fields, say_json, say_page, say_table
from connect.cli.remote import given, remote

app = App(name="actions", help="List, retry, cancel, approve and reject reward actions.", help_format="plaintext")

ACTIONS = "/internal/reward-actions"
COLUMNS: dict[str, Cell] = {
    "CREATED": "created_at",
    "ID": "id",
    "RULE": "rule_key",
    "COMMAND": lambda row: f"{row['target']}.{row['command']}",
    "AMOUNT": "amount",
    "UNIT": "unit",
    "USER": "user_id",
    "STATUS": "status",
    "FAILURE": "failure",
    "ATTEMPTS": "attempts",
}
ATTEMPT_COLUMNS: dict[str, Cell] = {
    "ATTEMPT": "n",
    "STARTED": "started_at",
    "MS": lambda row: round(row["duration_ms"]),
    "OUTCOME": "outcome",
    "STATUS": "status_code",
    "ERROR": "error",
}
Status = Literal["pending", "blocked", "awaiting_approval", "dispatched", "completed", "failed", "cancelled"]
Failure = Literal["refused", "exhausted", "reported"]
Note = Annotated[str, Parameter(help="Why you do it; kept in the audit.")]
ActionId = Annotated[UUID | None, Parameter(help="The id of one action; without it, options say which.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which actions: every option given must match; one given several times matches any of its values."""

    status: Annotated[list[Status] | None, Parameter(negative="")] = None
    target: Strings = None
    rule: Strings = None
    user_id: Annotated[Strings, Parameter(name="--user")] = None
    event_id: Annotated[Strings, Parameter(name="--event", help="The id of the event it is for.")] = None
    failure: Annotated[list[Failure] | None, Parameter(negative="")] = None
    since: Annotated[str | None, Parameter(help="Created at or after this moment (RFC 3339).")] = None
    until: Annotated[str | None, Parameter(help="Created before this moment.")] = None
    failed_since: Annotated[str | None, Parameter(help="Failed at or after this moment.")] = None

    def given(self) -> dict[str, Any]:
        return given(**asdict(self))


ANY = Filters()


@app.command(name="list")
def list_(*, which: Filters = ANY, limit: int = 50, cursor: str | None = None, output: Output = "table") -> int:
    """List actions, newest first.

    Options that may be given several times match any of their values.

    For example:

    connect actions list --status failed --target points --failed-since 2026-11-22T00:00:00Z

    Parameters
    ----------
    limit
        1 to 500.
    cursor
        Where the previous page ended.
    """
    say_page(remote().get(ACTIONS, {**which.given(), "limit": limit, "cursor": cursor}).json, COLUMNS, output)
    return Exit.OK


@app.command
def show(action: UUID, /, *, output: Output = "table") -> int:
    """Show one action and every attempt to carry it out."""
    found = remote().get(f"{ACTIONS}/{action}").json
    if output == "json":
        say_json(found)
        return Exit.OK
    attempts = found.pop("attempt_log")
    say_fields(found)
    if attempts:
        say()
        say_table(attempts, ATTEMPT_COLUMNS)
    return Exit.OK


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Order:
    """How to do it."""

    note: Note = ""
    yes: Yes = False
    dry_run: DryRun = False
    output: Output = "table"


CAREFULLY = Order()


def _operate(operation: str, action: UUID | None, which: Filters, how: Order) -> int:
    api, filters = remote(), which.given()
    if action is None:
        order = Bulk(f"{ACTIONS}/{operation}", operation, "action", filters, how.note)
        return bulk(api, order, yes=how.yes, dry_run=how.dry_run, output=how.output)
    if filters or how.dry_run:
        fail(Exit.USAGE, "name one action, or options that match many: not both.")
    changed = api.post(f"{ACTIONS}/{action}/{operation}", {"note": how.note}).json
    if how.output == "json":
        say_json(changed)
    else:
        say(f"action {changed['id']} is now {changed['status']}")
    return Exit.OK


@app.command
def retry(action: ActionId = None, /, *, which: Filters = ANY, how: Order = CAREFULLY) -> int:
    """Send failed actions again, under the same ids.

    Only failed actions are touched. A target that carried an action out before answers as it did then: the id
    is the idempotency key.

    With options in place of an id, the command takes all that match: it says how many and asks, or goes on with --yes.

    For example:

    connect actions retry --target points --failure exhausted --note "points is back"
    """
    return _operate("retry", action, which, how)


@app.command
def cancel(action: ActionId = None, /, *, which: Filters = ANY, how: Order = CAREFULLY) -> int:
    """Cancel actions that were never sent, or write off failed ones.

    Actions under way cannot be cancelled.

    With options in place of an id, the command takes all that match: it says how many and asks, or goes on with --yes.

    For example:

    connect actions cancel --rule cashback-2 --status pending --note "wrong rate"
    """
    return _operate("cancel", action, which, how)


@app.command
def approve(action: ActionId = None, /, *, which: Filters = ANY, how: Order = CAREFULLY) -> int:
    """Approve actions that await approval: they are sent.

    An action with a hold is sent when its hold ends.

    With options in place of an id, the command takes all that match: it says how many and asks, or goes on with --yes.

    For example:

    connect actions approve --rule big-prize --user u1 --note "checked"
    """
    return _operate("approve", action, which, how)


@app.command
def reject(action: ActionId = None, /, *, which: Filters = ANY, how: Order = CAREFULLY) -> int:
    """Reject actions that await approval: they are never sent.

    A rejected action cannot be approved later.

    With options in place of an id, the command takes all that match: it says how many and asks, or goes on with --yes.

    For example:

    connect actions reject --user u1 --note "duplicate account"
    """
    return _operate("reject", action, which, how)
