"""Plays the contract of commands against a target's endpoint, and says in words where it does not hold.

What is sent is made by the dispatcher's own functions and what comes back is read by them, so that a receiver that
passes here is read the same way in earnest.
"""

from connect.receiver.balances import BalanceSource
from connect.receiver.caller import Terms
from connect.receiver.findings import Finding
from connect.receiver.play import play

__all__ = ["BalanceSource", "Finding", "Terms", "play"]
