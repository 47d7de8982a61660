"""The compatibility rule, on invented schemas and on every schema file.

After adding a schema or a version (never after editing a published one), write the digests anew:

    .venv/bin/python -c "import json; from schemas import loader; print(json.dumps(loader.digests(), indent=1))" \
        > tests/schemas/published.json
"""

from __future__ import annotations

import json
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from broker.notice import BODY_SCHEMAS
from cli.publish import REASONS
from schemas import loader
from schemas.compatibility import breaks, breaks_version

PUBLISHED: dict[str, str] = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
ALL = loader.names()


def record(*fields: dict[str, Any], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "valise", "fields": list(fields)}


def field(name: str, type_: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


A = field("a", "string")
OLD = record(A, field("n", ["null", "string"], default=None))
BREAKING: dict[str, tuple[Any, Any]] = {
    "a field without default is new": (OLD, record(*OLD["fields"], field("b", "long"))),
    "a type narrows": (record(field("a", "long")), record(field("a", "int"))),
    "a type becomes another": (OLD, record(field("a", "long"), OLD["fields"][1])),
    "null is no longer allowed": (OLD, record(A, field("n", "string"))),
    "a record is renamed": (OLD, {**OLD, "name": "Other"}),
    "a fixed changes its size": (
        record(field("d", {"type": "fixed", "name": "D", "size": 16})),
        record(field("d", {"type": "fixed", "name": "D", "size": 32})),
    ),
    "an enum loses a symbol": (
        {"type": "enum", "name": "E", "symbols": ["A", "B"]},
        {"type": "enum", "name": "E", "symbols": ["A"]},
    ),
    "an array holds something else": (
        record(field("l", {"type": "array", "items": "string"})),
        record(field("l", {"type": "array", "items": "long"})),
    ),
    "a map holds something else": ({"type": "map", "values": "string"}, {"type": "map", "values": "long"}),
    "a nested record gains a field without default": (
        record(field("l", {"type": "array", "items": record(A, name="Item")})),
        record(field("l", {"type": "array", "items": record(A, field("b", "long"), name="Item")})),
    ),
    "a named type that is used twice breaks where it is defined": (
        record(field("x", record(A, name="Item")), field("y", ["null", "Item"])),
        record(field("x", record(field("a", "long"), name="Item")), field("y", ["null", "Item"])),
    ),
}
HARMLESS: dict[str, tuple[Any, Any]] = {
    "nothing changes": (OLD, OLD),
    "a field with a default is new": (OLD, record(*OLD["fields"], field("b", ["null", "long"], default=None))),
    "a field is dropped": (OLD, record(A)),
    "a type widens": (record(field("a", "int")), record(field("a", "long"))),
    "a field is renamed with an alias": (OLD, record(field("z", "string", aliases=["a"]), OLD["fields"][1])),
    "a doc changes": (OLD, {**OLD, "doc": "better words"}),
    "an enum with a default loses a symbol": (
        {"type": "enum", "name": "E", "symbols": ["A", "B"]},
        {"type": "enum", "name": "E", "symbols": ["A"], "default": "A"},
    ),
    "a type holds itself": (
        record(A, field("next", ["null", "R"], default=None)),
        record(A, field("b", "string", default=""), field("next", ["null", "R"], default=None)),
    ),
}


@pytest.mark.parametrize("case", BREAKING)
def test_a_breaking_change_is_named(case: str) -> None:
    assert breaks(*BREAKING[case])


@pytest.mark.parametrize("case", HARMLESS)
def test_a_harmless_change_passes(case: str) -> None:
    assert breaks(*HARMLESS[case]) == []


def test_the_reason_names_the_place() -> None:
    (reason,) = breaks(*BREAKING["a nested record gains a field without default"])
    assert reason == "l[]: field b has no default and was not written"


def test_within_a_major_version_the_old_one_reads_the_new_one() -> None:
    dropped = record(OLD["fields"][1])
    assert breaks_version(("1.0", OLD), ("1.1", dropped)) == [
        "1.0 cannot read 1.1: schema: field a has no default and was not written"
    ]
    assert breaks_version(("1.0", OLD), ("2.0", dropped)) == []


@pytest.mark.parametrize(("old", "new"), [*BREAKING.values(), *HARMLESS.values()], ids=[*BREAKING, *HARMLESS])
def test_what_the_rule_lets_pass_fastavro_reads(old: Any, new: Any) -> None:
    if breaks(old, new):
        return
    data = BytesIO()
    value: Any = {"a": "x", "n": None, "next": None} if old["type"] == "record" else "A"
    if old["type"] == "record" and old["fields"][0]["type"] == "int":
        value = {"a": 1}
    schemaless_writer(data, parse_schema(old, named_schemas={}), value)
    data.seek(0)
    schemaless_reader(data, parse_schema(old, named_schemas={}), parse_schema(new, named_schemas={}))


@pytest.mark.parametrize("name", sorted({name for name, _ in ALL}))
def test_every_version_can_read_the_versions_before_it(name: str) -> None:
    versions = [version for found, version in ALL if found == name]
    for old, new in combinations(versions, 2):
        assert breaks_version((old, loader.load(name, old)), (new, loader.load(name, new))) == []


def test_a_published_schema_is_never_edited_in_place() -> None:
    digests = loader.digests()
    assert {key for key in PUBLISHED if PUBLISHED[key] != digests.get(key)} == set()
    assert set(digests) == set(PUBLISHED), "add new versions to published.json (see the docstring)"


def test_every_compartment_has_a_schema_and_an_example() -> None:
    assert set(BODY_SCHEMAS) <= {name for name, _ in ALL}
    assert all(loader.example(name) for name in BODY_SCHEMAS)


@pytest.mark.parametrize(("name", "version"), ALL)
def test_every_field_has_a_doc_and_no_type_that_breaks_old_readers(name: str, version: str) -> None:
    assert list(_faults(loader.load(name, version))) == []


@pytest.mark.parametrize("name", BODY_SCHEMAS)
def test_in_a_body_what_may_be_unknown_has_a_default(name: str) -> None:
    for item in _fields(loader.load(name)):
        kind = item["type"]
        if isinstance(kind, list):
            assert kind[0] == "null", item
            assert item["default"] is None, item
        elif isinstance(kind, dict) and kind["type"] == "array":
            assert item["default"] == [], item


@pytest.mark.parametrize("name", BODY_SCHEMAS)
def test_every_example_fits_its_schema_and_names_no_field_that_is_not_there(name: str) -> None:
    schema = parse_schema(loader.load(name), named_schemas={})
    data = BytesIO()
    schemaless_writer(data, schema, loader.example(name), strict_allow_default=True)
    data.seek(0)
    again = schemaless_reader(data, schema, None)
    assert isinstance(again, dict)
    assert again.keys() >= loader.example(name).keys()


def test_versions_are_ordered_by_number() -> None:
    assert loader.latest("header") == "1.0"
    with pytest.raises(KeyError):
        loader.latest("no-such-schema")
    with pytest.raises(KeyError):
        loader.load("header", "0.0")
    with pytest.raises(KeyError):
        loader.example("no-such-schema")


def _fields(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [item for branch in schema for item in _fields(branch)]
    if not isinstance(schema, dict):
        return []
    found = list(schema.get("fields", []))
    inner = [item["type"] for item in found] + [schema[key] for key in ("items", "values") if key in schema]
    return found + [item for child in inner for item in _fields(child)]


def _faults(schema: dict[str, Any]) -> list[str]:
    text = json.dumps(schema)
    faults = [word for word in ('"logicalType"', '"enum"') if word in text]
    return faults + [item["name"] for item in _fields(schema) if not item.get("doc")]


def test_withdraw_takes_the_reasons_that_the_schema_lists() -> None:
    listed = loader.load("withdrawal.reason")["fields"][0]["doc"]
    assert listed.replace(" or ", ", ").split(", ") == list(REASONS)
