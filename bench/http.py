"""Commands over HTTP beside a bare client that posts the same bodies: commands a second, `IN_FLIGHT` under way.

`python -m bench.http` prints medians over interleaved repeats, and fails below `SHARE_MIN` of the bare client. The
target is a process of its own that answers 200 at once, so that its work is not counted as ours.
"""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import aiohttp

from bench.brokers import HEADERS, commands
from connect.dispatch.targets import open_transport
from connect.model import ClaimedCommand, Target
from connect.telemetry import set_up_logging

COMMANDS = 3_000
IN_FLIGHT = 20
REPEATS = 5
SHARE_MIN = 0.7
SECRET = "whsec_YmVuY2htYXJrcy1zaWduLXdpdGgtdGhpcw=="
TARGET = """
from aiohttp import web

async def take(request):
    await request.read()
    return web.json_response({"reference": "r"})

async def main():
    app = web.Application()
    app.router.add_post("/commands", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

import asyncio
asyncio.run(main())
"""

Send = Callable[[ClaimedCommand], Awaitable[None]]


@contextlib.asynccontextmanager
async def target() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", TARGET, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{(await process.stdout.readline()).decode().strip()}/commands"
    finally:
        process.terminate()
        await process.wait()


async def rate(send: Send) -> float:
    """Commands a second, each answered."""
    everything = commands(COMMANDS)

    async def some(share: Sequence[ClaimedCommand]) -> None:
        for command in share:
            await send(command)

    begun = time.perf_counter()
    await asyncio.gather(*(some(everything[index::IN_FLIGHT]) for index in range(IN_FLIGHT)))
    return COMMANDS / (time.perf_counter() - begun)


async def main() -> None:
    set_up_logging("error")
    found: dict[str, list[float]] = {"bare": [], "signed": [], "unsigned": []}
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(target())
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def bare(command: ClaimedCommand) -> None:
            async with session.post(url, data=command.body.encode(), headers=HEADERS) as answer:
                await answer.read()

        def ours(**settings: object) -> Send:
            transport = open_transport(Target(url=url, internal=True, max_inflight=IN_FLIGHT, **settings))  # type: ignore[arg-type]
            stack.push_async_callback(transport.close)

            async def send(command: ClaimedCommand) -> None:
                [answer] = await transport.send([command])
                if type(answer.outcome).__name__ != "Completed":
                    raise SystemExit(f"a command was not completed: {answer.outcome}")

            return send

        ways = {"bare": bare, "unsigned": ours(), "signed": ours(secret=(SECRET,))}
        for _ in range(REPEATS):
            for name, send in ways.items():
                found[name].append(await rate(send))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    print(f"| http, {REPEATS} repeats, medians | commands /s | of bare |")
    print("|---|---|---|")
    for name in ("bare", "unsigned", "signed"):
        print(f"| {name} | {medians[name]:,.0f} | {medians[name] / medians['bare']:.2f} |")
    if medians["unsigned"] < SHARE_MIN * medians["bare"]:
        raise SystemExit(f"commands over HTTP come to less than {SHARE_MIN} of the bare client")


if __name__ == "__main__":
    asyncio.run(main())
