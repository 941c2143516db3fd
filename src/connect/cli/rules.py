"""`connect rules`: rules as code, checked and tested here, published there."""

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import App, Parameter
from msgspec import Struct

from connect.cli.local_rules import File, check, new, run_inline_tests
from connect.cli.output import Cell, Exit, Output, fail, printable, say, say_json, say_page, tell
from connect.cli.remote import Answer, Params, Remote, remote, segment
from connect.cli.rule_counters import rebuild_counters
from connect.cli.rule_schemas import learn_schema
from connect.cli.rule_usage import spell_usage

if TYPE_CHECKING:
    from connect.cli.rule_changes import Change

app = App(
    name="rules",
    help="Rules as code: write, check, test, compare, apply, stop.",
    help_format="plaintext",
    error_formatter=spell_usage,
)
app.command(new)
app.command(check)
app.command(run_inline_tests, name="test")
app.command(rebuild_counters)
app.command(learn_schema)

RULESET = "/internal/ruleset"
VERSIONS = f"{RULESET}/versions"
QUOTE = '"'
YAML = "application/yaml"
NAMED_MAX = 10
"""Rules named that stay though the file has none of them: one team's file may be small beside the server's."""
COLUMNS: dict[str, Cell] = {
    "VERSION": "version",
    "STATE": lambda row: "live" if row["live"] else "draft" if row["published_at"] is None else "",
    "PUBLISHED": "published_at",
    "AUTHOR": "author",
    "RULES": lambda row: len(row["rule_versions"]) or "",
    "NOTE": "note",
}
Note = Annotated[str, Parameter(help="Why; kept with the version and in the audit.")]
Prune = Annotated[bool, Parameter(negative="", help="Retire what the file does not name.")]


class Plan(Struct, frozen=True):
    """What publishing a file would make of what is live."""

    live: dict[str, Any]
    document: dict[str, Any]
    etag: str
    changes: list["Change"]
    kept: list[str]
    """Keys of rules that are live and stay, though the file does not name them."""

    @property
    def version(self) -> str:
        return self.etag.strip(QUOTE)

    @property
    def words(self) -> list[str]:
        return [change.words for change in self.changes]


def _plan(api: Remote, file: str, *, prune: bool) -> Plan:
    """Ends the command where the file has errors beside what the server has."""
    from connect.cli.rule_files import read_text

    text = read_text(file)
    answer = api.get(RULESET)
    return _plan_over(cast("dict[str, Any]", answer.json), answer.headers["etag"], file, text, prune=prune)


def _plan_over(live: dict[str, Any], etag: str, file: str, text: str, *, prune: bool) -> Plan:
    from connect.cli.rule_changes import differences
    from connect.cli.rule_files import merge, read_checked

    wanted = read_checked(file, text, None if prune else live)
    document = wanted if prune else merge(live, wanted)
    named = {rule["key"] for rule in wanted.get("rules") or ()}
    kept = [] if prune else sorted({rule["key"] for rule in live.get("rules") or ()} - named)
    return Plan(live, document, etag, differences(live, document), kept)


def _tell_kept(file: str, kept: list[str]) -> None:
    """A rule whose key was changed in the file goes on beside its successor, unless somebody notices."""
    from connect.cli.rule_files import spoken

    if not kept:
        return
    one = len(kept) == 1
    named = ", ".join(kept[:NAMED_MAX]) + (f" and {len(kept) - NAMED_MAX} more" if len(kept) > NAMED_MAX else "")
    which = "1 rule on the server is" if one else f"{len(kept)} rules on the server are"
    stay, them = ("stays", "it") if one else ("stay", "them")
    tell(printable(f"{which} not in {spoken(file)} and {stay}: {named} (--prune would retire {them})"))


