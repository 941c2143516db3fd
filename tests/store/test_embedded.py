"""The embedded PostgreSQL, its servers and its owners really killed: one owner, no lost data, no server left over."""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import connect
from connect.store.embedded import AlreadyOwned, CannotStart, EmbeddedPostgres, running_url
from connect.store.embedded.data_dir import lives
from connect.store.embedded.mode import STATE_FOLDER
from tests.conftest import eventually

OWNER = """
import asyncio, signal, sys
from pathlib import Path
from connect.store.embedded import EmbeddedError, EmbeddedPostgres

async def main():
    try:
        embedded = await EmbeddedPostgres.start(Path(sys.argv[1]))
    except EmbeddedError as error:
        return print(type(error).__name__, error, flush=True)
    async with embedded:
        print(embedded.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a shell made of it for a job in the background
asyncio.run(main())
"""
"""Owns the home of its argument until its standard input ends; says the address, or the error."""

BUSY_FOR_3_S = """DO $$ DECLARE began timestamptz := clock_timestamp(); BEGIN
    WHILE clock_timestamp() < began + interval '3 s' LOOP END LOOP; END $$"""
REMEMBER, REMEMBERED = "CREATE TABLE kept AS SELECT 42 AS answer", "SELECT answer FROM kept"
SOURCES = {"PYTHONPATH": f"{Path(connect.__file__).parents[1]}:{sysconfig.get_paths()['purelib']}"}
MEMORY = Path("/dev", "shm")
HOMES = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2**30 else None
"""In memory where there is room: what outlives a killed process is the kernel's, and a shared disk is slow."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


async def value(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(query)
    finally:
        connection.terminate()


async def reachable(url: str) -> bool:
    try:
        return await value(url, "SELECT true")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False


def postmaster(home: Path) -> int:
    return int((home / "postgres/data/postmaster.pid").read_text().split()[0])


def server_json(home: Path) -> dict[str, str]:
    return json.loads((home / "postgres/server.json").read_text())


async def start_and_stop(home: Path) -> None:
    await (await EmbeddedPostgres.start(home)).stop()


async def end_server(home: Path, how: signal.Signals) -> None:
    """Ends a server whose owner is gone."""
    room = (home / "postgres").resolve()
    if lives(room):
        os.kill(postmaster(home), how)
        await eventually(lambda: not lives(room))
        shutil.rmtree(server_json(home)["sockets"])


@contextlib.contextmanager
def owning(home: Path, *before: str, python: str = sys.executable) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns, or begins to own, `home`; killed with SIGKILL at the end if it still runs."""
    command, pipe = [*before, python, "-c", OWNER, str(home)], subprocess.PIPE
    child = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, start_new_session=True, cwd="/", env=os.environ | SOURCES
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


async def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return (await asyncio.to_thread(child.stdout.readline)).strip()


def map_users(namespace_of: int, users: int) -> None:
    for kind in ("uid", "gid"):
        Path(f"/proc/{namespace_of}/{kind}_map").write_text(f"0 0 {users}\n")


