"""/openapi.json is a valid OpenAPI 3.1 document that says of each operation what a caller needs to know."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis

from connect.api.app import create_app
from connect.api.openapi import document
from connect.config import Settings
from connect.model import Scope
from tests.serving import Api


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    """Built without a database: nothing connects before the app starts."""
    return document(create_app(Settings(), "postgresql://nowhere/none"))


def operations(openapi: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in openapi["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for each in value.values():
                yield from references(each)
        case list():
            for each in value:
                yield from references(each)
        case _:
            return


def test_the_document_is_valid(openapi: dict[str, Any]):
    assert openapi["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(openapi).validate()


def test_its_schemas_are_json_schemas_and_its_references_lead_somewhere(openapi: dict[str, Any]):
    known = openapi["components"]["schemas"]
    for name, schema in known.items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), "OpenAPI allows no other characters in a component's name"
    assert {reference.removeprefix("#/components/schemas/") for reference in references(openapi)} <= known.keys()


def test_no_two_operations_have_one_id(openapi: dict[str, Any]):
    names = [operation["operationId"] for _, operation in operations(openapi)]
    assert len(set(names)) == len(names)


async def test_anyone_may_read_it(api: Api, openapi: dict[str, Any]):
    reply = await api.with_key(None).get("/openapi.json")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.json == msgspec.json.decode(msgspec.json.encode(openapi))


def test_every_operation_has_a_summary_and_says_who_may_call_it(openapi: dict[str, Any]):
    scopes = set(Scope.__args__)
    for name, operation in operations(openapi):
        assert operation.get("summary"), name
        if "security" not in operation:
            assert name.split("/")[1].split("/")[0] in {"healthz", "readyz", "metrics", "problems"}, name
            continue
        scope = re.search(r"Scope: `([a-z:]+)`", operation["description"])
        assert scope, name
        assert scope[1] in scopes, name
        assert {"401", "403", "429", "503"} <= operation["responses"].keys(), name


def test_errors_are_problem_documents_everywhere(openapi: dict[str, Any]):
    for name, operation in operations(openapi):
        for status, response in operation["responses"].items():
            if status >= "400" and name != "GET /readyz":
                assert list(response["content"]) == ["application/problem+json"], (name, status)


async def test_patterns_are_such_as_any_client_can_read(api: Api) -> None:
    """Python's end of a text is a letter to JavaScript."""
    document = (await api.get("/openapi.json")).body.decode()
    assert '"pattern"' in document
    assert "\\\\Z" not in document
