"""Messages that are facts on their way to the recorder: whatever their size and number, they get there."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from connect.intake.bus import Message
from connect.intake.bus.consumer import Unready
from connect.intake.bus.event_sink import Facts, portions
from connect.intake.live import LiveRules
from connect.intake.normalize import NormalEvent, Terms, convert_reported, normalize
from connect.intake.record import GROUP_CHARACTERS_MAX, Recorder


def fact(number: int, **context: Any) -> bytes:
    return msgspec.json.encode({"external_id": f"e{number}", "event_type": "a.b", "context": context})


def normal(size: int) -> NormalEvent:
    reported = convert_reported({"external_id": "e", "event_type": "a.b", "context": {"text": "x" * size}})
    return normalize(reported, Terms(), datetime.now(UTC))


async def test_a_batch_larger_than_the_recorders_queue_is_recorded_in_portions(pool: Any):
    recorder = Recorder(pool, LiveRules(pool), queue_max=30)
    flusher = asyncio.create_task(recorder.run())
    messages = [Message(fact(number)) for number in range(100)]
    assert await Facts(recorder, Terms(), {}, "inline").take(messages) == [None] * 100
    recorder.close()
    await flusher
    assert await pool.fetchval("SELECT count(*) FROM event") == 100


def test_portions_hold_no_more_than_one_commit_takes_and_all_in_their_order():
    large = normal(GROUP_CHARACTERS_MAX // 3)
    numbered = list(enumerate([large] * 7))
    parts = list(portions(numbered, 500))
    assert [len(part) for part in parts] == [2, 2, 2, 1]
    assert [one for part in parts for one in part] == numbered
    assert [len(part) for part in portions(list(enumerate([normal(1)] * 7)), 3)] == [3, 3, 1]
    assert [len(part) for part in portions([(0, normal(GROUP_CHARACTERS_MAX + 1))], 3)] == [1], "alone it goes"


async def test_a_recorder_that_is_closing_is_told_as_not_now(pool: Any):
    recorder = Recorder(pool, LiveRules(pool))
    recorder.close()
    with pytest.raises(Unready):
        await Facts(recorder, Terms(), {}, "inline").take([Message(fact(1))])
