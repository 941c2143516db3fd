"""Connect's own PostgreSQL: started from the binaries of a wheel, owned by one process, kept in CONNECT_HOME.

What lies in a home, and what a crash leaves of it:

    <home>/owner.lock          flock'ed by the owner; the kernel lets go of it however the owner dies
    <home>/postgres/           the room of the server; under setpriv a link to /var/lib/connect/<hash>
        data/                  PostgreSQL's own; made aside and renamed with its room, so it is whole or absent
        server.json            how the server is started and reached (mode, password, socket folder); 0600
        server.lock            flock'ed by the server: the descriptor is inherited by postmaster and backends, so it
                               is held exactly as long as one of them lives. Pids and postmaster.pid are not asked:
                               after a crash they name a dead process, or in a container a stranger
        server.log             what PostgreSQL says

The server listens on a UNIX socket alone, in a folder that only its user may enter, and asks for a password. An owner
killed with SIGKILL leaves the server running; the next owner uses it as it is.
"""

from connect.store.embedded.errors import AlreadyOwned, CannotStart, EmbeddedError
from connect.store.embedded.mode import Mode
from connect.store.embedded.owner import EmbeddedPostgres, running_url

__all__ = ["AlreadyOwned", "CannotStart", "EmbeddedError", "EmbeddedPostgres", "Mode", "running_url"]
