"""Many commands in one POST, and what its answer says of each (`batch` above 1).

The envelope holds each command's own bytes, so that a command is the same whichever others it travels with.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid5

import msgspec
from msgspec import Struct

from connect.lifecycle import (
    REASON_CHARACTERS_MAX,
    REFERENCE_CHARACTERS_MAX,
    Accepted,
    Completed,
    Misconfigured,
    Outcome,
    Refused,
    Retriable,
    storable,
)
from connect.model import ClaimedCommand


class Item(Struct, frozen=True):
    """Tells what a target says of one command. Anything may stand in these places."""

    id: Any = None
    status: Any = None
    reference: Any = None
    reason: Any = None


class Results(Struct, frozen=True):
    results: list[Item]


def envelope(commands: Sequence[ClaimedCommand]) -> bytes:
    return b'{"commands":[' + b",".join(command.body.encode() for command in commands) + b"]}"


def envelope_id(commands: Sequence[ClaimedCommand]) -> UUID:
    """Names this sending of just these: it signs and traces. What a repeat is told by is each command's own id."""
    return uuid5(commands[0].id, ",".join(f"{command.id}.{command.n}" for command in commands))


def outcomes_of(reply: bytes, commands: Sequence[ClaimedCommand], status: int) -> list[Outcome]:
    """Reads a 2xx command by command. A command that the answer says nothing of is asked about again."""
    try:
        items = msgspec.json.decode(reply, type=Results).results
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if status == 202:
            return [Accepted()] * len(commands)
        reason = f'HTTP {status} without {{"results": [...]}}: a target with `batch` answers each command'
        return [Misconfigured(reason)] * len(commands)
    said = {item.id.lower(): item for item in items if isinstance(item.id, str)}
    return [_outcome(said.get(str(command.id)), status) for command in commands]


def _outcome(item: Item | None, status: int) -> Outcome:
    if item is None:
        return Retriable(f"HTTP {status} says nothing of this command")
    reason = storable(str(item.reason or "the target gave no reason"), REASON_CHARACTERS_MAX)
    match item.status:
        case "completed":
            return Completed(_reference(item.reference))
        case "accepted":
            return Accepted()
        case "failed" | "refused":
            return Refused(reason)
        case "retry":
            return Retriable(reason, alive=True)
        case _:
            return Misconfigured(
                f"HTTP {status} says {item.status!r} of this command: completed, accepted, failed or retry"
            )


def _reference(reference: Any) -> str | None:
    if isinstance(reference, str | int) and not isinstance(reference, bool):
        return storable(str(reference), REFERENCE_CHARACTERS_MAX) or None
    return None
