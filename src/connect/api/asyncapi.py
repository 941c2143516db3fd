"""/asyncapi.json: the messages that come in and go out, as AsyncAPI 3.0 (https://www.asyncapi.com), from the models."""

from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Response, get
from msgspec import Struct

from connect import __version__
from connect.api.auth import PUBLIC
from connect.api.openapi import portable
from connect.dispatch.command import headers
from connect.dispatch.results import ResultMessage
from connect.intake.cloudevents import DATA_FIELDS, MAPPED
from connect.model import ClaimedCommand, Command, CommandEvent, CommandRule, ReportedEvent

DESCRIPTION: Final = """Facts come in over the buses of `[bus.<name>]`, commands go out to `[targets.<name>]` over HTTP
or a broker, and results of commands come back on a target's `results_url`. Facts and results may be reported over the
HTTP API as well, which /openapi.json describes. Addresses are settings, so none stands here. What a receiver of
commands has to do is in docs/reference/receiver.md."""

SCHEMA: Final = "#/components/schemas/{name}"
BROKERS: Final = ("redis", "rabbitmq", "nats", "sqs")
SERVERS: Final = {
    "redis": (
        "redis",
        "Redis Streams. An entry's field `event` (facts), `command` or `result` is the body; other fields are headers.",
    ),
    "rabbitmq": (
        "amqp",
        "RabbitMQ: queues by the default exchange. `message_id` of a command is its id. Facts as binary CloudEvents "
        "have headers `cloudEvents:` or `cloudEvents_` before an attribute's name.",
    ),
    "nats": ("nats", "NATS JetStream. `Nats-Msg-Id` of a command is its id, so that the stream drops repeats."),
    "sqs": (
        "sqs",
        "Amazon SQS. Headers are message attributes. On a FIFO queue `MessageDeduplicationId` of a command is its id "
        "and `MessageGroupId` its user.",
    ),
    "target": ("https", "A service that receives commands."),
}
DURABLE: Final = {"amqp": {"is": "queue", "queue": {"durable": True}, "bindingVersion": "0.3.0"}}
POSTED: Final = {"http": {"method": "POST", "bindingVersion": "0.3.0"}}


class CommandBatch(Struct, frozen=True, kw_only=True):
    """A target with `batch` above 1 receives up to that many commands at once, each in the bytes it has alone."""

    commands: list[Command]


class CommandAnswer(Struct, frozen=True, kw_only=True):
    """The answer's fields that Connect reads. The HTTP status says how the command ended, `completed` with 409 too."""

    id: UUID | None = None
    status: str | None = None
    reference: str | None = None


class CommandOutcome(Struct, frozen=True, kw_only=True):
    """A target says what became of one command of a batch: `accepted` is reported later, `retry` is asked again."""

    id: UUID
    status: Literal["completed", "accepted", "failed", "retry"]
    reference: str | None = None
    reason: str | None = None


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """One outcome for each command, in any order; one that is missing is asked about again."""

    results: list[CommandOutcome]


@get("/asyncapi.json", opt={"scope": PUBLIC}, include_in_schema=False, sync_to_thread=False)
def asyncapi_json() -> Response[bytes]:
    return Response(msgspec.json.encode(document()), media_type="application/json")


