"""`connect rules`: rules as code, checked and tested here, published there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from cyclopts import App, Parameter
from msgspec import Struct

from connect.cli.output import Exit, Output, fail, printable, say, say_json, tell
from connect.cli.remote import Remote, remote
from connect.cli.rules.counters import rebuild_counters
from connect.cli.rules.local import File, check, new, run_inline_tests
from connect.cli.rules.schemas import learn_schema
from connect.cli.rules.stops import Revive, Stop, Stops, leave_stopped, standing, tell_revived, tell_stops
from connect.cli.rules.usage import spell_usage
from connect.cli.rules.versions import QUOTE, RULESET, Note, publish, publish_over, rollback, stop, versions

if TYPE_CHECKING:
    from connect.cli.rules.changes import Change

app = App(
    name="rules",
    help="Write, check, test, compare, apply and stop rules kept as code.",
    help_format="plaintext",
    error_formatter=spell_usage,
)
app.command(new)
app.command(check)
app.command(run_inline_tests, name="test")
app.command(rebuild_counters)
app.command(learn_schema)

YAML = "application/yaml"
NAMED_MAX = 10
"""Rules named that stay though the file has none of them: one team's file may be small beside the server's."""
Prune = Annotated[bool, Parameter(negative="", help="Retire what the file does not name.")]


class Plan(Struct, frozen=True):
    """Tells what publishing a file would make of what is live."""

    live: dict[str, Any]
    document: dict[str, Any]
    etag: str
    changes: list["Change"]
    kept: list[str]
    """Keys of rules that are live and stay, though the file does not name them."""
    stops: Stops = Stops()

    @property
    def version(self) -> str:
        return self.etag.strip(QUOTE)

    @property
    def beside(self) -> dict[str, Any]:
        """Returns, for machines, what the changes do not say."""
        return {"kept": self.kept, "still_stopped": self.stops.stay, "revived": self.stops.end}

    @property
    def words(self) -> list[str]:
        return [change.words for change in self.changes]


def _plan(api: Remote, file: str, *, prune: bool, revive: list[str] | None) -> Plan:
    """Ends the command where the file has errors beside what the server has."""
    from connect.cli.rules.files import read_text

    text = read_text(file)
    answer = api.get(RULESET)
    live = cast("dict[str, Any]", answer.json)
    off = any(rule.get("enabled") is False for rule in live.get("rules") or ())
    stops = standing(api)[0] if off else {}
    return _plan_over(live, answer.headers["etag"], file, text, stops, prune=prune, revive=revive)


def _plan_over(
    live: dict[str, Any], etag: str, file: str, text: str, stops: dict[str, Stop],
    *, prune: bool, revive: list[str] | None,
) -> Plan:  # fmt: skip
    from connect.cli.rules.changes import differences
    from connect.cli.rules.files import merge, read_checked

    wanted = read_checked(file, text, None if prune else live)
    document, stopped = leave_stopped(wanted if prune else merge(live, wanted), stops, revive)
    named = {rule["key"] for rule in wanted.get("rules") or ()}
    kept = [] if prune else sorted({rule["key"] for rule in live.get("rules") or ()} - named)
    return Plan(live, document, etag, differences(live, document), kept, stopped)


def _tell_kept(file: str, kept: list[str]) -> None:
    """A rule whose key was changed in the file goes on beside its successor, unless somebody notices."""
    from connect.cli.rules.files import spoken

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
    revive: Revive = None,
    history: Annotated[str | None, Parameter(show_default=False)] = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    output: Output = "table",
) -> int:
    """Say what applying a file would change on the server: every field, with its old and its new value.

    With --history the command also says what the file would have given. It decides the stored events of that time by
    the file, in the order they came, and shows what each rule gives beside what was given, per unit, day and user, with
    money where units have a worth. It reads the database itself (CONNECT_DATABASE_URL, or the embedded one that runs),
    asks no server, changes nothing and sends nothing.

    Ends with 0 whether or not there is a difference; `connect rules apply --check` ends with 2 for scripts. 1: the file
    has errors; 3: the server, or the database, does not answer.

    For example:

    connect rules diff rules.yaml --prune

    connect rules diff rules.yaml --history 30d

    Parameters
    ----------
    history
        How much of the history to decide: 12h, 30d, 4w, or all.
    config
        Settings file (default: connect.toml), for --history.
    """
    if history is not None:
        import asyncio

        return asyncio.run(_diff_history(file, history, config, output, prune=prune, revive=revive))
    plan = _plan(remote(), file, prune=prune, revive=revive)
    if output == "json":
        changes = [_shown(change) for change in plan.changes]
        say_json({"version": int(plan.version), "changes": changes, **plan.beside})
        return Exit.OK
    _say_changes(plan)
    _tell_kept(file, plan.kept)
    tell_stops(plan.stops)
    return Exit.OK


def _say_changes(plan: Plan) -> None:
    for line in plan.words:
        say(line)
    if not plan.changes:
        say(f"the server (version {plan.version}) has this already")


async def _diff_history(
    file: str, history: str, config: Path | None, output: str, *, prune: bool, revive: list[str] | None
) -> int:
    from msgspec import to_builtins

    from connect.authoring import convert_ruleset
    from connect.cli.rules.files import read_text
    from connect.cli.rules.history import as_json, backtest, opened, show, window_s
    from connect.store.stops import standing_stops

    window, text = window_s(history), read_text(file)
    async with opened(config) as live:
        stopped = await standing_stops(live.connection, live.document)
        stops = {rule.identity: to_builtins(stopped[rule.key]) for rule in live.document.rules if rule.key in stopped}
        document, version = to_builtins(live.document), str(live.version)
        plan = _plan_over(document, version, file, text, stops, prune=prune, revive=revive)
        compared = await backtest(live, plan.document, window)
    candidate = convert_ruleset(plan.document)
    if output == "json":
        changes = [_shown(change) for change in plan.changes]
        history_ = as_json(compared, candidate)
        say_json({"version": live.version, "changes": changes, **plan.beside, "history": history_})
        return Exit.OK
    _say_changes(plan)
    tell_stops(plan.stops)
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
    revive: Revive = None,
    note: Note = "",
    output: Output = "table",
) -> int:
    """Make the server's rules those of a file: publish all as one new version, or change nothing.

    Rules and units that the server has and the file does not name stay, unless --prune. The command names such rules: a
    rule whose key was changed in the file goes on beside its successor. The command publishes nothing where server and
    file agree, or while a test is red. If somebody changes the server's rules meanwhile, the command ends without an
    effect: look at the change and run the command again.

    A rule that `connect rules stop` stopped stays stopped, whatever the file says, and is named with who stopped it and
    why; --revive KEY lets it give again.

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
    plan = _plan(api, file, prune=prune, revive=revive)
    if plan.changes:
        _refuse_red(file, plan)
    if check or not plan.changes:
        return _say_plan(file, plan, output)
    published = publish_over(api, plan.document, plan.etag, note)
    if output == "json":
        say_json({**plan.beside, **published, "changes": plan.words})
        return Exit.OK
    for line in plan.words:
        say(line)
    say(f"published as version {published['version']}")
    _tell_kept(file, plan.kept)
    tell_stops(Stops(plan.stops.stay))
    tell_revived(published.get("revived") or [])
    return Exit.OK


