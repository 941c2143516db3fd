"""Connect with a bug put in on purpose, in a copy of its tree: what the checker must catch.

The product has no switch for any of these. A patch replaces text that must be there exactly once, so a mutant that no
longer fits its source fails the test instead of passing unmutated.
"""

import shutil
from pathlib import Path

from msgspec import Struct

import connect


class Patch(Struct, frozen=True):
    file: str
    old: str
    new: str


class Mutant(Struct, frozen=True):
    """`scenario` names the function of test_mutants.py that provokes it; `told` is in a sentence of the checker."""

    name: str
    scenario: str
    told: str
    patches: tuple[Patch, ...]


def grow(mutant: Mutant, folder: Path) -> Path:
    """A folder that holds the mutated package; for PYTHONPATH."""
    tree = folder / "tree"
    shutil.copytree(Path(connect.__file__).parent, tree / "connect", ignore=shutil.ignore_patterns("__pycache__"))
    for patch in mutant.patches:
        file = tree / "connect" / patch.file
        text = file.read_text(encoding="utf-8")
        assert text.count(patch.old) == 1, (
            f"{mutant.name}: {patch.file} holds {text.count(patch.old)} times: {patch.old}"
        )
        file.write_text(text.replace(patch.old, patch.new), encoding="utf-8")
    return tree


RECORD, EVENTS, CLAIMS, HTTP = (
    "intake/record.py",
    "store/events/record.py",
    "store/claims.py",
    "dispatch/targets/http.py",
)

RECORDED = (
    "            written.take(rows, await _with_retries(partial(record, in_order=self._in_order), connection, rows))\n"
)

ACK_BEFORE_COMMIT = Mutant("ack before commit", "an_api_dies_while_its_commit_waits", "is lost", (
    Patch(RECORD, RECORDED,
          "            for one in inline:\n"
          "                _resolve(one, tell_created(rows[one.identity], ()))\n" + RECORDED),
))  # fmt: skip

ACTIONS_AFTER_THE_EVENT = Mutant("actions after the event", "an_api_dies_while_its_actions_wait", "is missing", (
    Patch(
        EVENTS,
        "), owed AS (\n    INSERT INTO reward_action ({ACTION_LIST})\n"
        "    SELECT {ACTION_LIST} FROM jsonb_to_recordset($21::jsonb) AS action ({ACTION_ROW})\n"
        "    WHERE event_id IN (SELECT id FROM recorded) OR reverses IS NOT NULL\n    ON CONFLICT (id) DO NOTHING\n)\n"
        "SELECT id FROM recorded\n",
        "), unused AS (SELECT $21::jsonb)\nSELECT id FROM recorded\n",
    ),
    Patch(EVENTS, "    new = {row[\"id\"] for row in recorded}\n",
          "    new = {row['id'] for row in recorded}\n"
          "    owed = [action for action in actions if action[0].event_id in new]\n"
          "    if owed:\n"
          "        await connection.execute(ONLY_ACTIONS, action_rows(owed))\n"),
    Patch(EVENTS, 'STORED = f"""',
          'ONLY_ACTIONS = f"INSERT INTO reward_action ({ACTION_LIST}) SELECT {ACTION_LIST} '
          'FROM jsonb_to_recordset($1::jsonb) AS action ({ACTION_ROW}) ON CONFLICT (id) DO NOTHING"\nSTORED = f"""'),
))  # fmt: skip

NO_DEDUPE = Mutant("no dedupe", "an_event_is_reported_twice", "is stored 2 times", (
    Patch("store/migrations/0001_spine.sql", "    UNIQUE (source, external_id)\n", "    CHECK (true)\n"),
    Patch(EVENTS, "    ON CONFLICT (source, external_id) DO NOTHING\n    RETURNING id\n", "    RETURNING id\n"),
    Patch("intake/normalize.py", "        id=event_id(source, reported.external_id, occurred_at),\n",
          "        id=__import__('uuid').uuid4(),\n"),
))  # fmt: skip

NO_FENCING = Mutant("no fencing in settle", "a_sender_is_paused_beyond_its_lease", "went from completed to pending", (
    Patch(CLAIMS, "WHERE action.id = answered.id AND action.status = 'dispatched' AND action.attempts = answered.n\n",
          "WHERE action.id = answered.id\n"),
))  # fmt: skip

NO_LEASE_CHECK = Mutant("a lease that never ends", "a_sender_is_killed", "has not ended well: dispatched", (
    Patch(CLAIMS, "    due_at = now() + make_interval(secs => lane.lease_s),\n",
          "    due_at = now() + interval '1 day',\n"),
))  # fmt: skip

