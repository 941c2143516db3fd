"""CloudEvents of others: their data becomes our fields by expressions, over HTTP and buses alike."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from connect.config import SourceSettings
from connect.errors import InvalidEvent, SettingsError
from connect.intake.bus import Message
from connect.intake.bus.reading import MESSAGE_BYTES_MAX, read_message
from connect.intake.foreign import compile_sources
from connect.intake.normalize import NormalEvent, Terms
from tests.serving import serving

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MAP = {
    "actor_user_id": "data.buyer.id",
    "parties.seller": "data.seller",
    "parties.upline": "data.upline",
    "context.amount_minor": "int(data.total * 100.0)",
    "occurred_at": "data.paid_at",
}
INVOICE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "inv-7",
    "source": "billing",
    "type": "invoice.paid",
    "time": "2026-11-20T00:00:00Z",
    "data": {"buyer": {"id": 42}, "seller": "s1", "total": 129.9, "paid_at": "2026-11-21T10:00:00+02:00"},
}


def read(document: Any, settings: SourceSettings | None = None, **attributes: str) -> NormalEvent:
    sources = compile_sources({"billing": settings or SourceSettings(data="context", map=MAP)})
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return read_message(Message(body, attributes), Terms(), sources, NOW)


def test_a_foreign_event_becomes_one_of_ours():
    event = read(INVOICE).event
    assert (event.external_id, event.source, event.event_type) == ("inv-7", "billing", "invoice.paid")
    assert event.actor_user_id == "42", "an id is a text"
    assert event.parties == {"seller": "s1"}, "what is not in its data is left out"
    assert event.context == {**INVOICE["data"], "amount_minor": 12990}
    assert event.occurred_at == datetime(2026, 11, 21, 8, tzinfo=UTC)


def test_a_list_of_parties_and_an_id_of_its_own_may_be_mapped():
    document = INVOICE | {"data": {"upline": ["a", 2], "number": 9, "kind": "invoice.settled"}}
    mapped = SourceSettings(
        map={"parties.upline": "data.upline", "external_id": "data.number", "event_type": "data.kind"}
    )
    event = read(document, mapped).event
    assert (event.parties, event.external_id, event.event_type) == ({"upline": ["a", "2"]}, "9", "invoice.settled")
    assert event.context == {}, "`data` is the context only where the settings say so"


def test_the_binary_form_is_mapped_as_the_structured_one_is():
    attributes = {f"ce-{name}": value for name, value in INVOICE.items() if name != "data"}
    assert read(msgspec.json.encode(INVOICE["data"]), **attributes).fingerprint == read(INVOICE).fingerprint


def test_another_source_is_not_mapped():
    with pytest.raises(InvalidEvent, match="buyer"):
        read(INVOICE | {"source": "elsewhere"})


def test_an_expression_that_fails_on_its_data_is_told_with_the_field():
    with pytest.raises(InvalidEvent, match=r"context\.amount_minor = int\(data\.total \* 100\.0\)"):
        read(INVOICE | {"data": {"total": "much"}})


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("actor", "data.id", "is no field of an event"),
        ("parties.", "data.id", "is no field of an event"),
        ("actor_user_id", "data.id +", "1:10"),
        ("actor_user_id", "context.id", "only `data` is known here"),
    ],
)
def test_a_map_that_cannot_work_is_told_when_it_is_read(field: str, text: str, said: str):
    with pytest.raises(SettingsError, match=rf"sources\.billing\.map\.{field}.*") as told:
        compile_sources({"billing": SourceSettings(map={field: text})})
    assert said in str(told.value)


def test_json_that_only_talks_of_a_specversion_is_an_event():
    event = read({"external_id": "e1", "event_type": "a.b", "context": {"specversion": "1.0"}}).event
    assert event.context == {"specversion": "1.0"}


def test_a_message_larger_than_http_takes_is_refused_and_not_read():
    with pytest.raises(Exception, match="at most"):
        read(b" " * (MESSAGE_BYTES_MAX + 1))


async def test_a_mapped_source_is_mapped_over_http_too(database_url: str):
    async with serving(database_url, sources={"billing": SourceSettings(data="context", map=MAP)}) as api:
        reply = await api.post("/internal/events", INVOICE, Content_Type="application/cloudevents+json")
        assert (reply.status, reply.json["event"]["actor_user_id"]) == (201, "42")
        batch = await api.post("/internal/events", [INVOICE], Content_Type="application/cloudevents-batch+json")
        assert batch.json["duplicate"] == 1
