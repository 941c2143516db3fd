"""Variants: which arm of an experiment a user has, by GrowthBook's hash, so that a client with its SDK agrees.

An arm is a function of the seed and the user's id alone. Nothing is stored to keep it: it stays as long as seed and
weights stay, and raising the coverage moves nobody who is in already.

The algorithm is "Build your own SDK" of GrowthBook's docs (docs.growthbook.io/lib/build-your-own: hash, inNamespace,
getBucketRanges, chooseVariation), read beside its SDKs (growthbook/growthbook, packages/sdk-js/src/util.ts, and
growthbook/growthbook-python, growthbook/core.py). Shares are floats, added up as the SDKs add them: the edges of
the ranges fall where theirs do, to the bit.

What a GrowthBook client must be given for the same experiment:
- `hashVersion` 2, the same `seed`, the party's id as the hash attribute, weights and coverage as fractions of 1;
- the variations in our order: `holdout` first when there is one, then the arms by name. A ruleset is stored as jsonb,
  which keeps no order, so the order in the document means nothing;
- at least two variations: its SDKs run no experiment with one, here a single arm takes everybody.

It hashes 10,000 buckets (namespaces: 1,000): a weight is given to a hundredth of a percent at best, a namespace to a
tenth.
"""

from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Literal, cast

from msgspec import Struct

from connect.engine.amounts import AMOUNT_PATTERN, CONTEXT, format_amount
from connect.engine.expression.names import nearest
from connect.model import Namespace, Variants

HOLDOUT: Final = "holdout"

_BASIS: Final = 0x811C9DC5
_PRIME: Final = 0x01000193
_MASK: Final = 0xFFFFFFFF
_BUCKETS: Final = 10_000
_BUCKETS_V1: Final = 1_000
_WHOLE: Final = Decimal(100)


class Assignment(Struct, frozen=True):
    """The arm of one user. Shared by all users of the arm, so its values are not to be changed."""

    arm: str
    """An arm's name, or `holdout`."""
    propensity: float
    """The chance of this arm among all users, those outside coverage and namespace included: above 0, at most 1."""
    values: dict[str, Any]
    """The values that expressions read as `variant.<name>`; empty for the holdout."""


class CompiledNamespace(Struct, frozen=True):
    salt: bytes
    start: float
    end: float


class CompiledVariants(Struct, frozen=True):
    """An experiment ready to assign: `variations[n]` takes the buckets in [starts[n], ends[n])."""

    variations: tuple[Assignment, ...]
    starts: tuple[float, ...]
    ends: tuple[float, ...]
    seeded: int
    """The hash after the seed, where the hash of each user goes on."""
    namespace: CompiledNamespace | None


def fnv1a32(text: str) -> int:
    """FNV-1a of 32 bits over UTF-8 (RFC 9923).

    GrowthBook's SDKs agree with each other, and with this, for ASCII only: beyond it those in Elixir and Rust hash
    UTF-8 too, that in JavaScript UTF-16 code units and that in Python code points.
    """
    return _fnv1a32(text.encode(), _BASIS)


def _fnv1a32(data: bytes, state: int) -> int:
    for byte in data:
        state = (state ^ byte) * _PRIME & _MASK
    return state


def bucket(seed: str, value: str, version: Literal[1, 2] = 2) -> float:
    """Where a value stands in [0, 1): GrowthBook's `hash(seed, value, version)`.

    Version 1 is biased between experiments that run at once (their words); it is here because namespaces still use it.
    """
    if version == 2:
        return fnv1a32(str(fnv1a32(seed + value))) % _BUCKETS / _BUCKETS
    return fnv1a32(value + seed) % _BUCKETS_V1 / _BUCKETS_V1


def in_namespace(user_id: str, namespace: Namespace) -> bool:
    """Whether the user is in this share of the namespace: GrowthBook's `inNamespace`, for percentages.

    Raises ValueError for a range that is none.
    """
    return _within(user_id.encode(), _compiled_namespace(namespace))


def _within(user: bytes, namespace: CompiledNamespace) -> bool:
    place = _fnv1a32(user + namespace.salt, _BASIS) % _BUCKETS_V1 / _BUCKETS_V1
    return namespace.start <= place < namespace.end


def bucket_ranges(weights: Sequence[float], coverage: float) -> list[tuple[float, float]]:
    """The buckets of each variation: GrowthBook's `getBucketRanges`, for weights that sum to 1 and a coverage up to 1.

    Lower coverage cuts the end of each range and moves no start, so nobody changes arms when it grows.
    """
    ranges: list[tuple[float, float]] = []
    start = 0.0
    for weight in weights:
        ranges.append((start, start + coverage * weight))
        start += weight
    return ranges


def choose_variation(place: float, starts: Sequence[float], ends: Sequence[float]) -> int | None:
    """The number of the range that holds a bucket, or None: GrowthBook's `chooseVariation`.

    `starts` ascend from 0; the first of several ranges that match is the last to start, since only empty ones overlap.
    """
    last = bisect_right(starts, place) - 1
    return last if place < ends[last] else None


