"""Is it alive, is it ready, what does it count: asked by balancers and by Prometheus."""

from typing import Any

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from connect.api.auth import PUBLIC
from connect.api.wire import AnyRequest, runtime
from connect.store.migrate import migrations, schema_version


@get("/healthz", opt={"scope": PUBLIC}, tags=["operations"], summary="The process lives", sync_to_thread=False)
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@get(
    "/readyz",
    opt={"scope": PUBLIC, "answers": {503: dict[str, str]}},
    tags=["operations"],
    summary="It can take work",
)
async def readyz(request: AnyRequest) -> Response[Any]:
    """503 while the database is away or its schema is behind."""
    try:
        async with runtime(request).pool.acquire(timeout=2) as connection:
            version = await schema_version(connection)
    except Exception as error:  # a probe answers whatever happens
        return Response({"status": "unready", "reason": f"database: {error!r}"}, status_code=503)
    if version != migrations()[-1][0]:
        return Response({"status": "unready", "reason": f"schema {version}: run `connect migrate`"}, status_code=503)
    return Response({"status": "ready", "ruleset_version": runtime(request).rules.rulebook.version})


@get(
    "/metrics",
    opt={"scope": PUBLIC},
    tags=["operations"],
    summary="Prometheus metrics",
    media_type="text/plain",
    sync_to_thread=False,
)
def metrics() -> Response[bytes]:
    # Litestar adds the charset to any text; named twice it is no media type, and Prometheus 3 gives the scrape up
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8"))


ROUTES = [healthz, readyz, metrics]
