"""Any request that the OpenAPI document describes, and many that it does not, get an answer that it documents."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.api.conftest import EXAMPLE
from tests.serving import KEY, Api

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
FUZZ_EXAMPLES = 4
"""For each operation, beside the some 100 systematic ones of the coverage phase."""
MAX_S = 40
"""Fuzzing ends here where the machine is slow; the coverage phase comes first and took 26 s on two busy cores."""


@pytest.mark.whole
@pytest.mark.timeout(MAX_S + 60)
async def test_no_request_meets_a_fault_or_an_undocumented_answer(api: Api, tmp_path: Path):
    assert (await api.post("/internal/events", EXAMPLE)).status == 201
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {KEY}", "--checks", CHECKS, "--phases", "coverage,fuzzing"),
        *("--max-examples", str(FUZZ_EXAMPLES), "--max-time", str(MAX_S), "--seed", "1", "--request-timeout", "10"),
        *("--continue-on-failure", "--generation-database", "none", "--suppress-health-check", "all"),
        *("--warnings", "off", "--no-color"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    report = output.decode()
    assert process.returncode == 0, report
    assert re.search(r"Selected: (\d+)/\1\n +Tested: \1\n", report), report


FOUND_ONCE = [
    ("POST", "/internal/events/replay", {"dry_run": True, "filter": {"external_id": ["\0"]}}, 422),
    ("POST", "/internal/ruleset/versions/1/publish", {"note": "\0"}, 422),
    ("GET", "/internal/ruleset/versions?cursor=99999999999999999999", None, 422),
    ("GET", "/internal/events?since=0001-01-01T00:00:00%2B14:00", None, 422),
    ("GET", "/internal/reward-actions?until=9999-12-31T23:59:59-14:00", None, 422),
    ("GET", "/internal/events?since=2026-11-22T10:00:00", None, 422),
    ("POST", "/internal/reward-actions/retry", {"dry_run": True, "filter": {"failed_since": "2026-11-22"}}, 422),
    (
        "POST",
        "/internal/reward-actions/retry",
        {"dry_run": True, "filter": {"failed_since": "0001-01-01T00:00:00+10:00"}},
        422,
    ),
]


async def test_what_met_a_fault_once_is_refused_with_a_sentence(api: Api):
    for method, path, body, status in FOUND_ONCE:
        reply = await api.call(method, path, body)
        assert (reply.status, bool(reply.json["detail"])) == (status, True), (path, reply.body)
