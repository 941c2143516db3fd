"""Keyset pagination, newest first, over (moment, id): stable while rows are added, and equally fast at any depth."""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from msgspec import Struct

from connect.errors import BadRequest, Located
from connect.store.pool import Connection

T = TypeVar("T")

LIMIT_MAX = 500
LIMIT_DEFAULT = 50


class Page(Struct, Generic[T], frozen=True):
    """A slice of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None


def _encode_cursor(moment: datetime, row_id: UUID) -> str:
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{row_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    """Raises `BadRequest` on anything that `next_cursor` did not say."""
    try:
        moment, _, row_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition("|")
        return datetime.fromisoformat(moment).astimezone(UTC), UUID(row_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise BadRequest(
            "the cursor is not one this server gave: send `next_cursor` of the previous page unchanged",
            errors=[Located("#/cursor", "not a cursor")],
        ) from error


async def page(
    connection: Connection,
    table: str,
    columns: str,
    convert: Callable[[Any], T],
    condition: str,
    values: list[Any],
    *,
    order_by: str,
    limit: int,
    cursor: str | None,
) -> Page[T]:
    """`table`, `columns`, `order_by` and `condition` come from code, never from a caller; `values` are parameters."""
    if cursor:
        values = [*values, *decode_cursor(cursor)]
        condition += f" AND ({order_by}, id) < (${len(values) - 1}, ${len(values)})"
    rows = await connection.fetch(
        f"SELECT {columns} FROM {table} WHERE {condition} ORDER BY {order_by} DESC, id DESC LIMIT {limit + 1:d}",
        *values,
    )
    more = len(rows) > limit
    last = rows[limit - 1] if more else None
    return Page([convert(row) for row in rows[:limit]], _encode_cursor(last[order_by], last["id"]) if last else None)
