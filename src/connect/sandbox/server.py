"""Runs the sandbox: inside another process (`serve`) or as its own (`run`)."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from connect.sandbox.app import make_app
from connect.sandbox.reporter import Settings

DRAIN_S = 1.0
"""How long requests under way may take at the end; one told to hang is cut."""


class Running(Struct, frozen=True):
    """A sandbox that listens. `stop()` frees the port and ends what it owes."""

    host: str
    port: int
    stop: Callable[[], Awaitable[None]]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    settings: Settings | None = None,
    ledger_file: Path | None = None,
) -> Running:
    """Starts the sandbox in the running loop. Port 0 takes a free one; the bound one is in the answer."""
    runner = web.AppRunner(make_app(settings, ledger_file=ledger_file), access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return Running(host, runner.addresses[0][1], runner.cleanup)


async def run(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    settings: Settings | None = None,
    ledger_file: Path | None = None,
    ready: Callable[[Running], None] = lambda running: print(f"sandbox listens on {running.url}", flush=True),
) -> None:
    """Serves until SIGINT or SIGTERM."""
    running = await serve(host, port, settings=settings, ledger_file=ledger_file)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    ready(running)
    try:
        await ended.wait()
    finally:
        await running.stop()
