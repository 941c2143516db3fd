"""`make bench`: every benchmark in turn."""

import asyncio
import platform

from bench import backtest, brokers, event_ids, http, intake, lanes, memory, rule_model

print(f"Python {platform.python_version()}, {platform.machine()}\n")
for part in (memory, event_ids, intake, brokers, http, rule_model, backtest, lanes):
    print(f"## {(part.__doc__ or '').splitlines()[0]}\n", flush=True)
    asyncio.run(part.main())
    print(flush=True)
