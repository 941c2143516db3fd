"""The composition root of the API process: pool, rules, recorder and routes put together; nothing else makes them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from litestar import Litestar

from connect.api import (
    actions,
    counters,
    docs,
    event_search,
    events,
    health,
    jobs,
    rules,
    ruleset,
    schemas,
    targets,
    trying,
)
from connect.api import dead_letters as dead
from connect.api.asyncapi import asyncapi_json
from connect.api.auth import Authenticator, Caller, guard
from connect.api.openapi import openapi_json
from connect.api.problems import HANDLERS, problem_page
from connect.api.runtime import Runtime
from connect.api.wire import BATCH_BODY_MAX
from connect.config import Settings
from connect.errors import SettingsError
from connect.intake.foreign import compile_sources
from connect.intake.live import LiveRules
from connect.intake.record import Recorder
from connect.store.pool import open_pool
from connect.store.processes import heartbeat


def create_app(settings: Settings, database_url: str) -> Litestar:
    """An ASGI application on a migrated database: it opens its pool at its start and drains what it took at its end."""

    sources = compile_sources(settings.sources)

    @contextlib.asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        pool = await open_pool(database_url, size_max=settings.pool_size, name="connect-api")
        live = LiveRules(pool)
        await live.refresh()
        recorder = Recorder(pool, live, queue_max=settings.queue_max, undo=settings.undo, in_order=settings.ordered)
        authenticator = Authenticator(
            pool,
            bootstrap_key=settings.bootstrap_key,
            rate_per_key=settings.rate_per_key,
            token_verifier=_token_verifier(settings),
        )
        app.state.runtime = Runtime(settings, pool, live, recorder, authenticator, sources)
        flusher, follower = asyncio.create_task(recorder.run()), asyncio.create_task(live.follow())
        try:
            async with heartbeat(pool, "api", lambda: live.rulebook.version):
                yield
        finally:
            recorder.close()
            await flusher
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower
            await pool.close()

    routes: list[Any] = [
        *events.ROUTES,
        *event_search.ROUTES,
        *rules.ROUTES,
        *trying.ROUTES,
        *ruleset.ROUTES,
        *counters.ROUTES,
        *schemas.ROUTES,
        *actions.ROUTES,
        *targets.ROUTES,
        *dead.ROUTES,
        *jobs.ROUTES,
        *health.ROUTES,
        *docs.ROUTES,
        problem_page,
        openapi_json,
        asyncapi_json,
    ]
    return Litestar(
        route_handlers=routes,
        guards=[guard],
        exception_handlers=HANDLERS,
        lifespan=[lifespan],
        openapi_config=None,  # openapi_json makes the document, docs shows it; Litestar serves nothing of its own
        request_max_body_size=BATCH_BODY_MAX,
        logging_config=None,
        debug=False,
    )


def _token_verifier(settings: Settings) -> Callable[[str], Awaitable[Caller]] | None:
    if settings.jwt is None:
        return None
    try:
        from connect.api.jwt import JwtVerifier
    except ImportError as error:
        raise SettingsError("settings: [jwt] needs the extra: pip install 'connect-service[jwt]'") from error
    return JwtVerifier(settings.jwt).caller
