"""Schemas of events: which fields a rule may read, what is a schema at all, and learning one from what was stored."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect.engine.expression.paths import Path, parse
from connect.engine.schema import (
    DEPTH_MAX,
    NESTING_MAX,
    PROPERTIES_MAX,
    fields_problem,
    learn_schema,
    schema_problems,
    type_problem,
)

NO_SCHEMA = "this is no schema: write an object such as {type: string}, or true for anything"
TYPES = "it is one of array, boolean, integer, null, number, object, string"
PURCHASE: dict[str, Any] = {
    "type": "object",
    "required": ["order_id"],
    "properties": {
        "order_id": {"type": "string", "minLength": 1},
        "amount_minor": {"type": "integer"},
        "rate": {"type": ["number", "null"]},
        "currency": {"enum": ["EUR", "USD"]},
        "tier": {"enum": [1, 2, "gold"]},
        "gift": {"type": "boolean"},
        "note": {},
        "anything": True,
        "never": False,
        "free": {"type": "object"},
        "ids": {"type": "object", "additionalProperties": {"type": "object", "properties": {"at": {"type": "string"}}}},
        "some": {"type": "object", "properties": {"known": {"type": "string"}}, "additionalProperties": True},
        "items": {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "number"}}}},
        "tags": {"type": "array"},
        "seller": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"id": {"type": "string"}}}]},
        "pay": {
            "type": "object",
            "anyOf": [
                {"properties": {"card": {"type": "string"}}},
                {"properties": {"iban": {"type": "string"}}},
            ],
        },
        "spot": {
            "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
            "anyOf": [{"required": ["lat"]}, {"required": ["lon"]}],
        },
        "coupon": {"type": "string", "anyOf": [{"minLength": 8}, {"pattern": "^X"}]},
        "loose": {"anyOf": [True, {"type": "object", "properties": {"a": {}}}]},
        "first order": {"type": "string"},
    },
}


@pytest.mark.parametrize(
    "path",
    [
        "context",
        "context.order_id",
        "context.amount_minor",
        'context["first order"]',
        "context.items[0]",
        "context.items[0].price",
        "context.tags[3].whatever",
        "context.note.whatever[0]",
        "context.anything.whatever",
        "context.free.whatever",
        "context.ids.a1",
        "context.ids.a1.at",
        "context.some.known",
        "context.some.unknown.deeper",
        "context.seller.id",
        "context.pay.card",
        "context.pay.iban",
        "context.spot.lat",
        "context.loose.a",
        "context.loose.b.c",
        "original.context.amount_minor",
        "original.actor_user_id",
        "original",
        "parties.referrer",
        "actor_user_id",
        "counters.purchases",
    ],
)
def test_a_field_of_the_schema_is_no_problem(path: str) -> None:
    assert fields_problem(PURCHASE, parse(path)) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("context.amont_minor", "there is no context.amont_minor: did you mean context.amount_minor?"),
        ("original.context.curency", "there is no original.context.curency: did you mean original.context.currency?"),
        ("context.items[0].prise", "there is no context.items[0].prise: did you mean context.items[0].price?"),
        ("context.first_order", 'there is no context.first_order: did you mean context["first order"]?'),
        ("context.items[0].sku", "there is no context.items[0].sku: context.items[0] has price"),
        ("context.some.known.deeper", "context.some.known is text, which has no deeper"),
        ("context.items.price", "context.items is a list, which has no price"),
        ("context.order_id[0]", "context.order_id is text, which has no [0]"),
        ("context[0]", "context is an object, which has no [0]"),
        ("context.currency.code", "context.currency is text, which has no code"),
        ("context.coupon.code", "context.coupon is text, which has no code"),
        ("context.tier.name", "context.tier is a number or text, which has no name"),
        ("context.gift.from", "context.gift is true or false, which has no from"),
        ("context.rate.percent", "context.rate is a number or null, which has no percent"),
        ("context.ids.a1.on", "there is no context.ids.a1.on: context.ids.a1 has at"),
        ("context.seller.ids", "there is no context.seller.ids: did you mean context.seller.id?"),
        ("context.seller[0]", "context.seller is an object or text, which has no [0]"),
        ("context.pay.cash", "there is no context.pay.cash: context.pay has card, iban"),
        ("context.spot.height", "there is no context.spot.height: context.spot has lat, lon"),
        (
            "context.zzz",
            'there is no context.zzz: context has amount_minor, anything, coupon, currency, ["first order"], free,'
            " gift, ids and 11 more",
        ),
    ],
)
def test_a_field_the_schema_does_not_have_is_told_with_the_nearest_there_is(path: str, expected: str) -> None:
    assert fields_problem(PURCHASE, parse(path)) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, None),
        ({"type": "object"}, None),
        ({"type": "object", "additionalProperties": True, "properties": {"a": {}}}, None),
        ({"properties": {"a": {}}}, "there is no context.b: context has a"),
        ({"properties": {"b": False}}, "there is no context.b: context has no fields"),
        ({"anyOf": [False, {"properties": {"a": {}}}]}, "there is no context.b: context has a"),
        ({"type": "object", "properties": {}}, "there is no context.b: context has no fields"),
        ({"type": "object", "additionalProperties": False}, "there is no context.b: context has no fields"),
    ],
)
def test_an_object_is_open_until_its_properties_are_listed(schema: dict[str, Any], expected: str | None) -> None:
    assert fields_problem(schema, ("context", "b")) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("context.amount_minor", None),
        ("context.rate", None),
        ("context.items[0].price", None),
        ("context.tier", None),
        ("context.note", None),
        ("context.anything", None),
        ("context.tags[0]", None),
        ("context.loose", None),
        ("context.amont_minor", None),  # told by fields_problem
        ("parties.referrer", None),
        ("context.order_id", "context.order_id is text, not a number"),
        ("context.currency", "context.currency is text, not a number"),
        ("context.coupon", "context.coupon is text, not a number"),
        ("context.gift", "context.gift is true or false, not a number"),
        ("context.items", "context.items is a list, not a number"),
        ("context.free", "context.free is an object, not a number"),
        ("context.seller", "context.seller is an object or text, not a number"),
        ("original.context.order_id", "original.context.order_id is text, not a number"),
        ("context", "context is an object, not a number"),
    ],
)
def test_what_can_never_be_a_number_is_told(path: str, expected: str | None) -> None:
    assert type_problem(PURCHASE, parse(path)) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (PURCHASE, []),
        ({}, []),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A purchase", "x-owner": "shop"}, []),
        ([], [("#", "a schema is an object such as {type: object, properties: {order_id: {type: string}}}")]),
        ({"type": "array"}, [("#", "context is always an object, this says it is a list")]),
        ({"anyOf": [{"type": "string"}]}, [("#", "context is always an object, this says it is text")]),
        ({"type": "objekt"}, [("#/type", "objekt is no type of JSON Schema: did you mean object?")]),
        (
            {"properties": {"a": {"type": ["decimal", "number"]}}},
            [("#/properties/a/type", f"decimal is no type of JSON Schema: {TYPES}")],
        ),
        (
            {"properties": {"a": {"type": None}}},
            [("#/properties/a/type", 'the type null is a text: write "null" in quotes')],
        ),
        ({"properties": {"a": {"type": 5}}}, [("#/properties/a/type", f"5 is no type of JSON Schema: {TYPES}")]),
        (
            {"properties": {"a": {"type": []}}},
            [("#/properties/a/type", "type is empty: leave it out where anything may stand")],
        ),
        ({"properties": ["a"]}, [("#/properties", "properties is an object: the name of each field and its schema")]),
        ({"properties": {"a/b ~": "string"}}, [("#/properties/a~1b%20~0", NO_SCHEMA)]),
        ({"required": "a"}, [("#/required", "required is a list of names of fields")]),
        ({"required": [1]}, [("#/required", "required is a list of names of fields")]),
        ({"properties": {"a": {"enum": []}}}, [("#/properties/a/enum", "enum is a list of the values there are")]),
        ({"anyOf": {}}, [("#/anyOf", "anyOf is a list of schemas")]),
        ({"properties": {"a": {"anyOf": [{}, {"items": 3}]}}}, [("#/properties/a/anyOf/1/items", NO_SCHEMA)]),
        ({"additionalProperties": "no"}, [("#/additionalProperties", NO_SCHEMA)]),
        (
            {"$ref": "#/$defs/a"},
            [("#/$ref", "$ref is not understood here: write the fields out under properties, items or anyOf")],
        ),
        ({"propertes": {}}, [("#/propertes", "propertes is no keyword of JSON Schema: did you mean properties?")]),
        ({"order_id": {}}, [("#/order_id", "order_id is no keyword of JSON Schema: fields stand under properties")]),
        (
            {"type": "objekt", "required": 1},
            [
                ("#/type", "objekt is no type of JSON Schema: did you mean object?"),
                ("#/required", "required is a list of names of fields"),
            ],
        ),
    ],
)
def test_what_is_no_schema_is_told_with_its_place(schema: object, expected: list[tuple[str, str]]) -> None:
    assert schema_problems(schema) == expected


def test_places_are_below_where_the_schema_stands() -> None:
    assert [at for at, _ in schema_problems({"type": 1}, "#/schemas/app.opened")] == ["#/schemas/app.opened/type"]


def test_a_schema_nested_too_deeply_is_refused_and_not_followed() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5_000):
        schema = {"items": schema}
    ((pointer, message),) = schema_problems({"properties": {"a": schema}})
    assert pointer.count("/items") == NESTING_MAX
    assert message == f"the schema is nested more than {NESTING_MAX} levels deep"


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [
        ([], {"type": "object"}),
        ([{}], {"type": "object"}),
        (
            [{"b": 1, "a": "x"}, {"b": 2}],
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["b"]},
        ),
        ([{"a": 1}, {"a": 1.5}], {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}),
        (
            [{"a": True}, {"a": Decimal("0.1")}, {"a": None}],
            {"type": "object", "properties": {"a": {"type": ["boolean", "null", "number"]}}, "required": ["a"]},
        ),
        ([{"a": None}], {"type": "object", "properties": {"a": {}}, "required": ["a"]}),
        ([{"a": []}], {"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"]}),
        (
            [{"a": [{"b": 1}, {"b": 2, "c": "x"}]}, {"a": [{"b": 0.5}]}],
            {
                "type": "object",
                "properties": {
                    "a": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"b": {"type": "number"}, "c": {"type": "string"}},
                            "required": ["b"],
                        },
                    }
                },
                "required": ["a"],
            },
        ),
        (
            [{"a": {"b": 1}}, {"a": "x"}, {"a": {"b": 2}}],  # required counts the objects, not the texts
            {
                "type": "object",
                "properties": {
                    "a": {
                        "type": ["object", "string"],
                        "properties": {"b": {"type": "integer"}},
                        "required": ["b"],
                    }
                },
                "required": ["a"],
            },
        ),
    ],
)
def test_a_schema_is_learnt_from_contexts(contexts: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert learn_schema(contexts) == expected


def test_an_object_whose_names_are_data_is_left_open() -> None:
    most = {f"k{number}": number for number in range(PROPERTIES_MAX)}
    learnt = learn_schema([{"few": most, "many": most}, {"few": most, "many": {"another": 1}}])
    assert len(learnt["properties"]["few"]["properties"]) == PROPERTIES_MAX
    assert learnt["properties"]["many"] == {"type": "object"}


def test_what_lies_deep_is_left_open() -> None:
    context: dict[str, Any] = {"end": 1}
    for _ in range(DEPTH_MAX + 3):
        context = {"a": context}
    schema, depth = learn_schema([context]), 0
    while "properties" in schema:
        schema, depth = schema["properties"]["a"], depth + 1
    assert depth == DEPTH_MAX
    assert schema == {"type": "object"}


def test_a_schema_is_written_in_the_order_of_names() -> None:
    learnt = learn_schema([{"b": 1, "a": {"d": 1, "c": 1}}])
    assert list(learnt["properties"]) == ["a", "b"]
    assert list(learnt["properties"]["a"]["properties"]) == ["c", "d"]


def test_what_is_not_json_cannot_be_learnt_from() -> None:
    with pytest.raises(TypeError, match="a set is no value of JSON"):
        learn_schema([{"a": {1}}])


# Laws

KEYS = st.sampled_from(["a", "b", "c", "first order", ""])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
CONTEXTS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=5)


def paths_of(value: object, path: Path = ("context",)) -> Iterator[tuple[Path, object]]:
    yield path, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in inside:
        yield from paths_of(inner, (*path, step))


@given(CONTEXTS)
def test_a_learnt_schema_has_every_path_of_the_contexts_it_was_learnt_from(contexts: list[dict[str, Any]]) -> None:
    learnt = learn_schema(contexts)
    assert schema_problems(learnt) == []
    for context in contexts:
        for path, value in paths_of(context):
            assert fields_problem(learnt, path) is None
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert type_problem(learnt, path) is None


@given(CONTEXTS, st.randoms(use_true_random=False))
def test_the_order_of_contexts_does_not_change_what_is_learnt(contexts: list[dict[str, Any]], chance) -> None:
    learnt = learn_schema(contexts)
    chance.shuffle(contexts)
    again = learn_schema({name: context[name] for name in sorted(context, reverse=True)} for context in contexts)
    assert repr(again) == repr(learnt)


@given(CONTEXTS)
def test_a_field_that_no_context_has_is_a_problem_once_fields_were_seen(contexts: list[dict[str, Any]]) -> None:
    problem = fields_problem(learn_schema(contexts), ("context", "unseen"))
    assert (problem is None) is not any(contexts)
