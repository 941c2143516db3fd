"""Services that pay."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from connect.model.values import Symbol

TEN_YEARS_S = 315_360_000
"""No patience is longer, so that a moment plus a patience is always a moment."""
LEASE_MARGIN_S = 20.0


class Target(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service that pays: where its commands go and how patiently. Times in seconds (`_s`)."""

    url: str
    """The scheme picks the transport."""
    secret: tuple[str, ...] = ()
    """`whsec_` + base64; several while one is rotated out: each signs."""
    internal: bool = False
    """Private and loopback addresses are allowed."""
    max_inflight: Annotated[int, Meta(ge=1, le=10_000)] = 20
    rate: Annotated[float, Meta(gt=0)] | None = None
    connect_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 2
    timeout_s: Annotated[float, Meta(gt=0, le=600)] = 10
    backoff_base_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 5
    backoff_cap_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 3600
    give_up_after_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 259_200
    attempts_max: Annotated[int, Meta(ge=1)] | None = None
    result_deadline_s: Annotated[float, Meta(gt=0, le=TEN_YEARS_S)] = 86_400
    complete_on: Literal["answer", "accepted", "result"] | None = None
    """Says what completes a command: over HTTP the target's `answer`; over a broker that it has the command
    (`accepted`), or only the target's `result`. Unset: `answer`; over a broker `result` where `results_url` is set,
    else `accepted`."""
    results_url: str | None = None
    """A queue, stream or subject that the target's results come back on."""
    order_by: Literal["user"] | None = None
    """`user`: one command of a user at a time, in the order they were given."""
    batch: Annotated[int, Meta(ge=1, le=100)] = 1
    """Commands in one POST; above 1 they come as `{"commands": [...]}`, and each is answered on its own."""
    undo: dict[Symbol, Symbol] = {}
    """The command that takes a command back: `{ credit = "debit" }`."""
    lease_margin_s: Annotated[float, Meta(gt=0, le=600)] = LEASE_MARGIN_S
    """Another than this is taken under CONNECT_ENV=test only, where a lease has to end while one watches."""

    @property
    def lease_s(self) -> float:
        """How long a claim lasts: longer than a sending can take, so that only a dead or paused sender outlives it."""
        return self.timeout_s + self.lease_margin_s

    def __repr__(self) -> str:
        return f"Target(url={self.url.split('?')[0].rpartition('@')[2]!r}, internal={self.internal})"
