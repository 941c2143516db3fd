"""Long work, done in steps by workers."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

JobKind = Literal["actions"]
JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]


class Job(Struct, kw_only=True, frozen=True):
    """An operation on many rows; `done` of `total` rows are behind it."""

    id: UUID
    kind: JobKind
    status: JobStatus
    done: int
    total: int
    result: dict[str, int] | None = None
    """How many rows were changed and how many were `passed_by` (no longer in a state for it), so far."""
    error: str | None = None
    """Why its last step failed."""
    created_by: str
    created_at: datetime
