"""The whole ruleset over HTTP: read, replaced, drafted, published, rolled back."""

import asyncio
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Response, get, post, put
from litestar.params import FromPath
from msgspec import Struct

from connect.api.publishing import (
    READING,
    WRITING,
    YAML,
    YAML_TYPES,
    live_ruleset,
    publish_change,
    refuse_red,
    stops_ended_by,
    take_effect,
)
from connect.api.wire import (
    BATCH_BODY_MAX,
    AnyRequest,
    caller,
    check_limit,
    etag,
    if_match,
    media_type,
    read_body,
    read_optional_json,
    read_query,
    responses,
    runtime,
)
from connect.authoring import read_and_check, write_yaml
from connect.errors import MediaTypeRefused, NotFound
from connect.model import Ruleset, RulesetVersion
from connect.store.page import LIMIT_DEFAULT
from connect.store.rules import add_draft, list_versions, publish, read_version


class Publish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    note: str = ""


class VersionsQuery(Struct, frozen=True, kw_only=True):
    limit: int = LIMIT_DEFAULT
    cursor: int | None = None


@get(
    "/internal/ruleset",
    opt={"scope": "rules:read"},
    tags=["ruleset"],
    summary="The whole live ruleset",
    responses=responses(*READING),
)
async def show_ruleset(request: AnyRequest) -> Response[Any]:
    """JSON, or YAML when `Accept` asks for it."""
    live = await live_ruleset(request)
    document = live.document if live else Ruleset()
    headers = {"ETag": etag(live.version if live else 0)}
    if "yaml" in request.headers.get("accept", ""):
        return Response(write_yaml(document), media_type=YAML, headers=headers)
    return Response({"version": document.version, **msgspec.to_builtins(document)}, headers=headers)


async def _read_ruleset(request: AnyRequest) -> Ruleset:
    """Read, checked and tested. Raises `InvalidRuleset` with all errors, each with line and column, and `RedTests`."""
    body = await read_body(request, BATCH_BODY_MAX)
    if media_type(request) not in {*YAML_TYPES, "application/json"}:
        raise MediaTypeRefused(
            f"send Content-Type: application/json or {YAML}, not {media_type(request) or 'nothing'!r}"
        )
    document, _ = await asyncio.to_thread(read_and_check, body)
    await asyncio.to_thread(refuse_red, document)
    return document


@put(
    "/internal/ruleset",
    opt={"scope": "rules:write", "body": Ruleset, "yaml": True},
    tags=["ruleset"],
    summary="Replace the ruleset",
    responses=responses(*WRITING),
)
async def replace_ruleset(request: AnyRequest) -> Response[Any]:
    """`revived`: the stops of rules that it lets give again."""
    document = await _read_ruleset(request)
    published = await publish_change(request, lambda _: document, "replace the ruleset", expected=if_match(request))
    return await _published(request, published)


async def _published(request: AnyRequest, published: RulesetVersion) -> Response[Any]:
    body = {**_summary(published, live=True), "revived": await stops_ended_by(request, published)}
    return Response(body, headers={"ETag": etag(published.version)})


def _summary(found: RulesetVersion, *, live: bool) -> dict[str, Any]:
    shown = msgspec.to_builtins(found, builtin_types=(datetime,))
    return {**shown, "live": live}


@get(
    "/internal/ruleset/versions",
    opt={"scope": "rules:read", "query": VersionsQuery},
    tags=["ruleset"],
    summary="All versions, newest first",
    responses=responses(*READING),
)
async def show_versions(request: AnyRequest) -> dict[str, Any]:
    query = read_query(request, VersionsQuery)
    limit = check_limit(query.limit)
    async with runtime(request).pool.acquire() as connection:
        items = await list_versions(connection, before=query.cursor, limit=limit)
    return {"items": items, "next_cursor": str(items[-1]["version"]) if len(items) == limit else None}


@get(
    "/internal/ruleset/versions/{version:int}",
    opt={"scope": "rules:read"},
    tags=["ruleset"],
    summary="One version",
    responses=responses(*READING),
)
async def show_version(request: AnyRequest, version: FromPath[int]) -> dict[str, Any]:
    async with runtime(request).pool.acquire() as connection:
        found = await read_version(connection, _sane(version))
    return _summary(found, live=version == runtime(request).rules.rulebook.version)


def _sane(version: int) -> int:
    if not 0 < version < 2**31:
        raise NotFound(f"there is no ruleset version {version}")
    return version


@post(
    "/internal/ruleset/versions",
    opt={"scope": "rules:write", "body": Ruleset, "yaml": True},
    tags=["ruleset"],
    summary="Store a draft",
    responses=responses(*WRITING),
)
async def add_version(request: AnyRequest) -> Response[Any]:
    """Checked, tested and stored, not live until it is published."""
    document = await _read_ruleset(request)
    async with runtime(request).pool.acquire() as connection:
        version = await add_draft(connection, document, caller(request).name, "")
        draft = await read_version(connection, version)
    headers = {"ETag": etag(version), "Location": f"/internal/ruleset/versions/{version}"}
    return Response(_summary(draft, live=False), status_code=HTTPStatus.CREATED, headers=headers)


@post(
    "/internal/ruleset/versions/{version:int}/publish",
    opt={"scope": "rules:write", "optional_body": Publish},
    tags=["ruleset"],
    status_code=200,
    summary="Make a version live",
    responses=responses(*WRITING),
)
async def publish_version(request: AnyRequest, version: FromPath[int]) -> Response[Any]:
    """An old version comes back as a new one (a rollback). Refused where its tests are red by the engine of today.

    `revived`: the stops of rules that it lets give again.
    """
    order, expected = await read_optional_json(request, Publish), if_match(request)
    async with runtime(request).pool.acquire() as connection:
        found = await read_version(connection, _sane(version))
    await asyncio.to_thread(refuse_red, found.document)
    async with runtime(request).pool.acquire() as connection:
        published = await publish(connection, _sane(version), caller(request).name, order.note, expected=expected)
    await take_effect(request)
    return await _published(request, published)


ROUTES = [show_ruleset, replace_ruleset, show_versions, show_version, add_version, publish_version]
