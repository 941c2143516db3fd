"""Ways to a target: one small transport each behind `Transport`; the scheme of the target's url picks it."""

from connect.dispatch.targets.port import Transport, open_transport

__all__ = ["Transport", "open_transport"]
