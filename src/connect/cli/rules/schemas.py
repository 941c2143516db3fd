"""`connect rules learn-schema`: a section of a ruleset, written from what was reported."""

from connect.cli.output import Exit, Output, say, say_json, tell
from connect.cli.remote import remote


def learn_schema(event_type: str, /, *, sample: int = 2000, output: Output = "table") -> int:
    """Propose the schema of an event type from stored events, as a section for the ruleset.

    With a schema in the ruleset a mistyped field is an error when a rule is saved, instead of a rule that never fires.
    Read the schema before you publish it: it lacks each field that no sampled event had.

    For example:

    connect rules learn-schema purchase.completed >> rules.yaml

    Parameters
    ----------
    event_type
        The type, such as purchase.completed.
    sample
        How many of its newest events to learn from, at most 20000.
    """
    answer = remote().post("/internal/rules/learn-schema", {"event_type": event_type, "sample": sample}).json
    if output == "json":
        say_json(answer)
        return Exit.OK
    import yaml

    section = {"schemas": {answer["event_type"]: answer["schema"]}}
    say(yaml.safe_dump(section, sort_keys=False, allow_unicode=True).rstrip("\n"))
    tell(f"learnt from {answer['sampled']} event(s)")
    return Exit.OK
