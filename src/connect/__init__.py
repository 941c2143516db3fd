"""Connect: records each fact once, decides what it earns, delivers every reward exactly once in effect."""

__version__ = "0.1.0"
