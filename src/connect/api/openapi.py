"""/openapi.json: what Litestar knows of the routes, with the bodies and queries that their `opt` names."""

from http import HTTPStatus
from typing import Any, cast, get_type_hints

import msgspec
from litestar import Litestar, Request, Response, get
from litestar._openapi.plugin import OpenAPIPlugin
from litestar.config.app import AppConfig
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from msgspec import Struct

from connect import __version__
from connect.api.auth import PUBLIC
from connect.api.problems import MEDIA_TYPE, Problem
from connect.model import ReportedEvent

DESCRIPTION = """Connect records each fact once, decides by rules what it earns, and delivers every reward once.

Errors are RFC 9457 problem documents. Lists are paged by `cursor`. Every route names the scope its key needs."""

CONFIG = OpenAPIConfig(
    title="Connect",
    version=__version__,
    description=DESCRIPTION,
    create_examples=False,
    operation_id_creator=lambda handler, _method, _path: handler.handler_name,
    render_plugins=[JsonRenderPlugin()],  # none would mean four that load their scripts from elsewhere
    components=Components(
        security_schemes={
            "bearer": SecurityScheme(type="http", scheme="bearer", description="A key of `connect keys create`")
        }
    ),
)
REF = "#/components/schemas/{name}"


@get("/openapi.json", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def openapi_json(request: Request[Any, Any, Any]) -> Response[Any]:
    state = request.app.state
    if "openapi_document" not in state:
        state.openapi_document = msgspec.json.encode(document(request.app))
    return Response(state.openapi_document, media_type="application/json")


def document(app: Litestar) -> dict[str, Any]:
    """The whole OpenAPI 3.1 document."""
    # a deep copy by way of JSON: Litestar keeps and shares its own
    whole: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(_from_litestar(app)))
    handlers = {
        (route.path_format, method.lower()): handler
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler)
        for method in handler.http_methods
    }
    schemas: dict[str, Any] = whole["components"].setdefault("schemas", {})
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            if handler := handlers.get((path, method)):
                _complete(operation, handler, schemas)
    return portable(whole)


def portable(value: Any) -> Any:
    r"""Patterns as JSON Schema has them (ECMA-262), where Python's `\Z` is no end of the text."""
    match value:
        case {"pattern": str(pattern), **rest}:
            return {"pattern": pattern.replace(r"\Z", "$"), **portable(cast("dict[str, Any]", rest))}
        case dict():
            return {name: portable(each) for name, each in cast("dict[str, Any]", value).items()}
        case list() | tuple():
            return [portable(each) for each in cast("list[Any]", value)]
        case _:
            return value


def _from_litestar(app: Litestar) -> dict[str, Any]:
    """Returns what Litestar's generator makes of the routes. The app has no `openapi_config`, so it serves no pages:
    the router that the plugin makes for them goes to an `AppConfig` which is thrown away."""
    plugin = OpenAPIPlugin(app)
    plugin.on_app_init(AppConfig(openapi_config=CONFIG))
    for route in app.routes:
        plugin.receive_route(route)
    return plugin.provide_openapi_schema()


def _complete(operation: dict[str, Any], handler: HTTPRouteHandler, schemas: dict[str, Any]) -> None:
    opt = handler.opt
    if opt["scope"] != PUBLIC:
        operation["security"] = [{"bearer": []}]
        operation["description"] = f"{operation.get('description') or ''}\n\nScope: `{opt['scope']}`".strip()
    _answers(operation["responses"], opt, schemas)
    if query := opt.get("query"):
        operation.setdefault("parameters", []).extend(_parameters(query, schemas))
    if events := opt.get("events"):
        operation["requestBody"] = _events_body(schemas, many=events == "many")
    elif body := opt.get("body", opt.get("optional_body")):
        content: dict[str, Any] = {"application/json": {"schema": _schema(body, schemas)}}
        if opt.get("yaml"):
            content["application/yaml"] = {"schema": {"type": "string"}}
        operation["requestBody"] = {"required": "body" in opt, "content": content}


def _answers(responses: dict[str, Any], opt: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Adds what a handler's signature does not say: `answers` (status -> body, or several) and `problems` (statuses).

    The 400 that Litestar adds for path parameters goes: it is never sent, what does not parse is another path (404).
    """
    if "application/json" in responses.get("400", {}).get("content", {}):
        del responses["400"]
    for status, kinds in opt.get("answers", {}).items():
        several: tuple[Any, ...] = cast("tuple[Any, ...]", kinds) if isinstance(kinds, tuple) else (kinds,)
        found = [_schema(kind, schemas) for kind in several]
        content = {"application/json": {"schema": found[0] if len(found) == 1 else {"anyOf": found}}}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    for status in opt.get("problems", ()):
        content = {MEDIA_TYPE: {"schema": _schema(Problem, schemas)}}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    [schema], found = msgspec.json.schema_components([kind], ref_template=REF)
    for name, definition in found.items():
        schemas.setdefault(name, definition)
    return schema


def _parameters(query: type[Struct], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    hints = get_type_hints(query, include_extras=True)
    return [
        {"name": name, "in": "query", "required": False, "schema": _schema(hints[name], schemas)}
        for name in query.__struct_fields__
    ]


def _events_body(schemas: dict[str, Any], *, many: bool) -> dict[str, Any]:
    """The event routes take several shapes: plain events and CloudEvents, single and many."""
    event = _schema(ReportedEvent, schemas)
    cloud_event = {
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {"specversion": {"const": "1.0"}},
    }
    if not many:
        content: dict[str, Any] = {
            "application/json": {"schema": event},
            "application/cloudevents+json": {"schema": cloud_event},
        }
    else:
        events = {"type": "array", "items": event, "maxItems": 1000}
        wrapped = {
            "type": "object",
            "properties": {"events": events},
            "required": ["events"],
            "additionalProperties": False,
        }
        content = {
            "application/json": {"schema": {"anyOf": [events, wrapped]}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        }
    content["application/cloudevents-batch+json"] = {
        "schema": {"type": "array", "items": cloud_event, "maxItems": 1000}
    }
    return {"required": True, "content": content}
