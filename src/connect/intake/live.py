"""The live rulebook of a process: compiled once, followed by polling, swapped whole."""

import asyncio
import time
from typing import Any

from connect.engine.index import PublishedContext, Rulebook
from connect.model import Ruleset, RulesetVersion
from connect.store.published_context import read_building, read_published_context
from connect.store.rules import live_version, read_version
from connect.telemetry import log

STALE_AFTER_S = 2.0
"""The seconds within which a publish is followed; the clock that tells runs on while a process is stopped."""
CATCH_UP_S = 0.1
"""How long events wait for the rulebook of a version that went live just now; then they are recorded undecided."""
POLL_S = 0.5
"""A publish elsewhere takes effect here within this, and the time to compile (2 s are promised)."""


class LiveRules:
    """Holds the rulebook to decide by. Deciding reads `rulebook` once a group, so a group is decided by one version."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.rulebook = Rulebook.compile(0, Ruleset(), {})
        self.looked_at = 0.0
        self._refreshing = asyncio.Lock()
        """One compile at a time; who waited for it finds the work done."""
        self._catching_up: asyncio.Task[None] | None = None

    async def fresh(self) -> Rulebook:
        """The rulebook to decide by now. A process that stood still looks first whether it is still the live one.

        Nobody waits here for rules that are being compiled: the fence judges what the older ones decide meanwhile.
        """
        if time.monotonic() - self.looked_at > STALE_AFTER_S and not self._refreshing.locked():
            await self.catch_up()
        return self.rulebook

    async def catch_up(self, within_s: float = CATCH_UP_S) -> None:
        """Takes the live version over where that is done so soon; else it goes on beside, and the next one sees it."""
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._refresh_or_tell())
        await asyncio.wait({self._catching_up}, timeout=within_s)

    async def _refresh_or_tell(self) -> None:
        try:
            await self.refresh()
        except Exception as error:  # a task's seam: who waits decides by what is there, and the fence judges that
            log.warning("rules.refresh_failed", error=repr(error))

    async def refresh(self) -> None:
        """Takes over the live version if it is another one. Raises what the database raises.

        Document and published context are read as of one moment. A process that published calls this itself, so that
        its next event is decided by what it just published.
        """
        async with self._refreshing:
            looked_at = time.monotonic()
            found, published = await self._look()
            if found is not None:
                await self._use(found, published)
            elif published != self.rulebook.published:
                self.rulebook = self.rulebook.published_as(published)
            self.looked_at = looked_at

    async def _look(self) -> tuple[RulesetVersion | None, PublishedContext]:
        """The live version, where it is another one, and what the store knows beside it, read as of one moment.

        The transaction ends before anything is compiled: that takes seconds for thousands of rules, and the server ends
        transactions that stand still.
        """
        async with self._pool.acquire() as connection, connection.transaction(isolation="repeatable_read"):
            version = await live_version(connection)
            building = frozenset(await read_building(connection))
            if version != self.rulebook.version:
                return await read_version(connection, version), await read_published_context(connection)
            same = building == self.rulebook.published.building
            return None, self.rulebook.published if same else await read_published_context(connection)

    async def _use(self, version: RulesetVersion, published: PublishedContext) -> None:
        """Compiles in a thread: thousands of rules take seconds, and events come in meanwhile."""
        compiled = await asyncio.to_thread(
            Rulebook.compile, version.version, version.document, version.rule_versions, published
        )
        self.rulebook = compiled
        log.info("rules.live", version=version.version, rules=len(version.document.rules))

    async def follow(self) -> None:
        """Runs until cancelled; a database that is away is tried again at the next tick."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except Exception as error:  # a loop's tick: the old version goes on deciding
                log.warning("rules.refresh_failed", error=repr(error))
