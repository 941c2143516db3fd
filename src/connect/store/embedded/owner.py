"""Owning a home: its server started or taken over, watched while we run, stopped when we end."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import asyncpg
import msgspec
import structlog

from connect.store.embedded.data_dir import Server, lives, open_log, own, read, room_of, server_lock, with_sockets
from connect.store.embedded.errors import INSTEAD, CannotStart
from connect.store.embedded.mode import ENVIRONMENT, Mode, binaries, prefix

STARTS_MAX = 3
"""A server that ends by itself this often is not started again: its log says why."""
READY_MAX_S = 300
"""Recovery replays at most max_wal_size (1 GB) of log, well under a minute on a laptop's disk."""
FAST_SHUTDOWN_MAX_S = 30
"""Then an immediate shutdown, from which the next start recovers."""
IMMEDIATE_SHUTDOWN_MAX_S = 10
POLL_S = 0.02
WATCH_S = 0.2
RESTART_PAUSE_S = 5

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_logical_replication_workers": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "cluster_name": "connect",
}
"""Given on the command line at every start, so that a home made by an older Connect has them too."""

T = TypeVar("T")
log: Any = structlog.get_logger("connect")


class EmbeddedPostgres:
    """A running server and the right to it; only `start` makes one.

    While its event loop runs, a server that dies is started again under the same address within about a second.
    A process that forks without exec shares the ownership with its child; Connect starts its children by exec.
    """

    def __init__(self, room: Path, server: Server, ownership: contextlib.ExitStack) -> None:
        self._room = room
        self._server = server
        self._ownership = ownership
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._stopped = False

    @classmethod
    async def start(cls, home: Path, *, mode: Mode | None = None) -> "EmbeddedPostgres":
        """Owns `home` and returns once its server answers: a running one is used as it is, else one is started.

        A fresh home takes about a second, an existing one a tenth of that. `mode` overrides the choice for a fresh
        home (for tests). Raises AlreadyOwned and CannotStart.
        """
        try:
            with contextlib.ExitStack() as ownership:
                room = await _uninterrupted(asyncio.to_thread(_take, home, mode, ownership))
                embedded = cls(room, read(room), ownership)
                await embedded._begin()
                embedded._ownership = ownership.pop_all()
        except (OSError, subprocess.SubprocessError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise CannotStart(f"PostgreSQL in {home} does not start: {error}. {INSTEAD}, or CONNECT_HOME.") from error
        embedded._supervisor = asyncio.create_task(embedded._supervise(), name="embedded-postgres")
        return embedded

    @property
    def url(self) -> str:
        """postgresql:// with the password in it: for pools and child processes, not for logs."""
        return self._server.url()

    async def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, a checkpoint is written.

        Does nothing the second time, for the home may have another owner by then.
        """
        if self._stopped:
            return
        self._stopped = True
        with self._ownership:
            if self._supervisor is not None and not self._supervisor.done():
                self._supervisor.cancel()
                await asyncio.wait([self._supervisor])
            await self._shut_down()

    async def __aenter__(self) -> "EmbeddedPostgres":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _begin(self) -> None:
        try:
            await self._until_ready()
            await self._make_database()
        except BaseException:
            if self._process is not None:  # a server that was there before us stays
                await self._shut_down()
            raise

    async def _until_ready(self) -> None:
        """Asks the server itself whether it answers; starts it whenever no process of it is left.

        Backends that outlive a killed postmaster still hold server.lock and are waited for: a second postmaster
        beside them would write to their data.
        """
        starts, deadline = 0, time.monotonic() + READY_MAX_S
        while True:
            lock = server_lock(self._room)
            if lock is not None and starts == STARTS_MAX:
                os.close(lock)
                raise CannotStart(f"PostgreSQL in {self._room} ends at once: {self._log_tail()} {INSTEAD}.")
            if lock is not None:
                starts += 1
                self._spawn(lock)
            elif await asyncio.to_thread(_answers, self._server):
                return
            if time.monotonic() > deadline:
                raise CannotStart(f"PostgreSQL in {self._room} runs and does not answer; see server.log there.")
            await asyncio.sleep(POLL_S)

    def _spawn(self, lock: int) -> None:
        """Starts the postmaster in a session of its own, so that Ctrl-C in our terminal is ours to handle."""
        try:
            self._server = with_sockets(self._room, self._server)
            (self._room / "data/postmaster.pid").unlink(missing_ok=True)
            self._reap()
            with open_log(self._room) as output:
                self._log_from = output.tell()
                self._process = subprocess.Popen(
                    _postgres_command(self._room, self._server),
                    cwd="/",
                    env=ENVIRONMENT,
                    start_new_session=True,
                    pass_fds=[lock],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
        finally:
            os.close(lock)

    def _log_tail(self) -> str:
        lines = (self._room / "server.log").read_bytes()[self._log_from :].decode(errors="replace").splitlines()
        return " / ".join(line.strip() for line in lines[-5:])

    async def _make_database(self) -> None:
        """The database `connect`; a crash before this leaves a server without it, so every start looks."""
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self._server.url("postgres"), timeout=30)
        try:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'connect')"):
                await connection.execute("CREATE DATABASE connect")
        finally:
            await connection.close()

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                if not lives(self._room):
                    log.warning("embedded_postgres_died", room=str(self._room))
                    await self._until_ready()
                    log.info("embedded_postgres_restarted", room=str(self._room))
            except Exception:  # a loop's tick: a disk that is full now may have room in a minute
                log.exception("embedded_postgres_restart_failed", room=str(self._room))
                await asyncio.sleep(RESTART_PAUSE_S)

    async def _shut_down(self) -> None:
        for how, patience_s in ((signal.SIGINT, FAST_SHUTDOWN_MAX_S), (signal.SIGQUIT, IMMEDIATE_SHUTDOWN_MAX_S)):
            pid = self._postmaster_pid()
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)
            if await self._ends_within(patience_s):
                shutil.rmtree(self._server.sockets, ignore_errors=True)
                return
        log.error("embedded_postgres_still_running", room=str(self._room))

    async def _ends_within(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while lives(self._room):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        self._reap()
        return True

    def _postmaster_pid(self) -> int | None:
        """Returns the server's pid; that of a server we took over is in postmaster.pid, believed only if it is ours."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        try:
            pid = int((self._room / "data/postmaster.pid").read_text().split("\n", 1)[0])
            ours = not Path("/proc/self").exists() or self._server.sockets in Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError):
            return None
        return pid if ours and lives(self._room) else None

    def _reap(self) -> None:
        if self._process is not None:
            self._process.poll()


