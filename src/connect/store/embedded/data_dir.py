"""The server's files: made once, read at every start, and the two locks that say who uses them."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import msgspec

from connect.store.embedded.errors import INSTEAD, AlreadyOwned, CannotStart
from connect.store.embedded.mode import (
    ENVIRONMENT,
    STATE_FOLDER,
    Mode,
    binaries,
    choose,
    give,
    make_state_folder,
    prefix,
    user_of,
)

SOCKET_FOLDER_BYTES_MAX = 107 - len("/.s.PGSQL.5432")
"""The kernel takes 107 bytes for the path of a UNIX socket."""
INITDB_MAX_S = 120
DEAD_OWNER_MAX_S = 5
"""An exec takes milliseconds; an owner in another container looks dead too, and is believed after this."""
LOG_BYTES_MAX = 10_000_000
"""A larger log is put aside at the next start, as server.log.1."""
INITDB_OPTIONS = (
    *("--username=connect", "--auth=scram-sha-256", "--encoding=UTF8"),
    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
)


class Server(msgspec.Struct, frozen=True):
    """`server.json`: what a later owner, and other processes of the same user, need to know."""

    mode: Mode
    password: str
    sockets: str = ""
    """The folder of the socket; empty until the first start."""

    def url(self, database: str = "connect") -> str:
        return f"postgresql://connect:{self.password}@/{database}?host={quote(self.sockets, safe='/')}&port=5432"


def own(folder: Path, ownership: contextlib.ExitStack) -> None:
    """The lock goes with its descriptor, which no program we start keeps (PEP 446); the file stays and means nothing.

    Of an owner killed as it started a program, the child holds the descriptor until it runs that program: hence the
    wait for a dead owner.
    """
    lock = ownership.enter_context((folder / "owner.lock").open("a+"))
    deadline = time.monotonic() + DEAD_OWNER_MAX_S
    while not _locked(lock.fileno()):
        lock.seek(0)
        owner = lock.read().strip()
        if _runs(owner) or time.monotonic() > deadline:
            raise AlreadyOwned(
                f"{folder} is in use: its embedded PostgreSQL belongs to process {owner or '(not yet known)'}. Stop "
                "that process, set CONNECT_HOME to another folder, or, for several processes on one database, run a "
                "PostgreSQL and set CONNECT_DATABASE_URL."
            )
        time.sleep(0.02)
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
        return True
    except PermissionError:
        return True
    except (ValueError, ProcessLookupError):
        return False


def server_lock(room: Path) -> int | None:
    """The lock for the next server to inherit, or None while a process of the last one lives."""
    lock = os.open(room / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if _locked(lock):
        return lock
    os.close(lock)
    return None


def lives(room: Path) -> bool:
    try:
        lock = server_lock(room)
    except FileNotFoundError:  # the home was removed under the server, which ends itself when it notices
        return False
    if lock is not None:
        os.close(lock)
    return lock is None


def room_of(home: Path, forced: Mode | None) -> Path:
    """The room of this home, made if there is none yet."""
    for litter in (*home.glob("postgres.new-*"), *STATE_FOLDER.glob(f"{_stem(home)}-*.new-*")):
        shutil.rmtree(litter, ignore_errors=True)
    room = home / "postgres"
    if room.is_symlink() and not room.exists():
        raise CannotStart(
            f"The data of {home} was kept in {room.readlink()}, which is gone (a container's /var/lib/connect needs a "
            f"volume). Bring it back, or remove {room} to begin with an empty database, or set CONNECT_DATABASE_URL."
        )
    if not room.exists():
        _make(home, forced or choose(home))
    return room.resolve()


def read(room: Path) -> Server:
    try:
        server = msgspec.json.decode((room / "server.json").read_bytes(), type=Server)
    except PermissionError:
        raise CannotStart(f"{room} belongs to another user. Set CONNECT_HOME to a folder of yours.") from None
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise CannotStart(f"{room} is not what Connect made ({error}). Move it away, or set CONNECT_HOME.") from None
    if server.mode == "direct" and os.geteuid() == 0:
        owner = room.stat().st_uid
        raise CannotStart(
            f"{room} belongs to user {owner} and PostgreSQL does not run as root. Run Connect as {owner}."
        )
    return server


def with_sockets(room: Path, server: Server) -> Server:
    """An empty folder for the socket, closed to others. The same at every start if it can be: pools hold the address.

    Its name comes from the room, not from what server.json says: a copied home has the server.json of the first.
    """
    identity = f"{room} {room.stat().st_ino}".encode(errors="surrogateescape")
    name = f"connect-{hashlib.sha256(identity).hexdigest()[:16]}"
    before = Path(server.sockets)
    if server.mode == "setpriv":
        folder = room / "socket"
    elif before.name.startswith(name) and before.parent.is_dir():
        folder = before
    else:
        folder = _short_temporary_folder(len(name) + 10) / name
    if not _make_private(folder, server.mode):
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent))
    for left in folder.iterdir():
        left.unlink()
    if str(folder) != server.sockets:
        server = msgspec.structs.replace(server, sockets=str(folder))
        _write(room, server)
    return server


def open_log(room: Path) -> BinaryIO:
    """Statements that failed are in it, so it is for its owner alone."""
    path = room / "server.log"
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def _stem(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:16]


def _make(home: Path, mode: Mode) -> None:
    """initdb runs in a folder aside, which then gets its name: killed half-way it leaves litter for the next start.

    The litter may still grow, since initdb outlives us, so every try has a name of its own.
    """
    room = home / "postgres"
    if mode == "setpriv":
        make_state_folder()
        room = STATE_FOLDER / f"{_stem(home)}-{secrets.token_hex(4)}"
    aside = room.with_name(f"{room.name}.new-{secrets.token_hex(4)}")
    aside.mkdir(mode=0o700)
    try:
        _initialise(aside, mode)
        aside.rename(room)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if mode == "setpriv":
        (home / "postgres").symlink_to(room)
    _sync(room.parent)
    _sync(home)


def _initialise(room: Path, mode: Mode) -> None:
    """The unprivileged user gets the data and nothing else of the room: root writes to its files."""
    server = Server(mode=mode, password=secrets.token_hex(32))
    word, data = room / "password", room / "data"
    word.touch(mode=0o600)
    word.write_text(server.password)
    data.mkdir(mode=0o700)
    if mode == "setpriv":
        room.chmod(0o711)
    for path in (data, word):
        give(path, mode)
    command = [*prefix(mode), str(binaries(mode) / "initdb"), *INITDB_OPTIONS, f"--pwfile={word}", "-D", str(data)]
    done = subprocess.run(
        command,
        cwd="/",
        env=ENVIRONMENT,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=INITDB_MAX_S,
        check=False,
    )
    if done.returncode != 0:
        raise CannotStart(f"initdb in {room} failed: {done.stderr.decode(errors='replace').strip()} {INSTEAD}.")
    word.unlink()
    _write(room, server)
    _sync(room)


def _write(room: Path, server: Server) -> None:
    aside = room / "server.json.new"
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600)
    aside.write_bytes(msgspec.json.encode(server))
    _sync(aside)
    aside.replace(room / "server.json")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _short_temporary_folder(name_bytes: int) -> Path:
    folder = tempfile.gettempdir()
    return Path(folder if len(os.fsencode(folder)) + 1 + name_bytes <= SOCKET_FOLDER_BYTES_MAX else "/tmp")  # noqa: S108


def _make_private(folder: Path, mode: Mode) -> bool:
    """False if something of another user, or open to others, already has the name."""
    try:
        folder.mkdir(mode=0o700)
        give(folder, mode)
        return True
    except FileExistsError:
        found = folder.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == user_of(mode) and not found.st_mode & 0o077
