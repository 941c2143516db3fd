"""The command as a person runs it: arguments in; exit code, stdout and stderr out."""

import asyncio
import contextlib
import io
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Struct
from structlog.testing import capture_logs

from connect.cli import build
from tests.serving import KEY, Api, serving

RULES = """\
version: 1
units:
  points: {}
rules:
  - key: cashback
    event_type: purchase.completed
    condition:
      - context.currency == "EUR"
      - context.amount_minor >= 1000
    actions:
      - target: points
        command: credit
        unit: points
        recipient: actor
        amount: context.amount_minor * 0.02
        round: down
  - key: big-spender
    event_type: purchase.completed
    condition: context.amount_minor >= 100000
    actions:
      - { target: nft, command: mint, unit: nft, recipient: actor, amount: 1, review: true }
"""


class Ran(Struct):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell(Struct):
    """Runs `connect ARGUMENTS` in a thread of this process, so that a server in it goes on serving."""

    api: Api | None = None

    async def __call__(self, *arguments: str, stdin: str | bytes = "") -> Ran:
        return await asyncio.to_thread(run, arguments, stdin.encode() if isinstance(stdin, str) else stdin)

    async def spawn(self, script: str) -> Ran:
        """A line of a real shell; `connect` in it is this checkout's."""
        environ = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
        process = await asyncio.create_subprocess_shell(
            script,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
        )
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def on_terminal(self, *arguments: str, typed: str) -> Ran:
        """Runs a command before a terminal, at which a person types; everything the terminal shows is `out`."""
        return await asyncio.to_thread(_on_terminal, arguments, typed.encode())


def run(arguments: tuple[str, ...], stdin: bytes = b"") -> Ran:
    """One at a time: the standard streams are of the process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            build()(list(arguments))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdin = before
    return Ran(code, out.getvalue(), err.getvalue())


def _on_terminal(arguments: tuple[str, ...], typed: bytes) -> Ran:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "connect", *arguments])  # noqa: S606
    os.write(terminal, typed)
    shown = bytearray()
    with contextlib.suppress(OSError):  # the terminal's end, when the command has closed it
        while chunk := os.read(terminal, 4096):
            shown += chunk
    os.close(terminal)
    return Ran(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(), "")


@contextlib.asynccontextmanager
async def shell_on(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    """A shell whose CONNECT_URL is a real API on a database of its own, with `RULES` live."""
    with capture_logs():  # the server's, which would stand among what the command prints
        async with serving(database_url, event_age_max_days=0) as api:
            reply = await api.call("PUT", "/internal/ruleset", raw=RULES.encode(), Content_Type="application/yaml")
            assert reply.status == 200, reply.body
            monkeypatch.setenv("CONNECT_URL", api.url)
            monkeypatch.setenv("CONNECT_API_KEY", KEY)
            monkeypatch.setenv("CONNECT_DATABASE_URL", database_url)
            yield Shell(api)


def purchase(number: int, amount_minor: int = 5000, **fields: Any) -> dict[str, Any]:
    return {
        "external_id": f"order-{number}",
        "source": "shop",
        "event_type": "purchase.completed",
        "actor_user_id": f"u{number}",
        "occurred_at": "2026-11-22T10:00:00Z",
        "context": {"currency": "EUR", "amount_minor": amount_minor},
        **fields,
    }
