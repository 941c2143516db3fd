"""Jobs over HTTP: long operations, followed and cancelled by who may do the operation itself."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath

from connect.api.auth import Caller
from connect.api.wire import AnyRequest, Paging, caller, check_limit, read_query, responses, runtime
from connect.model import Job
from connect.store import jobs
from connect.store.jobs import Owner
from connect.store.page import Page


def owner(by: Caller) -> Owner:
    return Owner(by.name, by.source, by.target)


def accepted(job: Job) -> Response[Any]:
    """202 with the place to follow it at."""
    return Response(job, status_code=HTTPStatus.ACCEPTED, headers={"Location": f"/internal/jobs/{job.id}"})


@get(
    "/internal/jobs",
    opt={"scope": "actions:operate", "query": Paging, "answers": {200: Page[Job]}},
    tags=["jobs"],
    summary="List jobs, newest first",
    responses=responses(400, 401, 403, 422, 429, 503),
)
async def list_jobs(request: AnyRequest) -> Response[Any]:
    """A key bound to a source or target sees the jobs that were made with the same binding."""
    query = read_query(request, Paging)
    async with runtime(request).pool.acquire() as connection:
        limit = check_limit(query.limit)
        return Response(await jobs.list_jobs(connection, owner(caller(request)), limit=limit, cursor=query.cursor))


@get(
    "/internal/jobs/{job_id:uuid}",
    opt={"scope": "actions:operate"},
    tags=["jobs"],
    summary="One job and how far it came",
    responses=responses(401, 403, 404, 429, 503),
)
async def show_job(request: AnyRequest, job_id: FromPath[UUID]) -> Job:
    async with runtime(request).pool.acquire() as connection:
        return await jobs.read_job(connection, job_id, owner(caller(request)))


@post(
    "/internal/jobs/{job_id:uuid}/cancel",
    opt={"scope": "actions:operate"},
    tags=["jobs"],
    status_code=200,
    summary="Cancel a job",
    responses=responses(401, 403, 404, 409, 429, 503),
)
async def cancel_job(request: AnyRequest, job_id: FromPath[UUID]) -> Job:
    """Takes effect after the step under way; what its steps did stays done."""
    async with runtime(request).pool.acquire() as connection:
        return await jobs.cancel_job(connection, job_id, owner(caller(request)))


ROUTES: list[Any] = [list_jobs, show_job, cancel_job]
