"""Arms of experiments: the hash against published vectors, the shares against the weights, and the laws of staying.

Vectors marked "GrowthBook" are of the cases that all its SDKs test with: growthbook/growthbook,
packages/sdk-js/test/cases.json, sections hash, getBucketRange, chooseVariation, inNamespace and run.
"""

from collections import Counter
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect.engine.variants import (
    CompiledVariants,
    assign,
    bucket,
    bucket_ranges,
    choose_variation,
    compile_variants,
    fnv1a32,
    in_namespace,
)
from connect.model import Namespace, Variants

USERS = 200_000


def experiment(seed: str = "autumn", **changes: Any) -> Variants:
    arms = {"five": {"weight": 45, "rate": "0.05"}, "eight": {"weight": 45, "rate": "0.08"}}
    given = {"by": "actor", "seed": seed, "holdout": 10, "arms": arms, **changes}
    return Variants(**given)


def arm_of(compiled: CompiledVariants, user_id: str) -> str | None:
    assignment = assign(compiled, user_id)
    return None if assignment is None else assignment.arm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0x811C9DC5),
        ("a", 0xE40C292C),  # (0x811c9dc5 xor 0x61) * 0x01000193 mod 2^32
        ("b", 0xE70C2DE5),
        ("foobar", 0xBF9CF968),
        ("\u00e9", 0x1E9DE8C1),  # the bytes c3 a9, by another implementation
        ("\U0001f600", 0x33A29608),  # the bytes f0 9f 98 80, likewise
    ],
)
def test_the_hash_is_fnv_1a_over_utf_8(text: str, expected: int) -> None:
    assert fnv1a32(text) == expected


@pytest.mark.parametrize(
    ("seed", "value", "version", "expected"),
    [
        # GrowthBook
        ("", "a", 1, 0.22),
        ("", "b", 1, 0.077),
        ("b", "a", 1, 0.946),
        ("ef", "d", 1, 0.652),
        ("asdf", "8952klfjas09ujk", 1, 0.549),
        ("", "123", 1, 0.011),
        ("", '___)((*":&', 1, 0.563),
        ("seed", "a", 2, 0.0505),
        ("seed", "b", 2, 0.2696),
        ("foo", "ab", 2, 0.2575),
        ("foo", "def", 2, 0.2019),
        ("89123klj", "8952klfjas09ujkasdf", 2, 0.124),
        ("90850943850283058242805", "123", 2, 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 2, 0.0128),
        # Worked out: "su1" goes through f60c4582 (s), 4c5223d5 (u) to 094e7fec (1), in decimal 156139500; its digits go
        # through 340ca71c 18eb258b f72c6887 d0e8d682 8f89f8a3 90325a6e 5a443d41 8a6cb8e3 to bc26f429 = 3156669481,
        # whose last four digits are 9481.
        ("s", "u1", 2, 0.9481),
    ],
)
def test_a_bucket_is_growthbooks(seed: str, value: str, version, expected: float) -> None:
    assert bucket(seed, value, version) == expected


