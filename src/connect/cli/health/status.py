"""`connect status`: what runs, what waits, what needs a person."""

import asyncio
from typing import Any

import asyncpg
from msgspec import Struct
from msgspec.structs import asdict

from connect.cli.output import Cell, Config, Exit, Output, printable, say, say_json, say_table
from connect.cli.run.database import place
from connect.cli.run.run_file import with_run
from connect.config import Settings, load_settings
from connect.store import health
from connect.store.dead_letters import dead_by_bus
from connect.store.embedded import running_url
from connect.store.invariants import OVERDUE_S
from connect.store.migrate import migrations, schema_version
from connect.store.pool import CONNECT_TIMEOUT_S, set_codecs
from connect.store.processes import GONE_AFTER_S, list_processes

QUERY_TIMEOUT_S = 30


class Process(Struct, frozen=True, kw_only=True):
    role: str
    host: str
    pid: int
    program_version: str
    ruleset_version: int
    silent_s: float
    alive: bool


class Need(Struct, frozen=True, kw_only=True):
    """A matter that waits for a person, and the command that helps."""

    what: str
    command: str


class Status(Struct, frozen=True, kw_only=True):
    healthy: bool
    problems: list[str]
    """Why it is not healthy."""
    ruleset_version: int = 0
    processes: list[Process] = []
    lanes: list[health.Lane] = []
    events: health.EventCounts | None = None
    needs: list[Need] = []


def status(*, output: Output = "table", config: Config = None) -> int:
    """Show processes, lanes, undecided events and what needs a person.

    Unhealthy, exit code 1: the database does not answer; its schema is not this program's; no api or no worker was seen
    in the last 20 s; an action is overdue by more than 5 minutes; an event waits to be decided for more than 5 minutes;
    an event failed to be decided. A paused target's actions are not overdue. Failed actions and approvals need a person
    and are no fault of the system: they do not change the exit code.
    """
    found = asyncio.run(look(with_run(load_settings(config))))
    if output == "json":
        say_json(found)
    else:
        _show(found)
    return Exit.OK if found.healthy else Exit.FAILED


async def look(settings: Settings) -> Status:
    """Never raises for a database that is away: that is unhealthy."""
    url = settings.database_url or await asyncio.to_thread(running_url, settings.home)
    if url is None:
        return _unhealthy(
            f"no embedded PostgreSQL runs in {settings.home}: start `connect run`, or set CONNECT_DATABASE_URL"
        )
    try:
        connection: Any = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, command_timeout=QUERY_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or f"no answer within {CONNECT_TIMEOUT_S} s"
        return _unhealthy(f"the database at {place(url)} does not answer: {reason}; `connect doctor` looks closer")
    try:
        await set_codecs(connection)
        return await _look(connection, settings)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _unhealthy(f"the database was lost while looking: {error!r}")
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


def _unhealthy(problem: str) -> Status:
    return Status(healthy=False, problems=[problem])


async def _look(connection: Any, settings: Settings) -> Status:
    at, head = await schema_version(connection), migrations()[-1][0]
    if at != head:
        what = "run `connect migrate`" if at < head else "run the newer program"
        return _unhealthy(f"the schema is at version {at}, this program needs {head}: {what}")
    async with connection.transaction(readonly=True):
        processes = [_process(row) for row in await list_processes(connection)]
        lanes = await health.lanes(connection, sorted(settings.targets))
        events = await health.event_counts(connection)
        version, _ = await health.live_ruleset(connection)
        dead = await dead_by_bus(connection)
    problems = problems_of(processes, lanes, events)
    return Status(
        healthy=not problems,
        problems=problems,
        ruleset_version=version,
        processes=processes,
        lanes=lanes,
        events=events,
        needs=[*needs_of(lanes, events), *_dead(dead)],
    )


def _process(row: dict[str, Any]) -> Process:
    known = {name: row[name] for name in ("role", "host", "pid", "program_version", "ruleset_version", "silent_s")}
    return Process(alive=row["silent_s"] <= GONE_AFTER_S, **known)


def problems_of(processes: list[Process], lanes: list[health.Lane], events: health.EventCounts) -> list[str]:
    """Why the system is not healthy, a sentence each; `status` documents the rule."""
    roles = {process.role for process in processes if process.alive}
    problems = [f"no {role} is running: `connect {role}` starts one" for role in ("api", "worker") if role not in roles]
    problems += [
        f"target {lane.target}: the oldest due action waits for {age(lane.oldest_due_age_s)}"
        for lane in lanes
        if lane.oldest_due_age_s > OVERDUE_S and lane.standing != "paused"
    ]
    if events.oldest_undecided_s > OVERDUE_S:
        problems.append(f"the oldest undecided event waits for {age(events.oldest_undecided_s)}")
    if events.failed:
        problems.append(f"{_at_most(events.failed)} events could not be decided")
    return problems


