from typing import Any

from connect.engine.expression.paths import Path
from connect.engine.ruleset.check.findings import Findings


def schema_problem(schema: dict[str, Any], path: Path, event_type: str) -> tuple[int, str, str | None] | None:
    return None


def check_schemas(findings: Findings) -> None: ...
