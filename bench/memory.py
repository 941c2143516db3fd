"""How soon `connect api` is ready on an existing database, and what it holds in memory when idle.

`python -m bench.memory` prints one line a start and the medians. The aims (ready within 2 s, at most 120 MiB resident)
are for a machine that does nothing else.
"""

import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from connect.cli.run.everything import free_port
from connect.store.embedded import EmbeddedPostgres
from connect.store.migrate import migrate

STARTS = 7
SETTLES_WITHIN_S = 3.0
"""After this long idle nothing is warming up any more."""
READY_MAX_S = 60


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as reply:  # noqa: S310  our own http address
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def resident_mib(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def measure(database_url: str, folder: str) -> tuple[float, float]:
    """Seconds until it is ready, and MiB resident after a pause."""
    port = free_port()
    environ = {**os.environ, "CONNECT_DATABASE_URL": database_url, "CONNECT_BOOTSTRAP_KEY": "bench-" + "k" * 32}
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "connect", "api", "--port", str(port), env=environ, cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not await asyncio.to_thread(ready, f"http://127.0.0.1:{port}"):
            if process.returncode is not None or time.perf_counter() - begun > READY_MAX_S:
                raise SystemExit("connect api does not start")
            await asyncio.sleep(0.01)
        ready_s = time.perf_counter() - begun
        await asyncio.sleep(SETTLES_WITHIN_S)
        return ready_s, resident_mib(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="connect-bench-") as folder:
        async with await EmbeddedPostgres.start(Path(folder) / "home") as server:
            await migrate(server.url)
            starts = [await measure(server.url, folder) for _ in range(STARTS)]
    for ready_s, mib in starts:
        print(f"ready {ready_s:6.2f} s   idle {mib:6.1f} MiB")
    ready_s, mib = (statistics.median(values) for values in zip(*starts, strict=True))
    print(f"median {ready_s:5.2f} s   idle {mib:6.1f} MiB")


if __name__ == "__main__":
    asyncio.run(main())
