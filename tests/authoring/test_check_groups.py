"""Rules may not be these things to each other, each with its place."""

import pytest

from connect.authoring import review
from tests.authoring.faults import NFT, POINTS, Case, check_found, grouped, one, rule, rules

GROUPS: list[Case] = [
    (
        grouped(
            "{ cash: { pick: first } }",
            rule("group: cash"),
            rule("group: cash", key="s"),
            rule("group: §cahs", key="t"),
        ),
        "#/rules/2/group",
        "error",
        "did you mean cash?",
    ),
    (
        grouped("{ g: { pick: first, unit: §coins } }", rule("group: g"), rule("group: g", key="s")),
        "#/groups/g/unit",
        "warning",
        "the unit coins is not declared",
    ),
    (
        grouped("{ §g: { pick: highest } }", rule("group: g"), rule("group: g", key="s")),
        "#/groups/g",
        "error",
        "`pick: highest` compares amounts",
    ),
    (
        grouped(
            "{ g: { pick: lowest, unit: nft } }",
            rule("group: g", actions=f"[ {POINTS.replace('unit: ', 'unit: §')} ]"),
            rule("group: g", key="s", actions=f"[ {NFT} ]"),
        ),
        "#/rules/0/actions/0/unit",
        "error",
        "the group g compares nft, and this action is in points",
    ),
    (
        grouped("{ §g: { pick: first } }", rule("group: g")),
        "#/groups/g",
        "warning",
        "only the rule r is in the group g",
    ),
    (grouped("{ §g: { pick: first } }", rule()), "#/groups/g", "warning", "no rule is in the group g"),
    (
        grouped("{ §g: { pick: first } }", rule("group: g"), rule("group: g", key="s").replace("purchase.", "order.")),
        "#/groups/g",
        "warning",
        "never meet",
    ),
    (
        grouped(
            "{ g: { pick: first } }",
            rule("group: g", "priority: 1", limits=""),
            rule("group: §g", key="s"),
        ).replace("- key: r", "- §key: r"),
        "#/rules/0 #/rules/1/group",
        "warning",
        "never chosen: in the group g the rule r comes first",
    ),
    (rules(rule("formerly: §r")), "#/rules/0/formerly", "error", "r is the rule's key now"),
    (rules(rule("formerly: §s"), rule(key="s")), "#/rules/0/formerly", "error", "the key of another rule"),
    (
        rules(rule("formerly: o"), rule("formerly: §o", key="s")),
        "#/rules/1/formerly",
        "error",
        "the rule r was formerly o already",
    ),
    (
        rules(rule("formerly: §s"), rule("formerly: §r", key="s")),
        "#/rules/0/formerly #/rules/1/formerly",
        "error",
        "each names the other",
    ),
]

REACH: list[Case] = [
    (
        rules(rule("stop: true", "condition: (true)", limits="", place="§"), rule(key="s", place="§")),
        "#/rules/0 #/rules/1",
        "warning",
        "never asked: the rule r comes first",
    ),
    (one("condition: §'false'"), "#/rules/0/condition", "warning", "always false"),
    (
        one("condition: §false"),
        "#/rules/0/condition",
        "error",
        'must be a text or a list, not false; quote it: "false"',
    ),
    (one("condition: [ context.a > 1, §1 > 2 ]"), "#/rules/0/condition/1", "warning", "`enabled: false`"),
    (one("condition: §1 % 0 == 1"), "#/rules/0/condition", "error", "division by zero"),
    (
        one("starts_at: 2026-01-02T00:00:00Z", "ends_at: §2026-01-02T00:00:00Z"),
        "#/rules/0/ends_at",
        "error",
        "ends before it starts",
    ),
]

ALL = [*GROUPS, *REACH]


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case[1]} {case[3]}")
def test_a_rule_that_others_keep_from_giving_is_told_where_it_stands(case: Case):
    check_found(*case)


STOP = rule("stop: true", limits="limits: []")


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        ("", "", True),
        ("", "priority: 1", False),
        ("", "event_type: purchase.refunded", False),
        ("event_type: purchase.*", "", True),
        ("event_type: purchase.*", "event_type: purchase.by.card", True),
        ("event_type: purchase.*", "event_type: purchase.by.*", True),
        ("event_type: purchase.*", "event_type: purchases.new", False),
        ("event_type: purchase.by.*", "event_type: purchase.*", False),
        ("starts_at: 2026-01-02T00:00:00Z", "", False),
        ("starts_at: 2026-01-02T00:00:00Z", "starts_at: 2026-01-01T00:00:00Z", False),
        ("starts_at: 2026-01-02T00:00:00Z", "starts_at: 2026-01-02T00:00:00Z", True),
        ("ends_at: 2026-01-02T00:00:00Z", "", False),
        ("ends_at: 2026-01-02T00:00:00Z", "ends_at: 2026-01-03T00:00:00Z", False),
        ("ends_at: 2026-01-02T00:00:00Z", "ends_at: 2026-01-02T00:00:00Z", True),
        ("enabled: false", "", False),
        ("", "enabled: false", False),
        ("condition: context.a > 1", "", False),
        ("limits: [ { per: actor, every: ever, uses: 1 } ]", "", False),
    ],
)
def test_a_rule_is_never_asked_only_where_one_before_it_takes_in_all_of_its_events(
    first: str, later: str, expected: bool
):
    def changed(text: str, line: str) -> str:
        lines = [known for known in text.splitlines() if line.split(":")[0] != known.split(":")[0].strip() or not line]
        return "\n".join([*lines, f"    {line}" if line else ""]) + "\n"

    text = rules(changed(STOP, first), changed(rule(key="s"), later))
    assert ["never asked" in problem.message for problem in review(text) if problem.pointer == "#/rules/1"] == (
        [True] if expected else []
    )
