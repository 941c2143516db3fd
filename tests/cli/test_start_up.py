"""A command imports what it needs: scripts call `connect` in loops, and what is not needed is most of the wait."""

import asyncio
import json
import sys

import pytest

LOADED = """
import contextlib, io, json, sys
from connect.cli import build
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
    build()(json.loads(sys.argv[1]))
print(json.dumps(sorted(sys.modules)))
"""
SERVER = ["aiohttp", "asyncpg", "litestar", "uvicorn", "prometheus_client", "structlog"]
ENGINE = ["cel_expr_python", "google.protobuf", "connect.engine", "connect.intake", "connect.backtest"]
SHOWN = ["rich.console", "rich.progress", "yaml"]


async def loaded(*arguments: str) -> set[str]:
    """The modules that a process has imported when the command ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOADED, json.dumps(arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return set(json.loads(out))


@pytest.mark.parametrize(
    ("arguments", "needless"),
    [
        (["events", "list"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["events", "why", "order-1"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["actions", "list"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["targets", "list"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["dead", "list"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["rules", "versions"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["rules", "export"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["rules", "stop", "welcome"], [*SERVER, *ENGINE, *SHOWN, "asyncio"]),
        (["rules", "check", __file__], [*SERVER, "rich.progress", "asyncio", "connect.intake", "connect.backtest"]),
        (["status", "--help"], ["connect.intake", "connect.backtest", "connect.dispatch", "litestar", "aiohttp"]),
        (["receiver", "check", "--help"], [*SERVER, *ENGINE, *SHOWN[1:], "connect.dispatch", "connect.receiver"]),
        (["doctor", "--help"], ["connect.backtest", "litestar", "aiohttp"]),
    ],
)
async def test_a_command_starts_without_what_it_does_not_use(
    arguments: list[str], needless: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("CONNECT_API_KEY", "ck_none")
    modules = await loaded(*arguments)
    assert "cyclopts" in modules
    assert [name for name in needless if name in modules] == []
