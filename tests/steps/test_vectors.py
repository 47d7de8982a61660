"""The committed vectors are what the code makes, and docs/envelope.md shows the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from broker import avro, by_hand, codec, merkle, notes
from broker.notice import HEADER_TYPE, KINDS, Delivery, Envelope, Header, Leaf, Row, Shared
from broker.signing import PublicKey, pae
from schemas import loader
from tests.vectors import make

PAGE = (Path(__file__).parents[2] / "docs" / "envelope.md").read_text(encoding="utf-8")
PROGRAM = (Path(__file__).parents[2] / "docs" / "open-delivery.mjs").read_text(encoding="utf-8")


def vector(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((make.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def section(title: str) -> str:
    return PAGE.partition(f"\n{title}\n")[2].partition("\n##")[0]


def table_bytes(text: str) -> str:
    """The bytes of a table of offsets, one after the other; each row stands at its offset."""
    rows = re.findall(r"^\| ([0-9]+) \| `([0-9a-f]+)` \|", text, re.MULTILINE)
    found = ""
    for offset, raw in rows:
        assert int(offset) * 2 == len(found)
        found += raw
    return found


@pytest.mark.parametrize("name", make.FILES)
def test_the_committed_vectors_are_what_the_code_makes(name: str) -> None:
    committed = (make.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert committed == make.text(name), "made anew by: python -m tests.vectors.make"


def test_the_page_lists_the_fingerprint_of_every_wire_schema() -> None:
    listed = dict(re.findall(r"^\| ([a-z]+) \| `([0-9a-f]{16})` \|$", PAGE, re.MULTILINE))
    assert listed == {name: avro.fingerprint(name).hex() for name in make.WIRE}


def test_the_page_describes_the_newest_version_of_every_wire_schema() -> None:
    assert {name: loader.latest(name) for name in make.WIRE} == dict.fromkeys(make.WIRE, "1.0") | {"decision": "1.2"}
    for version in ("1.0", "1.1"):
        assert f"`{avro._schema('decision', version)[0][2:].hex()}`" in PAGE


def test_the_page_lists_the_compartments_of_every_kind() -> None:
    listed: dict[str, tuple[str, ...]] = {}
    for kinds, names in re.findall(r"^\| ([a-z, ]+) \| routing ([a-z ]+) \|$", PAGE, re.MULTILINE):
        listed |= {kind: tuple(names.split()) for kind in kinds.split(", ")}
    assert listed == KINDS


def fields_of(type_: Any, defined: dict[str, Any]) -> str:
    """A type in the words of the page."""
    if isinstance(type_, str):
        return fields_of(defined[type_], defined) if type_ in defined else type_
    if isinstance(type_, list):
        return "null or " + fields_of(type_[1], defined)
    if "name" in type_:
        defined[type_["name"]] = type_
    if type_["type"] == "fixed":
        return f"fixed({type_['size']})"
    if type_["type"] == "array":
        return "array of " + fields_of(type_["items"], defined)
    inner = ", ".join(f"{each['name']} {fields_of(each['type'], defined)}" for each in type_["fields"])
    return "{" + inner + "}"


@pytest.mark.parametrize("name", [each for each in make.WIRE if each not in ("envelope", "delivery", "shared")])
def test_the_page_names_every_field_with_its_type_in_order(name: str) -> None:
    words = re.sub(r" \([^)]*(\([^)]*\)[^)]*)*\)", "", " ".join(PAGE.split()))
    expected = fields_of(loader.load(name), {})[1:-1]
    if name == "compartments":
        expected = expected.replace("items array", "items: array", 1)
    if name == "leaf":
        expected = expected.replace("{", "")
    assert expected in words


@pytest.mark.parametrize("name", ["envelope", "delivery"])
def test_the_tables_of_the_page_name_every_field_with_its_type(name: str) -> None:
    rows = re.findall(
        r"^\|(?: own \|| shared \|)? ([a-z_]+) \| ([a-z]+(?:\([0-9]+\)| of long)?) \|", PAGE, re.MULTILINE
    )
    expected = [(each["name"], fields_of(each["type"], {})) for each in loader.load(name)["fields"]]
    at = rows.index(expected[0])
    assert rows[at : at + len(expected)] == expected


def test_the_worked_example_of_the_page_is_that_of_the_vectors() -> None:
    envelope, rows, delivery = vector("envelope"), vector("rows"), vector("delivery")
    shown = delivery["deliveries"][1]
    row = rows["rows"][1]
    assert table_bytes(section("### Header").partition("compartments array")[0]) == ""  # section 3 has no offsets
    example = PAGE.partition("## 9. A worked example")[2]

    def part(title: str) -> str:
        return example.partition(f"\n### {title}\n")[2].partition("\n##")[0]

    assert table_bytes(part("Header")) == envelope["header"]["bytes"]
    assert table_bytes(part("Compartments")) == envelope["routing"]["bytes"]
    assert table_bytes(part("Rows")) == row["row"]
    assert table_bytes(part("Leaf")) == delivery["leaf"]["bytes"]
    own = table_bytes(part("Delivery"))
    assert shown["delivery"] == own + by_hand.long(len(shown["shared"]) // 2).hex() + shown["shared"]
    assert f"`{envelope['header']['digest']}`" in part("Header")
    assert f"`{envelope['header']['signature']}`" in part("Header")
    for each in envelope["compartments"]:
        assert each["digest"] in part("Compartments")
    for digest in (rows["seed"], row["salt"], row["hash"], rows["root"], *re.findall("[0-9a-f]{64}", row["path"])):
        assert digest in part("Rows")
    for text in (delivery["proof"], delivery["leaf"]["hash"], delivery["decision"]["salt"], delivery["vkey"]):
        assert text in part("Leaf")
    assert part("Delivery").split("```")[1].strip() in shown["envelope"]


def test_the_program_knows_the_fingerprints_of_the_page() -> None:
    listed = dict(re.findall(r"^  ([a-z]+): '([0-9a-f]{16})',$", PROGRAM, re.MULTILINE))
    assert listed
    assert listed.items() <= {name: avro.fingerprint(name).hex() for name in make.WIRE}.items()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_delivery_of_the_vectors_holds_by_our_own_checks(position: int) -> None:
    everything = vector("delivery")
    expected = everything["deliveries"][position]
    delivery = codec.decode(Delivery, bytes.fromhex(expected["delivery"]))
    shared = codec.decode(Shared, delivery.shared)
    leaf = codec.decode(Leaf, shared.leaf)
    envelope = codec.decode(Envelope, shared.envelope)
    proof = notes.parse_proof(shared.proof)
    head = notes.open_checkpoint(proof.checkpoint, notes.parse_vkey(everything["vkey"]))
    merkle.check_inclusion(merkle.leaf_hash(shared.leaf), proof.number, head.size, proof.proof, head.root)
    assert leaf.rows is not None
    merkle.check_row(delivery.salt, delivery.row, delivery.index, delivery.path, leaf.rows)
    key = PublicKey.of(bytes.fromhex(everything["issuer_key"]["public"]))
    key.check(envelope.signature, pae(HEADER_TYPE, envelope.header))
    row = codec.decode(Row, delivery.row)
    opened = [each.name for each in codec.decode_compartments(envelope.compartments) if each.opened]
    names = [slot.name for slot in codec.decode(Header, envelope.header).compartments]
    assert opened == expected["opened"] == [name for bit, name in enumerate(names) if row.shown >> bit & 1]


def test_empty_subtrees_are_those_of_the_paths() -> None:
    rows = vector("rows")
    path = re.findall("[0-9a-f]{64}", rows["rows"][0]["path"])
    assert [each["hash"] for each in rows["empty"]] == [path[0], path[1], path[5]]


def test_the_proofs_of_the_log_hold() -> None:
    log = vector("trail")
    roots = [bytes.fromhex(each) for each in log["roots"]]
    leaves = [bytes.fromhex(each) for each in log["leaf_hashes"]]
    for each in log["inclusion"]:
        proof = [bytes.fromhex(digest) for digest in each["proof"]]
        merkle.check_inclusion(leaves[each["leaf"]], each["leaf"], each["size"], proof, roots[each["size"] - 1])
    for each in log["consistency"]:
        proof = [bytes.fromhex(digest) for digest in each["proof"]]
        merkle.check_consistency(each["old"], each["new"], proof, roots[each["old"] - 1], roots[each["new"] - 1])
