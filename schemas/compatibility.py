"""Says why a reader with one schema could not read what a writer with another wrote (Avro 1.11 schema resolution).

A new version must read what the old one wrote; within a major version the old one must read what the new one writes,
too. Stricter than Avro in one point: where the writer has a union, *every* branch must be readable, so that no value of
the old version is left unreadable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Schema = str | list[Any] | dict[str, Any]
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def breaks(old: Schema, new: Schema) -> list[str]:
    """Name every reason why `new` cannot read what `old` wrote; empty if it can."""
    return _Resolution(_named(old), _named(new)).check(old, new, "")


def breaks_version(old: tuple[str, Schema], new: tuple[str, Schema]) -> list[str]:
    """Apply the rule to two versions of one schema, each as (version, schema); `old` is the lower version."""
    found = [f"{new[0]} cannot read {old[0]}: {reason}" for reason in breaks(old[1], new[1])]
    if old[0].partition(".")[0] == new[0].partition(".")[0]:
        found += [f"{old[0]} cannot read {new[0]}: {reason}" for reason in breaks(new[1], old[1])]
    return found


@dataclass
class _Resolution:
    """One comparison; `writers` and `readers` are the named types of each side."""

    writers: dict[str, dict[str, Any]]
    readers: dict[str, dict[str, Any]]
    seen: set[tuple[str, str]] = field(default_factory=set)

    def check(self, writer: Schema, reader: Schema, path: str) -> list[str]:
        writer, reader = _open(writer, self.writers), _open(reader, self.readers)
        if isinstance(writer, list):
            return [reason for branch in writer for reason in self.check(branch, reader, path)]
        if isinstance(reader, list):
            return self._one_of(writer, reader, path)
        kinds = _kind(writer), _kind(reader)
        if kinds[0] != kinds[1]:
            return [] if kinds[1] in PROMOTIONS.get(kinds[0], ()) else [f"{_at(path)} {kinds[0]} became {kinds[1]}"]
        if isinstance(writer, str) or isinstance(reader, str) or kinds[0] in PRIMITIVES:
            return []
        return self._same_kind(kinds[0], writer, reader, path)

    def _one_of(self, writer: Schema, readers: list[Any], path: str) -> list[str]:
        if any(not self.check(writer, branch, path) for branch in readers):
            return []
        label = writer.get("name") if isinstance(writer, dict) else None
        # the reasons of a branch of the same type say more than "no branch fits"
        alike = [branch for branch in readers if _kind(_open(branch, self.readers)) == _kind(writer)]
        if alike and label:
            return self.check(writer, alike[0], path)
        return [f"{_at(path)} no branch reads {label or _kind(writer)}"]

    def _same_kind(self, kind: str, writer: dict[str, Any], reader: dict[str, Any], path: str) -> list[str]:
        if kind == "array":
            return self.check(writer["items"], reader["items"], f"{path}[]")
        if kind == "map":
            return self.check(writer["values"], reader["values"], f"{path}{{}}")
        if not _same_name(writer, reader):
            return [f"{_at(path)} {_full(writer)} became {_full(reader)}"]
        if kind == "fixed":
            return [] if writer["size"] == reader["size"] else [f"{_at(path)} size changed"]
        if kind == "enum":
            return _symbols(writer, reader, path)
        return self._record(writer, reader, path)

    def _record(self, writer: dict[str, Any], reader: dict[str, Any], path: str) -> list[str]:
        pair = (_full(writer), _full(reader))
        if pair in self.seen:  # a type that holds itself, or was found readable elsewhere
            return []
        self.seen.add(pair)
        found = self._fields(writer, reader, path)
        if found:
            self.seen.discard(pair)
        return found

    def _fields(self, writer: dict[str, Any], reader: dict[str, Any], path: str) -> list[str]:
        written = {item["name"]: item for item in writer["fields"]}
        found: list[str] = []
        for item in reader["fields"]:
            name = next((n for n in (item["name"], *item.get("aliases", ())) if n in written), None)
            if name is not None:
                found += self.check(written[name]["type"], item["type"], f"{path}.{item['name']}")
            elif "default" not in item:
                found.append(f"{_at(path)} field {item['name']} has no default and was not written")
        return found


def _symbols(writer: dict[str, Any], reader: dict[str, Any], path: str) -> list[str]:
    lost = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    return [] if not lost or "default" in reader else [f"{_at(path)} symbols {lost} are gone"]


def _named(schema: Schema, namespace: str = "") -> dict[str, dict[str, Any]]:
    """All named types of a schema by full name and by the short name that a reference inside may use."""
    if isinstance(schema, str):
        return {}
    if isinstance(schema, list):
        return {name: found for branch in schema for name, found in _named(branch, namespace).items()}
    space = str(schema.get("namespace", namespace))
    found: dict[str, dict[str, Any]] = {}
    if "name" in schema:
        found = {schema["name"]: schema, f"{space}.{schema['name']}": schema}
    inner = [item["type"] for item in schema.get("fields", [])]
    inner += [schema[key] for key in ("items", "values") if key in schema]
    for child in inner:
        found |= _named(child, space)
    return found


def _open(schema: Schema, named: dict[str, dict[str, Any]]) -> Schema:
    """Follow a reference to its definition; `{"type": "string"}` is `string`."""
    if isinstance(schema, str):
        return schema if schema in PRIMITIVES else named[schema]
    if isinstance(schema, dict) and schema["type"] in PRIMITIVES:
        return str(schema["type"])
    return schema


def _kind(schema: Schema) -> str:
    if isinstance(schema, list):
        return "union"
    return schema if isinstance(schema, str) else str(schema["type"])


def _full(schema: dict[str, Any]) -> str:
    return str(schema["name"])


def _same_name(writer: dict[str, Any], reader: dict[str, Any]) -> bool:
    return _full(writer) == _full(reader) or _full(writer) in reader.get("aliases", ())


def _at(path: str) -> str:
    return f"{path.lstrip('.') or 'schema'}:"
