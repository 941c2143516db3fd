"""A tree of processes on this machine: started, watched, started again when they die, ended together."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from connect.errors import ConnectError
from connect.telemetry import log

RESTART_AFTER_S = 1.0
QUICK_DEATHS_MAX = 5
"""A process that dies this often in a row within `QUICK_S` is not started again: something is wrong for good."""
QUICK_S = 10.0
DRAIN_MAX_S = 30.0
READY_WITHIN_S = 60.0
PR_SET_PDEATHSIG = 1


class NotReady(ConnectError):
    code, title = "not_ready", "A process does not come up or does not stay up"


def _die_with_parent() -> None:
    """Linux: a child is told when its parent is killed, so that kill -9 of the head leaves no orphans."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class ProcessTree:
    """`python -m connect ...` children under one head."""

    def __init__(self, environ: Mapping[str, str], *, log_file: Path | None = None) -> None:
        self._environ = {**os.environ, **environ}
        self._log_file = log_file
        self._watchers: list[asyncio.Task[None]] = []
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._ending = False
        self.broken = asyncio.Event()
        """Set when a process keeps dying."""

    async def start(self, name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        await self._spawn(name, arguments, environ or {})
        self._watchers.append(asyncio.create_task(self._watch(name, arguments, environ or {})))

    async def _spawn(self, name: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> None:
        output = self._log_file.open("ab") if self._log_file else None
        self._children[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "connect",
            *arguments,
            env={**self._environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        if output:
            output.close()

    async def _watch(self, name: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            begun = loop.time()
            code = await self._children[name].wait()
            if self._ending:
                return
            deaths = deaths + 1 if loop.time() - begun < QUICK_S else 1
            log.error("process.died", process=name, code=code, deaths=deaths)
            if deaths >= QUICK_DEATHS_MAX:
                self.broken.set()
                return
            await asyncio.sleep(RESTART_AFTER_S)
            await self._spawn(name, arguments, environ)

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._children.items() if child.returncode is None}

    async def stop(self) -> None:
        """SIGTERM to all in the order of their start, and SIGKILL to what has not drained in time."""
        self._ending = True
        alive = [child for child in self._children.values() if child.returncode is None]
        for child in alive:
            child.terminate()
        try:
            async with asyncio.timeout(DRAIN_MAX_S):
                await asyncio.gather(*(child.wait() for child in alive))
        except TimeoutError:
            for child in alive:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)


async def wait_ready(url: str, tree: ProcessTree) -> None:
    """Waits for `<url>` to answer 200. Raises `NotReady` when it does not in time or the tree is broken."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:
        while loop.time() < deadline and not tree.broken.is_set():
            try:
                async with session.get(url) as reply:
                    if reply.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(0.05)
    raise NotReady(f"{url} did not become ready; the lines above (or the log file) say why")
