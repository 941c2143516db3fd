"""Between HTTP and structs: bodies, queries, ETags. What is read here is what /openapi.json shows."""

import asyncio
from functools import partial
from typing import Any, TypeVar, get_origin, get_type_hints

import msgspec
from litestar import Request
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from connect.api.auth import Caller
from connect.api.problems import Problem
from connect.api.runtime import Runtime
from connect.engine.index import Rulebook
from connect.errors import BadRequest, BodyTooLarge, Invalid, Located, MediaTypeRefused
from connect.intake.normalize import decode_any
from connect.jsonvalue import is_array, is_object
from connect.store.page import LIMIT_DEFAULT, LIMIT_MAX
from connect.validation import in_a_sentence, mismatches

T = TypeVar("T")
_from_query = partial(msgspec.convert, strict=False)
AnyRequest = Request[Any, Any, Any]

BODY_MAX = 256 * 1024
BATCH_BODY_MAX = 4 * 1024 * 1024
BODY_READ_MAX_S = 20
"""A body that trickles in slower than this is given up, so that slow senders cannot hold connections."""


def rulebook(request: AnyRequest) -> Rulebook:
    """The rules this process decides by."""
    return runtime(request).rules.rulebook


async def newest_rulebook(request: AnyRequest) -> Rulebook:
    """Returns the rulebook, looked up first: an operator asks after they saw a version published, a counter built."""
    rules = runtime(request).rules
    await rules.refresh()
    return rules.rulebook


def runtime(request: AnyRequest) -> Runtime:
    return request.app.state.runtime


def caller(request: AnyRequest) -> Caller:
    return request.state.caller


def responses(*statuses: int) -> dict[int, ResponseSpec]:
    """The problem documents a route may answer with; every route with a credential may answer 401 and 403 too."""
    return {
        status: ResponseSpec(
            Problem,
            description="A problem document (RFC 9457)",
            generate_examples=False,
            media_type="application/problem+json",
        )
        for status in statuses
    }  # type: ignore[arg-type]


async def read_body(request: AnyRequest, limit: int = BODY_MAX) -> bytes:
    """Raises `MediaTypeRefused` for a compressed body, `BodyTooLarge`, and `BadRequest` for one that never ends."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MediaTypeRefused(
            "send the body without Content-Encoding: what 97 kB unpack to cannot be known beforehand"
        )
    if int(request.headers.get("content-length") or 0) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_READ_MAX_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError as error:
        raise BadRequest(f"the body did not arrive within {BODY_READ_MAX_S} s") from error
    return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is over {limit // 1024} KiB; send less at a time (a batch takes 1,000 events or 4 MiB)"
    )


def media_type(request: AnyRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def prefers(request: AnyRequest, preference: str) -> bool:
    """Whether the client asks for it by `Prefer` (RFC 7240), alone or among other preferences."""
    asked = ",".join(request.headers.getall("prefer", []))
    return preference in [part.partition(";")[0].strip().lower() for part in asked.split(",")]


async def read_json(request: AnyRequest, kind: type[T]) -> T:
    """A JSON body of a known shape. Raises `NotJson` (400), `MediaTypeRefused` (415), `Invalid` (422)."""
    return convert(await _read_document(request), kind)


async def read_bulk(request: AnyRequest, kind: type[T]) -> T:
    """A bulk operation's body; in its `filter` a value may stand without a list, as it does in a query."""
    document = await _read_document(request)
    filters = document.get("filter") if is_object(document) else None
    if is_object(filters):
        hints = get_type_hints(get_type_hints(kind)["filter"])
        for name, value in filters.items():
            if get_origin(hints.get(name)) is list and not is_array(value):
                filters[name] = [value]
    return convert(document, kind)


async def _read_document(request: AnyRequest) -> Any:
    if media_type(request) not in {"application/json", "application/merge-patch+json"}:
        raise MediaTypeRefused(f"send Content-Type: application/json, not {media_type(request) or 'nothing'!r}")
    return storable(decode_any(await read_body(request)))


async def read_optional_json(request: AnyRequest, kind: type[T]) -> T:
    """Reads a JSON body; an absent body means the defaults."""
    body = await read_body(request)
    return convert(storable(decode_any(body)), kind) if body.strip() else msgspec.convert({}, kind)


def storable(document: Any, pointer: str = "#") -> Any:
    """The document itself. Raises `Invalid` where a text holds U+0000, which PostgreSQL cannot hold."""
    if isinstance(document, str) and "\0" in document:
        raise Invalid(
            f"the character U+0000 cannot be stored (at {pointer})", errors=[Located(pointer, "holds U+0000")]
        )
    items = document.items() if is_object(document) else enumerate(document) if is_array(document) else ()
    for name, value in items:
        storable(name, pointer)
        storable(value, f"{pointer}/{name}")
    return document


def convert(document: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        found = mismatches(document, kind)
        raise Invalid(in_a_sentence(found), errors=found) from error


def read_query(request: AnyRequest, kind: type[T]) -> T:
    """The query as a struct. Unknown names are refused, so that a typo is not a wider filter."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name not in hints:
            known = ", ".join(sorted(hints))
            raise Invalid(
                f"there is no query parameter {name!r}; known: {known}", errors=[Located(f"#/{name}", "unknown")]
            )
        if "\0" in value:
            raise Invalid(
                f"{name}: the character U+0000 is never stored", errors=[Located(f"#/{name}", "holds U+0000")]
            )
        if get_origin(hints[name]) is list:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    try:
        return _from_query(values, kind)
    except msgspec.ValidationError as error:
        found = mismatches(values, kind, _from_query)
        raise Invalid(f"query {in_a_sentence(found)}", errors=found) from error


class Paging(Struct, kw_only=True, frozen=True):
    """The part of a list's query that is not a filter."""

    limit: int = LIMIT_DEFAULT
    cursor: str | None = None


def check_limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MAX:
        raise Invalid(f"limit must be 1 to {LIMIT_MAX}, not {limit}", errors=[Located("#/limit", f"1 to {LIMIT_MAX}")])
    return limit


def etag(version: int) -> str:
    return f'"{version}"'


def if_match(request: AnyRequest) -> int | None:
    """The version an `If-Match` names; null without one. Raises `BadRequest` on anything else."""
    header = request.headers.get("if-match", "").strip()
    if header in {"", "*"}:
        return None
    text = header.removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"If-Match must be a version in quotes, as the ETag said, not {header!r}")
    return int(text)