@app.command
def diff(
    file: File,
    /,
    *,
    prune: Prune = False,
    history: Annotated[str | None, Parameter(show_default=False)] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    output: Output = "table",
) -> int:
    """Say what applying a file would change on the server: every field, with its old and its new value.

    With --history also what it would have given: the stored events of that time are decided by it, in the order they
    came, and what each rule gives is shown beside what was given, per unit, day and user, with money where units have
    a worth. That reads the database itself (CONNECT_DATABASE_URL, or the embedded one that runs), asks no server,
    changes nothing and sends nothing.

    Ends with 0 whether or not there is a difference; `connect rules apply --check` ends with 2 for scripts. 1: the file
    has errors; 3: the server, or the database, does not answer.

    For example:

    connect rules diff rules.yaml --prune

    connect rules diff rules.yaml --history 30d

    Parameters
    ----------
    history
        How much of it: 12h, 30d, 4w, or all.
    config
        Settings file (default: connect.toml), for --history.
    """
    if history is not None:
        import asyncio

        return asyncio.run(_diff_history(file, history, config, output, prune=prune))
    plan = _plan(remote(), file, prune=prune)
    if output == "json":
        changes = [_shown(change) for change in plan.changes]
        say_json({"version": int(plan.version), "changes": changes, "kept": plan.kept})
        return Exit.OK
    _say_changes(plan)
    _tell_kept(file, plan.kept)
    return Exit.OK


def _say_changes(plan: Plan) -> None:
    for line in plan.words:
        say(line)
    if not plan.changes:
        say(f"the server (version {plan.version}) has this already")


async def _diff_history(file: str, history: str, config: Path | None, output: str, *, prune: bool) -> int:
    from msgspec import to_builtins

    from connect.cli.rule_files import read_text
    from connect.cli.rule_history import as_json, backtest, opened, show, window_s
    from connect.engine.ruleset import convert_ruleset

    window, text = window_s(history), read_text(file)
    async with opened(config) as live:
        plan = _plan_over(to_builtins(live.document), str(live.version), file, text, prune=prune)
        compared = await backtest(live, plan.document, window)
    candidate = convert_ruleset(plan.document)
    if output == "json":
        changes = [_shown(change) for change in plan.changes]
        say_json({"version": live.version, "changes": changes, "history": as_json(compared, candidate)})
        return Exit.OK
    _say_changes(plan)
    say()
    show(compared, candidate)
    return Exit.OK


def _shown(change: "Change") -> dict[str, str]:
    from msgspec.structs import asdict

    return {**asdict(change), "words": change.words}


@app.command
def apply(
    file: File,
    /,
    *,
    check: Annotated[bool, Parameter(name="--check", negative="")] = False,
    prune: Prune = False,
    note: Note = "",
    output: Output = "table",
) -> int:
    """Make the server's rules those of a file: published as one new version, or nothing changes.

    Rules and units that the server has and the file does not name stay, unless --prune; such rules are named, since one
    whose key was changed in the file goes on beside its successor. What is the same already is not published again, and
    nothing is while a test is red. A change made on the server meanwhile ends it without an effect: look again, run it
    again.

    Ends with 0 when the server has what the file says; 1: the file has errors, or a test is red; 2: the file cannot be
    read, or with --check: applying would change something; 3: the server does not answer, or does not accept the key;
    4: it refuses, as after a change meanwhile. Nothing was published unless it is 0.

    For example:

    connect rules apply rules.yaml --note "November campaign"

    connect rules apply rules.yaml --prune --check

    Parameters
    ----------
    check
        Publish nothing: check the file, run its tests, say what applying would change. Ends with 2 if it would change
        anything, with 0 if the server has it already, with 1 if the file has errors or a test is red.
    """
    api = remote()
    plan = _plan(api, file, prune=prune)
    if plan.changes:
        _refuse_red(file, plan.document)
    if check or not plan.changes:
        return _say_plan(file, plan, output)
    published = publish_over(api, plan.document, plan.etag, note)
    if output == "json":
        say_json({**published, "changes": plan.words, "kept": plan.kept})
        return Exit.OK
    for line in plan.words:
        say(line)
    say(f"published as version {published['version']}")
    _tell_kept(file, plan.kept)
    return Exit.OK


def _refuse_red(file: str, document: dict[str, Any]) -> None:
    """Ends the command where a test is red: the server would refuse it too, and say less."""
    from connect.cli.rule_files import spoken
    from connect.cli.rule_tests import spell_result
    from connect.engine.ruleset import convert_ruleset, run_tests

    report = run_tests(convert_ruleset(document))
    if not report.red:
        return
    for _, result in report.red:
        for line in spell_result(result):
            tell(line)
    what = f"{len(report.red)} of {len(report.results)} test(s) red"
    fail(Exit.FAILED, f"with {spoken(file)} the ruleset has {what}: nothing was sent.")


