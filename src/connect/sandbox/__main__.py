"""`python -m connect.sandbox --port 8090`: the stand-in targets as a process of their own."""

import asyncio
import os
from pathlib import Path

import cyclopts

from connect.sandbox.reporter import Settings
from connect.sandbox.server import run

app = cyclopts.App(name="connect-sandbox", help=__doc__)


@app.default
def main(
    *,
    host: str = "127.0.0.1",
    port: int = 8090,
    ledger: Path | None = None,
    connect_url: str | None = None,
    report_delay_s: float = 0.5,
) -> None:
    """Serve Points, NFT and Gateway stand-ins at /points, /nft and /gateway.

    What must not be seen in a list of processes comes from the environment: CONNECT_SANDBOX_SECRET (`whsec_...`,
    several with commas between) and CONNECT_SANDBOX_RESULT_KEY (a Connect key with the scope results:write).

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    ledger
        File that keeps the effects, one JSON line each, over restarts.
    connect_url
        Where the gateway reports its results.
    report_delay_s
        Seconds between accepting a command and reporting its result.
    """
    settings = Settings(
        secrets=tuple(filter(None, os.environ.get("CONNECT_SANDBOX_SECRET", "").split(","))),
        connect_url=connect_url,
        result_key=os.environ.get("CONNECT_SANDBOX_RESULT_KEY") or None,
        report_delay_s=report_delay_s,
    )
    asyncio.run(run(host, port, settings=settings, ledger_file=ledger))


if __name__ == "__main__":
    app()
