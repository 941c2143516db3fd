"""/asyncapi.json is an AsyncAPI 3.0 document whose examples are what the code makes and reads.

No package has AsyncAPI's own JSON Schema, so its rules for what is used here are written out.
"""

import copy
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import jsonschema_rs
import msgspec
import pytest

from connect.api.asyncapi import CommandOutcome, document
from connect.brokers.redis import COMMAND_FIELD, EVENT_FIELD, RESULT_FIELD
from connect.dispatch.results import decode_result
from connect.dispatch.targets.http import outcome_of
from connect.dispatch.targets.http_batch import envelope, outcomes_of
from connect.intake.bus.port import Message
from connect.intake.bus.reading import read_message
from connect.intake.normalize import Terms
from connect.lifecycle import Accepted, Completed, Refused, Retriable
from connect.model import Command
from tests.dispatch.stand_in import command
from tests.serving import Api

NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
NOW: Final = datetime(2026, 11, 23, tzinfo=UTC)
ALLOWED: Final = {
    "": {"asyncapi", "info", "defaultContentType", "servers", "channels", "operations", "components"},
    "info": {"title", "version", "description"},
    "server": {"host", "protocol", "description", "variables"},
    "channel": {"address", "description", "servers", "messages", "bindings"},
    "operation": {"action", "channel", "messages", "summary", "description", "bindings", "reply"},
    "message": {"title", "payload", "headers", "examples", "contentType", "correlationId"},
}
REQUIRED: Final = {
    "": {"asyncapi", "info"},
    "info": {"title", "version"},
    "server": {"host", "protocol"},
    "operation": {"action", "channel"},
}
BINDINGS: Final = {"amqp", "http"}


@pytest.fixture
def asyncapi() -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(document()))


async def test_anyone_may_read_it_and_docs_link_to_it(api: Api, asyncapi: dict[str, Any]) -> None:
    reply = await api.with_key(None).get("/asyncapi.json")
    assert (reply.status, reply.headers["Content-Type"], reply.json) == (200, "application/json", asyncapi)
    assert b'href="/asyncapi.json"' in (await api.get("/docs")).body


# --- the rules of AsyncAPI 3.0 --------------------------------------------------------------------


def faults(document: dict[str, Any]) -> list[str]:
    """Where it breaks a rule of the specification, of those that bear on what is used here."""
    kinds = [("", document), ("info", document["info"])]
    for kind in ("server", "channel", "operation"):
        kinds += [(kind, each) for each in document[f"{kind}s"].values()]
    kinds += [("message", each) for each in document["components"]["messages"].values()]
    found = [f"{kind}: {name} is not allowed" for kind, each in kinds for name in each.keys() - ALLOWED[kind]]
    found += [f"{kind}: {name} is missing" for kind, each in kinds for name in REQUIRED.get(kind, set()) - each.keys()]
    found += [f"{name!r} is no name" for name in names(document) if not NAME.fullmatch(name)]
    found += [f"{reference} leads nowhere" for reference in references(document) if at(document, reference) is None]
    found += [] if document["asyncapi"] == "3.0.0" else ["asyncapi is not 3.0.0"]
    return found + list(operation_faults(document)) + list(channel_faults(document))


def names(document: dict[str, Any]) -> Iterator[str]:
    for part in ("servers", "channels", "operations"):
        yield from document[part]
    for part in document["components"].values():
        yield from part


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


def at(document: dict[str, Any], reference: str) -> Any:
    place: Any = document
    for part in reference.removeprefix("#/").split("/"):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def operation_faults(document: dict[str, Any]) -> Iterator[str]:
    """An operation's messages are its channel's own, and so are those of a reply."""
    for name, operation in document["operations"].items():
        if operation["action"] not in ("send", "receive"):
            yield f"{name}: an action is send or receive"
        if operation.get("bindings", {}).keys() - BINDINGS:
            yield f"{name}: bindings are by protocol"
        for each in (operation, operation.get("reply", operation)):
            channel = each["channel"]["$ref"]
            if not re.fullmatch(r"#/channels/[^/]+", channel):
                yield f"{name}: its channel is not one of the document's"
            if any(not one["$ref"].startswith(f"{channel}/messages/") for one in each["messages"]):
                yield f"{name}: a message is not of its channel"


def channel_faults(document: dict[str, Any]) -> Iterator[str]:
    for name, channel in document["channels"].items():
        if not isinstance(channel["address"], str | None):
            yield f"{name}: an address is text or null"
        if any(not re.fullmatch(r"#/servers/[^/]+", one["$ref"]) for one in channel["servers"]):
            yield f"{name}: a server is not one of the document's"
    for name, server in document["servers"].items():
        if set(re.findall(r"{(\w+)}", server["host"])) != server["variables"].keys():
            yield f"{name}: host and variables differ"


