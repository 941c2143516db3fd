"""The comparison of pages with what is printed catches what it should, and lets through what differs each time."""

import pytest

from tests.docs.comparing import missing_line, missing_of, missing_value

PRINTED = """published as version 3
  259 points to u1 by points.credit: completed  [9fda5fae-d514-53bc-a3d0-c73dbcf72171]
healthy
"""


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        ("published as version 17\nhealthy\n", None),
        ("259 points to u1 by points.credit: completed [00000000-0000-0000-0000-000000000000]", None),
        ("259 points to ...\n...\nhealthy", None),
        ("258 points to ...", "258 points to ..."),
        ("healthy\npublished as version 3", "published as version <n>"),
        ("unhealthy", "unhealthy"),
        ("healthy now", "healthy now"),
    ],
)
def test_lines_are_to_be_printed_in_the_order_shown(shown: str, missing: str | None):
    assert missing_line(shown, PRINTED) == missing


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        ({"amount": "259"}, None),
        ({"amount": "258"}, "#/amount is '259'"),
        ({"unit": "points"}, "#/unit"),
        ({"items": [{"n": 1}]}, "#/items has 2 elements"),
        ({"items": [{"n": 1}, {"n": 3}]}, "#/items/1/n is 2"),
        ({"rule_version": 9}, None),
    ],
)
def test_json_is_to_hold_what_is_shown(shown: object, missing: str | None):
    assert missing_value(shown, {"amount": "259", "items": [{"n": 1}, {"n": 2}], "rule_version": 4}) == missing


def test_what_is_no_json_is_not_the_json_shown():
    assert (missing_of("json", "{}", "oops") or "").startswith("no JSON")