def assign(compiled: CompiledVariants, user_id: str, pinned: str | None = None) -> Assignment | None:
    """The user's arm; None when the user is not in the experiment, for coverage or namespace.

    `pinned` names the arm to take (or `holdout`) whatever the hash says, as tests do; ValueError for an unknown one.
    """
    if pinned is not None:
        return _pinned(compiled, pinned)
    user = user_id.encode()
    if compiled.namespace is not None and not _within(user, compiled.namespace):
        return None
    inner = _fnv1a32(user, compiled.seeded)
    place = _fnv1a32(b"%d" % inner, _BASIS) % _BUCKETS / _BUCKETS
    chosen = choose_variation(place, compiled.starts, compiled.ends)
    return None if chosen is None else compiled.variations[chosen]


def _pinned(compiled: CompiledVariants, arm: str) -> Assignment:
    for variation in compiled.variations:
        if variation.arm == arm:
            return variation
    known = [variation.arm for variation in compiled.variations]
    raise ValueError(f"there is no arm {arm}: {nearest(arm, known) or 'it is one of ' + ', '.join(known)}")


def compile_variants(variants: Variants) -> CompiledVariants:
    """Ranges, values and propensities of an experiment. Raises ValueError, in words, for what cannot be one."""
    weights = _weights(variants)
    coverage = _percentage(variants.coverage, "coverage")
    if not coverage:
        raise ValueError("coverage is 0, so nobody takes part: write the percentage of users that do")
    namespace, share = None, _WHOLE
    if variants.namespace is not None:
        namespace = _compiled_namespace(variants.namespace)
        start, end = _namespace_range(variants.namespace)
        share = end - start
    reached = CONTEXT.multiply(_fraction(coverage), _fraction(share))  # of all users: 21 digits by 21
    ranges = bucket_ranges([float(_fraction(weight)) for weight in weights.values()], float(_fraction(coverage)))
    return CompiledVariants(
        variations=tuple(
            Assignment(
                arm=arm,
                propensity=float(CONTEXT.multiply(_fraction(weight), reached)),
                values={} if arm == HOLDOUT else _values(arm, variants.arms[arm]),
            )
            for arm, weight in weights.items()
        ),
        starts=tuple(start for start, _ in ranges),
        ends=tuple(end for _, end in ranges),
        seeded=fnv1a32(variants.seed),
        namespace=namespace,
    )


def _weights(variants: Variants) -> dict[str, Decimal]:
    """The percentages of all variations in their order. They sum to 100 exactly: no share of users is left over."""
    if HOLDOUT in variants.arms:
        raise ValueError("an arm cannot be called holdout: write `holdout: 10` beside the arms")
    weights: dict[str, Decimal] = {}
    if holdout := _percentage(variants.holdout, "holdout"):
        weights[HOLDOUT] = holdout
    for arm, values in sorted(variants.arms.items()):
        if "weight" not in values:
            raise ValueError(f"arm {arm} has no weight: write the percentage of users it takes")
        weights[arm] = _percentage(values["weight"], f"the weight of arm {arm}")
        if not weights[arm]:
            raise ValueError(f"the weight of arm {arm} is 0: remove the arm, or give it users")
    total = Decimal(0)
    for weight in weights.values():
        total = CONTEXT.add(total, weight)
    if total != _WHOLE:
        raise ValueError(f"the weights and holdout sum to {format_amount(total)}, they must sum to 100")
    return weights


def _compiled_namespace(namespace: Namespace) -> CompiledNamespace:
    start, end = _namespace_range(namespace)
    return CompiledNamespace(f"__{namespace.name}".encode(), float(_fraction(start)), float(_fraction(end)))


def _namespace_range(namespace: Namespace) -> tuple[Decimal, Decimal]:
    start = _percentage(namespace.start, f"`from` of namespace {namespace.name}")
    end = _percentage(namespace.end, f"`to` of namespace {namespace.name}")
    if start >= end:
        shown = f"from {format_amount(start)} to {format_amount(end)}"
        raise ValueError(f"namespace {namespace.name} goes {shown}, which holds nobody: `from` is below `to`")
    return start, end


def _percentage(value: object, what: str) -> Decimal:
    written = type(value) is int or (isinstance(value, str) and AMOUNT_PATTERN.fullmatch(value) is not None)
    if not written or not 0 <= (percentage := Decimal(cast("int | str", value))) <= _WHOLE:
        raise ValueError(f'{what} is {value!r:.60}: write a percentage from 0 to 100, such as 45 or "12.5"')
    return percentage


def _fraction(percentage: Decimal) -> Decimal:
    return percentage.scaleb(-2, CONTEXT)


def _values(arm: str, given: dict[str, Any]) -> dict[str, Any]:
    if "name" in given:
        raise ValueError(f"arm {arm} has a value called name, which is the arm's own name: call it something else")
    values = {key: _exact(value) for key, value in given.items() if key != "weight"}
    return {"name": arm, **values}


def _exact(value: Any) -> Any:
    """The number a text writes: YAML and JSON keep decimals as text, so that none passes through a float."""
    if not isinstance(value, str) or AMOUNT_PATTERN.fullmatch(value.removeprefix("-")) is None:
        return value
    number = Decimal(value)
    return int(number) if number == int(number) else number
