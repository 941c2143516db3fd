"""Facts over brokers: one small adapter each behind `Bus`, and one consumer that records what they bring."""

from connect.intake.bus.port import Bus, Message, open_bus

__all__ = ["Bus", "Message", "open_bus"]
