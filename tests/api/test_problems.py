"""Problem documents: each names a page that the server itself has."""

import pytest

from connect.api.problems import known_problems
from connect.errors import ConnectError
from tests.serving import Api


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/internal/nothing", 404, "not_found"),
        ("PUT", "/internal/events", 405, "method_not_allowed"),
        ("GET", "/internal/events?limit=0", 422, "invalid"),
        ("POST", "/internal/events", 415, "media_type_refused"),
    ],
)
async def test_the_type_of_every_problem_leads_to_its_page(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    problem = await api.call(method, path)
    assert (problem.status, problem.json["code"]) == (status, code)
    page = await api.with_key(None).get(problem.json["type"])
    assert (page.status, f"code: {code}" in page.body.decode()) == (200, True)


async def test_a_problem_that_is_none_has_no_page(api: Api) -> None:
    assert (await api.get("/problems/nothing")).status == 404


async def test_each_page_says_what_to_do(api: Api) -> None:
    answered = [kind for kind in known_problems().values() if kind.__module__ == ConnectError.__module__]
    assert len({kind.remedy for kind in answered}) == len(answered) > 20
    for kind in answered:
        page = await api.with_key(None).get(f"/problems/{kind.code}")
        assert kind.remedy in page.body.decode()


async def test_an_address_that_nothing_answers_is_named(api: Api) -> None:
    problem = await api.post("/internal/actions/xyz/retry", {})
    assert problem.json["detail"].startswith(
        "nothing answers POST /internal/actions/xyz/retry: is each id in it whole?"
    )
