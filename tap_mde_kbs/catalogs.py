"""A catalog as people and Meltano edit it, made into one that the tap can keep: else it is refused, by name.

What is asked for may be less than a stream has, or wider; never another kind of run: every stream is read as a whole,
by its own keys, and STATE is the tap's own. So replication methods and keys are taken out. A schema that is overridden
is announced as it is asked for, and rows follow it, or the run ends before any row. Knows the streams' schemas, and
neither the SDK nor the API.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tap_mde_kbs.errors import FileError
from tap_mde_kbs.given import BOOLEANS
from tap_mde_kbs.schema import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from tap_mde_kbs.schema import Table

FULL_TABLE = "FULL_TABLE"

REPLICATION = ("replication-method", "replication-key", "forced-replication-method", "valid-replication-keys")
"""What metadata of a stream say of how it is replicated; entries have the first two with underscores."""

SELECTION = {"selected", "selected-by-default"}
"""What metadata say of whether something is written: true or false, also in words."""

RESTRICTING = {
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "enum", "const", "$ref", "$dynamicRef"),
    *("pattern", "minLength", "maxLength", "contentEncoding", "contentMediaType"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems", "uniqueItems", "contains", "prefixItems", "additionalItems"),
    *("patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas"),
}
"""What of a schema might refuse a value, unless the stream's own schema says it, too."""

UNDERSTOOD = {"type", "format", "properties", "items", "additionalProperties", "required", "title", "description"}
"""What of a schema is announced; anything else that does not restrict is a note of somebody's, and left out."""

TYPES = {"null", "boolean", "integer", "number", "string", "array", "object"}
TEXT = "string"


def kept(
    catalog: Mapping[str, Any], tables: Mapping[str, Table], known: Collection[str], warn: Callable[..., None]
) -> dict[str, Any]:
    """The catalog as the tap can keep it.

    Args:
        catalog: As it was given: `{"streams": [{"tap_stream_id", "schema", "metadata", …}]}`.
        tables: By stream, what it is: its keys and its own schema.
        known: Streams that there may be with other settings: they are left out without a word.
        warn: Logs a warning: a format, and its arguments.

    Raises:
        FileError: Rows of a stream can't follow the schema that it asks for; the text names stream and property.
    """
    entries: dict[str, dict[str, Any]] = {}
    replicated: list[str] = []
    for entry in catalog.get("streams", []):
        name = entry["tap_stream_id"]
        if name not in tables:
            if name not in known:
                warn("The catalog has a stream %.80r, which there is none of here: left out.", name)
            continue
        table = tables[name]
        if _is_replicated(entry):
            replicated.append(name)
        keys = entry.get("key_properties")
        if keys and keys != [*table.keys]:
            warn("The catalog asks for another key of %s: its own is kept, %s.", name, ", ".join(table.keys))
        # A schema is announced as a whole: of two entries the later one counts, as for the SDK.
        entries[name] = {
            **{key: value for key, value in entry.items() if key not in {"replication_key", "replication_method"}},
            "key_properties": [*table.keys],
            "replication_method": FULL_TABLE,
            "schema": plain(_announced(entry.get("schema") or {}, table, name)),
            "metadata": _metadata(entry.get("metadata") or [], table, name),
        }
    if replicated:
        warn(
            "The catalog sets how %s is replicated: ignored, since every run reads its streams as a whole.",
            ", ".join(sorted(set(replicated))),
        )
    return {**catalog, "streams": [*entries.values()]}