def test_it_keeps_the_rules_of_the_specification(asyncapi: dict[str, Any]) -> None:
    assert faults(asyncapi) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("asyncapi", "2.6.0"),
        ("info", {"title": "Connect"}),
        ("channels/facts/publish", {}),
        ("operations/takeFact/action", "subscribe"),
        ("operations/takeFact/channel", {"$ref": "#/channels/nowhere"}),
        ("operations/takeFact/messages", [{"$ref": "#/components/messages/event"}]),
        ("servers/redis/host", "{host}:{port}"),
        ("components/messages/event/payload", {"$ref": "#/components/schemas/Nothing"}),
    ],
)
def test_the_rules_catch_a_document_that_breaks_them(asyncapi: dict[str, Any], place: str, value: Any) -> None:
    broken = copy.deepcopy(asyncapi)
    *path, last = place.split("/")
    inner = at(broken, "/".join(path)) if path else broken
    inner[last] = value
    assert len(faults(broken)) >= 1


def test_its_schemas_are_json_schemas_that_any_validator_reads(asyncapi: dict[str, Any]) -> None:
    schemas = asyncapi["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate({"$schema": "http://json-schema.org/draft-07/schema#", **schema})
    assert "\\\\Z" not in msgspec.json.encode(schemas).decode(), "no end of the text in ECMA-262"


# --- what it says is what the code does -----------------------------------------------------------


def messages(asyncapi: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, message in asyncapi["components"]["messages"].items():
        yield from ((name, message, example) for example in message["examples"])


def test_every_message_has_an_example_that_its_schemas_accept(asyncapi: dict[str, Any]) -> None:
    shown = set()
    for name, message, example in messages(asyncapi):
        whole = {"components": asyncapi["components"]}
        jsonschema_rs.validator_for({**message["payload"], **whole}).validate(example["payload"])
        if "headers" in message:
            jsonschema_rs.validator_for(message["headers"]).validate(example["headers"])
        shown.add(name)
    assert shown == asyncapi["components"]["messages"].keys()


def test_schemas_refuse_what_the_models_refuse(asyncapi: dict[str, Any]) -> None:
    whole = {"components": asyncapi["components"]}
    examples = {name: example["payload"] for name, _, example in messages(asyncapi)}
    for name, schema, change in (
        ("command", "Command", {"amount": "1e3"}),
        ("event", "ReportedEvent", {"event_type": "a b"}),
        ("event", "ReportedEvent", {"user": "u1"}),
        ("result", "ResultMessage", {"status": "done"}),
        ("cloudEvent", "CloudEvent", {"specversion": "0.3"}),
        ("cloudEvent", "CloudEvent", {"data": {"buyer": "u1"}}),
    ):
        validator = jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{schema}", **whole})
        assert validator.is_valid(examples[name])
        assert not validator.is_valid(examples[name] | change), change


@pytest.mark.parametrize("name", ["event", "cloudEvent", "binaryCloudEvent"])
def test_a_shown_fact_is_read_as_a_bus_reads_it(asyncapi: dict[str, Any], name: str) -> None:
    [example] = asyncapi["components"]["messages"][name]["examples"]
    message = Message(msgspec.json.encode(example["payload"]), example.get("headers", {}))
    event = read_message(message, Terms(age_max_days=0), {}, NOW).event
    assert (event.source, event.external_id, event.event_type) == ("shop", "order-1001", "purchase.completed")
    assert (event.actor_user_id, event.parties, event.context["amount_minor"]) == ("u1", {"referrer": "u3"}, 12990)


def test_a_shown_command_is_the_models_and_its_batch_what_goes_out(asyncapi: dict[str, Any]) -> None:
    examples = {name: example["payload"] for name, _, example in messages(asyncapi)}
    shown = msgspec.convert(examples["command"], Command)
    body = msgspec.json.encode(shown).decode()
    assert msgspec.json.decode(envelope([command(id=shown.id, body=body)])) == examples["commands"]


def test_a_shown_answer_and_result_are_read_as_completed(asyncapi: dict[str, Any]) -> None:
    examples = {name: example["payload"] for name, _, example in messages(asyncapi)}
    sent = command(id=msgspec.convert(examples["command"], Command).id)
    answer, answers = msgspec.json.encode(examples["answer"]), msgspec.json.encode(examples["answers"])
    assert outcome_of(200, answer, None, sent.id) == Completed("entry-1")
    assert outcome_of(409, answer, None, sent.id) == Completed("entry-1")
    assert outcomes_of(answers, [sent], 200) == [Completed("entry-1")]
    assert decode_result(msgspec.json.encode(examples["result"])).reference == "0xabc"


def test_the_words_of_a_batchs_answer_are_those_that_are_read() -> None:
    sent = command()
    read = {}
    for word in CommandOutcome.__annotations__["status"].__args__:
        body = msgspec.json.encode({"results": [CommandOutcome(id=sent.id, status=word, reason="why")]})
        [read[word]] = outcomes_of(body, [sent], 200)
    assert read == {
        "completed": Completed(),
        "accepted": Accepted(),
        "failed": Refused("why"),
        "retry": Retriable("why", alive=True),
    }


def test_servers_say_where_redis_has_the_body(asyncapi: dict[str, Any]) -> None:
    said = asyncapi["servers"]["redis"]["description"]
    for field in (EVENT_FIELD.decode(), COMMAND_FIELD, RESULT_FIELD.decode()):
        assert f"`{field}`" in said
