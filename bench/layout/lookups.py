"""Reading: by id with and without the month, of a user, and the planning of it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.layout import statements as sql
from bench.layout.run import EVENTS, LOOKUPS, PLANS, Run, timed

Arguments = Callable[[], Sequence[Any]]
WARM_UP = 20


async def ids(run: Run, expression: str, step: int = 1) -> Arguments:
    """Draws what the expression makes of the numbers of events of the whole year, worked out beforehand."""
    numbers = [run.chance.randrange(2_000 // step, EVENTS // step - 1) * step for _ in range(LOOKUPS)]
    rows = await run.connection.fetch(f"SELECT {expression} AS id FROM unnest($1::bigint[]) AS n", numbers)
    waiting = [row["id"] for row in rows]
    return lambda: (waiting.pop(),) if len(waiting) > 1 else (waiting[0],)


def lookups(layout: str) -> dict[str, tuple[str, str, int]]:
    """Name -> statement, the expression of its id, and of every which event it is."""
    event, action = "event_number(n)", "action_number(n, 0)"
    found = {
        "event by id": (sql.EVENT_BY_ID, event, 1),
        "action by id": (sql.ACTION_BY_ID, action, 1),
        "attempts of an action": (sql.ATTEMPTS_OF, action, 1),
        "actions of an event": (sql.ACTIONS_OF_EVENT, event, 1),
        "undo of an action that has one": (sql.UNDO_OF, "action_number(n - 1000, 0)", 50),
        "undo of an action without": (sql.UNDO_OF, action, 1),
        "newest 50 of a user with about 40": (sql.NEWEST_OF_USER, "user_number(n * 100 + 1)", 1),
        "newest 50 of a user with thousands": (sql.NEWEST_OF_USER, "user_number(n * 100)", 1),
        "a known identity": (sql.KNOWN_TODAY if layout == "single" else sql.KNOWN, "'order-' || n", 1),
        "result by id": (sql.RESULT.format(month=""), action, 1),
    }
    if layout == "monthly":
        found |= {f"{name}, month asked for within": (statement.format(within), expression, 1)
                  for name, statement, expression, within, _ in by_month()}  # fmt: skip
    return found


def by_month() -> list[tuple[str, str, str, str, str]]:
    """Name, statement with a place for its month, expression of its id, the month within it, and asked for before."""
    event, action = "event_number(n)", "action_number(n, 0)"
    of_event, of_action = sql.MONTH_OF_EVENT, sql.MONTH_OF_ACTION
    return [
        ("event by id", sql.EVENT_BY_ID + "{0}", event, sql.in_month("received_at", of_event), of_event),
        ("action by id", sql.ACTION_BY_ID + "{0}", action, sql.in_month("created_at", of_action), of_action),
        ("actions of an event", sql.ACTIONS_OF_EVENT + "{0}", event, sql.in_month("created_at", of_event), of_event),
        (
            "result by id",
            sql.RESULT.replace("{month}", "{0}"),
            action,
            sql.in_month("created_at", of_action),
            of_action,
        ),
    ]


async def measure_lookups(run: Run) -> None:
    """Asks all in turn, and again and again; the first ones of a round are not counted."""
    chosen = lookups(run.layout)
    drawn = {name: await ids(run, expression, step) for name, (_, expression, step) in chosen.items()}
    for place in range(LOOKUPS):
        for name, (statement, _, _) in chosen.items():
            took = await timed(run.connection, statement, *drawn[name]())
            if place >= WARM_UP:
                run.add(name, took)
    if run.layout == "monthly":
        await measure_two_steps(run)


async def measure_two_steps(run: Run) -> None:
    """Asks for the month first and then in it: bounds as parameters, or the month's own table by its name."""
    for name, statement, expression, _, month_of in by_month():
        column = "received_at" if name == "event by id" else "created_at"
        table = "event" if name == "event by id" else "reward_action"
        bounded = statement.format(" AND " + sql.MONTH_GIVEN.format(column=column))
        draw = await ids(run, expression)
        for place in range(LOOKUPS):
            (one,), begun = draw(), time.perf_counter()
            month = await run.connection.fetchval(month_of, one)
            if place % 2:
                await run.connection.fetch(bounded, one, month)
            else:
                named = statement.format("").replace(f" {table} ", f" {sql.partition(table, str(month)[:10])} ")
                await run.connection.fetch(named, one)
            if place >= WARM_UP:
                how = "bounds" if place % 2 else "table"
                run.add(f"{name}, month asked for before, {how}", (time.perf_counter() - begun) * 1e3)


async def measure_plans(run: Run) -> None:
    """Planning alone, as a statement that is not prepared pays it; and the locks a lookup takes."""
    one = (await ids(run, "event_number(n)"))()[0]
    statements = {
        "event by id": sql.EVENT_BY_ID.replace("$1", f"'{one}'"),
        "action by id": sql.ACTION_BY_ID.replace("$1", f"'{one}'"),
        "newest 50 of a user": sql.NEWEST_OF_USER.replace("$1", "'user-1'"),
        "claim of 20": sql.CLAIM,
    }
    for name, statement in statements.items():
        async with run.connection.transaction():
            for _ in range(PLANS):
                rows = await run.connection.fetch(f"EXPLAIN (SUMMARY, FORMAT TEXT) {statement}")
                times = [float(row[0].split()[2]) for row in rows if row[0].startswith("Planning Time")]
                run.add(f"planning: {name}", *times)
            held = await run.connection.fetchval(sql.LOCKS_HELD)
        run.tell(f"locks held: {name}", str(held))