def _refuse_red(file: str, plan: Plan) -> None:
    """Ends the command where a test is red: the server would refuse it too, and say less.

    With what would change, since the red tests may be another file's: it keeps to another timezone, say.
    """
    from connect.authoring import convert_ruleset, run_tests
    from connect.cli.rules.files import spoken
    from connect.cli.rules.tests import spell_result

    report = run_tests(convert_ruleset(plan.document))
    if not report.red:
        return
    for _, result in report.red:
        for line in spell_result(result):
            tell(line)
    tell("what applying would change:")
    for line in plan.words:
        tell(f"  {line}")
    what = f"{len(report.red)} of {len(report.results)} test(s) red"
    fail(Exit.FAILED, f"with {spoken(file)} the ruleset has {what}: nothing was sent.")


def _say_plan(file: str, plan: Plan, output: Output) -> int:
    if output == "json":
        say_json({"version": int(plan.version), "changes": plan.words, **plan.beside})
        return Exit.USAGE if plan.changes else Exit.OK
    if plan.changes:
        for line in plan.words:
            say(line)
        tell(f"the server (version {plan.version}) differs from the file")
    else:
        say(f"the server (version {plan.version}) has this already")
    _tell_kept(file, plan.kept)
    tell_stops(plan.stops)
    return Exit.USAGE if plan.changes else Exit.OK


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


for command in (versions, publish, rollback, stop):
    app.command(command)
