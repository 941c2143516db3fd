"""Every place where a value does not fit its type is told, in words that say what would fit."""

from datetime import datetime
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Struct

from connect.config import load_settings
from connect.errors import SettingsError
from connect.model import ReportedEvent
from connect.validation import in_a_sentence, mismatches

FACT = {"external_id": "e1", "event_type": "purchase.completed"}


def told(value: object, kind: Any) -> dict[str, str]:
    return {one.pointer: one.detail for one in mismatches(value, kind)}


def test_what_fits_has_no_mismatches() -> None:
    assert mismatches(FACT, ReportedEvent) == []


def test_all_faults_of_an_event_are_told_at_once_each_at_its_place() -> None:
    found = told(
        {
            "event_type": "purchase completed",
            "occurred_at": "yesterday",
            "parties": {"seller": "u1", "buyers": ["u2", 3]},
            "contxt": {},
        },
        ReportedEvent,
    )
    assert found["#/external_id"] == "is required"
    assert found["#/event_type"].startswith("must be an event type such as purchase.completed")
    assert found["#/event_type"].endswith("not 'purchase completed'")
    assert "such as 2026-11-22T10:00:00Z" in found["#/occurred_at"]
    assert found["#/parties/buyers/1"] == "Expected `str`, got `int`"
    assert "is not known here (known: actor_user_id" in found["#/contxt"]
    assert len(found) == 5


def test_a_pointer_escapes_the_keys_on_its_way() -> None:
    assert list(told({**FACT, "parties": {"a/b~c": [1]}}, ReportedEvent)) == ["#/parties/a~1b~0c/0"]


def test_a_choice_is_told_with_what_there_is_to_choose() -> None:
    class Door(Struct):
        state: Literal["open", "shut"] | None = None

    assert told({"state": "ajar"}, Door) == {"#/state": "must be one of open, shut, not 'ajar'"}


def test_a_target_of_the_settings_is_named_with_what_is_wrong_with_it() -> None:
    points = {"CONNECT_TARGETS__POINTS__URL": "http://points.test", "CONNECT_TARGETS__POINTS__TIMEOUT_S": "soon"}
    with pytest.raises(SettingsError) as refused:
        load_settings(environ={**points, "CONNECT_TARGETS__NFT__RATE": "5"})
    assert "targets.points.timeout_s: Expected `float`, got `str`" in str(refused.value)
    assert "targets.nft.url: is required" in str(refused.value)


def test_a_sentence_names_five_and_counts_the_rest() -> None:
    class Many(Struct):
        parts: list[datetime]

    sentence = in_a_sentence(mismatches({"parts": ["no"] * 9}, Many))
    assert sentence.startswith("parts.0: must be a moment")
    assert sentence.endswith("; and 4 more")


def test_a_misfit_is_found_wherever_msgspec_refuses(subtests: Any) -> None:
    class Inner(Struct, forbid_unknown_fields=True):
        n: int

    class Outer(Struct):
        one: Inner | None = None
        many: list[Inner] = []
        named: dict[str, Inner] = {}

    for value in [None, [], 3, {"one": []}, {"one": {}}, {"many": {}}, {"many": [None]}, {"named": {"a": {"n": "1"}}}]:
        with subtests.test(value=value):
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(value, Outer)
            assert mismatches(value, Outer)
