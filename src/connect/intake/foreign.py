"""CloudEvents of others (`[sources.<name>]`): their `data` becomes our fields by expressions, not by changing them."""

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from connect.config import SourceSettings
from connect.engine.expression import ExpressionError, Failed, Missing, Value, compile_value, make_activation
from connect.errors import InvalidEvent, Located, SettingsError
from connect.jsonvalue import JsonObject, is_array

DATA: Final = frozenset({"data"})
IDS: Final = frozenset({"external_id", "actor_user_id", "primary_subject_user_id"})
FIELDS: Final = IDS | {"event_type", "occurred_at"}
INSIDE: Final = re.compile(r"(parties|context)\.([A-Za-z0-9_-]{1,255})")


class Foreign(Struct, frozen=True):
    """How one source's `data` is read."""

    whole: bool
    """All of `data` is the context; what the map gives goes on top."""
    fields: Mapping[str, Value]
    """Our field -> the expression over `data` that it is read with."""

    def read(self, data: JsonObject) -> dict[str, Any]:
        """Our fields. One whose expression reads what is not in `data` is left out. Raises `InvalidEvent`."""
        found: dict[str, Any] = {"context": dict(data) if self.whole else {}, "parties": {}}
        activation = make_activation({}).bind({"data": data})
        for field, expression in self.fields.items():
            value = expression.evaluate(activation)
            if isinstance(value, Failed):
                sentence = f"{field} = {expression.text} cannot be worked out: {value.reason}"
                raise InvalidEvent(f"{sentence} (at #/data)", errors=[Located("#/data", sentence)])
            if not isinstance(value, Missing) and value is not None:
                _put(found, field, value)
        return found


def _put(found: dict[str, Any], field: str, value: Any) -> None:
    """Numbers that name somebody become texts, as all ids are."""
    inside = INSIDE.fullmatch(field)
    if inside is None:
        found[field] = _named(value) if field in IDS else value
    elif inside[1] == "parties":
        found["parties"][inside[2]] = [_named(one) for one in value] if is_array(value) else _named(value)
    else:
        found["context"][inside[2]] = value


def _named(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def compile_sources(settings: Mapping[str, SourceSettings]) -> dict[str, Foreign]:
    """By the `source` they are for. Raises `SettingsError` that names the source, the field and the fault."""
    return {
        name: Foreign(
            source.data == "context", {field: _compiled(name, field, text) for field, text in source.map.items()}
        )
        for name, source in settings.items()
    }


def _compiled(source: str, field: str, text: str) -> Value:
    at = f"settings: sources.{source}.map.{field}"
    if field not in FIELDS and not INSIDE.fullmatch(field):
        known = ", ".join(sorted(FIELDS))
        raise SettingsError(f"{at}: is no field of an event ({known}, parties.<role> or context.<name>)")
    try:
        value = compile_value(text, DATA)
    except ExpressionError as error:
        raise SettingsError(f"{at}: {error}") from error
    if outside := [path for path in value.reads if path.split(".")[0].split("[")[0] != "data"]:
        raise SettingsError(f"{at}: reads {outside[0]}; only `data` is known here")
    return value