def running_url(home: Path) -> str | None:
    """The address of the server of `home` if one runs and answers; for other processes of the owner's user."""
    room = (home / "postgres").resolve()
    try:
        server = msgspec.json.decode((room / "server.json").read_bytes(), type=Server)
        return server.url() if lives(room) and _answers(server) else None
    except (OSError, msgspec.DecodeError):
        return None


async def _uninterrupted(thread: Coroutine[Any, Any, T]) -> T:
    """A thread cannot be cancelled, and goes on making the home: its locks are kept until it is done."""
    task = asyncio.create_task(thread)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _take(home: Path, mode: Mode | None, ownership: contextlib.ExitStack) -> Path:
    home = home.absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    own(home, ownership)
    room = room_of(home, mode)
    own(room, ownership)  # of a copied home the link may lead to the room of the first
    return room


def _answers(server: Server) -> bool:
    if not server.sockets:
        return False
    asked = ("--quiet", "--timeout=3", f"--host={server.sockets}", "--port=5432", "--username=connect")
    command = [binaries("direct") / "pg_isready", *asked]  # without --username it wants our user to have a name
    return subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _postgres_command(room: Path, server: Server) -> list[str]:
    settings = {**SETTINGS, "unix_socket_directories": f'"{server.sockets}"'}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return [*prefix(server.mode), str(binaries(server.mode) / "postgres"), "-D", str(room / "data"), *options]
