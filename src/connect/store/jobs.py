"""Jobs: made with their rows fixed, leased by the database's clock, done in steps, each in one transaction."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from msgspec import Struct

from connect.errors import NotAllowedNow, NotFound
from connect.model import Job, JobKind
from connect.store.page import Page, page
from connect.store.pool import Connection

STEP_ROWS = 500
TRIES_MAX = 5
ERROR_CHARACTERS_MAX = 2_000
JOB_COLUMNS = ", ".join(Job.__struct_fields__)

MAKE = f"""
INSERT INTO job (id, kind, total, created_by, task, source, target) VALUES ($1, $2, $3, $4, $5, $6, $7)
RETURNING {JOB_COLUMNS}
"""
ADD_STEPS = """
INSERT INTO job_step (job_id, number, ids)
SELECT $1, (n - 1) / $3, array_agg(id ORDER BY n) FROM unnest($2::uuid[]) WITH ORDINALITY AS given (id, n) GROUP BY 2
"""
AUDIT = "INSERT INTO audit (actor, verb, subject, note, detail) VALUES ($1, $2, $3, $4, $5)"
LEASE = """
UPDATE job SET status = 'running', lease = $1, lease_until = now() + make_interval(secs => $2)
WHERE id = (
    SELECT id FROM job WHERE status IN ('queued', 'running') AND (lease_until IS NULL OR lease_until < now())
    ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING id
"""
# Held until the step commits: a cancel waits for it, and whoever lost the lease finds nothing.
LOCK_STEP = """
SELECT job.task, job.created_by, job_step.ids FROM job JOIN job_step ON job_id = job.id AND number = step
WHERE job.id = $1 AND lease = $2 AND status = 'running' FOR UPDATE OF job
"""
ADVANCE = f"""
UPDATE job SET step = step + 1, tries = 0, error = NULL, done = done + $2,
    lease_until = now() + make_interval(secs => $4),
    result = jsonb_build_object(
        'changed', coalesce((result ->> 'changed')::integer, 0) + $3,
        'passed_by', coalesce((result ->> 'passed_by')::integer, 0) + $2 - $3),
    status = CASE WHEN done + $2 = total THEN 'done' ELSE status END
WHERE id = $1 RETURNING {JOB_COLUMNS}
"""
FAIL = f"""
UPDATE job SET tries = tries + 1, error = $3, lease = NULL, lease_until = NULL,
    status = CASE WHEN tries + 1 >= $4 THEN 'failed' ELSE status END
WHERE id = $1 AND lease = $2 AND status = 'running' RETURNING {JOB_COLUMNS}
"""
CANCEL = f"""
UPDATE job SET status = 'cancelled', lease = NULL, lease_until = NULL
WHERE id = $1 AND status IN ('queued', 'running') RETURNING {JOB_COLUMNS}
"""


class Owner(Struct, frozen=True):
    """Who made a job, and what that credential is bound to. A bound one sees the jobs of its own binding only."""

    name: str
    source: str | None = None
    target: str | None = None


class Step(Struct, frozen=True):
    """The next rows of a job, with what to do to them and for whom."""

    task: dict[str, str]
    created_by: str
    ids: list[UUID]


async def make_job(
    connection: Connection,
    kind: JobKind,
    ids: Sequence[UUID],
    task: dict[str, str],
    owner: Owner,
    given: dict[str, Any],
) -> Job:
    """Queues it with its audit row: `given` is the filter, `task` holds `operation` and `note`."""
    job_id = uuid4()
    async with connection.transaction():
        row = await connection.fetchrow(MAKE, job_id, kind, len(ids), owner.name, task, owner.source, owner.target)
        await connection.execute(ADD_STEPS, job_id, list(ids), STEP_ROWS)
        detail = {"count": len(ids), "filter": given, "job": str(job_id)}
        await connection.execute(AUDIT, owner.name, task["operation"], kind, task["note"], detail)
    return to_job(row)


async def list_jobs(connection: Connection, owner: Owner, *, limit: int, cursor: str | None) -> Page[Job]:
    """Newest first."""
    condition, values = _visible(owner, 1)
    return await page(
        connection, "job", JOB_COLUMNS, to_job, condition, values, order_by="created_at", limit=limit, cursor=cursor
    )


async def read_job(connection: Connection, job_id: UUID, owner: Owner) -> Job:
    """Raises `NotFound`, also where the owner may not see it."""
    condition, values = _visible(owner, 2)
    row = await connection.fetchrow(f"SELECT {JOB_COLUMNS} FROM job WHERE id = $1 AND {condition}", job_id, *values)
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return to_job(row)


async def cancel_job(connection: Connection, job_id: UUID, owner: Owner) -> Job:
    """Ends it after the step under way. Raises `NotFound`, and `NotAllowedNow` for one that ended."""
    async with connection.transaction():
        job = await read_job(connection, job_id, owner)
        row = await connection.fetchrow(CANCEL, job_id)
        if row is None:
            raise NotAllowedNow(f"job {job_id} has ended ({job.status}): only one that is queued or runs is cancelled")
        await connection.execute(AUDIT, owner.name, "cancel", f"job/{job_id}", "", {})
    return to_job(row)


async def lease_job(connection: Connection, lease: UUID, seconds: float) -> UUID | None:
    """The oldest job that nobody works on, now this lease's."""
    return await connection.fetchval(LEASE, lease, seconds)


async def lock_step(connection: Connection, job_id: UUID, lease: UUID) -> Step | None:
    """None where the job ended or another worker has it. Inside the transaction of the step."""
    row = await connection.fetchrow(LOCK_STEP, job_id, lease)
    return Step(**row) if row is not None else None


async def advance_job(connection: Connection, job_id: UUID, rows: int, changed: int, seconds: float) -> Job:
    """Writes down how far it came and renews the lease, in the transaction of the step."""
    return to_job(await connection.fetchrow(ADVANCE, job_id, rows, changed, seconds))


async def fail_step(connection: Connection, job_id: UUID, lease: UUID, error: str) -> Job | None:
    """Frees the job for another try; the fifth failure of one step fails it."""
    text = error.replace("\0", "\ufffd")[:ERROR_CHARACTERS_MAX]
    row = await connection.fetchrow(FAIL, job_id, lease, text, TRIES_MAX)
    return to_job(row) if row is not None else None


def to_job(row: Any) -> Job:
    return Job(**row)


def _visible(owner: Owner, first: int) -> tuple[str, list[Any]]:
    bound = [(name, value) for name, value in (("source", owner.source), ("target", owner.target)) if value is not None]
    conditions = [f"{name} = ${first + n}" for n, (name, _) in enumerate(bound)]
    return " AND ".join(conditions) or "true", [value for _, value in bound]
