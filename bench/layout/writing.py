"""Recording, claiming and settling."""

from bench.layout import statements as sql
from bench.layout.run import (
    BATCH,
    BATCHES,
    DISPATCHED,
    EVENTS,
    ONE_PLAN,
    ROUNDS,
    SETTLES,
    SINGLES,
    Run,
    log_position,
    recording,
    timed,
)


async def measure_records(run: Run) -> None:
    await run.connection.execute(ONE_PLAN)
    for size, repeats in ((1, SINGLES), (BATCH, BATCHES)):
        for _ in range(repeats):
            for name, statement in recording(run.layout).items():
                before = await log_position(run)
                run.add(f"{name}: {size}", await timed(run.connection, statement, *run.take(size)))
                run.add(f"{name}: {size}, log", (await log_position(run) - before) / size)
    for _ in range(BATCHES):
        again = await timed(run.connection, recording(run.layout)["record"], EVENTS, EVENTS + BATCH - 1)
        run.add(f"record: {BATCH} repeats", again)


async def measure_settling(run: Run) -> None:
    await run.connection.execute("RESET plan_cache_mode")
    settles = {"settle 20 by id": sql.SETTLE.format(key="", month="")}
    if run.layout == "monthly":
        settles = {
            "settle 20 by id": sql.SETTLE.format(key=", started_at", month=""),
            "settle 20, month known": sql.SETTLE.format(
                key=", started_at", month=" AND action.created_at = answered.created_at"),
        }  # fmt: skip
    for _ in range(min(SETTLES, DISPATCHED // 20 // len(settles) // ROUNDS)):
        run.add("claim 20", await timed(run.connection, sql.CLAIM))
        for name, statement in settles.items():
            run.add(name, await timed(run.connection, statement, run.settled))
            run.settled += 20
