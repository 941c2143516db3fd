"""The API's documentation is served whole from this package, under a policy that lets nothing else in."""

import hashlib
import itertools
import re
from pathlib import Path

from connect.api.docs import MEDIA_TYPES
from tests.serving import Api

STATIC = Path(__file__).parents[2] / "src/connect/api/static"
NOTICE = (STATIC / "NOTICE").read_text(encoding="utf-8")
NOTED = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", NOTICE, re.MULTILINE)}


def test_the_notice_names_every_vendored_file():
    stored = {path.name.removesuffix(".gz") for path in STATIC.iterdir()}
    assert stored - {"NOTICE", "init.js"} == NOTED.keys()
    assert NOTED.keys() | {"init.js"} == MEDIA_TYPES.keys()


async def test_assets_are_served_as_their_makers_made_them(api: Api):
    for (name, digest), encoding in itertools.product(NOTED.items(), ("gzip", "identity")):
        reply = await api.with_key(None).get(f"/docs/assets/{name}", Accept_Encoding=encoding)
        assert (reply.status, reply.headers["Content-Type"].split(";")[0]) == (200, MEDIA_TYPES[name])
        assert hashlib.sha256(reply.body).hexdigest() == digest, name


async def test_an_asset_that_the_browser_has_is_not_sent_again(api: Api):
    first = await api.get("/docs/assets/swagger-ui.css")
    again = await api.get("/docs/assets/swagger-ui.css", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])


async def test_the_page_needs_no_credential_and_names_no_other_host(api: Api):
    page = await api.with_key(None).get("/docs")
    script = await api.with_key(None).get("/docs/assets/init.js")
    assert (page.status, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")
    assert b"//" not in page.body.replace(b"<!doctype html>", b"")
    assert re.findall(rb'"(https?:)?//', script.body) == []
    for address in re.findall(rb'(?:src|href)="([^"]+)"', page.body):
        assert (await api.with_key(None).get(address.decode())).status == 200, address


async def test_the_policy_allows_scripts_and_styles_of_this_server_only(api: Api):
    page = await api.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'", "'self'", "'self'")
    assert re.findall(rb"<script(?! src=)|<style|\son\w+=|style=", page.body) == []


NOT_THERE = [
    "/docs/assets/NOTICE",
    "/docs/assets/swagger-ui.css.gz",
    "/docs/assets/swagger-ui.css.map",
    "/docs/assets/..%2fdocs.py",
    "/docs/assets/%2e%2e%2f%2e%2e%2fapp.py",
    "/docs/assets/%2fetc%2fpasswd",
    "/docs/assets/init.js%00",
    "/docs/assets",
    "/docs/openapi.json",
    "/docs/redoc",
]


async def test_nothing_else_is_there(api: Api):
    for path in NOT_THERE:
        reply = await api.get(path)
        assert (reply.status, reply.headers["Content-Type"]) == (404, "application/problem+json"), path


async def test_the_address_itself_leads_to_the_docs(api: Api):
    reply = await api.with_key(None).get("/")
    assert (reply.status, reply.headers["Location"]) == (302, "/docs")
