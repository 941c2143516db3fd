"""Amounts: CEL's syntax over exact decimals.

The text is parsed by cel-cpp without its checker, which refuses `int * double`; the tree is then walked here and turned
into functions. What an amount may hold:

- numbers as they are written (`0.02` is two hundredths, never the nearest double) with up to 15 significant digits;
- fields of `context`, `counters`, `variant`, `original` and the names `each` binds, by name or by index;
- `+ - * /`, unary minus, `test ? a : b`, `min(a, b, ...)`, `max(a, b, ...)`;
- `decimal(text)` for a number sent as text, `scaled(text, 18)` for an integer of smallest units sent as text.

A test is standard CEL: its text is cut out of the amount's, everything before it blanked so that positions stay, and
compiled as a condition. It is used only if its tree is the very tree the amount has there.

Division never rounds: an amount with a `/` is computed in fractions, so `context.price / 30 * 30` is the price. Only
the end of an unending quotient is cut, at 100 digits and so (ROUND_05UP) that rounding it further gives what
rounding the true value would.
"""

import decimal
from decimal import Decimal
from fractions import Fraction
from typing import Final

from connect.engine.expression import cost, environment, names, paths
from connect.engine.expression.amount_compiler import StopError, Walk
from connect.engine.expression.arithmetic import NoNumberError, finished
from connect.engine.expression.condition import within_cost
from connect.engine.expression.environment import Activation
from connect.engine.expression.problems import ExpressionError, Failed, Missing, Problem, Source

_TOO_LONG: Final = Failed("the amount needs more than 100 digits on the way")
_BY_ZERO: Final = Failed("division by zero")


class Amount:
    """The amount that an action gives, or the fraction of a reversal. Made by `compile_amount`.

    `digits_bound` is the most digits after the point a result can have, None when there is no bound.
    """

    __slots__ = ("_run", "cost", "digits_bound", "reads", "text", "warnings")

    def __init__(self, source: Source, extra: frozenset[str]) -> None:
        root = environment.parse(source, extra)
        known = names.KNOWN_NAMES | extra
        if problems := names.unknown_names(root, source, known, names.AMOUNT_FUNCTIONS):
            raise ExpressionError(*problems)
        walk = Walk(source, root, extra)
        part = walk.part(root)
        self._run = part.run
        self.text: str = source.text
        self.digits_bound: int | None = part.places
        self.reads: tuple[str, ...] = tuple(map(paths.render, paths.paths_read(root, known)))
        self.cost: int = within_cost(cost.estimate(root), source)
        self.warnings: tuple[Problem, ...] = tuple(problem for test in walk.tests for problem in test.warnings)

    def can_exceed_scale(self, scale: int) -> bool:
        """Whether a result can have more than `scale` digits after the point, so that `round` is required.

        Literals count with the digits they have, a field of the event is presumed whole, and sums and products follow
        from those; dividing by a number such as 100 adds its digits. Without a bound, so always True: any other
        division and everything of `variant`; `decimal()` counts 18 and `scaled(text, n)` n. When a field
        presumed whole is not, `round_amount` without a mode refuses at run: nothing is rounded silently.
        """
        return self.digits_bound is None or self.digits_bound > scale

    def evaluate(self, activation: Activation) -> Decimal | Missing | Failed:
        """The exact amount, possibly negative; not yet rounded to a unit's scale."""
        value = self.exact(activation)
        if isinstance(value, (Missing, Failed)):
            return value
        try:
            return finished(value)
        except NoNumberError as error:
            return Failed(str(error))
        except (decimal.Inexact, decimal.Overflow):
            return _TOO_LONG

    def exact(self, activation: Activation) -> Decimal | Fraction | Missing | Failed:
        """The value before a quotient that does not end is cut: parts of a whole, added up so, are the whole."""
        try:
            return self._run(activation)
        except StopError as stop:
            return stop.outcome
        except NoNumberError as error:
            return Failed(str(error))
        except ZeroDivisionError:
            return _BY_ZERO
        except (decimal.Inexact, decimal.Overflow):
            return _TOO_LONG


def compile_amount(text: str, extra: frozenset[str] = frozenset()) -> Amount:
    """Parses and checks an amount. `extra` are the names `each` binds. Raises ExpressionError."""
    return Amount(Source(text), extra)
