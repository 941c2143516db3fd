"""The worker: the loops that decide and dispatch, a small HTTP port for probes, signals and a graceful drain.

The composition root of the worker process. Any number of workers may run: claims never collide.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Literal

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from connect.brokers import parse_address
from connect.config import Settings
from connect.dispatch.dispatcher import Dispatcher
from connect.dispatch.results import ResultMessages
from connect.engine.state_keys import budget_key
from connect.errors import SettingsError
from connect.intake.backlog import Backlog
from connect.intake.bus import Bus, open_bus
from connect.intake.bus.consumer import Consumer
from connect.intake.bus.event_sink import Facts, terms_of
from connect.intake.foreign import compile_sources
from connect.intake.live import LiveRules
from connect.intake.rebuild import Rebuilder
from connect.intake.record import Recorder
from connect.jobs.runner import JobRunner
from connect.store.claims import due_by_target
from connect.store.migrate import migrations, schema_version
from connect.store.pool import open_pool
from connect.store.processes import heartbeat
from connect.store.state import read_values
from connect.telemetry import BUDGET_USED, DUE_ACTIONS, OLDEST_DUE_AGE, log

Role = Literal["decide", "dispatch", "bus"]
ROLES: tuple[Role, ...] = ("decide", "dispatch", "bus")
GAUGES_EVERY_S = 5.0


def parse_roles(text: str) -> list[Role]:
    """`decide,dispatch`. Raises `SettingsError` naming the known ones."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names or any(name not in ROLES for name in names):
        raise SettingsError(f"roles must be some of {', '.join(ROLES)}, separated by commas, not {text!r}")
    return [role for role in ROLES if role in names]


async def run_worker(settings: Settings, database_url: str, roles: Sequence[Role], *, host: str, port: int) -> None:
    """Runs until SIGTERM or SIGINT, then drains: claims no more, finishes and settles what is in flight, and leaves."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    pool = await open_pool(database_url, size_max=settings.pool_size, name="connect-worker")
    rules = LiveRules(pool)
    try:
        await rules.refresh()
        async with _probes(pool, host, port) as bound, heartbeat(pool, "worker", lambda: rules.rulebook.version):
            log.info("worker.started", roles=list(roles), port=bound, targets=sorted(settings.targets))
            await _run_loops(settings, pool, rules, roles, stop)
    finally:
        await pool.close()
    log.info("worker.stopped")


async def _run_loops(
    settings: Settings, pool: Any, rules: LiveRules, roles: Sequence[Role], stop: asyncio.Event
) -> None:
    """Role loops end by `stop`; the followers are cancelled when the last of them has drained."""
    loops: list[Coroutine[Any, Any, None]] = []
    if "decide" in roles:
        loops.append(Backlog(pool, rules, settings.undo, settings.ordered).run(stop))
        loops.append(Rebuilder(pool, rules).run(stop))
        loops.append(JobRunner(pool, rules).run(stop))
    if "dispatch" in roles:
        loops.append(Dispatcher(pool, settings.targets).run(stop))
    recorder = Recorder(pool, rules, queue_max=settings.queue_max, undo=settings.undo, in_order=settings.ordered)
    if "bus" in roles:
        loops += [consumer.run(stop) for consumer in consumers(settings, pool, recorder)]
    flusher = asyncio.create_task(recorder.run())
    followers = [asyncio.create_task(rules.follow()), asyncio.create_task(_measure(pool, settings, rules))]
    try:
        async with asyncio.TaskGroup() as group:
            for each in loops:
                group.create_task(each)
    finally:
        recorder.close()
        await flusher
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


def consumers(settings: Settings, pool: Any, recorder: Recorder) -> list[Consumer]:
    """One for each bus, and one for each queue that a target's results come back on. Raises `SettingsError`."""
    sources = compile_sources(settings.sources)
    reader = f"{socket.gethostname()}-{os.getpid()}"

    def at(url: str) -> Callable[[], Bus]:
        address = parse_address(url)
        open_bus(address, reader=reader)  # a client that is not installed is told at the start
        return lambda: open_bus(address, reader=reader)

    facts = [
        Consumer(pool, name, at(bus.url), Facts(recorder, terms_of(bus, settings), sources, settings.processing).take)
        for name, bus in settings.bus.items()
    ]
    results = [
        Consumer(pool, name, at(target.results_url), ResultMessages(pool, name).take, kind="result")
        for name, target in settings.targets.items()
        if target.results_url is not None
    ]
    return facts + results


async def _measure(pool: Any, settings: Settings, rules: LiveRules) -> None:
    """Keeps the database-wide gauges; where nothing is due, and nothing was taken from a budget, they read zero."""
    while True:
        try:
            budgets = rules.rulebook.document.budgets
            keys = {budget_key(name, budget.unit): name for name, budget in budgets.items()}
            async with pool.acquire() as connection:
                due = await due_by_target(connection)
                used = await read_values(connection, list(keys))
            for key, name in keys.items():
                BUDGET_USED.labels(name).set(float(used.get(key, 0)) / (float(budgets[name].cap) or 1))
            for target in {*settings.targets, *due}:
                DUE_ACTIONS.labels(target).set(due[target].due if target in due else 0)
                OLDEST_DUE_AGE.labels(target).set(due[target].oldest_age_s if target in due else 0)
        except Exception as error:  # a loop's tick
            log.warning("worker.gauges_failed", error=repr(error))
        await asyncio.sleep(GAUGES_EVERY_S)


@contextlib.asynccontextmanager
async def _probes(pool: Any, host: str, port: int) -> AsyncGenerator[int]:
    """/healthz, /readyz and /metrics on a port of its own; gives the port that was bound."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        try:
            async with pool.acquire(timeout=2) as connection:
                version = await schema_version(connection)
        except Exception as error:  # a probe answers whatever happens
            return web.json_response({"status": "unready", "reason": f"database: {error!r}"}, status=503)
        ready = version == migrations()[-1][0]
        return web.json_response(
            {"status": "ready" if ready else "unready", "schema": version}, status=200 if ready else 503
        )

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
