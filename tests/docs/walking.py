"""Walks a page as its reader would: saves its files, runs its commands, compares what they print with what it shows."""

import ast
import asyncio
import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from tests.conftest import eventually
from tests.docs.comparing import missing_of
from tests.docs.pages import ROOT, Block

COMMAND_MAX_S = 60
AGAIN_MAX_S = 20
DOCUMENTED_URL = "http://127.0.0.1:8080"
DOCUMENTED_TARGETS = "http://127.0.0.1:8090"
DOCUMENTED_KEY = "ck_the_key_it_printed"
SECRETS = "/run/secrets/"
DOCUMENTED_DATABASE = "postgresql://connect:secret@db.internal/connect"
SCRIPT = """set -uo pipefail
[ -e .state ] && . ./.state
cd "$WALK_CWD"
set -e
{commands}
set +e
export WALK_CWD="$PWD"
export -p > "$WALK_HOME/.state"
"""


@dataclass(frozen=True)
class Connect:
    """The server the pages talk to."""

    url: str
    targets: str
    key: str
    home: Path
    database_url: str
    secrets: Path
    """A folder with a secret for each target that pages name."""
    scratch_url: str
    """An empty database beside Connect's own: a service's, in pages about services."""

    def substituted(self, text: str) -> str:
        """Puts this machine's addresses and secrets in place of those that a page names."""
        known = {
            DOCUMENTED_URL: self.url,
            DOCUMENTED_TARGETS: self.targets,
            DOCUMENTED_KEY: self.key,
            DOCUMENTED_DATABASE: self.database_url,
            SECRETS: f"{self.secrets}/",
        }
        for documented, here in known.items():
            text = text.replace(documented, here)
        return text

    @property
    def environ(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONNECT_")}
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "CONNECT_HOME": str(self.home),
            "CONNECT_URL": self.url,
            "CONNECT_API_KEY": self.key,
            "DATABASE_URL": self.scratch_url,
            "NO_COLOR": "1",
        }


@dataclass
class Walk:
    """One page in progress; `names` are the Python names it defined, `printed` what its last block printed."""

    connect: Connect
    folder: Path
    printed: str = ""
    names: dict[str, Any] = field(default_factory=dict)
    last: Block | None = None

    def step(self, block: Block) -> None:
        """Runs or compares one block. An AssertionError names its place and what was printed."""
        if block.not_run:
            return
        if block.file:
            (self.folder / block.file).write_text(self.connect.substituted(block.text), encoding="utf-8")
        if block.kind == "output":
            self._compare(block)
        elif block.language in ("bash", "sh"):
            self.printed, self.last = self._bash(block), block
        elif block.language == "python":
            self._python(block)
        elif block.language == "sql":
            asyncio.run(self._sql(block))

    def _compare(self, shown: Block) -> None:
        before = self.last
        assert before is not None, f"{shown.place} shows the output of no command"

        def missing() -> str | None:
            return missing_of(shown.language, self.connect.substituted(shown.text), self.printed)

        async def same() -> bool:
            if missing() is not None:
                self.printed = self._bash(before)
            return missing() is None

        if before.again:
            asyncio.run(eventually(same, timeout_s=AGAIN_MAX_S, every_s=0.2))
        assert missing() is None, f"{shown.place}: not printed: {missing()}\n--- printed:\n{self.printed}"

    def _bash(self, block: Block) -> str:
        commands = self.connect.substituted(block.text)
        environ = {**self.connect.environ, "WALK_CWD": str(self.folder), "WALK_HOME": str(self.folder)}
        done = subprocess.run(
            ["bash", "-c", SCRIPT.replace("{commands}", commands)],
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_MAX_S,
            check=False,
        )
        assert done.returncode == 0, f"{block.place}: ended with {done.returncode}\n--- printed:\n{done.stdout}"
        return done.stdout

    def _python(self, block: Block) -> None:
        """In one namespace a page. A block that awaits at its top level runs in a loop of its own."""
        tree = compile(
            "\n" * block.line + self.connect.substituted(block.text),
            str(ROOT / block.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )
        before = dict(os.environ)
        os.environ.update(self.connect.environ)
        try:
            if tree.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(tree, self.names))  # noqa: S307  a page of this repository
            else:
                exec(tree, self.names)  # noqa: S102  the same
        finally:
            os.environ.clear()
            os.environ.update(before)

    async def _sql(self, block: Block) -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self.connect.scratch_url)
        try:
            await connection.execute(block.text)
        finally:
            await connection.close()
