"""Tells Connect later what became of a command that was answered with 202."""

import asyncio
from collections.abc import Sequence
from typing import Literal, cast

import aiohttp
from msgspec import Struct

from connect.sandbox.ledger import Effect, Ledger, Reported
from connect.telemetry import log

IN_FLIGHT_MAX = 20
ATTEMPTS_MAX = 50
PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 5.0
"""Fifty attempts that far apart ride out four minutes without Connect; past that Connect's own deadline asks again."""


class Settings(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The settings that may be given at the start or changed while the reporter runs (`POST /settings`)."""

    secrets: tuple[str, ...] = ()
    """`whsec_` + base64; none: signatures are not looked at."""
    connect_url: str | None = None
    """Where results are reported to; none: they wait until it is known."""
    result_key: str | None = None
    """A Connect API key with the scope `results:write`."""
    report_delay_s: float = 0.5


class Reporter:
    """One task for each result owed. `start` and `stop` belong to the server's life."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.settings = settings
        self._ledger = ledger
        self._owed: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._reachable = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self.configure(self.settings)
        for effect in self._ledger.unreported():
            self.owe(effect, ("completed",))

    async def stop(self) -> None:
        tasks = list(self._owed.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def configure(self, settings: Settings) -> None:
        self.settings = settings
        if settings.connect_url is not None:
            self._reachable.set()

    def owe(self, effect: Effect, results: Sequence[str]) -> None:
        """Asked again while a report is under way: that one serves both."""
        if results and effect.key not in self._owed:
            task = asyncio.create_task(self._report_all(effect.key, effect.reference, results))
            self._owed[effect.key] = task
            task.add_done_callback(lambda _: self._owed.pop(effect.key, None))

    def forget_all(self) -> None:
        for task in self._owed.values():
            task.cancel()

    async def _report_all(self, key: str, reference: str | None, results: Sequence[str]) -> None:
        """The second of several waits for the first's answer, so that their order is the one told."""
        await asyncio.sleep(self.settings.report_delay_s)
        await self._reachable.wait()
        for result in results:
            status = cast("Literal['completed', 'failed']", result)
            detail = {"reference": reference} if status == "completed" else {"reason": "told to fail"}
            async with self._free:
                answer = await self._deliver(key, {"status": status, **detail})
            if answer is not None:
                self._ledger.report(Reported(key=key, status=status, answer=answer))

    async def _deliver(self, key: str, report: dict[str, str | None]) -> int | None:
        """Connect's answer, or None when it could not be had. A refusal is an answer; an outage is tried again."""
        pause_s = PAUSE_FIRST_S
        for _ in range(ATTEMPTS_MAX):
            status = await self._post(key, report)
            if status is not None and status < 500 and status != 429:
                if status >= 400:
                    log.warning("sandbox_report_refused", action=key, status=status)
                return status
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)
        log.warning("sandbox_report_given_up", action=key)
        return None

    async def _post(self, key: str, report: dict[str, str | None]) -> int | None:
        if self._session is None:
            raise RuntimeError("start() comes first")
        url = f"{(self.settings.connect_url or '').rstrip('/')}/internal/reward-actions/{key}/result"
        headers = {"Authorization": f"Bearer {self.settings.result_key}"} if self.settings.result_key else {}
        try:
            async with self._session.post(url, json=report, headers=headers, allow_redirects=False) as reply:
                return reply.status
        except (aiohttp.ClientError, TimeoutError):
            return None
