"""Budgets, the rules that draw on them, and the rails of `safety`."""

from decimal import Decimal

from connect.authoring.check.amount_cap import read_cap
from connect.authoring.check.findings import Findings
from connect.authoring.check.limits import Payout
from connect.authoring.positions import child
from connect.engine.amounts import format_amount
from connect.engine.expression.names import nearest
from connect.model import RewardRule


def check_budgets(findings: Findings) -> None:
    used = {rule.budget.name for rule in findings.ruleset.rules if rule.budget is not None}
    for name, budget in findings.ruleset.budgets.items():
        pointer = child("#/budgets", name)
        findings.unit(f"{pointer}/unit", budget.unit)
        read_cap(findings, f"{pointer}/cap", budget.cap, budget.unit)
        if name not in used:
            hint = f"draw on it in a rule with `budget: {{ from: {name} }}`, or leave it out"
            findings.warning(pointer, f"no rule draws on the budget {name}", hint)


def check_safety(findings: Findings) -> None:
    safety = findings.ruleset.safety
    for field, caps in (("review_above", safety.review_above), ("per_day", safety.per_day)):
        for unit, cap in caps.items():
            pointer = child(f"#/safety/{field}", unit)
            findings.unit(pointer, unit)
            read_cap(findings, pointer, cap, unit, zero=True)


def check_budget_use(findings: Findings, rule: RewardRule, payouts: list[Payout], pointer: str) -> None:
    if rule.budget is None:
        return
    name, declared = rule.budget.name, findings.ruleset.budgets
    budget = declared.get(name)
    if budget is None:
        known = f"declare it under budgets (declared: {', '.join(declared) or 'none'})"
        findings.error(f"{pointer}/budget/from", f"no budget is called {name}", nearest(name, declared) or known)
        return
    others = list(dict.fromkeys(effect.unit for effect in rule.actions if effect.unit != budget.unit))
    if others:
        hint = f"draw on a budget in {others[0]}, or give that unit a rule of its own"
        message = f"the budget {name} is in {budget.unit}, and the rule gives {' and '.join(others)}"
        findings.error(f"{pointer}/budget/from", message, hint)
        return
    if rule.budget.when_short == "clip":
        return
    cap = _known(budget.cap)
    for place, payout in enumerate(payouts):
        most = None if payout.constant is None else payout.rounded(payout.constant, findings.scale(budget.unit))
        if cap is not None and most is not None and most > cap:
            findings.error(
                f"{pointer}/budget/from",
                f"action {place + 1} can never give: it gives {format_amount(most)} at once, "
                f"and the whole budget {name} holds {format_amount(cap)}",
                "raise the cap, lower the amount, or write `when_short: clip`",
            )


def _known(cap: str | int) -> Decimal | None:
    """The cap, None where it is none: that is told where it is declared."""
    try:
        return Decimal(str(cap))
    except ArithmeticError:
        return None
