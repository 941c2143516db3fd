"""Named places where a test can kill the process: `CONNECT_FAILPOINT=name[:nth]`, only when `CONNECT_ENV=test`.

The process leaves by SIGKILL of itself, so nothing is flushed, closed or drained: what a power cut would leave.
"""

import os
import signal

_name, _, _nth = os.environ.get("CONNECT_FAILPOINT", "").partition(":")
_armed = os.environ.get("CONNECT_ENV") == "test" and bool(_name)
_left = int(_nth or 1)


def reach(name: str) -> None:
    """Dies here when this failpoint is armed and reached for the nth time."""
    global _left
    if not _armed or name != _name:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
