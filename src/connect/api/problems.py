"""Errors as RFC 9457 problem documents, each with a page of its own under /problems/."""

from http import HTTPStatus
from typing import Any

import asyncpg
import msgspec
from litestar import Request, Response, get
from litestar.exceptions import HTTPException
from litestar.params import FromPath
from msgspec import UNSET, Struct, UnsetType

from connect.api.auth import PUBLIC
from connect.errors import ConnectError, DatabaseUnavailable, Invalid, Located, NotFound, Overloaded
from connect.intake.record import DATABASE_GONE, LOCKED, TRY_AGAIN
from connect.jsonvalue import is_object
from connect.store.events.fence import Outdated
from connect.telemetry import log

MEDIA_TYPE = "application/problem+json"


class Problem(Struct, kw_only=True):
    """RFC 9457. `errors` locates each fault in the input."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | UnsetType = UNSET
    errors: list[Located] | UnsetType = UNSET
    event_id: str | UnsetType = UNSET
    matched: int | UnsetType = UNSET


def to_problem(error: ConnectError, instance: str | UnsetType = UNSET) -> Problem:
    return Problem(
        type=f"/problems/{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        instance=instance,
        errors=list(error.errors) or UNSET,
        **error.extra,  # type: ignore[arg-type]  # the fields above
    )


def answer(error: ConnectError, instance: str) -> Response[Any]:
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="connect"'
    body = msgspec.json.encode(to_problem(error, instance))
    return Response(body, status_code=error.status, headers=headers, media_type=MEDIA_TYPE)


def on_connect_error(request: Request[Any, Any, Any], error: ConnectError) -> Response[Any]:
    return answer(error, request.url.path)


def on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Litestar's own: unknown routes, wrong methods, parameters that do not parse, bodies over the limit."""
    known = ConnectError(_in_words(request, error))
    known.status = error.status_code
    known.code = _phrase_code(HTTPStatus(error.status_code))
    known.title = HTTPStatus(error.status_code).phrase
    known.errors = tuple(_located(entry) for entry in error.extra) if isinstance(error.extra, list) else ()
    response = answer(known, request.url.path)
    response.headers.update({name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"})
    return response


def _in_words(request: Request[Any, Any, Any], error: HTTPException) -> str:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"nothing answers {request.method} {request.url.path}: is each id in it whole? /docs lists what there is"
    return error.detail or HTTPStatus(error.status_code).phrase


def _phrase_code(status: HTTPStatus) -> str:
    return status.phrase.lower().replace(" ", "_").replace("'", "")


def _located(entry: Any) -> Located:
    if is_object(entry):
        return Located(f"#/{entry.get('key', '')}", str(entry.get("message", "")))
    return Located("#", str(entry))


def on_database_gone(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    log.warning("api.database_unavailable", path=request.url.path, error=repr(error))
    return answer(DatabaseUnavailable("the database does not answer; try again", retry_after_s=1), request.url.path)


def on_held_lock(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    log.warning("api.lock_held", path=request.url.path, error=repr(error))
    return answer(Overloaded("somebody else is changing the same rows; try again", retry_after_s=1), request.url.path)


def on_outdated(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    del error
    return answer(Overloaded("the rules changed meanwhile; try again", retry_after_s=1), request.url.path)


def on_data_refused(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """Answers for data that passed our checks and PostgreSQL cannot hold or compare, such as a moment before year 1."""
    log.warning("api.data_refused", path=request.url.path, error=repr(error))
    return answer(Invalid("a value lies outside of what can be stored or compared"), request.url.path)


def on_fault(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    log.error("api.fault", path=request.url.path, method=request.method, error=repr(error), exc_info=error)
    return answer(ConnectError("the server met a fault of its own; it is in the log"), request.url.path)


HANDLERS: dict[int | type[Exception], Any] = {
    ConnectError: on_connect_error,
    HTTPException: on_http_exception,
    **dict.fromkeys(DATABASE_GONE, on_database_gone),
    **dict.fromkeys((*LOCKED, *TRY_AGAIN), on_held_lock),
    Outdated: on_outdated,
    asyncpg.DataError: on_data_refused,
    Exception: on_fault,
}


def known_problems() -> dict[str, type[ConnectError]]:
    found: dict[str, type[ConnectError]] = {}
    pending: list[type[ConnectError]] = [ConnectError]
    while pending:
        kind = pending.pop()
        found.setdefault(kind.code, kind)
        pending += kind.__subclasses__()
    return found


@get(
    "/problems/{code:str}",
    opt={"scope": PUBLIC, "problems": [404]},
    media_type="text/plain",
    tags=["operations"],
    summary="What an error means",
    sync_to_thread=False,
)
def problem_page(code: FromPath[str]) -> str:
    """The page that a problem document's `type` names."""
    kind = known_problems().get(code)
    if kind is not None:
        return f"{kind.title}\n\ncode: {kind.code}\nstatus: {kind.status}\n\n{kind.remedy}\n"
    for status in HTTPStatus:
        if status >= HTTPStatus.BAD_REQUEST and code == _phrase_code(status):
            return f"{status.phrase}\n\ncode: {code}\nstatus: {status.value}\n\n{status.description}\n"
    raise NotFound(f"there is no problem {code!r}")
