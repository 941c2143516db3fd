"""Which fields of a context rules can read at all: an event without the others is decided the same, and faster.

Making a whole basket ready for expressions takes longer than most rules take to look at it.
"""

import re
from collections.abc import Iterable

from msgspec import to_builtins

from connect.engine.expression import paths
from connect.engine.index import Rulebook
from connect.model import RewardAction

BUILDS_LISTS = re.compile(r"\.\s*(map|filter)\s*\(")
"""These are refused on an event with long lists, wherever the lists are: nothing may then be left out."""


def fields_read(rulebook: Rulebook, adopted: Iterable[RewardAction]) -> frozenset[str] | None:
    """Names in `context`; None where any may be read. `adopted`: given by other rules, with terms of their own."""
    texts = [str(to_builtins(rulebook.document.rules)), str(to_builtins(rulebook.document.counters))]
    texts += [one.reversal.fraction for one in adopted if one.reversal is not None]
    if any(BUILDS_LISTS.search(text) for text in texts):
        return None
    found: set[str] = set()
    for mention in re.finditer(r"\bcontext\b(?:\.([A-Za-z_][A-Za-z0-9_]*))?", "\n".join(texts)):
        if mention[1] is None:
            return None
        found.add(mention[1])
    for path in rulebook.published.reversal_paths:
        for where in (path.event, path.original):
            steps = paths.parse(where)
            if steps[0] == "context" and len(steps) > 1:
                found.add(str(steps[1]))
    return frozenset(found)
