"""Works jobs off, step by step: a step and how far it came are one transaction, so a crash costs a step of work."""

import asyncio
import contextlib
from typing import Any, cast
from uuid import UUID, uuid4

from connect.dispatch.operating import operate_step
from connect.failpoint import reach
from connect.intake.live import LiveRules
from connect.model import Operation
from connect.store import jobs
from connect.telemetry import log

LEASE_S = 30.0
POLL_S = 1.0


class JobRunner:
    """One loop of a worker; any number may run, each job is one's at a time."""

    def __init__(self, pool: Any, rules: LiveRules, lease_s: float = LEASE_S) -> None:
        self._pool, self._rules, self._lease_s = pool, rules, lease_s

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                worked = await self.tick()
            except Exception as error:  # a loop's tick: the lease ends and the job is taken up again
                log.warning("jobs.tick_failed", error=repr(error))
                worked = False
            if not worked:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), POLL_S)

    async def tick(self) -> bool:
        """Does one step of the oldest free job; says whether it did."""
        lease = uuid4()
        async with self._pool.acquire() as connection:
            job_id = await jobs.lease_job(connection, lease, self._lease_s)
            if job_id is None:
                return False
            try:
                await self._step(connection, job_id, lease)
            except Exception as error:  # told in the job
                log.warning("jobs.step_failed", job=str(job_id), error=repr(error))
                await jobs.fail_step(connection, job_id, lease, repr(error))
                return False
        return True

    async def _step(self, connection: Any, job_id: UUID, lease: UUID) -> None:
        async with connection.transaction():
            step = await jobs.lock_step(connection, job_id, lease)
            if step is None:
                return
            operation = cast("Operation", step.task["operation"])
            changed = await operate_step(connection, self._rules.rulebook, operation, step.ids)
            # Free at once: the next step is anybody's.
            await jobs.advance_job(connection, job_id, len(step.ids), changed, 0)
            reach("jobs.step")
