"""The pure core: what an outcome, a report or a person makes of an action, as tables and as laws."""

from datetime import datetime, timedelta
from typing import Any, get_args
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect.lifecycle import (
    RETRY_AFTER_CAP_S,
    Accepted,
    Completed,
    Misconfigured,
    Outcome,
    Refused,
    Retriable,
    allowed,
    backoff_s,
    outcome_name,
    report,
    settle,
    storable,
)
from connect.model import ActionStatus, Operation, ResultReport, RewardAction
from tests.dispatch.stand_in import NOON, command, target_at

STATUSES = get_args(ActionStatus)
ENDS = {"completed", "failed", "cancelled"}
PATIENT = target_at("http://points", backoff_base_s=4, backoff_cap_s=100, result_deadline_s=60)


def seconds(count: float) -> datetime:
    return NOON + timedelta(seconds=count)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Completed("0xabc"), {"status": "completed", "reference": "0xabc", "completed_at": NOON, "retries": 3}),
        (Completed(None), {"status": "completed", "reference": None, "due_at": None}),
        (Accepted(), {"status": "dispatched", "due_at": seconds(60), "accepted_at": NOON, "retries": 3}),
        (Refused("no"), {"status": "failed", "failure": "refused", "last_error": "no", "completed_at": NOON}),
        (Misconfigured("401"), {"status": "pending", "due_at": seconds(16), "last_error": "401", "retries": 4}),
        (Retriable("500"), {"status": "pending", "due_at": seconds(16), "last_error": "500", "retries": 4}),
        (Retriable("429", 7), {"status": "pending", "due_at": seconds(7)}),
        (Retriable("429", 0), {"status": "pending", "due_at": NOON}),
        (Retriable("429", 10**9), {"status": "pending", "due_at": seconds(RETRY_AFTER_CAP_S)}),
        (Retriable("429", -5), {"status": "pending", "due_at": NOON}),
    ],
)
def test_an_outcome_settles_an_action(outcome: Outcome, expected: dict[str, Any]):
    settlement = settle(command(n=4, retries=3), PATIENT, outcome, NOON, jitter=0.5)  # half of 4 * 2^3
    assert {name: getattr(settlement, name) for name in expected} == expected
    assert (settlement.id, settlement.n) == (command().id, 4)


@pytest.mark.parametrize("outcome", [Retriable("500"), Misconfigured("404"), Retriable("429", 5)])
@pytest.mark.parametrize(
    ("now", "retries", "attempts_max", "expected"),
    [
        (seconds(-1), 0, None, "pending"),
        (seconds(0), 0, None, "failed"),
        (seconds(-1), 2, 4, "pending"),
        (seconds(-1), 3, 4, "failed"),
    ],
)
def test_patience_ends_by_time_or_by_count(
    outcome: Outcome, now: datetime, retries: int, attempts_max: int | None, expected: str
):
    target = target_at("http://points", attempts_max=attempts_max)
    settlement = settle(command(give_up_at=NOON, retries=retries), target, outcome, now, jitter=0)
    assert settlement.status == expected
    assert settlement.failure == ("exhausted" if expected == "failed" else None)


OUTCOMES = st.one_of(
    st.builds(Completed, st.none() | st.text()),
    st.builds(Accepted),
    st.builds(Refused, st.text()),
    st.builds(Misconfigured, st.text()),
    st.builds(Retriable, st.text(), st.none() | st.floats(allow_nan=False)),
)
CHANCE = st.floats(0, 1, exclude_max=True)


@given(OUTCOMES, CHANCE, st.integers(0, 10_000), st.integers(1, 10_000), st.integers(-400_000, 400_000))
def test_any_outcome_leads_to_a_legal_state(outcome: Outcome, jitter: float, retries: int, n: int, elapsed_s: int):
    held = command(n=n, retries=retries)
    now = seconds(elapsed_s)
    settlement = settle(held, PATIENT, outcome, now, jitter)
    assert settlement.status in {"completed", "failed", "pending", "dispatched"}
    assert settlement.n == n
    assert settlement.retries in (retries, retries + 1)
    assert (settlement.due_at is None) == (settlement.status in ENDS)
    assert (settlement.failure is not None) == (settlement.status == "failed")
    assert settlement.due_at is None or settlement.due_at >= now
    assert settlement.status != "failed" or isinstance(outcome, Refused) or now >= held.give_up_at
    for text in (settlement.last_error, settlement.reference):
        assert text is None or ("\0" not in text and text.encode() is not None)