def document() -> dict[str, Any]:
    """The whole AsyncAPI 3.0 document."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Connect", "version": __version__, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {name: _server(*server) for name, server in SERVERS.items()},
        "channels": _channels(),
        "operations": _operations(),
        "components": {"schemas": schemas(), "messages": _messages()},
    }


def _server(protocol: str, description: str) -> dict[str, Any]:
    host = {"description": "As the url in the settings has it."}
    return {"host": "{host}", "protocol": protocol, "description": description, "variables": {"host": host}}


def _channels() -> dict[str, Any]:
    return {
        "facts": _channel("A bus: its messages are facts.", BROKERS, "event", "cloudEvent", "binaryCloudEvent"),
        "commands": _channel("Commands of a target over a broker.", BROKERS, "command"),
        "results": _channel("Results of a target's commands, its `results_url`.", BROKERS, "result"),
        "posts": _channel("Commands of a target over HTTP.", ["target"], "command", "commands"),
        "answers": _channel("Answers to commands over HTTP.", ["target"], "answer", "answers"),
    }


def _channel(description: str, servers: Any, *messages: str) -> dict[str, Any]:
    made = {
        "address": None,
        "description": description,
        "servers": [{"$ref": f"#/servers/{name}"} for name in servers],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }
    return made | ({"bindings": DURABLE} if "rabbitmq" in servers else {})


def _operations() -> dict[str, Any]:
    return {
        "takeFact": {
            **_operation("receive", "facts", "event", "cloudEvent", "binaryCloudEvent"),
            "summary": "Record a fact and decide what it earns",
            "description": "Acknowledged after its COMMIT. A repeat is known by `source` and `external_id`; what "
            "cannot be recorded is kept for a person (`connect dead list`).",
        },
        "sendCommand": {
            **_operation("send", "commands", "command"),
            "summary": "Command a reward over a broker",
            "description": "At least once, always with the same id and bytes: act once for each id.",
            "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "bindingVersion": "0.3.0"}},
        },
        "takeResult": {
            **_operation("receive", "results", "result"),
            "summary": "Learn what became of a command",
            "description": "The same report again does nothing; one that contradicts an earlier one is kept for a "
            "person.",
        },
        "postCommand": _posting("Command a reward over HTTP", "command", "answer"),
        "postCommands": _posting("Command up to `batch` rewards in one POST", "commands", "answers"),
    }


def _posting(summary: str, message: str, answer: str) -> dict[str, Any]:
    reply = {"channel": {"$ref": "#/channels/answers"}, "messages": [{"$ref": f"#/channels/answers/messages/{answer}"}]}
    return {**_operation("send", "posts", message), "summary": summary, "bindings": POSTED, "reply": reply}


def _operation(action: Literal["send", "receive"], channel: str, *messages: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }


# --- schemas --------------------------------------------------------------------------------------


def schemas() -> dict[str, Any]:
    """By name: the models' own, and of CloudEvents what the mapping to them makes of the models."""
    kinds = (ReportedEvent, Command, CommandBatch, CommandAnswer, BatchAnswer, ResultMessage)
    _, found = msgspec.json.schema_components(kinds, ref_template=SCHEMA)
    event: dict[str, Any] = found["ReportedEvent"]["properties"]
    data: dict[str, Any] = {
        "title": "CloudEventData",
        "description": "Of a source that `[sources.<name>]` maps it may be any object.",
        "type": "object",
        "properties": {name: event[name] for name in sorted(DATA_FIELDS)},
        "additionalProperties": False,
    }
    attributes = {attribute: _given(event[field]) for attribute, field in MAPPED.items()}
    cloud_event: dict[str, Any] = {
        "title": "CloudEvent",
        "description": "CloudEvents 1.0, structured. Further attributes are kept as extensions.",
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            **attributes,
            "datacontenttype": {"type": "string", "default": "application/json"},
            "data": _ref("CloudEventData"),
        },
        "required": ["specversion", "id", "source", "type"],
    }
    return portable({**found, "CloudEvent": cloud_event, "CloudEventData": data})


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may not be null."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": SCHEMA.format(name=name)}


# --- messages, each with an example that the code itself made or reads ------------------------------


