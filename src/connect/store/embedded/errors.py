"""Why the embedded PostgreSQL is not to be had."""

from connect.errors import ConnectError

INSTEAD = "Set CONNECT_DATABASE_URL to a PostgreSQL of yours"


class EmbeddedError(ConnectError):
    code, status, title = "embedded_postgres", 503, "The embedded PostgreSQL is not to be had"


class AlreadyOwned(EmbeddedError):
    code, title = "embedded_postgres_owned", "Another process owns this home"


class CannotStart(EmbeddedError):
    code, title = "embedded_postgres_start", "The embedded PostgreSQL does not start"