@given(st.integers(0, 10**6), st.floats(0.001, 1e6), st.floats(0.001, 1e6), CHANCE)
def test_the_backoff_stays_within_its_bounds(retries: int, base_s: float, cap_s: float, jitter: float):
    delay_s = backoff_s(retries, base_s, cap_s, jitter)
    assert 0 <= delay_s <= cap_s
    assert delay_s <= base_s * 2 ** min(retries, 100)
    assert backoff_s(retries + 1, base_s, cap_s, jitter) >= delay_s
    assert backoff_s(retries, base_s, cap_s, 0) == 0


def test_every_outcome_has_a_word_of_its_own():
    words = [outcome_name(o) for o in (Completed(), Accepted(), Refused(""), Misconfigured(""), Retriable(""))]
    assert words == ["completed", "accepted", "refused", "misconfigured", "retriable"]


def action(**fields: Any) -> RewardAction:
    given = {
        "id": uuid4(), "event_id": uuid4(), "rule_key": "r", "rule_version": 1, "effect_key": "e", "target": "points",
        "command": "credit", "recipient_role": "actor", "user_id": "u", "amount": "1", "unit": "points",
        "created_at": NOON, "occurred_at": NOON, "attempts": 1,
    }  # fmt: skip
    return RewardAction(**(given | fields))


DONE, NOT_DONE = ResultReport(status="completed", reference="0x1"), ResultReport(status="failed", reason="no gas")


@pytest.mark.parametrize(
    ("state", "on_completed", "on_failed"),
    [
        ({"status": "pending", "attempts": 0}, "refused", "refused"),
        ({"status": "awaiting_approval", "attempts": 0}, "refused", "refused"),
        ({"status": "blocked", "attempts": 0}, "refused", "refused"),
        ({"status": "cancelled", "attempts": 0}, "refused", "refused"),
        ({"status": "dispatched"}, "applied", "applied"),
        ({"status": "pending"}, "applied", "applied"),
        ({"status": "failed", "failure": "exhausted"}, "applied", "applied"),
        ({"status": "failed", "failure": "refused"}, "contradicted", "repeated"),
        ({"status": "failed", "failure": "reported"}, "contradicted", "repeated"),
        ({"status": "completed"}, "repeated", "contradicted"),
        ({"status": "completed", "reference": "0x9"}, "repeated", "contradicted"),
        ({"status": "cancelled"}, "contradicted", "repeated"),
    ],
)
def test_a_report_is_judged_by_what_is_known(state: dict[str, Any], on_completed: str, on_failed: str):
    assert report(action(**state), DONE, NOON)[0] == on_completed
    assert report(action(**state), NOT_DONE, NOON)[0] == on_failed


def test_an_applied_report_ends_the_action():
    _, ending = report(action(status="dispatched"), DONE, NOON)
    assert ending
    assert (ending.status, ending.failure, ending.reference, ending.completed_at) == ("completed", None, "0x1", NOON)
    _, ending = report(action(status="pending"), NOT_DONE, NOON)
    assert ending
    assert (ending.status, ending.failure, ending.last_error) == ("failed", "reported", "no gas")


def test_a_repeat_may_bring_the_reference_that_was_missing_and_changes_no_other():
    earlier = seconds(-60)
    _, ending = report(action(status="completed", completed_at=earlier), DONE, NOON)
    assert ending
    assert (ending.reference, ending.completed_at) == ("0x1", earlier)
    assert report(action(status="completed", reference="0x9"), DONE, NOON) == ("repeated", None)


@given(st.sampled_from(STATUSES), st.integers(0, 3), st.sampled_from([DONE, NOT_DONE]))
def test_a_second_equal_report_is_a_repeat(status: ActionStatus, attempts: int, result: ResultReport):
    failure = "exhausted" if status == "failed" else None
    first = action(status=status, attempts=attempts, failure=failure)
    disposition, ending = report(first, result, NOON)
    if disposition == "applied" and ending:
        after = action(attempts=attempts, status=ending.status, failure=ending.failure, reference=ending.reference)
        assert report(after, result, NOON) == ("repeated", None)
    else:
        assert ending is None or ending.status == status


@pytest.mark.parametrize(
    ("operation", "states"),
    [
        ("retry", {("failed", 0), ("failed", 1)}),
        ("cancel", {("failed", 0), ("failed", 1), ("pending", 0)}),
        ("approve", {("awaiting_approval", 0), ("awaiting_approval", 1)}),
        ("reject", {("awaiting_approval", 0), ("awaiting_approval", 1)}),
    ],
)
def test_a_person_may_do_what_the_state_allows(operation: Operation, states: set[tuple[str, int]]):
    assert {(status, n) for status in STATUSES for n in (0, 1) if allowed(operation, status, n)} == states


@pytest.mark.parametrize(("text", "expected"), [("a\0b", "a\ufffdb"), ("x\ud800y", "x?y"), ("grüße", "grüß"), ("", "")])
def test_text_is_made_storable(text: str, expected: str):
    assert storable(text, 4) == expected
