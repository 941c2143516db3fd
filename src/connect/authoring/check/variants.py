"""Experiments inside rules: arms, what expressions read of them, and seeds that two rules share."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from connect.authoring.check.findings import Findings
from connect.authoring.positions import child
from connect.engine.variants import compile_variants
from connect.model import RewardRule, Variants

_NOT_A_VALUE: Final = frozenset({"weight"})
_SHARES: Final = "the weights of the arms and the holdout are percentages of users"


def arms_of(variants: Variants | None) -> Mapping[str, frozenset[str]] | None:
    """Arm -> the names that expressions read as `variant.<name>`."""
    if variants is None:
        return None
    return {name: frozenset(arm) - _NOT_A_VALUE for name, arm in variants.arms.items()}


def check_variants(findings: Findings, variants: Variants | None, pointer: str) -> None:
    """Each part is tried out beside parts that are right, so that all faults are told; then the whole, for its sum."""
    if variants is None:
        return
    before = len(findings.problems)
    whole: dict[str, Any] = {"arm": {"weight": 100}}
    for name, arm in variants.arms.items():
        weight = _number(arm.get("weight"))
        rest = 100 - weight if isinstance(weight, Decimal) and 0 <= weight <= 100 else 0
        alone = replace(variants, arms={name: arm}, holdout=str(rest), coverage=100, namespace=None)
        _try(findings, alone, child(f"{pointer}/arms", name))
    alone = replace(variants, arms=whole, holdout=0, coverage=100, namespace=None)
    _try(findings, replace(alone, coverage=variants.coverage), f"{pointer}/coverage")
    _try(findings, replace(alone, namespace=variants.namespace), f"{pointer}/namespace")
    holdout = _number(variants.holdout)
    if not isinstance(holdout, Decimal) or not 0 <= holdout < 100:
        _try(findings, replace(alone, holdout=variants.holdout), f"{pointer}/holdout")
    if len(findings.problems) == before:
        _try(findings, variants, f"{pointer}/arms")


def _try(findings: Findings, variants: Variants, pointer: str) -> None:
    try:
        compile_variants(variants)
    except ValueError as error:
        said, _, hint = str(error).rpartition(": ")
        findings.error(pointer, said or hint, hint if said else _SHARES)


def check_seeds(findings: Findings, rules: Iterable[tuple[str, RewardRule]]) -> None:
    """A seed is one experiment: whoever shares it divides the same users into the same arms."""
    first_with: dict[str, RewardRule] = {}
    for pointer, rule in rules:
        if rule.variants is None:
            continue
        first = first_with.setdefault(rule.variants.seed, rule)
        if first.variants is not None and _division(first.variants) != _division(rule.variants):
            findings.error(
                f"{pointer}/variants/seed",
                f"the rule {first.key} divides the users of the seed {rule.variants.seed} in another way",
                "give both the same arms, weights, `by`, holdout, coverage and namespace, or this one its own seed",
            )


def _division(variants: Variants) -> object:
    space = variants.namespace
    return (
        variants.by,
        {name: _number(arm.get("weight")) for name, arm in variants.arms.items()},
        _number(variants.holdout),
        _number(variants.coverage),
        space and (space.name, _number(space.start), _number(space.end)),
    )


def _number(value: object) -> object:
    try:
        return Decimal(str(value))
    except ArithmeticError:
        return value
