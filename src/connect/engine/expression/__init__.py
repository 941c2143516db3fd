"""Expressions of rules: conditions and values in CEL, amounts in CEL's syntax over exact decimals.

Compiling is done at save and raises `ExpressionError` with positions; evaluating is pure and never raises for what
an event holds: it gives the value, `Missing` or `Failed`. cel-cpp is known to this package only.
"""

from connect.engine.expression.amount import Amount, compile_amount
from connect.engine.expression.condition import Condition, Value, compile_condition, compile_value
from connect.engine.expression.cost import COST_MAX, ELEMENTS_PRESUMED
from connect.engine.expression.environment import ELEMENTS_MAX, TEXT_MAX, Activation, make_activation
from connect.engine.expression.problems import ExpressionError, Failed, Missing, Problem

__all__ = [
    "COST_MAX",
    "ELEMENTS_MAX",
    "ELEMENTS_PRESUMED",
    "TEXT_MAX",
    "Activation",
    "Amount",
    "Condition",
    "ExpressionError",
    "Failed",
    "Missing",
    "Problem",
    "Value",
    "compile_amount",
    "compile_condition",
    "compile_value",
    "make_activation",
]
