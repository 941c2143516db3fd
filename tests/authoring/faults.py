"""Documents with a fault each, and what must be found in them.

`§` marks where a finding must stand: it is taken out of the text before it is read.
"""

from connect.authoring import RuleProblem, review

HEAD = "units: { points: { scale: 0 }, nft: { scale: 0 }, money: { scale: 2 } }\n"
ONCE = "limits: [ { per: actor, every: day, uses: 1 } ]"
POINTS = "{ target: points, command: credit, recipient: actor, amount: 5, unit: points }"
NFT = "{ target: nft, command: mint, recipient: actor, amount: 1, unit: nft }"


def rule(*lines: str, key: str = "r", limits: str = ONCE, actions: str = f"[ {POINTS} ]", place: str = "") -> str:
    """One entry of `rules`; `place` goes before its key."""
    fields = [f"{place}key: {key}", "event_type: purchase.completed", *lines, limits, f"actions: {actions}"]
    return "  - " + "\n    ".join(field for field in fields if field) + "\n"


def rules(*entries: str) -> str:
    return HEAD + "rules:\n" + "".join(entries)


def one(*lines: str, **fields: str) -> str:
    return rules(rule(*lines, **fields))


def limited(limits: str, actions: str = f"[ {POINTS} ]") -> str:
    return one(limits=f"limits: {limits}", actions=actions)


def counter(text: str, condition: str = "condition: counters.c >= 1") -> str:
    return f"counters:\n  c: {text}\n" + one(condition)


def counted(*lines: str, kind: str = "count", actions: str = f"[ {POINTS} ]") -> str:
    value = ", value: context.a" if kind in ("sum", "distinct") else ", every: day" if kind == "streak" else ""
    return f"counters: {{ c: {{ event_type: e, of: actor, kind: {kind}{value} }} }}\n" + one(*lines, actions=actions)


def budgeted(budgets: str, use: str, **fields: str) -> str:
    return f"budgets: {budgets}\n" + one(f"budget: {use}", **fields)


def grouped(groups: str, *entries: str) -> str:
    return f"groups: {groups}\n" + rules(*entries)


def reversed_(text: str) -> str:
    return one(f"reversal: {text}")


def experiment(variants: str, amount: str = "5") -> str:
    action = f"{{ target: points, command: credit, recipient: actor, amount: {amount}, unit: points, round: down }}"
    return one(f"variants: {variants}", actions=f"[ {action} ]")


def story(test: str, *lines: str) -> str:
    return one(*lines) + f"tests:\n  - {test}\n"


ARMS = "{ by: actor, seed: s, arms: { a: { weight: 50, rate: 0.5 }, b: { weight: 50 } } }"
GIVEN = "given: [ { external_id: e1, event_type: purchase.completed } ]"
SCHEMA = """\
schemas:
  purchase.completed:
    type: object
    properties:
      order_id: { type: string }
      amount: { type: number }
      tier: { type: string }
      items: { type: array, items: { type: object, properties: { seller: { type: string }, price: { type: number } } } }
"""


def amount(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"[ {{ target: t, command: c, recipient: actor, unit: points, round: down, amount: '{quoted}' }} ]"


def each(text: str) -> str:
    return f"[ {{ target: t, command: c, unit: points, round: down, {text} }} ]"


Case = tuple[str, str, str, str]
"""A marked document; the pointers of all findings; their severities, or the one of all; what the last one says."""


def places_of(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and line and column of each."""
    places: list[tuple[int, int]] = []
    while (at := marked.find("§")) >= 0:
        places.append((marked.count("\n", 0, at) + 1, at - marked.rfind("\n", 0, at)))
        marked = marked[:at] + marked[at + 1 :]
    return marked, places


def said(problem: RuleProblem) -> str:
    return f"{problem.message} {problem.hint}"


def check_found(marked: str, pointers: str, severities: str, says: str) -> None:
    """That the document has these findings and no others, each where it is marked and with what to do."""
    text, places = places_of(marked)
    found = review(text)
    assert [problem.pointer for problem in found] == pointers.split(), found
    assert [(problem.line, problem.column) for problem in found] == places, found
    wanted = severities.split()
    assert [problem.severity for problem in found] == (wanted * len(found))[: max(len(found), len(wanted))]
    assert not found or says in said(found[-1])
    assert all(problem.hint or problem.caret or "quote it" in problem.message for problem in found)