def needs_of(lanes: list[health.Lane], events: health.EventCounts) -> list[Need]:
    needs: list[Need] = []
    if events.failed:
        what = f"{_at_most(events.failed)} events could not be decided: mend the rule, then decide them again"
        needs.append(Need(what=what, command="connect events replay --status failed"))
    for lane in lanes:
        name, listed = lane.target, f"connect actions list --target {lane.target}"
        if not lane.configured and lane.waiting:
            what = f"{lane.waiting} actions wait for target {name}, which the settings do not name"
            needs.append(
                Need(
                    what=what,
                    command=f"add [targets.{name}] to the settings, or: connect actions cancel --target {name}",
                )
            )
        if lane.standing == "paused":
            what = f"target {name} is paused by {lane.paused_by}"
            needs.append(Need(what=what, command=f"connect targets resume {name}"))
        if lane.awaiting_approval:
            what = f"{lane.awaiting_approval} actions for {name} wait for approval"
            needs.append(Need(what=what, command=f"{listed} --status awaiting_approval"))
        if lane.exhausted:
            what = f"{lane.exhausted} actions for {name} were given up, whether they were done is unknown"
            needs.append(Need(what=what, command=f"{listed} --failure exhausted"))
        if lane.refused or lane.reported:
            what = f"{lane.refused + lane.reported} actions for {name} were refused or reported as failed"
            needs.append(Need(what=what, command=f"{listed} --failure refused --failure reported"))
    return needs


def _dead(by_bus: dict[str, int]) -> list[Need]:
    return [
        Need(what=f"{count} messages of bus {bus} could not be recorded", command=f"connect dead list --bus {bus}")
        for bus, count in by_bus.items()
    ]


def _at_most(count: int) -> str:
    return f"{count}" if count < health.COUNT_MAX else f"{count} or more"


def age(seconds: float) -> str:
    """`42 s`, `7 min`, `3.5 h`, `12 d`."""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


LANE_COLUMNS = (
    *("due", "in_flight", "awaiting_result", "retrying", "scheduled"),
    *("refused", "exhausted", "reported", "awaiting_approval", "blocked"),
)
PROCESS_COLUMNS: dict[str, Cell] = {
    "PROCESS": "role",
    "HOST": "host",
    "PID": "pid",
    "PROGRAM": "program_version",
    "RULESET": "ruleset_version",
    "SEEN": lambda row: f"{age(row['silent_s'])} ago" + ("" if row["alive"] else ": gone"),
}


def _show(found: Status) -> None:
    if found.events is not None:
        _say_processes(found.processes)
        _say_lanes(found.lanes)
        events = found.events
        oldest = f", the oldest for {age(events.oldest_undecided_s)}" if events.undecided else ""
        say(f"events: {events.undecided} undecided{oldest}; {_at_most(events.failed)} failed")
        say(
            f"ruleset: version {found.ruleset_version} is live"
            if found.ruleset_version
            else "ruleset: none is live yet"
        )
    for need in found.needs:
        say(printable(f"needs a person: {need.what}"))
        say(printable(f"    {need.command}"))
    for problem in found.problems:
        say(printable(f"unhealthy: {problem}"))
    if found.healthy:
        say("healthy")


def _say_processes(processes: list[Process]) -> None:
    if processes:
        say_table([asdict(process) for process in processes], PROCESS_COLUMNS)
        say()


def _say_lanes(lanes: list[health.Lane]) -> None:
    """Columns that are nought for every target are left out."""
    if not lanes:
        return
    shown = [name for name in LANE_COLUMNS if name == "due" or any(getattr(lane, name) for lane in lanes)]
    columns: dict[str, Cell] = {
        "TARGET": lambda row: row["target"] + ("" if row["configured"] else " (not configured)")
    }
    if any(lane.standing != "closed" for lane in lanes):
        columns["LANE"] = "standing"
    columns |= {name.replace("_", " ").upper(): name for name in shown}
    columns["OLDEST DUE"] = lambda row: age(row["oldest_due_age_s"]) if row["due"] else "-"
    say_table([asdict(lane) for lane in lanes], columns)
    say()
