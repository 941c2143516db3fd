"""The garbage collector, for processes that make many small objects and few cycles: it would look at all of them often.

References count most objects away; what is collected is what Python makes in cycles, and that can wait.
"""

import gc

COLLECT_RARELY = 20_000, 20, 50
"""Objects made before the young are looked at, and how often those before the older (Python's own: 700, 10, 10)."""


def collect_rarely() -> None:
    """Leaves what is imported by now alone for good, and looks at what is new less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_RARELY)
