"""`connect events` against the real API."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from connect.cli.events.why import SENTENCES
from connect.cli.output import Exit
from connect.model import Outcome
from tests.cli.shell import Shell, purchase, shell_on
from tests.conftest import free_port


@pytest.fixture
async def shell(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    async with shell_on(database_url, monkeypatch) as shell:
        yield shell


def ndjson(*events: object) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


async def stored(shell: Shell) -> list[str]:
    assert shell.api is not None
    items = (await shell.api.get("/internal/events?limit=500")).json["items"]
    return sorted(item["external_id"] for item in items)


async def test_an_event_from_options_is_recorded_and_what_it_earned_is_shown(shell: Shell):
    flags = "--id order-1 --source shop --type purchase.completed --actor u1 --party referrer=u2"
    flags += " -x currency=EUR -x amount_minor=12990"
    ran = await shell("events", "send", *flags.split())
    assert (ran.code, ran.err) == (Exit.OK, "")
    assert "shop order-1 is event" in ran.out
    assert "259" in ran.out
    assert "points.credit" in ran.out
    again = await shell("events", "send", *flags.split(), "-o", "json")
    assert (again.code, again.json["duplicate"]) == (Exit.OK, True)
    assert again.json["event"]["context"] == {"currency": "EUR", "amount_minor": 12990}
    assert again.json["event"]["parties"] == {"referrer": "u2"}


async def test_an_event_from_stdin_keeps_every_digit_and_options_go_on_top(shell: Shell):
    text = '{"external_id": "a", "event_type": "x.y", "context": {"big": 9007199254740993, "share": 0.1}}'
    ran = await shell("events", "send", "-", "--id", "b", "--context", "tags=[1]", "-o", "json", stdin=text)
    assert ran.code == Exit.OK, ran.err
    event = ran.json["event"]
    assert event["external_id"] == "b"
    assert event["context"] == {"big": 9007199254740993, "share": 0.1, "tags": [1]}
    assert ran.json["warnings"][0]["code"] == "no_rule_for_type"


async def test_history_is_recorded_and_earns_nothing(shell: Shell, tmp_path: Path):
    file = tmp_path / "event.json"
    file.write_text(json.dumps(purchase(1)))
    ran = await shell("events", "send", str(file), "--no-effects")
    assert ran.code == Exit.OK
    assert "it earned nothing (recorded as history)" in ran.out


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (["send"], "", Exit.USAGE, "give an event"),
        (["send", "-"], "{", Exit.USAGE, "this is not JSON"),
        (["send", "-"], "[]", Exit.USAGE, "not one event"),
        (["send", "--id", "1"], "", Exit.REFUSED, "event_type"),
        (["send", "--id", "1", "--type", "a b"], "", Exit.REFUSED, "event_type"),
        (["send", "--id", "1", "--type", "a", "-x", "b"], "", Exit.USAGE, "NAME=VALUE"),
        (["send", "--id", "1", "--type", "a", "--party", "b"], "", Exit.USAGE, "ROLE=USER"),
        (["send", "no-such-file.json"], "", Exit.USAGE, "No such file"),
        (["send", "--nonsense"], "", Exit.USAGE, "no option --nonsense"),
        (["send", "--id", "1", "--type", "a", "--actr", "u1"], "", Exit.USAGE, "no option --actr"),
        (["import", "--no-effect", "no-such-file.json"], "", Exit.USAGE, "no option --no-effect"),
        (["import", "-", "--batch", "0"], "", Exit.USAGE, "1 to 1000"),
        (["import", "no-such-file.json"], "", Exit.USAGE, "No such file"),
        (["import", "-"], "[{]", Exit.USAGE, "no JSON array"),
        (["why", "nothing"], "", Exit.REFUSED, "there is no event 'nothing'"),
        (["show", "6f1c2b7a-0000-5000-8000-000000000000"], "", Exit.REFUSED, "there is no event"),
        (["list", "--limit", "0"], "", Exit.REFUSED, "limit must be 1 to 500"),
        (["list", "--since", "yesterday"], "", Exit.REFUSED, "since"),
        (["list", "--status", "lost"], "", Exit.USAGE, "status"),
        (["replay"], "", Exit.USAGE, "say which"),
    ],
)
async def test_what_is_wrong_is_a_sentence_and_an_exit_code(
    shell: Shell, arguments: list[str], stdin: str, code: Exit, said: str
):
    ran = await shell("events", *arguments, stdin=stdin)
    assert (ran.code, said in ran.err, "Traceback" in ran.err) == (code, True, False), ran
    assert ran.out == ""


async def test_a_file_is_imported_again_without_doubling_anything(shell: Shell, tmp_path: Path):
    file = tmp_path / "events.ndjson"
    file.write_text(ndjson(*(purchase(n) for n in range(25))) + "\n\n")
    ran = await shell("events", "import", str(file), "--batch", "10", "-o", "json")
    assert (ran.code, ran.json["created"], ran.json["duplicate"]) == (Exit.OK, 25, 0)
    again = await shell("events", "import", str(file))
    assert again.code == Exit.OK
    assert again.out.split()[6:] == ["25", "0", "25", "0", "0", "0"]
    assert len(await stored(shell)) == 25


async def test_an_array_is_imported_from_stdin(shell: Shell):
    ran = await shell("events", "import", "-", "-o", "json", stdin=json.dumps([purchase(1), purchase(2)], indent=2))
    assert (ran.code, ran.json["created"]) == (Exit.OK, 2)


async def test_refused_events_are_told_kept_mended_and_imported(shell: Shell, tmp_path: Path):
    rejects = tmp_path / "rejects.ndjson"
    lines = [purchase(1), {**purchase(1), "actor_user_id": "other"}, {"external_id": "order-3"}, purchase(4)]
    ran = await shell("events", "import", "-", "--rejects", str(rejects), stdin=ndjson(*lines) + "no json\n")
    assert ran.code == Exit.FAILED
    assert "line 2: conflict:" in ran.err
    assert "line 3: invalid:" in ran.err
    assert "line 5: invalid:" in ran.err
    assert "3 event(s) were refused" in ran.err
    kept = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(row["line"], row["status"]) for row in kept] == [(2, "conflict"), (3, "invalid"), (5, "invalid")]
    assert [row["event"] for row in kept] == [lines[1], lines[2], "no json"]

    kept[0]["event"]["external_id"] = "order-2"
    kept[1]["event"]["event_type"] = "purchase.completed"
    kept[2]["event"] = json.dumps(purchase(5))
    mended = await shell(
        "events",
        "import",
        "-",
        "-o",
        "json",
        stdin="".join(json.dumps(row, separators=(",", ":")) + "\n" for row in kept),
    )
    assert (mended.code, mended.json["created"]) == (Exit.OK, 3), mended
    assert await stored(shell) == ["order-1", "order-2", "order-3", "order-4", "order-5"]


async def test_only_the_first_problems_are_shown(shell: Shell):
    ran = await shell("events", "import", "-", stdin="{}\n" * 30)
    assert ran.err.count("invalid:") == 10
    assert "... and 20 more" in ran.err


async def test_an_import_that_nobody_answers_says_that_it_can_go_on(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONNECT_URL", f"http://127.0.0.1:{free_port()}")
    ran = await shell("events", "import", "-", "--patience", "0.2", stdin=ndjson(purchase(1)))
    assert ran.code == Exit.UNREACHABLE
    assert "no answer" in ran.err
    assert "nothing doubles" in ran.err


async def test_why_spells_out_each_rule_in_plain_words(shell: Shell):
    await shell("events", "send", "-", stdin=json.dumps(purchase(1)))
    ran = await shell("events", "why", "order-1", "--source", "shop")
    assert ran.code == Exit.OK
    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[0] == "purchase.completed order-1 from shop"
    told = lines.index("cashback: gave")
    assert lines[told + 1] == "context.amount_minor = 5000"
    assert any(line.startswith("100 points to u1 (actor) by points.credit: pending") for line in lines)
    told = lines.index("big-spender: did not give: this line of its condition does not hold")
    assert lines[told + 1 : told + 3] == ["line 1: context.amount_minor >= 100000", "context.amount_minor = 5000"]


async def test_why_tells_of_a_missing_field_and_of_a_type_without_rules(shell: Shell):
    await shell("events", "send", "-", stdin=json.dumps(purchase(1, context={"currency": "EUR"})))
    await shell("events", "send", "--id", "2", "--type", "nobody.cares")
    assert "did not give: the event lacks a field the rule reads" in (await shell("events", "why", "order-1")).out
    assert "no rule is for events of type nobody.cares" in (await shell("events", "why", "2")).out


def test_why_has_a_sentence_for_every_outcome():
    assert set(SENTENCES) == set(get_args(Outcome))


async def test_an_event_is_found_by_its_id_and_by_its_external_id_where_that_is_one(shell: Shell):
    for source in ("shop", "kiosk"):
        await shell("events", "send", "-", "--source", source, stdin=json.dumps(purchase(1)))
    several = await shell("events", "show", "order-1")
    assert several.code == Exit.USAGE
    assert "kiosk, shop" in several.err
    found = await shell("events", "show", "order-1", "--source", "kiosk", "-o", "json")
    by_id = await shell("events", "show", found.json["event"]["id"], "-o", "json")
    assert by_id.json == found.json
    assert by_id.json["event"]["source"] == "kiosk"
    assert "order-1" in (await shell("events", "show", found.json["event"]["id"])).out


async def test_a_list_is_filtered_and_paged(shell: Shell):
    await shell("events", "import", "-", stdin=ndjson(*(purchase(n) for n in range(5))))
    page = await shell("events", "list", "--actor", "u1", "--actor", "u3", "-o", "json")
    assert sorted(item["external_id"] for item in page.json["items"]) == ["order-1", "order-3"]
    first = await shell("events", "list", "--limit", "3")
    cursor = first.err.split("--cursor ")[1].split()[0]
    rest = await shell("events", "list", "--limit", "3", "--cursor", cursor)
    assert len(first.out.splitlines()) + len(rest.out.splitlines()) == 5 + 2
    assert (await shell("events", "list", "--actor", "nobody")).err == "nothing found\n"


async def test_a_replay_of_one_gives_what_a_new_rule_gives_and_nothing_twice(shell: Shell):
    assert shell.api is not None
    await shell("events", "send", "-", stdin=json.dumps(purchase(1)))
    effect = {"target": "points", "command": "credit", "recipient": "actor", "unit": "points", "amount": 7}
    rule = {"key": "later", "event_type": "purchase.completed", "actions": [effect]}
    assert (await shell.api.post("/internal/rules", rule)).status == 201
    ran = await shell("events", "replay", "order-1")
    assert ran.code == Exit.OK
    assert "1 new action(s)" in ran.out
    assert "0 new action(s)" in (await shell("events", "replay", "order-1", "--source", "shop")).out


async def test_a_bulk_replay_says_how_many_first_and_needs_a_consent(shell: Shell):
    await shell("events", "import", "-", stdin=ndjson(*(purchase(n) for n in range(3))))
    counted = await shell("events", "replay", "--actor", "u1", "--actor", "u2", "--dry-run")
    assert (counted.code, counted.out) == (Exit.OK, "2 event(s) match\n")
    asked = await shell("events", "replay", "--actor", "u1", "--actor", "u2")
    assert (asked.code, asked.out) == (Exit.USAGE, "")
    assert "2 event(s) match" in asked.err
    assert "--yes" in asked.err
    done = await shell("events", "replay", "--source", "shop", "--yes")
    assert (done.code, done.out) == (Exit.OK, "replay: 3 event(s) done\n")
    both = await shell("events", "replay", "order-1", "--actor", "u1")
    assert both.code == Exit.USAGE


@pytest.mark.parametrize(
    ("name", "value", "code", "said"),
    [
        ("CONNECT_URL", "http://127.0.0.1:1", Exit.UNREACHABLE, "no answer from Connect at http://127.0.0.1:1"),
        ("CONNECT_URL", "http://no.such.host.invalid", Exit.UNREACHABLE, "no answer from Connect"),
        ("CONNECT_URL", "localhost:8080", Exit.USAGE, "CONNECT_URL must be an address"),
        ("CONNECT_URL", "http://127.0.0.1:99999", Exit.USAGE, "CONNECT_URL must be an address"),
        ("CONNECT_API_KEY", "", Exit.UNREACHABLE, "CONNECT_API_KEY is not set"),
        ("CONNECT_API_KEY", "wrong", Exit.UNREACHABLE, "does not accept CONNECT_API_KEY"),
        ("CONNECT_API_KEY", "f\u00fcr", Exit.UNREACHABLE, "characters that no key has"),
    ],
)
async def test_a_connect_out_of_reach_is_a_sentence(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: Exit, said: str
):
    monkeypatch.setenv(name, value)
    ran = await shell("events", "list")
    assert (ran.code, said in ran.err, ran.out) == (code, True, ""), ran


async def test_what_answers_and_is_not_connect_is_told(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    assert shell.api is not None
    monkeypatch.setenv("CONNECT_URL", f"{shell.api.url}/metrics")
    ran = await shell("events", "list")
    assert ran.code in (Exit.UNREACHABLE, Exit.REFUSED)
    assert "Traceback" not in ran.err


async def test_nobodys_data_moves_the_cursor(shell: Shell):
    event = purchase(1, context={"currency": "\u001b]0;title\u0007", "amount_minor": 5})
    sent = await shell("events", "send", "-", stdin=json.dumps(event))
    assert sent.code == Exit.OK, sent
    for command in (["list"], ["show", "order-1"], ["why", "order-1"]):
        ran = await shell("events", *command)
        assert ran.code == Exit.OK
        assert "\u001b" not in ran.out + ran.err
        assert "\u0007" not in ran.out + ran.err


async def test_a_reader_that_goes_away_ends_a_list_quietly(shell: Shell):
    await shell("events", "import", "-", stdin=ndjson(*(purchase(n) for n in range(200))))
    ran = await shell.spawn("connect events list --limit 500 | head -n 1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("RECEIVED")


async def test_a_terminal_gets_a_table_and_is_asked(shell: Shell):
    await shell("events", "import", "-", stdin=ndjson(purchase(1), purchase(2)))
    no = await shell.on_terminal("events", "replay", "--source", "shop", typed="\n")
    assert no.code == Exit.OK
    assert "Replay 2 event(s)? [y/N]" in no.out
    assert "nothing was done" in no.out
    yes = await shell.on_terminal("events", "replay", "--source", "shop", typed="y\n")
    assert "replay: 2 event(s) done" in yes.out
    assert "\u2500" in (await shell.on_terminal("events", "list", typed="")).out
