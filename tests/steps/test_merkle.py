"""RFC 6962 against its own recursive definition and published vectors."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from broker import merkle
from broker.errors import ProofError
from broker.merkle import Frontier, Rows

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "tests" / "vectors" / "transparency-dev" / "merkle.json"
"""testdata of transparency-dev/merkle (417fb0c), a part of it: file by file, as they are there."""
OWN = ROOT / "tests" / "vectors" / "merkle.json"
SIZES = some.integers(min_value=1, max_value=70)
LEAVES = [merkle.leaf_hash(str(each).encode()) for each in range(70)]


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH(D), written down from RFC 6962 §2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = naive_split(len(leaves))
    return sha256(b"\1" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_split(size: int) -> int:
    split = 1
    while split * 2 < size:
        split *= 2
    return split


def naive_path(number: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D), written down from RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    split = naive_split(len(leaves))
    if number < split:
        return [*naive_path(number, leaves[:split]), naive_root(leaves[split:])]
    return [*naive_path(number - split, leaves[split:]), naive_root(leaves[:split])]


def naive_consistency(old: int, leaves: Sequence[bytes], known: bool = True) -> list[bytes]:
    """SUBPROOF(m, D, b), written down from RFC 6962 §2.1.2."""
    if old == len(leaves):
        return [] if known else [naive_root(leaves)]
    split = naive_split(len(leaves))
    if old <= split:
        return [*naive_consistency(old, leaves[:split], known), naive_root(leaves[split:])]
    return [*naive_consistency(old - split, leaves[split:], False), naive_root(leaves[:split])]


def subtree(level: int, index: int) -> bytes:
    return naive_root(LEAVES[index << level : index + 1 << level])


@given(SIZES)
def test_the_root_is_that_of_the_definition(size: int) -> None:
    assert merkle.root(LEAVES[:size]) == naive_root(LEAVES[:size])


def test_the_empty_tree_has_the_root_of_nothing() -> None:
    assert merkle.root([]) == sha256(b"").digest()


@given(SIZES, SIZES)
def test_a_frontier_goes_on_from_its_peaks(first: int, second: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:first]:
        frontier.add(leaf)
    again = Frontier(first, frontier.peaks)
    for leaf in LEAVES[first : max(first, second)]:
        again.add(leaf)
    assert again.root() == naive_root(LEAVES[: max(first, second)])


def test_a_frontier_needs_as_many_peaks_as_its_size_has() -> None:
    with pytest.raises(ValueError, match="peaks"):
        Frontier(3, LEAVES[:1])


@given(some.data())
def test_inclusion_proofs_are_those_of_the_definition_and_hold(data: some.DataObject) -> None:
    size = data.draw(SIZES)
    number = data.draw(some.integers(0, size - 1))
    proof = merkle.inclusion_proof(number, size, subtree)
    assert proof == naive_path(number, LEAVES[:size])
    merkle.check_inclusion(LEAVES[number], number, size, proof, naive_root(LEAVES[:size]))


@given(some.data())
def test_consistency_proofs_are_those_of_the_definition_and_hold(data: some.DataObject) -> None:
    new = data.draw(SIZES)
    old = data.draw(some.integers(1, new))
    proof = merkle.consistency_proof(old, new, subtree)
    assert proof == naive_consistency(old, LEAVES[:new])
    merkle.check_consistency(old, new, proof, naive_root(LEAVES[:old]), naive_root(LEAVES[:new]))


@given(some.data())
def test_an_inclusion_proof_with_one_thing_changed_does_not_hold(data: some.DataObject) -> None:
    size = data.draw(some.integers(2, 70))
    number = data.draw(some.integers(0, size - 1))
    proof, head = naive_path(number, LEAVES[:size]), naive_root(LEAVES[:size])
    other = data.draw(some.integers(0, size - 1).filter(lambda each: each != number))
    place = data.draw(some.integers(0, len(proof) - 1))
    attempts: list[tuple[bytes, int, int, list[bytes], bytes]] = [
        (LEAVES[other], number, size, proof, head),
        (LEAVES[number], size, size, proof, head),
        (LEAVES[number], number, size, proof[:-1], head),
        (LEAVES[number], number, size, [*proof, head], head),
        (LEAVES[number], number, size, [*proof[:place], LEAVES[number], *proof[place + 1 :]], head),
        (LEAVES[number], number, size, proof, LEAVES[number]),
        (LEAVES[number], number, size, [each[:31] for each in proof], head),
    ]
    for attempt in attempts:
        with pytest.raises(ProofError):
            merkle.check_inclusion(*attempt)


@given(some.data())
def test_a_consistency_proof_of_another_history_does_not_hold(data: some.DataObject) -> None:
    new = data.draw(some.integers(2, 70))
    old = data.draw(some.integers(1, new - 1))
    changed = data.draw(some.integers(0, old - 1))
    history = [*LEAVES[:changed], merkle.leaf_hash(b"another"), *LEAVES[changed + 1 : new]]
    proof = naive_consistency(old, LEAVES[:new])
    with pytest.raises(ProofError):
        merkle.check_consistency(old, new, proof, naive_root(history[:old]), naive_root(LEAVES[:new]))
    with pytest.raises(ProofError):
        merkle.check_consistency(old, new, proof, naive_root(LEAVES[:old]), naive_root(history))


def test_there_is_no_consistency_proof_from_nothing() -> None:
    with pytest.raises(ValueError, match="from 0"):
        merkle.consistency_proof(0, 5, subtree)
    with pytest.raises(ProofError):
        merkle.check_consistency(0, 5, [], merkle.EMPTY_ROOT, naive_root(LEAVES[:5]))


def hashes(values: Sequence[str] | None) -> list[bytes]:
    return [b64decode(each) for each in values or ()]


def check_inclusion_vector(vector: dict[str, Any]) -> None:
    merkle.check_inclusion(
        b64decode(vector["leafHash"]),
        vector["leafIdx"],
        vector["treeSize"],
        hashes(vector["proof"]),
        b64decode(vector["root"]),
    )


def check_consistency_vector(vector: dict[str, Any]) -> None:
    merkle.check_consistency(
        vector["size1"],
        vector["size2"],
        hashes(vector["proof"]),
        b64decode(vector["root1"]),
        b64decode(vector["root2"]),
    )


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "inclusion": check_inclusion_vector,
    "consistency": check_consistency_vector,
}


def meets(kind: str, vector: dict[str, Any]) -> bool:
    """Whether the check says of a vector what it wants."""
    try:
        CHECKS[kind](vector)
    except ProofError:
        return bool(vector["wantErr"])
    return not vector["wantErr"]


@pytest.mark.parametrize("kind", CHECKS)
def test_the_vectors_of_this_project_are_met(kind: str) -> None:
    vectors = json.loads(OWN.read_text(encoding="utf-8"))[kind]
    assert len(vectors) > 20
    assert [each for each in vectors if not meets(kind, each)] == []


@pytest.mark.parametrize("kind", CHECKS)
def test_the_published_vectors_are_met(kind: str) -> None:
    vectors = json.loads(PUBLISHED.read_text(encoding="utf-8"))[kind]
    assert len(vectors) > 20
    assert [name for name, each in vectors.items() if not meets(kind, each)] == []


ROW_INDEXES = some.sets(some.integers(0, 63), max_size=20)


@given(ROW_INDEXES)
def test_every_row_is_proven_and_no_other(indexes: set[int]) -> None:
    rows = Rows(bytes(32), 6)
    root = rows.build({each: bytes([each]) for each in indexes})
    for each in indexes:
        merkle.check_row(rows.salt(each), bytes([each]), each, rows.path(each), root)
        with pytest.raises(ProofError):
            merkle.check_row(rows.salt(each), b"other", each, rows.path(each), root)
        with pytest.raises(ProofError):
            merkle.check_row(rows.salt(each), bytes([each]), each ^ 1, rows.path(each), root)


@given(ROW_INDEXES, ROW_INDEXES)
def test_a_path_of_rows_has_the_same_length_whoever_else_is_in_it(first: set[int], second: set[int]) -> None:
    lengths = set()
    for others in (first, second):
        rows = Rows(bytes(32), 6)
        rows.build(dict.fromkeys(others | {5}, b"row"))
        lengths.add(len(rows.path(5)))
    assert lengths == {6 * 32}


def test_rows_of_another_seed_have_nothing_in_common() -> None:
    assert Rows(bytes(32), 6).build({1: b"row"}) != Rows(bytes(31) + b"1", 6).build({1: b"row"})


@pytest.mark.parametrize(("highest", "depth"), [(0, 6), (63, 6), (64, 7), (127, 7), (128, 8), (1000, 10)])
def test_the_depth_of_rows_fits_the_highest_index(highest: int, depth: int) -> None:
    assert merkle.rows_depth(highest) == depth


def test_a_row_beyond_the_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond"):
        Rows(bytes(32), 6).build({64: b"row"})
