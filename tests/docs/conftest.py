"""One `connect run`, started as a reader starts it, for all pages."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from connect.store.embedded import running_url
from tests.conftest import eventually, free_port
from tests.docs.walking import Connect

READY_WITHIN_S = 90
ENDED_WITHIN_S = 60


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """As `make run` has it: stand-in targets, and events of any age, since a page's dates grow old."""
    folder = tmp_path_factory.mktemp("connect")
    home, log = folder / "home", folder / "run.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONNECT_")}
    environ = {**inherited, "CONNECT_HOME": str(home), "CONNECT_EVENT_AGE_MAX_DAYS": "0"}
    command = [sys.executable, "-m", "connect", "run", "--port", str(free_port())]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=output)
    try:
        asyncio.run(eventually(lambda: _ready(log, process), timeout_s=READY_WITHIN_S))
        yield _running(log.read_text(), home)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(ENDED_WITHIN_S)


def _ready(log: Path, process: "subprocess.Popen[bytes]") -> bool:
    text = log.read_text()
    assert process.poll() is None, text
    return "Report an event:" in text


def _running(banner: str, home: Path) -> Connect:
    """Reads what the banner tells a reader."""

    def told(pattern: str) -> str:
        found = re.search(pattern, banner)
        assert found, f"the banner does not say {pattern}:\n{banner}"
        return found[1]

    url = running_url(home)
    assert url is not None
    return Connect(
        url=told(r"Connect is ready at (\S+)"),
        targets=told(r"stand-ins at (\S+)"),
        key=told(r"key +(ck_\S+)"),
        home=home,
        database_url=url,
        secrets=_make_secrets(home.parent / "secrets"),
        scratch_url=asyncio.run(_make_scratch(url)),
    )


def _make_secrets(folder: Path) -> Path:
    folder.mkdir()
    for target in ("points", "nft", "gateway"):
        (folder / target).write_text("whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=\n")
    return folder


async def _make_scratch(url: str) -> str:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url)
    await connection.execute("CREATE DATABASE scratch")
    await connection.close()
    return urlunsplit(urlsplit(url)._replace(path="/scratch"))
