"""`connect run`: everything in one process tree, for a laptop or a first look."""

import asyncio
import contextlib
import secrets
import signal
import socket
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator, Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn

from msgspec import Struct

from connect.cli.output import Config
from connect.cli.run.database import database
from connect.cli.run.processes import NotReady, ProcessTree, wait_ready
from connect.cli.run.run_file import told
from connect.cli.run.serve import is_loopback, refuse_taken, settle_settings
from connect.config import Settings
from connect.errors import SettingsError
from connect.model import Target
from connect.telemetry import set_up_logging

SANDBOX_TARGETS = {"points": {"credit": "debit"}, "nft": {"mint": "burn"}, "gateway": {"transfer": "reclaim"}}
"""The stand-ins, and by which command each takes a command back."""
LEDGER = "stand-ins.ndjson"
"""The file in CONNECT_HOME with what the stand-ins did: their balances outlive them as the events do."""


class Running(Struct, frozen=True):
    """A process tree that serves."""

    urls: list[str]
    """One for each API process."""
    key: str
    database_url: str
    sandbox_url: str | None
    tree: ProcessTree


def run(*, host: str | None = None, port: int | None = None, config: Config = None) -> None:
    """Run everything: embedded PostgreSQL (unless one is configured), API, worker, stand-in targets if none is set.

    Parameters
    ----------
    host
        Address of the API (default 127.0.0.1; any other needs CONNECT_BOOTSTRAP_KEY).
    port
        Port of the API (default 8080; 0 takes a free one).
    """
    settings = settle_settings(config, host=host, port=port)
    set_up_logging(settings.log_level)
    asyncio.run(_run(settings, config))


async def _run(settings: Settings, config: Path | None) -> None:
    await until_signal(_serve(settings, config))
    print("stopped", flush=True)


