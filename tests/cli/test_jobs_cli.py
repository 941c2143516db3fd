"""`connect jobs` against the real API."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from connect.cli.output import Exit
from connect.store.jobs import Owner, make_job
from tests.cli.shell import Shell, shell_on
from tests.dispatch.stand_in import add_actions


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


async def test_a_job_is_listed_shown_and_cancelled_once(shell: Shell, pool: Any):
    ids = await add_actions(pool, 2, status="failed", failure="exhausted", due_at=None)
    async with pool.acquire() as connection:
        job = await make_job(connection, "actions", ids, {"operation": "retry", "note": ""}, Owner("ann"), {})
    [listed] = (await shell("jobs", "list", "-o", "json")).json["items"]
    assert (listed["id"], listed["status"], listed["total"]) == (str(job.id), "queued", 2)
    assert "queued" in (await shell("jobs", "show", str(job.id))).out
    assert "is cancelled: 0 of 2 done" in (await shell("jobs", "cancel", str(job.id))).out
    assert (await shell("jobs", "cancel", str(job.id))).code == Exit.REFUSED