NEW_KEY_PER_ATTEMPT = Mutant("a new key per attempt", "a_target_fails_after_the_effect", "had 2 effects", (
    Patch(HTTP, "        body = command.body.encode()\n",
          "        fresh = str(__import__('uuid').uuid4())\n"
          "        text = command.body.replace(str(command.id), fresh)\n"
          "        command = msgspec.structs.replace(command, id=UUID(fresh), body=text)\n"
          "        body = command.body.encode()\n"),
))  # fmt: skip

NEW_BODY_PER_ATTEMPT = Mutant("a new body per attempt", "a_target_fails_after_the_effect", "refused", (
    Patch(HTTP, "        body = command.body.encode()\n",
          "        body = command.body.encode() + b' ' * command.n\n"),
))  # fmt: skip

FAULT_TAKEN_FOR_DONE = Mutant("a 5xx taken for done", "a_target_fails_before_the_effect", "had 0 effects", (
    Patch(HTTP, "    if 200 <= status < 300:\n", "    if 200 <= status < 300 or status >= 500:\n"),
))  # fmt: skip

RETRY_FORGOTTEN = Mutant("a retry never due", "a_target_fails_before_the_effect", "has not ended well: pending", (
    Patch("lifecycle.py", "        due_at=now + timedelta(seconds=delay_s), last_error=",
          "        due_at=now + timedelta(days=1), last_error="),
))  # fmt: skip

LOST_CENTS = Mutant("a float on the way of an amount", "an_event_is_reported_twice", "deciding in memory gives", (
    Patch("store/events/rows.py", ' if name != "body"}, "body": body}\n',
          ' if name != "body"}, "body": body, "amount": str(float(action.amount) * 1.0000001)}\n'),
))  # fmt: skip

DECIDED_BEFORE_SAVED = Mutant("marked decided at the claim", "a_decider_dies", "is missing", (
    Patch("intake/backlog.py", "            failpoint.reach(\"decide.after_claim\")\n            if events:\n",
          "            async with self._pool.acquire() as connection:\n"
          "                rows = [DecidedRow(e.id, 1, datetime.now(UTC), '[]', None, []) for e in events]\n"
          "                await save_decisions(connection, rows)\n"
          "            failpoint.reach(\"decide.after_claim\")\n            if events:\n"),
))  # fmt: skip

STATE, TAKE_BACK = "store/state.py", "engine/decide/reversal.py"
KNOWN_ARE_LEFT_OUT = "                    fresh = [one for one in run if one.identity not in known]\n"

READ_CHECK_WRITE = Mutant("read, check, write", "shops_report_all_at_once", "budget|pot|points holds", (
    Patch(STATE, "ORDER BY key FOR UPDATE\"\n", "ORDER BY key\"\n"),
))  # fmt: skip

STATE_APART_FROM_ITS_EVENT = Mutant("state apart from its event", "shops_report_all_at_once", " holds ", (
    Patch(RECORD, "                async with connection.transaction():\n                    known =",
          "                if True:\n                    known ="),
))  # fmt: skip

KEPT_ON_REVERSAL = Mutant("nothing given back on a refund", "shops_report_all_at_once", "budget|pot|points holds", (
    Patch(TAKE_BACK, "    for compiled in rules_behind(rulebook, before):\n",
          "    return\n    for compiled in rules_behind(rulebook, before):\n"),
))  # fmt: skip

COUNTED_TWICE = Mutant("a duplicate counted again", "shops_report_all_at_once", "counter|purchases|||", (
    Patch(RECORD, KNOWN_ARE_LEFT_OUT, "                    fresh = run\n"),
    Patch(RECORD, "                        raise _Raced\n", "                        pass\n"),
))  # fmt: skip

REFUNDS_FORGOTTEN = Mutant("a refund that forgets those before it", "shops_report_all_at_once", "is reversed by", (
    Patch(TAKE_BACK, "        prior = sum_of(terms.fraction, link.reversers, original)\n",
          "        prior = Fraction(0)\n"),
))  # fmt: skip

MUTANTS = (
    ACK_BEFORE_COMMIT, ACTIONS_AFTER_THE_EVENT, NO_DEDUPE, NO_FENCING, NO_LEASE_CHECK, NEW_KEY_PER_ATTEMPT,
    NEW_BODY_PER_ATTEMPT, FAULT_TAKEN_FOR_DONE, RETRY_FORGOTTEN, LOST_CENTS, DECIDED_BEFORE_SAVED,
    READ_CHECK_WRITE, STATE_APART_FROM_ITS_EVENT, KEPT_ON_REVERSAL, COUNTED_TWICE, REFUNDS_FORGOTTEN,
)  # fmt: skip
