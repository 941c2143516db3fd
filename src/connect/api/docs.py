"""/docs: Swagger UI over /openapi.json, and the way to /asyncapi.json.

Its assets are of this package (static/NOTICE) and none from outside.
"""

import functools
import gzip
import hashlib
from importlib import resources
from typing import Any

from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Redirect
from msgspec import Struct

from connect.api.auth import PUBLIC
from connect.api.wire import AnyRequest
from connect.errors import NotFound

MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
    "init.js": "text/javascript",
}
"""All there is: a name outside this list is not looked for on disk."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""`no-cache`: kept by browsers, and asked about each time by its ETag, so that an upgrade shows at once."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Connect API</title>
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<noscript>This page needs JavaScript; the document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<p>Messages over brokers, in and out: <a href="/asyncapi.json">/asyncapi.json</a> (AsyncAPI 3.0)</p>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/init.js"></script>
</body>
</html>
"""


class Asset(Struct, frozen=True):
    content: bytes
    """As stored: compressed where `encoding` says so."""
    encoding: str | None
    etag: str


@functools.cache
def _load(name: str) -> Asset:
    folder = resources.files("connect.api") / "static"
    packed = folder / f"{name}.gz"
    content, encoding = (packed.read_bytes(), "gzip") if packed.is_file() else ((folder / name).read_bytes(), None)
    return Asset(content, encoding, f'W/"{hashlib.sha256(content).hexdigest()[:32]}"')


@get("/docs", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def docs_page() -> Response[str]:
    return Response(PAGE, media_type="text/html", headers=HEADERS)


@get("/docs/assets/{name:str}", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def docs_asset(request: AnyRequest, name: FromPath[str]) -> Response[Any]:
    if name not in MEDIA_TYPES:
        raise NotFound(f"the docs have no asset {name!r}")
    asset = _load(name)
    headers = {**HEADERS, "ETag": asset.etag, "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers)
    content = asset.content
    if asset.encoding and asset.encoding in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = asset.encoding
    elif asset.encoding:
        content = gzip.decompress(content)
    return Response(content, media_type=MEDIA_TYPES[name], headers=headers)


@get("/", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def front_door() -> Redirect:
    """Whoever opens the address in a browser wants to see something."""
    return Redirect("/docs")


ROUTES = [front_door, docs_page, docs_asset]