def interpreter(*before: str) -> str:
    """A Python of our version which that user may run: ours may lie in a folder of root's."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        command = [*before, python, "-c", "import asyncpg, msgspec, structlog, connect"]
        if subprocess.run(command, cwd="/", env=os.environ | SOURCES, capture_output=True).returncode == 0:
            return python
    pytest.skip(f"no Python 3.{sys.version_info.minor} that {before[1]} may run")


@pytest.fixture
async def new_home() -> AsyncIterator[Callable[..., Path]]:
    """Makes names of homes; whatever still serves them afterwards is ended, and their data removed."""
    homes: list[Path] = []

    def new(name: str = "home", user: int = -1) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="connect-home-", dir=HOMES))
        os.chown(folder, user, user)
        homes.append(folder / name)
        return homes[-1]

    yield new
    for home in homes:
        await end_server(home, signal.SIGQUIT)
        shutil.rmtree((home / "postgres").resolve(), ignore_errors=True)
        shutil.rmtree(next(folder for folder in home.parents if folder.name.startswith("connect-home-")))


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="connect-home-", dir=HOMES) as folder:
        asyncio.run(start_and_stop(Path(folder, "home")))
        yield Path(folder, "home")


@pytest.fixture
def home(new_home: Callable[..., Path], made_once: Path) -> Path:
    """A home that has been used before."""
    return Path(shutil.copytree(made_once, new_home()))


@pytest.fixture
def fresh_home(new_home: Callable[..., Path]) -> Path:
    return new_home()


@pytest.fixture(scope="module")
def state_folder() -> Iterator[None]:
    """The setpriv mode keeps data and binaries in a fixed place; what was not there before goes."""
    before = set(STATE_FOLDER.glob("*"))
    yield
    for path in set(STATE_FOLDER.glob("*")) - before:
        shutil.rmtree(path, ignore_errors=True)


async def test_a_fresh_home_serves_a_durable_utf8_database_in_utc(fresh_home: Path):
    async with await EmbeddedPostgres.start(fresh_home) as embedded:
        names = ("fsync", "full_page_writes", "server_encoding", "TimeZone", "jit", "listen_addresses")
        settings = [await value(embedded.url, f"SHOW {name}") for name in names]
        assert settings == ["on", "on", "UTF8", "UTC", "off", ""]
        assert await value(embedded.url, "SELECT lower('ÄÖ') || max(x) FROM (VALUES ('Z'), ('a')) AS v (x)") == "äöa"


async def test_data_survives_a_stop_and_the_address_stays(home: Path):
    async with await EmbeddedPostgres.start(home) as first:
        await value(first.url, REMEMBER)
        sockets = server_json(home)["sockets"]
    assert not lives(home / "postgres")
    with pytest.raises(FileNotFoundError):
        os.stat(sockets)
    began = time.monotonic()
    async with await EmbeddedPostgres.start(home) as second:
        assert time.monotonic() - began < 2
        assert second.url == first.url
        assert await value(second.url, REMEMBERED) == 42


@pytest.mark.parametrize("server_dies_later", [False, True])
async def test_a_new_owner_takes_over_the_running_server_of_a_killed_one(home: Path, server_dies_later: bool):
    with owning(home) as owner:
        url = await said(owner)
        await value(url, REMEMBER)
        server = postmaster(home)
    assert await value(url, REMEMBERED) == 42
    async with await EmbeddedPostgres.start(home) as embedded:
        assert (embedded.url, postmaster(home)) == (url, server)
        if server_dies_later:
            os.kill(server, signal.SIGKILL)
            await eventually(lambda: reachable(url))
        assert await value(url, REMEMBERED) == 42
    assert not lives(home / "postgres")


async def test_a_stale_pid_file_that_names_a_living_stranger_does_not_matter(home: Path):
    with owning(home) as owner:
        await value(await said(owner), REMEMBER)
    await end_server(home, signal.SIGKILL)
    pid_file = home / "postgres/data/postmaster.pid"
    pid_file.write_text("\n".join([str(os.getppid()), *pid_file.read_text().split("\n")[1:]]))
    async with await EmbeddedPostgres.start(home) as embedded:
        assert await value(embedded.url, REMEMBERED) == 42


async def test_a_killed_server_is_started_again_at_the_same_address(home: Path):
    async with await EmbeddedPostgres.start(home) as embedded:
        await value(embedded.url, REMEMBER)
        for _ in range(2):
            os.kill(server := postmaster(home), signal.SIGKILL)
            await eventually(lambda: not os.path.exists(f"/proc/{server}"))
            await eventually(lambda: reachable(embedded.url))
            assert postmaster(home) != server
            assert await value(embedded.url, REMEMBERED) == 42


async def test_a_backend_that_outlives_its_server_is_waited_for(home: Path):
    """Two servers on the same data would destroy it; PostgreSQL's own pid file no longer guards it here."""
    log = home / "postgres/server.log"
    starts = log.read_text().count("starting PostgreSQL")
    async with await EmbeddedPostgres.start(home) as embedded:
        busy = asyncio.create_task(value(embedded.url, BUSY_FOR_3_S))
        working = "FROM pg_stat_activity WHERE query ~ '^DO' AND now() - query_start BETWEEN '0.2 s' AND '2 s'"
        await eventually(lambda: value(embedded.url, f"SELECT EXISTS (SELECT {working})"))
        os.kill(postmaster(home), signal.SIGKILL)
        await busy
        await eventually(lambda: reachable(embedded.url))
    assert log.read_text().count("starting PostgreSQL") == starts + 2


