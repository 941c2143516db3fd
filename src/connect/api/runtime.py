"""The objects that the routes work with; the composition root makes them once."""

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from connect.api.auth import Authenticator
from connect.config import Settings
from connect.intake.foreign import Foreign
from connect.intake.live import LiveRules
from connect.intake.record import Recorder


class Runtime(Struct, frozen=True):
    settings: Settings
    pool: Any
    rules: LiveRules
    recorder: Recorder
    authenticator: Authenticator
    sources: Mapping[str, Foreign] = {}
    publishing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a change of the live rules is examined, so that writers of one process do not work in vain."""
