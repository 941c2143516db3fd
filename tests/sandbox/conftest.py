"""A sandbox of each test's own, alone or with a stand-in of Connect that takes its reports."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from connect.sandbox.reporter import Settings
from tests.sandbox.caller import Caller, Connect, sandbox


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with sandbox() as one:
        yield one


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    stand_in, app = Connect(), web.Application()
    app.router.add_post("/internal/reward-actions/{id}/result", stand_in.take)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield stand_in
    await runner.cleanup()


@pytest.fixture
async def gateway(connect: Connect) -> AsyncIterator[Caller]:
    async with sandbox(Settings(connect_url=connect.url, result_key="ck_1", report_delay_s=0)) as one:
        yield one
