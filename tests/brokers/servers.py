"""Brokers as programs of this machine: started where none runs, and where one is to be killed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from msgspec import Struct

from tests.brokers.relay import answers
from tests.conftest import eventually, free_port

ANSWERS_WITHIN_S = 60
RABBITMQ_AT = "/usr/lib/rabbitmq/bin"
"""Debian's own script for root goes on as another user, who may not write into folders of tests."""


class Program(Struct, frozen=True):
    """How a broker is started on a port, with a folder for what it keeps."""

    name: str
    url: str
    arguments: Callable[[int, Path], list[str]]
    environ: Callable[[int, Path], dict[str, str]] = lambda port, folder: {}
    helper: Callable[[Mapping[str, str]], list[str]] | None = None
    """A process that has to run beside it."""

    def path(self) -> str | None:
        places = [str(Path(sys.executable).parent), RABBITMQ_AT, os.environ["PATH"]]
        return shutil.which(self.name, path=os.pathsep.join(places))


def _redis(port: int, folder: Path) -> list[str]:
    return ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", "--dir", str(folder)]


def _nats(port: int, folder: Path) -> list[str]:
    return ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "jetstream")]


def _rabbitmq(port: int, folder: Path) -> dict[str, str]:
    """A node, a port mapper and a cookie of its own: it meets no other on this machine."""
    return {
        "HOME": str(folder), "RABBITMQ_NODENAME": f"connect-test-{port}@localhost", "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_DIST_PORT": str(free_port()),
        "ERL_EPMD_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"), "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"), "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"), "RABBITMQ_PID_FILE": str(folder / "pid"),
    }  # fmt: skip


PROGRAMS: Mapping[str, Program] = {
    "redis": Program("redis-server", "redis://127.0.0.1:{port}/0", _redis),
    "nats": Program("nats-server", "nats://127.0.0.1:{port}", _nats),
    "rabbitmq": Program(
        "rabbitmq-server", "amqp://guest:guest@127.0.0.1:{port}/", lambda port, folder: [], _rabbitmq,
        lambda environ: ["epmd", "-port", environ["ERL_EPMD_PORT"], "-address", "127.0.0.1"],
    ),
}  # fmt: skip


More = Callable[[int, Path], tuple[list[str], dict[str, str]]]
"""Further arguments and variables, by port and folder; they win over the usual ones."""


class Server:
    """One of them, with a port and a folder that outlive its deaths."""

    def __init__(self, broker: str, folder: Path, more: More | None = None) -> None:
        program = PROGRAMS[broker]
        found = program.path()
        if found is None:
            unavailable(f"no {broker} to use, and no program {program.name} to start one: run `make services`")
        self.port, self.folder = free_port(), folder
        self.url = program.url.format(port=self.port)
        arguments, environ = more(self.port, folder) if more is not None else ([], {})
        self._command = [found, *program.arguments(self.port, folder), *arguments]
        self._environ = {**os.environ, **program.environ(self.port, folder), **environ}
        self._running: list[subprocess.Popen[bytes]] = []
        if program.helper is not None:
            self._spawn(program.helper(self._environ))

    async def start(self) -> None:
        """Returns when it answers."""
        self._spawn(self._command)
        await eventually(self._answers, ANSWERS_WITHIN_S)

    async def strike(self) -> None:
        """kill -9, and another start on what lies in its folder."""
        self._kill(self._running.pop())
        await self.start()

    def stop(self) -> None:
        while self._running:
            self._kill(self._running.pop())

    def _answers(self) -> bool:
        assert self._running[-1].poll() is None, f"{self._command} ended with {self._running[-1].returncode}"
        return answers("127.0.0.1", self.port)

    def _spawn(self, command: list[str]) -> None:
        quiet = subprocess.DEVNULL
        self._running.append(
            subprocess.Popen(
                command, cwd=self.folder, env=self._environ, stdin=quiet, stdout=quiet, stderr=quiet,
                start_new_session=True,
            )
        )  # fmt: skip

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """With what it started: a script waits for the program that it is for."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


_of_this_run: dict[str, Server] = {}


async def server_of_this_run(broker: str) -> str:
    """The address of one that serves until `stop_servers`."""
    if broker not in _of_this_run:
        server = Server(broker, Path(tempfile.mkdtemp(prefix="connect-test-")))
        await server.start()
        _of_this_run[broker] = server
    return _of_this_run[broker].url


def stop_servers() -> None:
    for server in _of_this_run.values():
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
    _of_this_run.clear()


def unavailable(reason: str) -> NoReturn:
    """A missing service leaves tests out, but not in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