def _say_plan(file: str, plan: Plan, output: Output) -> int:
    if output == "json":
        say_json({"version": int(plan.version), "changes": plan.words, "kept": plan.kept})
        return Exit.USAGE if plan.changes else Exit.OK
    if plan.changes:
        for line in plan.words:
            say(line)
        tell(f"the server (version {plan.version}) differs from the file")
    else:
        say(f"the server (version {plan.version}) has this already")
    _tell_kept(file, plan.kept)
    return Exit.USAGE if plan.changes else Exit.OK


def publish_over(api: Remote, document: dict[str, Any], etag: str, note: str) -> dict[str, Any]:
    """Publishes over the version of `etag`, or ends the command if that is no longer the live one.

    In one step; with a note as a draft that is then published, which takes one.
    """
    if not note:
        return _unless_stale(api, "PUT", RULESET, document, etag).json
    draft = api.post(VERSIONS, document).json["version"]
    return _unless_stale(api, "POST", f"{VERSIONS}/{draft}/publish", {"note": note}, etag).json


def _unless_stale(api: Remote, method: str, path: str, body: object, etag: str) -> Answer:
    answer = api.ask(method, path, body=body, headers={"If_Match": etag})
    if answer.status == HTTPStatus.PRECONDITION_FAILED:
        read = etag.strip(QUOTE)
        fail(
            Exit.REFUSED,
            f"the server's rules changed since version {read} was read: nothing was published; run it again.",
        )
    return answer if answer.status < HTTPStatus.MULTIPLE_CHOICES else api.refuse(answer)


@app.command
def export(*, output: Annotated[Literal["yaml", "json"], Parameter(name=["--output", "-o"])] = "yaml") -> int:
    """Print the server's live ruleset as a file that `check` and `apply` take.

    For example:

    connect rules export > rules.yaml
    """
    if output == "json":
        say_json(remote().get(RULESET).json)
    else:
        say(remote().get(RULESET, Accept=YAML).body.decode().rstrip("\n"))
    return Exit.OK


@app.command
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


@app.command
def publish(version: int, /, *, note: Note = "", output: Output = "table") -> int:
    """Make a draft live; an old version comes back as a new one.

    For example:

    connect rules publish 12 --note "double points weekend"
    """
    return _make_live(remote(), version, note, output)


@app.command
def rollback(version: int, /, *, note: Note = "", output: Output = "table") -> int:
    """Bring an earlier live version back, as a new version.

    What was decided meanwhile stays decided.

    For example:

    connect rules rollback 11 --note "12 paid twice the rate"
    """
    api = remote()
    found = api.get(f"{VERSIONS}/{version}").json
    if found["live"]:
        fail(Exit.REFUSED, f"version {version} is live: name the one to go back to (`connect rules versions`).")
    if found["published_at"] is None:
        fail(Exit.REFUSED, f"version {version} was never live: `connect rules publish {version}` publishes a draft.")
    return _make_live(api, version, note or f"rollback to version {version}", output)


def _make_live(api: Remote, version: int, note: str, output: Output) -> int:
    published = api.post(f"{VERSIONS}/{version}/publish", {"note": note}).json
    if output == "json":
        say_json(published)
    else:
        say(f"version {published['version']} is live, with {len(published['rule_versions'])} rule(s)")
    return Exit.OK


@app.command
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
        What becomes of its actions that were never sent: keep (they are sent, or go on waiting for approval), review (a
        person approves each), cancel (none is sent, those that await approval neither).
    """
    answer = remote().post(f"/internal/rules/{segment(key)}/stop", {"pending": pending, "note": note}).json
    if output == "json":
        say_json(answer)
        return Exit.OK
    fate = {"review": "await approval", "cancel": "were cancelled"}.get(pending)
    say(f"rule {key} is stopped" + (f"; {answer['touched']} action(s) not yet sent {fate}" if fate else ""))
    return Exit.OK
