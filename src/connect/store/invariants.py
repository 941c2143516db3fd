"""Lists what must hold in the tables: `connect doctor` goes through the list, and `store.health` asks the questions."""

from typing import Literal

from msgspec import Struct

from connect.store.events.backlog import TRIES_MAX

OVERDUE_S = 300
LEASE_LONG_EXPIRED_S = 3600

Level = Literal["warn", "fail"]
Seen = Literal["all", "event", "reward_action", "dispatch_attempt"]


class Check(Struct, frozen=True, kw_only=True):
    """`sql` gives one text column, `id`, of the rows that break it; {actions}, {events}, {attempts} are samples."""

    name: str
    wrong: str
    """The fault in words, to follow a count: `3 actions ...`."""
    mend: str
    sql: str
    sees: Seen = "all"
    """`all` rows, or a sample of this table."""
    level: Level = "fail"


RESTORE = "Connect never writes this: look for a hand-made change or a damaged restore, and compare with a backup"
REPORT = "Connect never writes this: keep the rows as they are and report it with these ids"

# As `store.state` works a budget out that is new.
SPENT_OF_STATE = """
    SELECT coalesce(sum(CASE WHEN NOT action.refills THEN action.amount WHEN action.status = 'cancelled' THEN 0
        ELSE action.amount - action.reversed END), 0) AS amount
    FROM reward_action AS action
    WHERE action.budget = split_part(state.key, '|', 2) AND action.unit = split_part(state.key, '|', 3)
        AND action.reverses IS NULL
"""

