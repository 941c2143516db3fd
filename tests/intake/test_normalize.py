"""Any bytes end in a normal form or in a located error, and what means the same has one fingerprint."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect.errors import ConnectError, EventAhead, EventTooOld, InvalidEvent, NotJson, SourceMismatch
from connect.intake.cloudevents import from_binary, from_structured
from connect.intake.normalize import (
    NormalEvent,
    Terms,
    convert_reported,
    decode_any,
    decode_reported,
    event_id,
    normalize,
)

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
LEAST = {"external_id": "e1", "event_type": "purchase.completed"}


def normal(body: bytes | dict[str, Any], terms: Terms | None = None) -> NormalEvent:
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return normalize(decode_reported(encoded), terms or Terms(), NOW)


def with_context(context: bytes) -> bytes:
    return b'{"external_id":"e1","event_type":"purchase.completed","context":' + context + b"}"


SAME = [
    (b'{"a":1}', b'{"a":1.0}'),
    (b'{"a":1}', b'{"a":1e0}'),
    (b'{"a":100}', b'{"a":1.00E2}'),
    (b'{"a":0}', b'{"a":-0.0}'),
    (b'{"a":1.5}', b'{"a":15e-1}'),
    (b'{"a":1.50}', b'{"a":1.5}'),
    (b'{"a":1,"b":2}', b'{"b":2,"a":1}'),
    (b'{"a":"\\u0041"}', b'{"a":"A"}'),
    (b'{"a":9007199254740993}', b'{"a":9007199254740993.0}'),
    (b"{}", b"null"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_means_the_same_has_one_fingerprint(one: bytes, other: bytes) -> None:
    assert normal(with_context(one)).fingerprint == normal(with_context(other)).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":9007199254740992}', b'{"a":9007199254740993}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":1}', b'{"a":true}'),
        (b'{"a":null}', b"{}"),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":0.1}', b'{"a":0.100000000000001}'),
    ],
)
def test_what_means_another_thing_has_another_fingerprint(one: bytes, other: bytes) -> None:
    assert normal(with_context(one)).fingerprint != normal(with_context(other)).fingerprint


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"source": "default"}, True),
        ({"actor_user_id": None, "parties": {}, "context": {}}, True),
        ({"parties": {"referrer": []}}, True),
        ({"source": "shop"}, False),
        ({"occurred_at": NOW.isoformat()}, False),
        ({"actor_user_id": "u1"}, False),
    ],
)
def test_defaults_and_empty_fields_do_not_count_as_content(change: dict[str, Any], same: bool) -> None:
    assert (normal({**LEAST, **change}).fingerprint == normal(LEAST).fingerprint) is same


def test_one_moment_is_one_content_in_any_zone() -> None:
    in_utc = normal({**LEAST, "occurred_at": "2026-11-22T10:00:00Z"})
    elsewhere = normal({**LEAST, "occurred_at": "2026-11-22T11:00:00.000+01:00"})
    assert in_utc.fingerprint == elsewhere.fingerprint
    assert in_utc.event.occurred_at == datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_the_three_channels_of_one_fact_have_one_fingerprint() -> None:
    plain = normal(
        {**LEAST, "source": "shop", "occurred_at": "2026-11-22T10:00:00Z", "actor_user_id": "u1", "context": {"a": 1.5}}
    )
    attributes = {
        "specversion": "1.0",
        "id": "e1",
        "source": "shop",
        "type": "purchase.completed",
        "time": "2026-11-22T10:00:00Z",
    }
    data = {"actor_user_id": "u1", "context": {"a": 1.5}}
    document = decode_any(msgspec.json.encode({**attributes, "traceparent": "00-1", "data": data}))
    structured, extensions = from_structured(document)
    binary, _ = from_binary([(f"ce-{name}", value) for name, value in attributes.items()], msgspec.json.encode(data))
    assert extensions == {"traceparent": "00-1"}
    assert normalize(structured, Terms(), NOW).fingerprint == plain.fingerprint
    assert normalize(binary, Terms(), NOW).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("body", "error", "pointer"),
    [
        (b"", NotJson, None),
        (b"\xff\xfe", NotJson, None),
        (b"[]", InvalidEvent, "#"),
        (b'{"external_id":"e1"}', InvalidEvent, "#/event_type"),
        (b'{"external_id":"","event_type":"x"}', InvalidEvent, "#/external_id"),
        (b'{"external_id":"' + b"x" * 256 + b'","event_type":"x"}', InvalidEvent, "#/external_id"),
        (b'{"external_id":"a\\u0000","event_type":"x"}', InvalidEvent, "#/external_id"),
        (b'{"external_id":"a\\n","event_type":"x"}', InvalidEvent, "#/external_id"),
        (b'{"external_id":"a","event_type":"x\\n"}', InvalidEvent, "#/event_type"),
        (b'{"external_id":"a","event_type":"x","unknown":1}', InvalidEvent, "#/unknown"),
        (b'{"external_id":"a","event_type":"x","a/b":1}', InvalidEvent, "#/a~1b"),
        (b'{"external_id":"a","event_type":"x","occurred_at":"2026-11-22T10:00:00"}', InvalidEvent, "#/occurred_at"),
        (
            b'{"external_id":"a","event_type":"x","occurred_at":"0001-01-01T00:00:00+14:00"}',
            InvalidEvent,
            "#/occurred_at",
        ),
        (b'{"external_id":"a","event_type":"x","parties":{"a":["u",1]}}', InvalidEvent, "#/parties/a/1"),
        (b'{"external_id":"a","event_type":"x","parties":{"a":"u\\u0000"}}', InvalidEvent, "#/parties/a"),
        (with_context(b'{"a":"\\ud800"}'), NotJson, "#/context/a"),
        (with_context(b'{"a":NaN}'), NotJson, None),
        (with_context(b'{"a":1e1000000}'), InvalidEvent, "#/context/a"),
        (with_context(b'{"a":-1e1000000}'), InvalidEvent, "#/context/a"),
        (with_context(b'{"a":1e-1000000}'), InvalidEvent, "#/context/a"),
        (with_context(b'{"a":9223372036854775808}'), InvalidEvent, "#/context/a"),
        (with_context(b'{"a":1.234567890123456}'), InvalidEvent, "#/context/a"),
        (with_context(b'{"a/b":[{"c":"\\u0000"}]}'), InvalidEvent, "#/context/a~1b/0/c"),
        (with_context(b'{"\\u0000":1}'), InvalidEvent, "#/context"),
        (with_context(b'{"a":' * 33 + b"1" + b"}" * 33), InvalidEvent, "#/context" + "/a" * 32),
        (with_context(b'{"a":' * 5000 + b"1" + b"}" * 5000), InvalidEvent, "#"),
        (with_context(b'{"a":' + b"1" * 5000 + b"}"), InvalidEvent, "#/context/*"),
    ],
)
def test_bad_input_is_refused_with_its_place(body: bytes, error: type[ConnectError], pointer: str | None) -> None:
    with pytest.raises(error) as refused:
        normal(body)
    assert [located.pointer for located in refused.value.errors] == ([pointer] if pointer else [])


def test_nesting_up_to_the_limit_is_taken() -> None:
    assert normal(with_context(b'{"a":' * 32 + b"1" + b"}" * 32)).event.context


@pytest.mark.parametrize(
    ("moment", "terms", "refusal"),
    [
        (NOW - timedelta(days=90), Terms(), None),
        (NOW - timedelta(days=90, seconds=1), Terms(), EventTooOld),
        (NOW - timedelta(days=9000), Terms(effects="none"), None),
        (NOW - timedelta(days=9000), Terms(age_max_days=0), None),
        (NOW + timedelta(seconds=600), Terms(), None),
        (NOW + timedelta(seconds=601), Terms(), EventAhead),
        (
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-14))) - timedelta(days=1),
            Terms(),
            EventAhead,
        ),
    ],
)
def test_the_age_of_a_fact_is_judged_but_not_before_its_identity_is_known(
    moment: datetime, terms: Terms, refusal: type[ConnectError] | None
) -> None:
    refused = normal({**LEAST, "occurred_at": moment.isoformat()}, terms).refusal
    assert type(refused) is (refusal or type(None))


def test_a_bound_key_reports_for_its_own_source_only() -> None:
    assert normal(LEAST, Terms(bound_source="shop")).event.source == "shop"
    with pytest.raises(SourceMismatch):
        normal({**LEAST, "source": "other"}, Terms(bound_source="shop"))


def test_an_events_id_is_a_uuid8_that_the_fact_gives_again() -> None:
    first, again = event_id("shop", "e1", NOW), event_id("shop", "e1", NOW)
    assert first == again != event_id("sho", "pe1", NOW)
    assert (first.version, first.variant) == (8, "specified in RFC 4122")
    assert event_id("shop", "e1", NOW) < event_id("shop", "e0", NOW + timedelta(milliseconds=1))


def test_a_fact_without_a_moment_has_the_same_id_and_says_so_whenever_it_is_received() -> None:
    """Its moment is that of receipt, which a second report after a restore cannot repeat."""
    reported = decode_reported(msgspec.json.encode(LEAST))
    first, later = (normalize(reported, Terms(), NOW + timedelta(hours=hours)).event for hours in (0, 5))
    assert first.id == later.id
    assert first.id.version == 8
    assert (first.occurred_at_reported, later.occurred_at - first.occurred_at) == (False, timedelta(hours=5))
    timed = normal({**LEAST, "occurred_at": NOW.isoformat()}).event
    assert timed.occurred_at_reported is True
    assert timed.id != first.id


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_any_context_is_taken_or_refused_and_what_is_taken_normalises_to_itself(context: dict[str, Any]) -> None:
    try:
        body = msgspec.json.encode({**LEAST, "context": context})
    except UnicodeEncodeError:  # half a surrogate pair is not JSON
        return
    try:
        once = normal(body)
    except ConnectError as error:
        assert 400 <= error.status < 500  # noqa: PT017  both outcomes are right
        return
    twice = normalize(convert_reported({**LEAST, "context": decode_any(once.context.encode())}), Terms(), NOW)
    assert twice.fingerprint == once.fingerprint


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(body: bytes) -> None:
    try:
        normal(body)
    except ConnectError as error:
        assert 400 <= error.status < 500  # noqa: PT017  both outcomes are right