async def _serve(settings: Settings, config: Path | None) -> None:
    async with running(settings, config=config) as up:
        print(banner(up, made_key=settings.bootstrap_key is None), flush=True)
        await broken(up)


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Does the work; the first SIGINT or SIGTERM cancels it wherever it is, and it ends what it began."""
    task = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        # a second one must not cut short the end, which leaves nothing running
        asyncio.get_running_loop().add_signal_handler(number, lambda: task.cancelling() or task.cancel())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def broken(up: Running) -> NoReturn:
    """Waits for ever. Raises `NotReady` when a process keeps dying."""
    await up.tree.broken.wait()
    raise NotReady("a process keeps dying; the lines above (or the log file) say why")


@contextlib.asynccontextmanager
async def running(
    settings: Settings, *, config: Path | None = None, apis: int = 1, workers: int = 1, log_file: Path | None = None
) -> AsyncGenerator[Running]:
    """The tree, ready to take events. At the end all of it drains, and the embedded database stops last."""
    if settings.bootstrap_key is None and not is_loopback(settings.host):
        raise SettingsError(
            f"refusing to bind {settings.host} with a key made up on the spot: set CONNECT_BOOTSTRAP_KEY"
        )
    refuse_taken(settings.host, settings.port)  # before anything starts: else another server there would look like ours
    key = settings.bootstrap_key or f"ck_{secrets.token_urlsafe(32)}"
    ports = [settings.port or free_port(), *(free_port() for _ in range(apis - 1))]
    urls = [f"http://{_in_url(settings.host)}:{port}" for port in ports]
    stand_ins = {} if settings.targets else _stand_ins(f"http://127.0.0.1:{free_port()}")
    async with database(settings, owned=True) as database_url:
        environ = {
            "CONNECT_DATABASE_URL": database_url,
            "CONNECT_BOOTSTRAP_KEY": key,
            "CONNECT_HOME": str(settings.home),
            "CONNECT_EVENT_AGE_MAX_DAYS": str(settings.event_age_max_days),
        }
        tree = ProcessTree({**environ, **_environ_of(stand_ins)}, log_file=log_file)
        options = ["--config", str(config)] if config else []
        with told(settings, targets=stand_ins, key=key):
            try:
                sandbox_url = await _start_sandbox(tree, settings, stand_ins, connect_url=urls[0], key=key)
                for index, port in enumerate(ports):
                    await tree.start(f"api-{index + 1}", "api", "--host", settings.host, "--port", str(port), *options)
                for index in range(workers):
                    await tree.start(f"worker-{index + 1}", "worker", "--port", "0", *options)
                for url in urls:
                    await wait_ready(f"{url}/readyz", tree)
                yield Running(urls, key, database_url, sandbox_url, tree)
            finally:
                await tree.stop()


async def _start_sandbox(
    tree: ProcessTree, settings: Settings, stand_ins: Mapping[str, Target], *, connect_url: str, key: str
) -> str | None:
    """Its address; null where no stand-in is wanted. What it did stays beside the embedded database, and only there:
    a configured database may be made anew, and its first commands would be taken for repeats."""
    if not stand_ins:
        return None
    target = next(iter(stand_ins.values()))
    url = target.url.rpartition("/")[0]
    environ = {"CONNECT_SANDBOX_SECRET": target.secret[0], "CONNECT_API_KEY": key, "CONNECT_URL": connect_url}
    ledger = [] if settings.database_url else ["--ledger", str(settings.home / LEDGER)]
    await tree.start("sandbox", "sandbox", "--port", url.rpartition(":")[2], *ledger, environ=environ)
    return url


def _stand_ins(url: str) -> dict[str, Target]:
    secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    return {
        name: Target(url=f"{url}/{name}", internal=True, secret=(secret,), undo=undo)
        for name, undo in SANDBOX_TARGETS.items()
    }


def _environ_of(stand_ins: Mapping[str, Target]) -> dict[str, str]:
    environ: dict[str, str] = {}
    for name, target in stand_ins.items():
        prefix = f"CONNECT_TARGETS__{name.upper()}__"
        environ |= {f"{prefix}URL": target.url, f"{prefix}INTERNAL": "true", f"{prefix}SECRET": target.secret[0]}
        environ |= {f"{prefix}UNDO__{command.upper()}": back for command, back in target.undo.items()}
    return environ


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _in_url(host: str) -> str:
    if host in {"0.0.0.0", "::"}:  # noqa: S104  what it is reached by from here
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def banner(up: Running, *, made_key: bool) -> str:
    """Tells what a person needs next: where Connect is, the key, a line to try."""
    lines = [
        "",
        f"Connect is ready at {up.urls[0]}",
        f"  API docs   {up.urls[0]}/docs",
        f"  key        {up.key}" + ("   (made for this run; set CONNECT_BOOTSTRAP_KEY to keep one)" if made_key else "")
        if made_key or sys.stdout.isatty()
        else "  key        CONNECT_BOOTSTRAP_KEY",
    ]
    if up.sandbox_url:
        lines.append(
            f"  targets    none configured: stand-ins at {up.sandbox_url} (what they did: {up.sandbox_url}/ledger)"
        )
    lines += [
        "",
        "For the other commands:",
        f"  export CONNECT_URL={up.urls[0]} CONNECT_API_KEY={up.key if made_key else '$CONNECT_BOOTSTRAP_KEY'}",
        "",
        "Report an event:",
        f"  curl -sS {up.urls[0]}/internal/events \\",
        f'    -H "Authorization: Bearer {up.key if made_key else "$CONNECT_BOOTSTRAP_KEY"}" \\',
        "    -H 'Content-Type: application/json' \\",
        """    -d '{"external_id": "order-1001", "source": "shop", "event_type": "purchase.completed",""",
        """         "actor_user_id": "u1",""",
        """         "context": {"order_id": "o-1001", "amount_minor": 12990, "currency": "EUR"}}'""",
        "",
    ]
    return "\n".join(lines)