def _messages() -> dict[str, Any]:
    command = msgspec.to_builtins(COMMAND)
    answer = {"id": command["id"], "status": "completed", "reference": "entry-1"}
    around = {"headers": _headers(), "correlationId": KEY}
    return {
        "event": _message("A fact", "ReportedEvent", EVENT),
        "cloudEvent": _message(
            "A fact as a structured CloudEvent", "CloudEvent", CLOUD_EVENT, contentType="application/cloudevents+json"
        ),
        "binaryCloudEvent": _message(
            "A fact as a binary CloudEvent", "CloudEventData", CLOUD_EVENT["data"], {**BINARY}, headers=_ce_headers()
        ),
        "command": _message("A command", "Command", command, _sent(), **around),
        "commands": _message("A batch of commands", "CommandBatch", {"commands": [command]}, _sent(), **around),
        "answer": _message("The answer to a command", "CommandAnswer", answer),
        "answers": _message("The answer to a batch", "BatchAnswer", {"results": [answer]}),
        "result": _message(
            "The result of a command",
            "ResultMessage",
            {"action_id": command["id"], "status": "completed", "reference": "0xabc"},
        ),
    }


def _message(
    title: str, schema: str, payload: Any, around: dict[str, str] | None = None, **fields: Any
) -> dict[str, Any]:
    example = {"payload": payload} | ({"headers": around} if around else {})
    return {"title": title, "payload": _ref(schema), "examples": [example], **fields}


def _headers() -> dict[str, Any]:
    properties = {name: {"type": "string", "description": HEADERS[name]} for name in _sent()}
    return {"type": "object", "properties": properties, "required": ["Content-Type", "Idempotency-Key", "traceparent"]}


def _ce_headers() -> dict[str, Any]:
    names = ["specversion", *MAPPED]
    properties = {f"ce-{name}": {"type": "string"} for name in names}
    return {"type": "object", "properties": properties, "required": ["ce-specversion", "ce-id", "ce-source", "ce-type"]}


def _sent() -> dict[str, str]:
    """As the dispatcher makes them, signed with a key that nobody has."""
    claimed = ClaimedCommand(
        id=COMMAND.id, event_id=COMMAND.event.id, target="points", body="", n=1, retries=0,
        give_up_at=AT, claimed_at=AT, lease_until=AT,
    )  # fmt: skip
    return headers(claimed, msgspec.json.encode(COMMAND), [b"an example's"], int(AT.timestamp()))


HEADERS: Final = {
    "Content-Type": "application/json",
    "Idempotency-Key": "The command's id in quotes: the same however often it comes. Of a batch its own id.",
    "traceparent": "W3C Trace Context; commands of one event share a trace.",
    "webhook-id": "The command's id. These three come where the target has a secret (Standard Webhooks).",
    "webhook-timestamp": "Seconds since 1970, fresh at each attempt.",
    "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; several with spaces between.",
}
KEY: Final = {"location": "$message.header#/Idempotency-Key"}
AT: Final = datetime(2026, 11, 22, 10, tzinfo=UTC)
COMMAND: Final = Command(
    id=UUID("9fda5fae-d514-53bc-a3d0-c73dbcf72171"),
    type="points.credit",
    user_id="u1",
    amount="259",
    unit="points",
    params={"reason": "cashback", "order": "o-1001"},
    event=CommandEvent(
        id=UUID("01a207ca-08b1-70f0-b2ee-aca76476024d"),
        source="shop",
        external_id="order-1001",
        event_type="purchase.completed",
        occurred_at=AT,
    ),
    rule=CommandRule(key="cashback-2", version=3),
)
EVENT: Final[dict[str, Any]] = {
    "external_id": "order-1001",
    "source": "shop",
    "event_type": "purchase.completed",
    "occurred_at": "2026-11-22T10:00:00Z",
    "actor_user_id": "u1",
    "parties": {"referrer": "u3"},
    "context": {"amount_minor": 12990, "currency": "EUR"},
}
BINARY: Final = {
    "ce-specversion": "1.0",
    "ce-id": "order-1001",
    "ce-source": "shop",
    "ce-type": "purchase.completed",
    "ce-time": "2026-11-22T10:00:00Z",
}
CLOUD_EVENT: Final[dict[str, Any]] = {
    **{name.removeprefix("ce-"): value for name, value in BINARY.items()},
    "data": {name: EVENT[name] for name in ("actor_user_id", "parties", "context")},
}
