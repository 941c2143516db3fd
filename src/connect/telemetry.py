"""Log events and metric names, once. Logs are one JSON line each on stdout, or readable lines on a terminal."""

import logging
import sys
from typing import Any

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("connect_events_total", "Events reported, by what became of them", ["event_type", "result"])
DECIDE_SECONDS = Histogram(
    "connect_decide_seconds",
    "Deciding one event",
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1, 1),
)
ACTIONS = Counter("connect_actions_total", "Reward actions that reached a status", ["target", "status"])
ATTEMPTS = Counter("connect_action_attempts_total", "Sendings, by outcome", ["target", "outcome"])
ATTEMPT_SECONDS = Histogram("connect_attempt_duration_seconds", "One sending", ["target"])
OLDEST_DUE_AGE = Gauge(
    "connect_oldest_due_age_seconds", "How overdue the oldest due action is (database-wide: max)", ["target"]
)
DUE_ACTIONS = Gauge("connect_due_actions", "Actions due now (database-wide: max)", ["target"])
BUDGET_USED = Gauge("connect_budget_used_ratio", "Used share of a budget (database-wide: max)", ["budget"])
SAFETY_ALERTS = Counter("connect_safety_alerts_total", "Rails of the ruleset's `safety` that were passed")
BUS_LAG = Gauge("connect_bus_lag", "Messages waiting on a bus", ["bus"])
BUS_MESSAGES = Counter("connect_bus_messages_total", "Messages of a bus, by what became of them", ["bus", "result"])
GROUP_COMMIT_SIZE = Histogram(
    "connect_group_commit_size", "Events in one commit", buckets=(1, 2, 5, 10, 20, 50, 100, 250, 500)
)

EVENT_TYPES_MAX = 200
"""A label per event type is bounded: past this many distinct ones further types are counted as `other`."""
_seen_types: set[str] = set()


def event_type_label(event_type: str) -> str:
    if event_type not in _seen_types:
        if len(_seen_types) >= EVENT_TYPES_MAX:
            return "other"
        _seen_types.add(event_type)
    return event_type


def _to_json(value: Any, **_: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def set_up_logging(level: str = "info", *, stream: Any = None) -> None:
    """Called once by each process's entry. Standard-library loggers (uvicorn's, aiohttp's) come out the same way."""
    stream = stream or sys.stdout
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if stream.isatty():
        render: list[structlog.types.Processor] = [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        ]
        factory: Any = structlog.PrintLoggerFactory(stream)
    else:
        render = [structlog.processors.JSONRenderer(serializer=_to_json)]
        factory = structlog.PrintLoggerFactory(stream)
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


log: structlog.stdlib.BoundLogger = structlog.get_logger("connect")
