"""A transport at work, and what it is given and answers."""

import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from connect.dispatch.targets import Transport, open_transport
from connect.lifecycle import Answer, Outcome
from connect.model import ClaimedCommand
from tests.dispatch.stand_in import command, target_at

SECRET = "whsec_" + base64.b64encode(b"the key of a target").decode()
PATIENCE_S = 2.0


@asynccontextmanager
async def sending_to(url: str, **settings: Any) -> AsyncGenerator[Transport]:
    transport = open_transport(target_at(url, **({"timeout_s": PATIENCE_S} | settings)))
    try:
        yield transport
    finally:
        await transport.close()


def outcomes(answers: Sequence[Answer]) -> list[Outcome]:
    return [answer.outcome for answer in answers]


def commands(count: int) -> list[ClaimedCommand]:
    return [command(id=uuid4()) for _ in range(count)]
