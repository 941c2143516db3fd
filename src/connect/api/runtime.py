"""What the routes work with, made once by the composition root."""

from typing import Any

from msgspec import Struct

from connect.api.auth import Authenticator
from connect.config import Settings
from connect.intake.live import LiveRules
from connect.intake.record import Recorder


class Runtime(Struct, frozen=True):
    settings: Settings
    pool: Any
    rules: LiveRules
    recorder: Recorder
    authenticator: Authenticator