def as_text(value: Any) -> str | None:
    """A value of a column that a catalog wants as text: JSON, but for a text itself."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def columns_as_text(own: Mapping[str, Any], announced: Mapping[str, Any]) -> frozenset[str]:
    """The columns that are announced as text and are none."""
    return frozenset(
        name
        for name, wanted in announced.get("properties", {}).items()
        if name in own["properties"] and _types(wanted) and not _fits(own["properties"][name], wanted)
    )


def _is_replicated(entry: Mapping[str, Any]) -> bool:
    """Whether an entry asks for anything but the whole table."""
    said = [entry.get("replication_method"), entry.get("replication_key")]
    for item in entry.get("metadata") or []:
        if not item.get("breadcrumb"):
            said += [(item.get("metadata") or {}).get(name) for name in REPLICATION]
    return any(value not in (None, "", [], FULL_TABLE) for value in said)


def _metadata(items: Iterable[Mapping[str, Any]], table: Table, stream: str) -> list[dict[str, Any]]:
    """The metadata without what it says of replication and keys; a key is selected, whatever it says.

    Raises:
        FileError: `selected` is neither true nor false.
    """
    kept_items = []
    for item in items:
        said = dict(item.get("metadata") or {})
        for name in SELECTION & set(said):
            if isinstance(said[name], str):
                said[name] = BOOLEANS.get(said[name].strip().casefold(), said[name])
            if said[name] not in (None, True, False):
                msg = f"The catalog says `{name}` of {stream} as something else than true or false."
                raise FileError(msg, "Correct it, or make a new one with `tap-mde-kbs --discover > catalog.json`.")
        if not item["breadcrumb"]:
            said = {name: value for name, value in said.items() if name not in {*REPLICATION, "view-key-properties"}}
            said["table-key-properties"] = [*table.keys]
        elif [*item["breadcrumb"]] in [["properties", key] for key in table.keys]:
            continue
        kept_items.append({**item, "metadata": said})
    keys = [{"breadcrumb": ["properties", key], "metadata": {"inclusion": "automatic"}} for key in table.keys]
    return [*kept_items, *keys]


def _announced(wanted: Mapping[str, Any], table: Table, stream: str) -> dict[str, Any]:
    """The schema that is announced: what is asked for, with the keys, and nullable where rows may be null.

    Raises:
        FileError: Rows can't follow it.
    """
    own = table.schema
    asked = wanted.get("properties")
    if not isinstance(asked, dict) or not asked:
        return dict(own)
    properties: dict[str, Any] = {key: own["properties"][key] for key in table.keys}
    for name, prop in asked.items():
        if name in table.keys and not prop:
            continue
        known = own["properties"].get(name)
        if known is None and _is_schema(prop):
            properties[name] = _nullable(_plainly(prop))
        elif known is not None and (_fits(known, prop) or _is_text(prop)):
            properties[name] = _nullable(_plainly(prop)) if _is_nullable(known) else _plainly(prop)
        else:
            msg = (
                f"The catalog's schema asks for {stream}.{name} as {_shown(prop)}, and its values are "
                f"{_shown(known)}: they would not fit."
            )
            raise FileError(msg, "Ask for a wider type or for a string, or take the override out (Meltano's `schema`).")
    required = wanted.get("required") or []
    unknown = set(map(str, required)) - set(table.keys) if isinstance(required, list) else {"something"}
    if unknown:
        msg = f"The catalog's schema requires {stream}.{min(unknown)}, which may be null or absent."
        raise FileError(msg, "Take the override out (Meltano's `schema`).")
    return {**own, "properties": properties}


def _fits(own: Mapping[str, Any], wanted: Any) -> bool:
    """Whether every value of a property's own schema, but null, is one of another; parts of objects may be left out."""
    if not _is_schema(wanted) or any(own.get(key) != wanted[key] for key in RESTRICTING & set(wanted)):
        return False
    types, theirs = _types(own) - {"null"}, _types(wanted)
    is_narrow = bool(theirs) and not types <= theirs | ({"integer"} if "number" in theirs else set())
    formats = {str(schema["format"]).lower() for schema in (own, wanted) if schema.get("format")}
    if is_narrow or (wanted.get("format") and (len(formats) > 1 or not own.get("format"))):
        return False
    if wanted.get("required") or wanted.get("additionalProperties") is False:
        return bool(own == wanted)
    parts, items = wanted.get("properties"), wanted.get("items")
    if isinstance(parts, dict) and "object" in types:
        known = own.get("properties", {})
        return all(_fits(known[name], part) and _is_nullable(part) for name, part in parts.items() if name in known)
    return not (isinstance(items, dict) and "array" in types) or _fits(own.get("items", {}), items)


def _is_text(wanted: Any) -> bool:
    """Whether any value fits, once it is a text."""
    return _is_schema(wanted) and TEXT in _types(wanted) and not ({*RESTRICTING, "format"} & set(wanted))


def _is_schema(wanted: Any) -> bool:
    """Whether it is a schema whose types, if it has any, are of JSON."""
    if not isinstance(wanted, dict):
        return False
    said = wanted.get("type", "null")
    types = [said] if isinstance(said, str) else said
    return isinstance(types, list) and bool(types) and all(isinstance(each, str) and each in TYPES for each in types)


def _plainly(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A schema without notes of somebody's; a format as it is written."""
    kept_keys = {key: value for key, value in wanted.items() if key in {*UNDERSTOOD, *RESTRICTING}}
    return {**kept_keys, **({"format": str(wanted["format"]).lower()} if wanted.get("format") else {})}


def _types(schema: Mapping[str, Any]) -> set[str]:
    said = schema.get("type", ())
    return {said} if isinstance(said, str) else set(said)


def _is_nullable(schema: Mapping[str, Any]) -> bool:
    types = _types(schema)
    return not types or "null" in types


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    types = _types(schema)
    return dict(schema) if not types or "null" in types else {**schema, "type": ["null", *sorted(types)]}


def _shown(schema: Any) -> str:
    """A property's schema in a few words; never of more than a line."""
    if not isinstance(schema, dict):
        return "something else than a schema"
    what = " or ".join(sorted(_types(schema))) if _is_schema(schema) else "no type of JSON"
    more = sorted({*RESTRICTING, "format", "required"} & set(schema))
    return (f"{what} ({', '.join(more)})" if more else what)[:100]