@pytest.mark.parametrize(
    ("weights", "coverage", "expected"),
    [
        # GrowthBook
        ([0.5, 0.5], 1, [(0, 0.5), (0.5, 1)]),
        ([0.5, 0.5], 0.5, [(0, 0.25), (0.5, 0.75)]),
        ([0.25] * 4, 1, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
        ([0.4, 0.6], 1, [(0, 0.4), (0.4, 1)]),
        ([0.2, 0.3, 0.5], 1, [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
        ([0.2, 0.3, 0.5], 0.2, [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
        ([0.4, 0.6], 0.5, [(0, 0.2), (0.4, 0.7)]),  # of the docs
    ],
)
def test_bucket_ranges_are_growthbooks(weights, coverage: float, expected) -> None:
    assert [pytest.approx(pair) for pair in bucket_ranges(weights, coverage)] == expected


def test_edges_of_ranges_fall_where_a_sum_of_floats_puts_them() -> None:
    compiled = compile_variants(experiment(holdout=0, arms={name: {"weight": 10} for name in "abcdefghij"}))
    assert compiled.starts[3] == 0.1 + 0.1 + 0.1 != 0.3  # so bucket 0.3 belongs to the third, as with every SDK
    assert choose_variation(0.3, compiled.starts, compiled.ends) == 2


HALVES = [(0, 0.5), (0.5, 1)]
QUARTERS = [(0, 0.25), (0.5, 0.75)]


@pytest.mark.parametrize(
    ("place", "ranges", "expected"),
    [
        # GrowthBook, which says -1 for None
        *[(place, HALVES, chosen) for place, chosen in [(0, 0), (0.2, 0), (0.4, 0), (0.5, 1), (0.6, 1), (0.8, 1)]],
        *[(place, QUARTERS, chosen) for place, chosen in [(0.2, 0), (0.25, None), (0.4, None), (0.5, 1), (0.6, 1)]],
        (0.8, QUARTERS, None),
        (0.5, [(0, 0.5), (0.5, 0.5), (0.5, 1)], 2),
    ],
)
def test_a_variation_is_chosen_as_growthbook_does(place: float, ranges, expected: int | None) -> None:
    assert choose_variation(place, *zip(*ranges, strict=True)) == expected


@pytest.mark.parametrize(
    ("user_id", "name", "upper_part"),
    [  # GrowthBook: each user is in [0, 0.4) or in [0.4, 1)
        ("1", "namespace1", True),
        ("1", "namespace2", True),
        ("2", "namespace1", True),
        ("2", "namespace2", True),
        ("3", "namespace1", True),
        ("3", "namespace2", False),
        ("4", "namespace1", True),
        ("4", "namespace2", False),
    ],
)
def test_a_namespace_holds_whom_growthbooks_holds(user_id: str, name: str, upper_part: bool) -> None:
    assert in_namespace(user_id, Namespace(name=name, start=40, end=100)) is upper_part
    assert in_namespace(user_id, Namespace(name=name, start=0, end=40)) is not upper_part


def test_growthbooks_experiment_with_seed_weights_and_coverage_gives_the_same_variation() -> None:
    arms = {"a": {"weight": 50}, "b": {"weight": 50}}  # its case "Uses seed with weights/coverage" gives the second
    assert arm_of(compile_variants(experiment("foo", holdout=0, arms=arms, coverage=99)), "1") == "b"


def test_arms_worked_out_from_the_documented_algorithm() -> None:
    # Order: holdout 10, eight 45, five 45. With coverage 60 the ranges are [0, 0.06), [0.1, 0.37) and [0.55, 0.82).
    compiled = compile_variants(experiment("seed", coverage=60))
    assert arm_of(compiled, "a") == "holdout"  # GrowthBook's vector: bucket 0.0505
    assert arm_of(compiled, "b") == "eight"  # 0.2696
    assert arm_of(compile_variants(experiment("s", coverage=60)), "u1") is None  # 0.9481, as worked out above
    assert arm_of(compile_variants(experiment("s")), "u1") == "five"


def test_the_order_of_a_document_means_nothing() -> None:
    arms = experiment().arms
    swapped = dict(reversed(arms.items()))
    compiled = compile_variants(experiment(arms=swapped))
    assert compiled == compile_variants(experiment(arms=arms))
    assert [variation.arm for variation in compiled.variations] == ["holdout", "eight", "five"]


def test_an_arms_values_are_exact_numbers_and_everything_else_as_written() -> None:
    written = {
        "rate": "0.05",
        "cap": "500",
        "round": "5.0",
        "less": "-1.5",
        "code": "007",
        "tiers": ["0.1"],
        "on": True,
    }
    assignment = assign(compile_variants(experiment(holdout=0, arms={"five": {"weight": 100, **written}})), "u1")
    assert assignment is not None
    exact = {"rate": Decimal("0.05"), "cap": 500, "round": 5, "less": Decimal("-1.5")}
    assert assignment.values == {"name": "five", **written, **exact}
    assert [type(assignment.values[key]) for key in exact] == [Decimal, int, int, Decimal]


def test_a_holdout_user_has_no_values() -> None:
    assignment = assign(compile_variants(experiment()), "whoever", pinned="holdout")
    assert assignment is not None
    assert (assignment.arm, assignment.values, assignment.propensity) == ("holdout", {}, 0.1)


def test_propensity_is_the_chance_among_all_users() -> None:
    third = Namespace(name="checkout", start="12.5", end="62.5")
    compiled = compile_variants(experiment(coverage="33.3", namespace=third))
    chances = {variation.arm: variation.propensity for variation in compiled.variations}
    assert chances == {"holdout": 0.01665, "eight": 0.074925, "five": 0.074925}  # weight * 0.333 * 0.5
    met = Counter(arm_of(compiled, f"user{number}") for number in range(20_000))
    for arm, chance in chances.items():
        assert met[arm] / 20_000 == pytest.approx(chance, abs=0.005)  # a standard deviation is 0.0019 at most


@pytest.mark.parametrize("arm", ["five", "eight", "holdout"])
def test_a_pinned_arm_is_taken_whatever_the_hash_says(arm: str) -> None:
    nobody = compile_variants(experiment(coverage="0.0001", namespace=Namespace(name="n", start=0, end="0.001")))
    assert arm_of(nobody, "u1") is None
    assignment = assign(nobody, "u1", pinned=arm)
    assert assignment is not None
    assert assignment.arm == arm


@pytest.mark.parametrize(
    ("holdout", "pinned", "expected"),
    [
        (10, "fife", "there is no arm fife: did you mean five?"),
        (10, "control", "there is no arm control: it is one of holdout, eight, five"),
        (0, "holdout", "there is no arm holdout: it is one of eight, five"),
    ],
)
def test_an_unknown_arm_cannot_be_pinned(holdout: int, pinned: str, expected: str) -> None:
    weights = {"eight": {"weight": 45}, "five": {"weight": 55 - holdout}}
    with pytest.raises(ValueError, match=f"^{expected.replace('?', '[?]')}$"):
        assign(compile_variants(experiment(holdout=holdout, arms=weights)), "u1", pinned=pinned)


def one_arm(**values: Any) -> dict[str, Any]:
    return {"holdout": 0, "arms": {"five": values}}


PERCENTAGE = 'write a percentage from 0 to 100, such as 45 or "12.5"'


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (one_arm(), "arm five has no weight: write the percentage of users it takes"),
        (one_arm(weight=100.0), f"the weight of arm five is 100.0: {PERCENTAGE}"),
        (one_arm(weight=True), f"the weight of arm five is True: {PERCENTAGE}"),
        (one_arm(weight=-1), f"the weight of arm five is -1: {PERCENTAGE}"),
        (one_arm(weight="1e2"), f"the weight of arm five is '1e2': {PERCENTAGE}"),
        (one_arm(weight="50 %"), f"the weight of arm five is '50 %': {PERCENTAGE}"),
        (one_arm(weight="100.1"), f"the weight of arm five is '100.1': {PERCENTAGE}"),
        (one_arm(weight=0), "the weight of arm five is 0: remove the arm, or give it users"),
        (one_arm(weight="0.0"), "the weight of arm five is 0: remove the arm, or give it users"),
        (one_arm(weight="99.99"), "the weights and holdout sum to 99.99, they must sum to 100"),
        ({"holdout": "10.01"}, "the weights and holdout sum to 100.01, they must sum to 100"),
        (
            {"holdout": "10.000000000000000001"},
            "the weights and holdout sum to 100.000000000000000001, they must sum to 100",
        ),
        ({"holdout": "ten"}, f"holdout is 'ten': {PERCENTAGE}"),
        ({"holdout": -10}, f"holdout is -10: {PERCENTAGE}"),
        ({"coverage": 0}, "coverage is 0, so nobody takes part: write the percentage of users that do"),
        ({"coverage": 101}, f"coverage is 101: {PERCENTAGE}"),
        ({"coverage": "half"}, f"coverage is 'half': {PERCENTAGE}"),
        ({"namespace": Namespace(name="n", start=-1, end=50)}, f"`from` of namespace n is -1: {PERCENTAGE}"),
        ({"namespace": Namespace(name="n", start=0, end="100.5")}, f"`to` of namespace n is '100.5': {PERCENTAGE}"),
        (
            {"namespace": Namespace(name="n", start=50, end="50.0")},
            "namespace n goes from 50 to 50, which holds nobody: `from` is below `to`",
        ),
        (
            {"namespace": Namespace(name="n", start=60, end=40)},
            "namespace n goes from 60 to 40, which holds nobody: `from` is below `to`",
        ),
        (
            {"holdout": 0, "arms": {"holdout": {"weight": 100}}},
            "an arm cannot be called holdout: write `holdout: 10` beside the arms",
        ),
        (
            one_arm(weight=100, name="5 %"),
            "arm five has a value called name, which is the arm's own name: call it something else",
        ),
    ],
)
def test_what_cannot_be_an_experiment_is_refused_in_words(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole sentence is compared below
        compile_variants(experiment(**changes))
    assert str(refused.value) == expected


def test_weights_that_floats_cannot_add_up_sum_to_100_exactly() -> None:
    arms = {f"a{number}": {"weight": "0.1"} for number in range(10)}
    compiled = compile_variants(experiment(holdout=99, arms=arms))
    assert sum(variation.propensity for variation in compiled.variations) == pytest.approx(1)


# Independence and shares: one pass over many users for both.

CRITICAL_4 = 18.467
"""Chi-square of 4 degrees of freedom, exceeded by chance once in a thousand."""


def chi_square_of_independence(table: Counter[Any]) -> float:
    rows, columns = Counter[Any](), Counter[Any]()
    for (row, column), met in table.items():
        rows[row] += met
        columns[column] += met
    expected = {(row, column): rows[row] * columns[column] / table.total() for row, column in product(rows, columns)}
    return sum((table[cell] - due) ** 2 / due for cell, due in expected.items())


@pytest.fixture(scope="module")
def both_arms() -> Counter[Any]:
    """How many users have each pair of arms in two experiments."""
    autumn, winter = compile_variants(experiment("autumn-1")), compile_variants(experiment("autumn-2"))
    users = (f"user{number}" for number in range(USERS))
    return Counter((arm_of(autumn, user), arm_of(winter, user)) for user in users)


def test_experiments_with_different_seeds_are_independent(both_arms: Counter[Any]) -> None:
    assert chi_square_of_independence(both_arms) < CRITICAL_4


def test_the_measure_of_independence_sees_the_bias_of_the_first_hash() -> None:
    compiled = compile_variants(experiment())
    places = ((bucket("autumn-1", f"user{n}", 1), bucket("autumn-2", f"user{n}", 1)) for n in range(USERS // 10))
    pairs = Counter(tuple(choose_variation(p, compiled.starts, compiled.ends) for p in pair) for pair in places)
    assert chi_square_of_independence(pairs) > 10 * CRITICAL_4


@pytest.mark.parametrize(("arm", "share"), [("holdout", 0.1), ("eight", 0.45), ("five", 0.45)])
def test_arms_get_the_share_of_users_their_weight_says(both_arms: Counter[Any], arm: str, share: float) -> None:
    deviation = (share * (1 - share) / USERS) ** 0.5
    for side in (0, 1):
        met = sum(count for pair, count in both_arms.items() if pair[side] == arm)
        assert abs(met / USERS - share) < 4 * deviation


# Laws


@st.composite
def experiments(draw: st.DrawFn) -> Variants:
    cuts = sorted(draw(st.sets(st.integers(1, 9_999), max_size=5)))
    weights = [str(Decimal(high - low) / 100) for low, high in zip([0, *cuts], [*cuts, 10_000], strict=True)]
    arms = {f"arm{number}": {"weight": weight, "number": number} for number, weight in enumerate(weights)}
    holdout = arms.pop("arm0")["weight"] if len(arms) > 1 and draw(st.booleans()) else 0
    edges = draw(st.none() | st.sets(st.integers(0, 100), min_size=2, max_size=2))
    namespace = None if edges is None else Namespace(name="shared", start=min(edges), end=max(edges))
    seed = draw(st.text(min_size=1, max_size=8))
    return experiment(seed, holdout=holdout, arms=arms, coverage=draw(st.integers(1, 100)), namespace=namespace)


IDS = st.text(min_size=1, max_size=40)


@given(experiments(), IDS)
def test_a_user_has_the_same_arm_every_time_and_its_values(variants: Variants, user_id: str) -> None:
    assignment = assign(compile_variants(variants), user_id)
    assert assignment == assign(compile_variants(variants), user_id)
    if assignment is not None and assignment.arm != "holdout":
        number = variants.arms[assignment.arm]["number"]
        assert assignment.values == {"name": assignment.arm, "number": number}
        assert 0 < assignment.propensity <= 1


@given(experiments(), IDS)
def test_assigning_is_the_documented_steps_one_after_the_other(variants: Variants, user_id: str) -> None:
    compiled = compile_variants(variants)
    place = bucket(variants.seed, user_id)
    ranges = zip(compiled.starts, compiled.ends, compiled.variations, strict=True)
    matching = [variation for start, end, variation in ranges if start <= place < end]
    inside = variants.namespace is None or in_namespace(user_id, variants.namespace)
    assert assign(compiled, user_id) == (matching[0] if matching and inside else None)


@given(experiments(), IDS, st.integers(1, 100))
def test_more_coverage_brings_users_in_and_moves_nobody(variants: Variants, user_id: str, more: int) -> None:
    before = arm_of(compile_variants(variants), user_id)
    wider = experiment(
        variants.seed,
        holdout=variants.holdout,
        arms=variants.arms,
        coverage=max(more, int(variants.coverage)),
        namespace=variants.namespace,
    )
    assert before is None or arm_of(compile_variants(wider), user_id) == before


@given(IDS, st.integers(1, 999))
def test_namespaces_that_meet_at_an_edge_share_the_users_between_them(user_id: str, edge: int) -> None:
    own = round(bucket("__n", user_id, 1) * 1_000)  # whoever stands on the edge is in the upper part
    for place in {edge, own} - {0}:
        lower = Namespace(name="n", start=0, end=str(Decimal(place) / 10))
        upper = Namespace(name="n", start=str(Decimal(place) / 10), end=100)
        assert in_namespace(user_id, lower) is (own < place)
        assert in_namespace(user_id, upper) is (own >= place)


@given(experiments())
def test_the_chances_of_all_arms_sum_to_the_share_of_users_reached(variants: Variants) -> None:
    namespace = variants.namespace
    share = 1 if namespace is None else (int(namespace.end) - int(namespace.start)) / 100
    total = sum(variation.propensity for variation in compile_variants(variants).variations)
    assert total == pytest.approx(int(variants.coverage) / 100 * share)
