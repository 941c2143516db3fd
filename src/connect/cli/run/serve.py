"""The production roles, each a process of its own: `api`, `worker`; and `sandbox`, `migrate`."""

import contextlib
import errno
import ipaddress
import os
import signal
import socket
from pathlib import Path
from typing import Any

from connect.cli.output import Config
from connect.cli.run.gc_tuning import collect_rarely
from connect.config import Settings, load_settings
from connect.errors import SettingsError
from connect.telemetry import log, set_up_logging

GRACEFUL_SHUTDOWN_S = 25
"""Requests under way at SIGTERM get this long; orchestrators kill after 30 s."""


def settle_settings(config: Path | None, **overrides: object) -> Settings:
    """Settings with what the command line says on top."""
    from msgspec.structs import replace

    settings = load_settings(config)
    return replace(settings, **{name: value for name, value in overrides.items() if value is not None})


def api(*, host: str | None = None, port: int | None = None, config: Config = None) -> None:
    """Serve the HTTP API. Put any number of these behind a balancer.

    Parameters
    ----------
    host
        Address to bind (default 127.0.0.1). Any other than loopback needs a credential to exist.
    port
        Port to bind (default 8080; 0 takes a free one).
    """
    import asyncio

    import uvloop

    settings = settle_settings(config, host=host, port=port)
    set_up_logging(settings.log_level)
    refuse_taken(settings.host, settings.port)
    collect_rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_api(settings))


def refuse_taken(host: str, port: int) -> None:
    """Raises `SettingsError` when nothing can listen there. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise SettingsError(
            f"cannot listen on {host}:{port}: {why}; --port sets another (CONNECT_PORT that of the API)"
        ) from error


async def _serve_api(settings: Settings) -> None:
    """SIGTERM and SIGINT drain it, and an embedded database that it started is stopped after it: exit code 0."""
    import asyncio

    import uvicorn

    from connect.api.app import create_app
    from connect.cli.run.database import database

    async with database(settings) as url:
        await _require_credential(settings, url)
        config = uvicorn.Config(
            create_app(settings, url),
            host=settings.host,
            port=settings.port,
            loop="none",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
        )
        server = uvicorn.Server(config)
        # its own handling raises the signal once more after the drain, and so ends us before the database is stopped
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
        log.info("api.starting", host=settings.host, port=settings.port, pid=os.getpid())
        await server.serve()
        if not server.started:
            raise SettingsError(f"cannot serve on {settings.host}:{settings.port}; the lines above say why")


async def _require_credential(settings: Settings, url: str) -> None:
    """There is no default secret: what other machines can reach starts only where somebody holds a usable key."""
    from connect.store.keys import has_usable_key
    from connect.store.pool import open_pool

    if settings.bootstrap_key:
        return
    pool = await open_pool(url, size_max=1)
    async with pool.acquire() as connection:
        usable = await has_usable_key(connection)
    await pool.close()
    if usable:
        return
    if not is_loopback(settings.host):
        raise SettingsError(
            f"refusing to bind {settings.host} without any credential: make one with `connect keys create`, "
            "or set CONNECT_BOOTSTRAP_KEY (at least 32 characters)"
        )
    log.warning("api.no_key", advice="nobody can call this yet: `connect keys create NAME --any-source` makes a key")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def worker(
    *, roles: str = "decide,dispatch,bus", host: str | None = None, port: int = 9090, config: Config = None
) -> None:
    """Decide what is queued, dispatch what is due, read the buses. Run any number of these; claims never collide.

    Parameters
    ----------
    roles
        The loops to run, comma-separated: decide, dispatch, bus (facts and results that come over brokers).
    host
        Address of the probe port (default: CONNECT_HOST).
    port
        Port of /healthz, /readyz and /metrics (0 takes a free one).
    """
    import asyncio

    import uvloop

    from connect.cli.run.database import database
    from connect.worker import parse_roles, run_worker

    settings = settle_settings(config, host=host)
    set_up_logging(settings.log_level)
    chosen = parse_roles(roles)
    refuse_taken(settings.host, port)

    async def work() -> None:
        async with database(settings) as url:
            await run_worker(settings, url, chosen, host=settings.host, port=port)

    collect_rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


def sandbox(
    *,
    host: str = "127.0.0.1",
    port: int = 8090,
    ledger: Path | None = None,
    connect_url: str | None = None,
    key: str | None = None,
    secret: str | None = None,
) -> None:
    """Run stand-in Points, NFT and Gateway services with a ledger; `POST /misbehave` sets faults.

    Parameters
    ----------
    ledger
        File that keeps the effects over a restart.
    connect_url
        The address that the Gateway reports its results to (default http://127.0.0.1:8080).
    key
        API key for those reports (scope results:write); also CONNECT_API_KEY.
    secret
        whsec_... : verify command signatures.
    """
    import asyncio

    from connect.sandbox.server import run as run_sandbox

    refuse_taken(host, port)
    asyncio.run(run_sandbox(host, port, settings=sandbox_settings(connect_url, key, secret), ledger_file=ledger))


def sandbox_settings(connect_url: str | None, key: str | None, secret: str | None) -> Any:
    from connect.sandbox.reporter import Settings as SandboxSettings

    return SandboxSettings(
        connect_url=connect_url or os.environ.get("CONNECT_URL", "http://127.0.0.1:8080"),
        result_key=key or os.environ.get("CONNECT_API_KEY"),
        secrets=(secret,) if (secret := secret or os.environ.get("CONNECT_SANDBOX_SECRET")) else (),
    )


def migrate(*, config: Config = None) -> None:
    """Bring the database's schema to the newest version. Safe twice and side by side."""
    import asyncio

    from connect.cli.run.database import database, reaching
    from connect.store.migrate import migrate as bring_to_head

    async def work() -> list[str]:
        async with database(load_settings(config), migrated=False) as url:
            with reaching(url):
                return await bring_to_head(url)

    applied = asyncio.run(work())
    print("\n".join(f"applied {name}" for name in applied) or "the schema is up to date")
