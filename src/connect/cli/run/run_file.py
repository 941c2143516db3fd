"""`run.json` in CONNECT_HOME: what `connect run` made up for its processes, told to the commands beside it.

Stand-in targets and a key made for the run are in the environment of its children alone; `status` and `doctor` would
advise to configure what is there. The run holds the file's lock for as long as it lives: what a killed one left in the
file is believed by nobody.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Generator
from io import FileIO
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from connect.config import Settings
from connect.model import Target

NAME = "run.json"
LOCKED_WITHIN_S = 1.0
"""Readers hold the lock for microseconds; another run holds it for good, and its file stays."""


class MadeUp(Struct, frozen=True, kw_only=True):
    """Holds the values that no setting gives and that all processes of a run share."""

    targets: dict[str, Target] = {}
    bootstrap_key: str | None = None
    database: str | None = None
    """SHA-256 of the configured address; null: the embedded one. Beside another database it all means nothing."""


@contextlib.contextmanager
def told(settings: Settings, *, targets: dict[str, Target], key: str) -> Generator[None]:
    """While inside, commands of the same home and database can know what was made up."""
    made_up = MadeUp(
        targets=targets,
        bootstrap_key=None if settings.bootstrap_key else key,
        database=_digest(settings.database_url),
    )
    with contextlib.ExitStack() as stack:
        file = _own(settings.home / NAME, stack)
        if file is not None:
            file.truncate(0)
            file.write(msgspec.json.encode(made_up))
            stack.callback(file.truncate, 0)  # not removed: who has it open waits for the lock of this very file
        yield


def with_run(settings: Settings) -> Settings:
    """The settings with what a living run of the same home and database made up for lack of them."""
    made_up = _read(settings.home / NAME)
    if made_up is None or made_up.database != _digest(settings.database_url):
        return settings
    return replace(
        settings,
        targets=settings.targets or made_up.targets,
        bootstrap_key=settings.bootstrap_key or made_up.bootstrap_key,
    )


def _read(path: Path) -> MadeUp | None:
    try:
        with path.open("rb") as file:
            return None if _try_lock(file.fileno()) else msgspec.json.decode(file.read(), type=MadeUp)
    except (OSError, msgspec.DecodeError):
        return None


def _own(path: Path, stack: contextlib.ExitStack) -> FileIO | None:
    """The file under its lock; null where another run has it, or nothing can be written: then nothing is told."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = stack.enter_context(FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+"))
    except OSError:
        return None
    deadline = time.monotonic() + LOCKED_WITHIN_S
    while not (locked := _try_lock(file.fileno())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return file if locked else None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _digest(url: str | None) -> str | None:
    return None if url is None else hashlib.sha256(url.encode()).hexdigest()
