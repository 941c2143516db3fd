"""`connect rules versions`, `publish`, `rollback` and `stop`: what is live, and how that changes at once."""

from http import HTTPStatus
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from connect.cli.output import Cell, Exit, Output, fail, printable, say, say_json, say_page, tell
from connect.cli.remote import Answer, Params, Remote, remote, segment
from connect.cli.rules.stops import Revive, Stops, leave_stopped, standing, tell_revived, tell_stops

RULESET = "/internal/ruleset"
VERSIONS = f"{RULESET}/versions"
QUOTE = '"'
COLUMNS: dict[str, Cell] = {
    "VERSION": "version",
    "STATE": lambda row: "live" if row["live"] else "draft" if row["published_at"] is None else "",
    "PUBLISHED": "published_at",
    "AUTHOR": "author",
    "RULES": lambda row: len(row["rule_versions"]) or "",
    "NOTE": "note",
}
Note = Annotated[str, Parameter(help="Why; kept with the version and in the audit.")]


def publish_over(api: Remote, document: dict[str, Any], etag: str, note: str) -> dict[str, Any]:
    """Publishes over the version of `etag`, or ends the command if that is no longer the live one.

    In one step; with a note as a draft that is then published, which takes one.
    """
    if not note:
        return _unless_stale(api, "PUT", RULESET, document, etag).json
    draft = api.post(VERSIONS, document).json["version"]
    return publish_stored(api, draft, etag, note)


def publish_stored(api: Remote, version: int, etag: str, note: str) -> dict[str, Any]:
    """Publishes a draft or an old version over that of `etag`, or ends the command: a rule may be stopped meanwhile."""
    return _unless_stale(api, "POST", f"{VERSIONS}/{version}/publish", {"note": note}, etag).json


def _unless_stale(api: Remote, method: str, path: str, body: object, etag: str) -> Answer:
    answer = api.ask(method, path, body=body, headers={"If_Match": etag})
    if answer.status == HTTPStatus.PRECONDITION_FAILED:
        read = etag.strip(QUOTE)
        fail(
            Exit.REFUSED,
            f"the server's rules changed since version {read} was read: nothing was published; run it again.",
        )
    return answer if answer.status < HTTPStatus.MULTIPLE_CHOICES else api.refuse(answer)


def versions(*, limit: int = 50, cursor: int | None = None, output: Output = "table") -> int:
    """List the ruleset's versions, newest first: which is live, who published what, and why.

    Parameters
    ----------
    limit
        1 to 500.
    cursor
        Where the previous page ended.
    """
    params: Params = {"limit": limit, "cursor": cursor}
    say_page(remote().get(VERSIONS, params).json, COLUMNS, output)
    return Exit.OK


def publish(version: int, /, *, revive: Revive = None, note: Note = "", output: Output = "table") -> int:
    """Make a draft live; an old version comes back as a new one.

    A rule that `connect rules stop` stopped stays stopped, whatever the version says, and is named; --revive KEY lets
    it give again.

    For example:

    connect rules publish 12 --note "double points weekend"
    """
    api = remote()
    return _make_live(api, api.get(f"{VERSIONS}/{version}").json, revive, note, output)


def rollback(version: int, /, *, revive: Revive = None, note: Note = "", output: Output = "table") -> int:
    """Bring an earlier live version back, as a new version.

    What was decided meanwhile stays decided. A rule that `connect rules stop` stopped stays stopped, though it was not
    in that version, and is named; --revive KEY lets it give again.

    For example:

    connect rules rollback 11 --note "12 paid twice the rate"
    """
    api = remote()
    found = api.get(f"{VERSIONS}/{version}").json
    if found["live"]:
        fail(Exit.REFUSED, f"version {version} is live: name the one to go back to (`connect rules versions`).")
    if found["published_at"] is None:
        fail(Exit.REFUSED, f"version {version} was never live: `connect rules publish {version}` publishes a draft.")
    return _make_live(api, found, revive, note or f"rollback to version {version}", output)


def _make_live(api: Remote, found: dict[str, Any], revive: list[str] | None, note: str, output: Output) -> int:
    """As it is, unless somebody stopped rules that it lets give: then with these switched off."""
    from connect.cli.rules.changes import differences

    stops, etag = standing(api)
    document, stopped = leave_stopped(found["document"], stops, revive)
    changes = [change.words for change in differences(api.get(RULESET).json, document)]
    if stopped.stay:
        left = ", ".join(str(stop["key"]) for stop in stopped.stay)
        why = note or f"version {found['version']}"
        published = publish_over(api, document, etag, f"{why} ({left} still stopped)")
    else:
        published = publish_stored(api, found["version"], etag, note)
    if output == "json":
        say_json({**published, "still_stopped": stopped.stay, "changes": changes})
        return Exit.OK
    for words in changes:
        say(words)
    say(f"version {published['version']} is live, with {len(published['rule_versions'])} rule(s)")
    tell_stops(Stops(stopped.stay))
    tell_revived(published.get("revived") or [])
    return Exit.OK


def stop(
    key: str, /, *, pending: Literal["keep", "review", "cancel"] = "keep", note: Note = "", output: Output = "table"
) -> int:
    """Stop a rule now: it gives nothing more, in all processes within two seconds.

    For example:

    connect rules stop cashback-2 --pending review --note "paid far too much"

    Parameters
    ----------
    key
        The rule's key.
    pending
        What to do with the rule's actions that were never sent: keep (they are sent, or go on waiting for approval),
        review (a person approves each), cancel (none is sent, those that await approval neither).
    """
    answer = remote().post(f"/internal/rules/{segment(key)}/stop", {"pending": pending, "note": note}).json
    if output == "json":
        say_json(answer)
        return Exit.OK
    fate = {"review": "await approval", "cancel": "were cancelled"}.get(pending)
    say(f"rule {key} is stopped" + (f"; {answer['touched']} action(s) not yet sent {fate}" if fate else ""))
    tell(f"it stays so until `connect rules apply`, publish or rollback has --revive {printable(key)}")
    return Exit.OK