async def test_a_second_owner_is_told_who_owns_the_home_and_what_to_do(home: Path):
    with owning(home) as owner:
        url = await said(owner)
        assert running_url(home) == url
        with pytest.raises(AlreadyOwned) as refused:
            await EmbeddedPostgres.start(home)
        assert all(part in str(refused.value) for part in (str(home), f"process {owner.pid}", "CONNECT_DATABASE_URL"))
        assert await reachable(url)


async def test_a_lock_that_a_child_holds_for_a_moment_longer_than_its_killed_owner_is_waited_for(home: Path):
    (home / "owner.lock").write_text(f"{2**22 + 1}\n")  # no process: pids end at 2**22
    with (home / "owner.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        starting = asyncio.create_task(start_and_stop(home))
        assert not (await asyncio.wait([starting], timeout=0.3))[0]
    await starting


async def test_a_late_second_stop_leaves_the_next_owner_alone(home: Path):
    first = await EmbeddedPostgres.start(home)
    await first.stop()
    async with await EmbeddedPostgres.start(home) as second:
        await first.stop()
        assert await reachable(second.url)


async def test_a_path_longer_than_a_socket_address_works(new_home: Callable[..., Path]):
    home = new_home("/".join(["a rather 'long' näme with spaces and %20" * 3] * 4))
    async with await EmbeddedPostgres.start(home) as embedded:
        assert await reachable(embedded.url)
        assert running_url(home) == embedded.url
    assert running_url(home) is None


async def test_a_copied_home_and_its_original_do_not_meet(new_home: Callable[..., Path]):
    first, second = new_home(), new_home()
    async with await EmbeddedPostgres.start(first) as original:
        await value(original.url, REMEMBER)
    shutil.copytree(first, second)
    async with await EmbeddedPostgres.start(first) as original:
        assert running_url(second) is None
        async with await EmbeddedPostgres.start(second) as copy:
            await value(copy.url, "UPDATE kept SET answer = 7")
            assert [await value(original.url, REMEMBERED), await value(copy.url, REMEMBERED)] == [42, 7]
        assert await reachable(original.url)


async def test_nobody_gets_in_without_the_password_and_other_users_not_even_to_the_socket(home: Path):
    async with await EmbeddedPostgres.start(home) as embedded:
        password = embedded.url.split(":")[2].split("@")[0]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await value(embedded.url.replace(password, "guess"), "SELECT 1")
        private = (server_json(home)["sockets"], home / "postgres", home / "postgres/server.json")
        assert [stat.S_IMODE(os.stat(path).st_mode) for path in private] == [0o700, 0o700, 0o600]


async def test_ctrl_c_stops_the_server_cleanly_through_its_owner(home: Path):
    with owning(home) as owner:
        await value(await said(owner), REMEMBER)
        os.killpg(owner.pid, signal.SIGINT)
        await eventually(lambda: not lives(home / "postgres"))
    assert (home / "postgres/server.log").read_text().strip().endswith("database system is shut down")


@pytest.mark.parametrize("reached", ["postgres.new-*", "postgres.new-*/data/base/1", "postgres/data/postmaster.pid"])
async def test_a_first_start_killed_at_any_moment_leaves_a_usable_home(fresh_home: Path, reached: str):
    with owning(fresh_home):
        await eventually(lambda: any(fresh_home.glob(reached)), every_s=0.001)
    async with await EmbeddedPostgres.start(fresh_home) as embedded:
        await value(embedded.url, REMEMBER)

    async def no_litter_after_a_start() -> bool:
        async with await EmbeddedPostgres.start(fresh_home) as later:
            return await value(later.url, REMEMBERED) == 42 and not any(
                name.startswith("postgres.new-") for name in os.listdir(fresh_home)
            )

    await eventually(no_litter_after_a_start)  # the orphaned initdb may still write to its folder for a moment


async def test_a_server_that_cannot_start_says_why_at_once(home: Path):
    (home / "postgres/data/global/pg_control").write_bytes(b"")
    with pytest.raises(CannotStart, match=r"pg_control.*CONNECT_DATABASE_URL"):
        await EmbeddedPostgres.start(home)


@as_root
@pytest.mark.parametrize(("user", "mode"), [(1000, "direct"), (43210, "unshare")])
async def test_it_serves_users_that_are_not_root(new_home: Callable[..., Path], user: int, mode: str):
    before = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    home, python = new_home(user=user), interpreter(*before)
    with owning(home, *before, python=python) as owner:
        url = await said(owner)
        if mode == "unshare" and url.startswith("CannotStart"):
            pytest.skip(url)  # ordinary users may not make user namespaces here
        await value(url, REMEMBER)
    with owning(home, *before, python=python) as owner:
        assert await value(await said(owner), REMEMBERED) == 42
        assert os.stat(f"/proc/{postmaster(home)}").st_uid == user
        assert server_json(home)["mode"] == mode
        owner.communicate(timeout=20)
    assert not lives(home / "postgres")
    if mode == "direct":
        with pytest.raises(CannotStart, match="user 1000"):
            await EmbeddedPostgres.start(home)


@as_root
async def test_root_can_run_it_as_an_unprivileged_user(fresh_home: Path, state_folder: None):
    first = await EmbeddedPostgres.start(fresh_home, mode="setpriv")
    await value(first.url, REMEMBER)
    assert (fresh_home / "postgres").readlink().parent == STATE_FOLDER
    assert os.stat(f"/proc/{postmaster(fresh_home)}").st_uid == 65534
    os.kill(postmaster(fresh_home), signal.SIGKILL)
    await eventually(lambda: reachable(first.url))
    await first.stop()
    with owning(fresh_home) as owner:
        assert await said(owner) == first.url
    async with await EmbeddedPostgres.start(fresh_home) as second:
        assert await value(second.url, REMEMBERED) == 42
    assert server_json(fresh_home)["mode"] == "setpriv"


@as_root
async def test_data_kept_outside_the_home_is_neither_shared_nor_silently_begun_anew(
    new_home: Callable[..., Path], state_folder: None
):
    home, copy = new_home(), new_home()
    async with await EmbeddedPostgres.start(home, mode="setpriv") as embedded:
        shutil.copytree(home, copy, symlinks=True)
        with pytest.raises(AlreadyOwned, match=str(STATE_FOLDER)):
            await EmbeddedPostgres.start(copy)
        assert await reachable(embedded.url)
    room = (home / "postgres").resolve()
    aside = room.rename(room.with_name(f"aside-{secrets.token_hex(4)}"))
    with pytest.raises(CannotStart, match="which is gone"):
        await EmbeddedPostgres.start(home)
    aside.rename(room)
    await start_and_stop(home)


@as_root
@pytest.mark.parametrize(("users", "outcome"), [(65536, "postgresql://"), (1, "CannotStart")])
async def test_without_user_namespaces_root_changes_the_user_or_says_what_to_do(
    fresh_home: Path, state_folder: None, users: int, outcome: str
):
    """A root as in a container that forbids namespaces; with one user alone there is no other user to become."""
    forbid = 'read go; exec sh -c "echo 0 > /proc/sys/user/max_user_namespaces; exec \\"\\$@\\"" sh "$@"'
    with owning(fresh_home, "unshare", "--user", "sh", "-c", forbid, "sh") as owner:
        ours = os.readlink("/proc/self/ns/user")
        await eventually(lambda: os.readlink(f"/proc/{owner.pid}/ns/user") != ours)
        map_users(owner.pid, users)
        answer, _ = await asyncio.to_thread(owner.communicate, "\n", 30)
    assert answer.startswith(outcome)
    assert "CONNECT_DATABASE_URL" in answer or server_json(fresh_home)["mode"] == "setpriv"