CHECKS = (
    Check(
        name="actions_without_event",
        wrong="actions whose event is missing",
        mend=RESTORE,
        sees="reward_action",
        sql="SELECT id FROM {actions} AS action WHERE NOT EXISTS (SELECT FROM event WHERE event.id = event_id)",
    ),
    Check(
        name="decided_without_trace",
        wrong="decided events without ruleset version, moment or trace",
        mend="`connect events replay ID` decides them again; what they gave is not given twice",
        sees="event",
        sql="""SELECT id FROM {events} AS event
            WHERE status = 'decided' AND num_nulls(ruleset_version, decided_at, trace) > 0""",
    ),
    Check(
        name="decided_by_unknown_version",
        wrong="events decided by a ruleset version that does not exist",
        mend=RESTORE,
        sees="event",
        sql="""SELECT id FROM {events} AS event WHERE ruleset_version > 0
            AND NOT EXISTS (SELECT FROM ruleset_version AS known WHERE known.version = event.ruleset_version)""",
    ),
    Check(
        name="undecided_without_turn",
        wrong="events whose turn to be decided contradicts their status",
        mend=REPORT,
        sees="event",
        sql="SELECT id FROM {events} AS event WHERE (decide_at IS NOT NULL) <> (status = 'received')",
    ),
    Check(
        name="fingerprint_length",
        wrong="events whose fingerprint is not 32 bytes: a repeat of them would be a conflict",
        mend=RESTORE,
        sees="event",
        sql="SELECT id FROM {events} AS event WHERE length(fingerprint) IS DISTINCT FROM 32",
    ),
    Check(
        name="due_at_contradicts_status",
        wrong="actions that are due and ended, or open and never due",
        mend=REPORT,
        sees="reward_action",
        sql="SELECT id FROM {actions} AS action WHERE (due_at IS NOT NULL) <> (status IN ('pending', 'dispatched'))",
    ),
    Check(
        name="dispatched_unsent",
        wrong="actions dispatched with no attempt counted",
        mend=REPORT,
        sql="SELECT id FROM reward_action WHERE due_at IS NOT NULL AND status = 'dispatched' AND attempts = 0",
    ),
    Check(
        name="amount_out_of_bounds",
        wrong="actions whose amount is not positive, above 60 digits or finer than 1e-18",
        mend=RESTORE,
        sees="reward_action",
        sql="""SELECT id FROM {actions} AS action
            WHERE (amount > 0 AND amount < 1e60 AND scale(amount) <= 18) IS NOT TRUE""",
    ),
    Check(
        name="given_twice",
        wrong="actions beside another one of the same event, rule, effect and user",
        sees="reward_action",
        mend="find out which one the target carried out, `connect actions cancel ID` the other, and report it",
        sql="""SELECT max(id::text) AS id FROM reward_action
            WHERE event_id IN (SELECT event_id FROM {actions} AS action) AND reverses IS NULL
            GROUP BY event_id, rule_key, effect_key, user_id HAVING count(*) > 1""",
    ),
    Check(
        name="budget_held",
        wrong="budgets that do not hold what the stored actions took from them",
        mend=REPORT,
        sql=f"""SELECT state.key AS id FROM state, LATERAL ({SPENT_OF_STATE}) AS spent
            WHERE key >= 'budget|' AND key < 'budget}}}}' AND computed_at IS NOT NULL AND value <> spent.amount""",
    ),
    Check(
        name="reversed_beyond_original",
        wrong="actions of which more is taken back than they gave",
        mend="look at what undoes it (`connect actions list --event ID`), give back what is too much, and report it",
        sees="reward_action",
        sql="""SELECT id FROM {actions} AS action WHERE reverses IS NULL AND (reversed > amount OR amount < (
            SELECT sum(undo.amount) FROM reward_action AS undo
            WHERE undo.reverses = action.id AND undo.status NOT IN ('cancelled', 'awaiting_approval')))""",
    ),
    Check(
        name="reversal_without_original",
        wrong="reversals whose original is missing, or of another user or unit",
        mend=RESTORE,
        sees="reward_action",
        sql="""SELECT id FROM {actions} AS undo WHERE reverses IS NOT NULL AND NOT EXISTS (
            SELECT FROM reward_action AS original WHERE original.id = undo.reverses AND original.reverses IS NULL
                AND original.user_id = undo.user_id AND original.unit = undo.unit)""",
    ),
    Check(
        name="blocked_for_nothing",
        wrong=f"blocked reversals whose original ended over {OVERDUE_S // 60} minutes ago",
        mend="no worker lets them go on: start one (`connect worker --roles dispatch`)",
        sql=f"""SELECT undo.id FROM reward_action AS undo
            LEFT JOIN reward_action AS original ON original.id = undo.reverses
            WHERE undo.status = 'blocked' AND undo.lane_position IS NULL
                AND (original.id IS NULL OR original.completed_at IS NOT NULL
                AND original.status IN ('completed', 'failed', 'cancelled')
                AND original.completed_at < now() - interval '{OVERDUE_S} s')""",
    ),
    Check(
        name="behind_nobody",
        wrong="actions that wait behind others of their user where nobody is ahead",
        mend="no worker lets them go on: start one (`connect worker --roles dispatch`)",
        sql="""SELECT waiting.id FROM reward_action AS waiting
            WHERE waiting.status = 'blocked' AND waiting.lane_position IS NOT NULL AND NOT EXISTS (
                SELECT FROM reward_action AS ahead
                WHERE ahead.target = waiting.target AND ahead.user_id = waiting.user_id
                    AND ahead.lane_position IS NOT NULL AND ahead.status IN ('pending', 'dispatched'))""",
    ),
    Check(
        name="arm_of_exposure",
        wrong="actions given by another arm than their user met in that event",
        mend=REPORT,
        sees="reward_action",
        sql="""SELECT action.id FROM {actions} AS action
            JOIN exposure ON exposure.event_id = action.event_id AND exposure.rule_key = action.rule_key
            WHERE action.reverses IS NULL AND action.arm IS DISTINCT FROM exposure.arm""",
    ),
    Check(
        name="attempt_beyond_action",
        wrong="actions with an attempt numbered above their count of attempts",
        mend=REPORT,
        sees="reward_action",
        sql="""SELECT DISTINCT action.id FROM {actions} AS action
            JOIN dispatch_attempt AS attempt ON attempt.action_id = action.id WHERE attempt.n > action.attempts""",
    ),
    Check(
        name="attempt_without_action",
        wrong="attempts whose action is missing",
        mend=RESTORE,
        sees="dispatch_attempt",
        sql="""SELECT action_id AS id FROM {attempts} AS attempt
            WHERE NOT EXISTS (SELECT FROM reward_action AS action WHERE action.id = attempt.action_id)""",
    ),
    Check(
        name="action_of_unknown_rule",
        wrong="actions of a rule version that does not exist",
        mend=RESTORE,
        sees="reward_action",
        sql="""SELECT id FROM {actions} AS action WHERE NOT EXISTS (
            SELECT FROM rule_version AS known WHERE known.key = rule_key AND known.version = action.rule_version)""",
    ),
    Check(
        name="live_version_not_newest",
        wrong="live ruleset versions that are not the newest published one",
        mend="`connect rules publish N` with the version that should be live",
        sql="""SELECT version AS id FROM ruleset_live WHERE version IS DISTINCT FROM
            coalesce((SELECT max(version) FROM ruleset_version WHERE published_at IS NOT NULL), 0)""",
    ),
    Check(
        name="published_without_live",
        wrong="published ruleset versions while none is live",
        mend="`connect rules publish N` with the version that should be live",
        sql="""SELECT version AS id FROM ruleset_version
            WHERE published_at IS NOT NULL AND NOT EXISTS (SELECT FROM ruleset_live)""",
    ),
    Check(
        name="rule_without_version",
        wrong="rules of the live ruleset without a stored version of their own",
        mend=RESTORE,
        sql="""SELECT rule.key AS id
            FROM ruleset_live JOIN ruleset_version USING (version), jsonb_each_text(rule_versions) AS rule
            WHERE NOT EXISTS (SELECT FROM rule_version AS known
                WHERE known.key = rule.key AND known.version = rule.value::integer)""",
    ),
    Check(
        name="rule_versions_numbered",
        wrong="rules whose versions are not numbered 1, 2, 3 ...",
        mend=RESTORE,
        sql="SELECT key AS id FROM rule_version GROUP BY key HAVING min(version) <> 1 OR max(version) <> count(*)",
    ),
    Check(
        name="events_failed",
        wrong=f"events that could not be decided in {TRIES_MAX} tries",
        level="warn",
        mend="`connect events why ID` says why; mend the rule, then `connect events replay ID`",
        sql="SELECT id FROM event WHERE status = 'failed' ORDER BY received_at DESC",
    ),
    Check(
        name="events_undecided",
        wrong=f"events that wait to be decided for over {OVERDUE_S // 60} minutes",
        level="warn",
        mend="is a worker with the role decide running? `connect status` shows it; `connect worker` starts one",
        sql=f"""SELECT id FROM event WHERE decide_at IS NOT NULL
            AND received_at < now() - interval '{OVERDUE_S} s' ORDER BY decide_at""",
    ),
    Check(
        name="actions_overdue",
        wrong=f"actions of configured targets due for over {OVERDUE_S // 60} minutes",
        level="warn",
        mend="is a worker with the role dispatch running and the target's lane open? `connect status` shows both",
        sql=f"""SELECT id FROM reward_action WHERE target = ANY($1) AND due_at < now() - interval '{OVERDUE_S} s'
            AND status = 'pending'
            AND NOT EXISTS (SELECT FROM target WHERE name = reward_action.target AND paused_at IS NOT NULL)
            ORDER BY due_at""",
    ),
    Check(
        name="lease_expired",
        wrong="actions whose lease or deadline of a report ended over an hour ago",
        mend="no worker claims them again: start one (`connect worker --roles dispatch`)",
        level="warn",
        sql=f"""SELECT id FROM reward_action WHERE target = ANY($1)
            AND due_at < now() - interval '{LEASE_LONG_EXPIRED_S} s' AND status = 'dispatched' ORDER BY due_at""",
    ),
    Check(
        name="target_not_configured",
        wrong="open actions of targets that the settings do not name",
        level="warn",
        mend="add [targets.NAME] to the settings of every worker, or `connect actions cancel --target NAME`",
        sql="""SELECT id FROM reward_action WHERE due_at IS NOT NULL AND target <> ALL($1)
            UNION ALL SELECT id FROM reward_action
            WHERE status IN ('awaiting_approval', 'blocked') AND target <> ALL($1)""",
    ),
    Check(
        name="actions_exhausted",
        wrong="actions given up without an answer: their effect is unknown",
        level="warn",
        mend="ask the target by the action's id, then `connect actions retry ID` (safe: the same key) or `cancel ID`",
        sql="SELECT id FROM reward_action WHERE status = 'failed' AND failure = 'exhausted'",
    ),
    Check(
        name="actions_awaiting_approval",
        wrong="actions that wait for a person",
        level="warn",
        mend="`connect actions list --status awaiting_approval`, then `connect actions approve ID` or `reject ID`",
        sql="SELECT id FROM reward_action WHERE status = 'awaiting_approval'",
    ),
)
