"""The message a target receives, and the id that makes sending it twice harmless."""

from datetime import UTC
from uuid import UUID, uuid5

import msgspec

from connect.model import Command, CommandEvent, CommandRule, EconomicEvent, RewardAction

ACTION_NAMESPACE = UUID("e1b308dc-407a-42fb-b13c-783d111df0e1")
"""Frozen for ever, as are the parts below and their order: with others a restored server would pay everything twice."""

_encoder = msgspec.json.Encoder(order="deterministic", decimal_format="number")


def action_id(source: str, external_id: str, rule_key: str, effect_key: str, recipient: str) -> UUID:
    """The id of what a fact owes by one effect to one recipient: uuid5 (RFC 9562) over length-prefixed parts.

    It is made of the fact itself, not of a row, so that deciding again after a restore names the same action.
    A part is prefixed with its length in UTF-8 bytes (`4:shop`), so that no two lists of parts read the same.
    """
    parts = (source, external_id, rule_key, effect_key, recipient)
    return uuid5(ACTION_NAMESPACE, "".join([f"{len(part.encode())}:{part}" for part in parts]))


def reversal_id(source: str, external_id: str, action: UUID) -> UUID:
    """The id of what a fact takes back of an action: made of the later fact and of what it takes back."""
    parts = (source, external_id, "reverses", str(action))
    return uuid5(ACTION_NAMESPACE, "".join([f"{len(part.encode())}:{part}" for part in parts]))


def encode_command(event: EconomicEvent, action: RewardAction) -> str:
    """The command's JSON, made once when the action is decided and stored: every attempt sends these bytes.

    Keys of `params` are sorted and times are UTC with `Z`, so that encoding a decision again gives the same text. A
    moment of receipt is never in it: recorded again after a restore, the fact gives the same bytes. (Facts stored
    before it was kept whether the moment was reported keep the bytes they had.)
    """
    command = Command(
        id=action.id,
        type=f"{action.target}.{action.command}",
        user_id=action.user_id,
        amount=action.amount,
        unit=action.unit,
        params=action.params,
        event=CommandEvent(
            id=event.id,
            source=event.source,
            external_id=event.external_id,
            event_type=event.event_type,
            occurred_at=None if event.occurred_at_reported is False else event.occurred_at.astimezone(UTC),
        ),
        rule=CommandRule(key=action.rule_key, version=action.rule_version),
        reverses=action.reverses,
    )
    return _encoder.encode(command).decode()
