"""Real `python -m connect api | worker` processes that may be killed, paused, armed to die, and started again."""

import asyncio
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import aiohttp
from msgspec import Struct

from tests.conftest import eventually, free_port

Role = Literal["api", "worker"]
READY_WITHIN_S = 60
DRAIN_WITHIN_S = 40
PR_SET_PDEATHSIG = 1


class Death(Struct, frozen=True):
    """How one life of a process ended."""

    cause: Literal["failpoint", "killed", "stopped", "unexpected"]
    code: int
    failpoint: str = ""


def _die_with_parent() -> None:
    """Linux: a test run that is itself killed leaves none of its processes behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Node:
    """One process under a name and a port that outlive its deaths. Its log is kept over all of its lives."""

    def __init__(
        self, name: str, role: Role, environ: Mapping[str, str], folder: Path, *arguments: str, tree: Path | None = None
    ) -> None:
        """`tree`: a folder that holds another `connect` package, to be run in place of ours."""
        self.name, self.role = name, role
        self.port = free_port()
        self.arguments = arguments
        self.log = folder / f"{name}.log"
        self.deaths: list[Death] = []
        self._folder = folder
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("CONNECT_")}
        self.environ |= {**environ, "CONNECT_ENV": "test", **({"PYTHONPATH": str(tree)} if tree else {})}
        self._process: asyncio.subprocess.Process | None = None
        self._armed = ""
        self._deaths_before = 0
        self._we_sent: signal.Signals | None = None
        self._life: asyncio.Task[None] | None = None
        self._revive: Callable[[], str | None] | None = None
        self._starting = asyncio.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, failpoint: str = "", *arguments: str, ready: bool = True) -> None:
        """Armed with `name[:nth]` it dies at the nth reaching of that failpoint. Extra arguments are for this life."""
        assert not self.lives, f"{self.name} already runs"
        self._armed, self._we_sent, self._deaths_before = failpoint, None, len(self.deaths)
        environ = {**self.environ, **({"CONNECT_FAILPOINT": failpoint} if failpoint else {})}
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "connect", self.role, "--port", str(self.port), *(arguments or self.arguments),
                env=environ, cwd=self._folder, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._life = asyncio.create_task(self._watch(self._process))
        if ready:
            await self.ready()

    def keep_alive(self, failpoints: Iterable[str] = ()) -> None:
        """From now on it is started again whenever it dies, armed with each of `failpoints` in turn, then with none."""
        left = deque(failpoints)
        self._revive = lambda: left.popleft() if left else ""

    async def ready(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session:

            async def answers() -> bool:
                try:
                    async with session.get(f"{self.url}/readyz") as reply:
                        return reply.status == 200
                except (aiohttp.ClientError, TimeoutError, OSError):
                    return not self.lives and self._revive is None  # it died: nothing to wait for

            await eventually(answers, timeout_s=READY_WITHIN_S, every_s=0.05)
        assert self.lives or self._armed, f"{self.name} does not start:\n{self.tail()}"

    async def died(self, timeout_s: float = 60) -> Death:
        """Waits for the end of this life."""
        before = self._deaths_before
        await eventually(lambda: len(self.deaths) > before, timeout_s)
        return self.deaths[before]

    async def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        self._send(signal.SIGKILL)
        await self.died()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: the polite end."""
        self._send(signal.SIGTERM)

    async def stop(self) -> None:
        """Ends it for good: SIGTERM, and SIGKILL when that does not help."""
        self._revive = None
        async with self._starting:
            if self.lives:
                self.go_on()
                self.terminate()
                try:
                    await eventually(lambda: not self.lives, timeout_s=DRAIN_WITHIN_S)
                except AssertionError:
                    await self.kill()
                    raise
        if self._life is not None:
            await self._life

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _send(self, number: signal.Signals) -> None:
        self._we_sent = number
        self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        if self.lives and self._process is not None:
            self._process.send_signal(number)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self.deaths.append(self._death(code))
        if self._revive is None:
            return
        async with self._starting:
            if self._revive is not None:
                await self.start(self._revive() or "", ready=False)

    def _death(self, code: int) -> Death:
        if self._we_sent == signal.SIGKILL:
            return Death("killed", code)
        if self._we_sent == signal.SIGTERM and code == 0:
            return Death("stopped", code)
        if self._armed and code == -signal.SIGKILL:
            return Death("failpoint", code, self._armed.partition(":")[0])
        return Death("unexpected", code)


async def all_of(*steps: Awaitable[Any]) -> None:
    """Side by side; the first failure is raised when all have ended."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
