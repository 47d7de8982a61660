"""The tile log on disk: layout, proofs, and what happens when it is cut off at any point."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from broker import merkle, notes, tiles
from broker.errors import FencedError, ProofError, TrailError
from broker.notes import Checkpoint
from broker.trail import Trail
from tests.steps.ledger import KEY, ORIGIN, VKEY

MIB = 1024 * 1024


def leaves(begin: int, end: int) -> list[bytes]:
    return [f"leaf {each}".encode() for each in range(begin, end)]


def root_of(size: int) -> bytes:
    return merkle.root([merkle.leaf_hash(each) for each in leaves(0, size)])


def extend(trail: Trail, size: int) -> str:
    """Publish the head of `size`."""
    staged = trail.stage(leaves(trail.size, size))
    note = notes.sign_checkpoint(Checkpoint(ORIGIN, staged.size, staged.root), KEY)
    trail.write(staged)
    trail.publish(staged, note)
    trail.adopt(staged, note)
    return note


def grown(folder: Path, *sizes: int) -> Trail:
    trail = Trail.open(folder, ORIGIN)
    for size in sizes:
        extend(trail, size)
    return trail


def files(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    ("level", "index", "width", "name"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 0, 5, "tile/0/000.p/5"),
        ("entries", 7, 256, "tile/entries/007"),
        (0, 1_234_067, 256, "tile/0/x001/x234/067"),
        (1, 1000, 1, "tile/1/x001/000.p/1"),
    ],
)
def test_tiles_are_named_as_the_specification_says(level: int | str, index: int, width: int, name: str) -> None:
    assert tiles.path(level, index, width) == name


def test_the_partial_tiles_of_the_specification_s_example() -> None:
    assert tiles.widths(70_000) == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert tiles.widths(256) == [(1, 0, 1)]


@given(some.lists(some.binary(max_size=300), max_size=20))
def test_a_bundle_comes_back_as_it_was_written(entries: list[bytes]) -> None:
    assert tiles.unbundle(tiles.bundle(entries)) == entries


@pytest.mark.parametrize("data", [b"\0", b"\0\2a", b"\0\1a\0"])
def test_a_bundle_that_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(ProofError):
        tiles.unbundle(data)


def test_an_entry_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        tiles.bundle([bytes(65_536)])


def test_a_trail_lies_on_disk_as_the_specification_says(tmp_path: Path) -> None:
    grown(tmp_path, 5, 261)
    assert files(tmp_path) == {
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/5",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/5",
    }
    assert (tmp_path / "tile/0/000").stat().st_size == 8192


def test_partial_tiles_are_written_for_published_heads_only(tmp_path: Path) -> None:
    grown(tmp_path, 3, 7)
    assert {each for each in files(tmp_path) if each.startswith("tile/0")} == {"tile/0/000.p/3", "tile/0/000.p/7"}


@settings(max_examples=20)
@given(steps=some.lists(some.integers(1, 400), min_size=1, max_size=4))
def test_the_root_is_that_of_all_leaves_whatever_the_steps(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    folder, size = tmp_path_factory.mktemp("trail"), 0
    trail = Trail.open(folder, ORIGIN)
    for step in steps:
        size += step
        extend(trail, size)
    again = Trail.open(folder, ORIGIN)
    for each in (trail, again):
        assert (each.size, each.root) == (size, root_of(size))
        assert each.frontier().root() == each.root
    assert list(again.entries()) == leaves(0, size)


@pytest.mark.parametrize("reopened", [False, True])
def test_every_leaf_is_proven_under_every_head(tmp_path: Path, reopened: bool) -> None:
    sizes = (1, 2, 255, 256, 257, 513, 700)
    heads = {size: (root_of(size), "note\n") for size in sizes}
    trail = grown(tmp_path, *sizes)
    if reopened:
        trail = Trail.open(tmp_path, ORIGIN)
    for size, (root, note) in heads.items():
        assert trail.root_of(size) == root
        for number, text in enumerate(trail.proofs(range(size), size, note)):
            parsed = notes.parse_proof(text)
            assert (parsed.number, parsed.checkpoint) == (number, note)
            hashed = merkle.leaf_hash(f"leaf {number}".encode())
            merkle.check_inclusion(hashed, number, size, parsed.proof, root)


def test_a_proof_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    trail = grown(tmp_path, 300)
    assert trail.prove(299, 300, "note\n") == trail.proofs([1, 299], 300, "note\n")[1]


def test_every_head_extends_every_one_before(tmp_path: Path) -> None:
    sizes = (1, 3, 256, 300, 600)
    trail = grown(tmp_path, *sizes)
    for old in sizes:
        for new in (each for each in sizes if each >= old):
            merkle.check_consistency(old, new, trail.consistency(old, new), root_of(old), root_of(new))
    assert trail.consistency(0, 600) == []


def test_nothing_is_proven_beyond_the_head(tmp_path: Path) -> None:
    trail = grown(tmp_path, 5)
    for numbers, size in (([5], 5), ([0], 6), ([-1], 5)):
        with pytest.raises(ValueError, match="no proof"):
            trail.proofs(numbers, size, "note\n")
    with pytest.raises(IndexError):
        trail.entry(5)


def test_memory_does_not_grow_with_the_trail(tmp_path: Path) -> None:
    import tracemalloc

    trail = grown(tmp_path, 2_000)
    tracemalloc.start()
    for size in range(4_000, 60_001, 4_000):
        extend(trail, size)
        trail.proofs(range(size - 500, size), size, "note\n")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 6 * MIB


def test_staging_keeps_nothing(tmp_path: Path) -> None:
    trail = grown(tmp_path, 5)
    trail.stage(leaves(5, 900))
    assert (trail.size, trail.root) == (5, root_of(5))
    assert "tile/0/000" not in files(tmp_path)


@pytest.mark.parametrize("before", [0, 5, 250])
def test_files_torn_before_the_checkpoint_are_written_again(tmp_path: Path, before: int) -> None:
    trail = grown(tmp_path, *([before] if before else []))
    published = files(tmp_path)
    trail.write(trail.stage(leaves(before, before + 300)))
    for name in files(tmp_path) - published:
        torn = tmp_path / name
        torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    (tmp_path / "checkpoint.new").write_text("half a check", encoding="utf-8")
    again = Trail.open(tmp_path, ORIGIN)
    assert (again.size, again.root) == (before, root_of(before))
    extend(again, before + 300)
    assert list(Trail.open(tmp_path, ORIGIN).entries()) == leaves(0, before + 300)


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"])
@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_published_head_whose_files_are_cut_off_is_refused(tmp_path: Path, name: str, cut: int) -> None:
    grown(tmp_path, 300)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: min(cut, len(data) - 1)])
    if name == "checkpoint" and cut == 0:
        # An empty file is no checkpoint; the record says how many leaves there were (test_seal.py).
        assert Trail.open(tmp_path, ORIGIN).size == 0
        return
    with pytest.raises(TrailError):
        Trail.open(tmp_path, ORIGIN)


def test_a_changed_tile_under_the_checkpoint_is_refused(tmp_path: Path) -> None:
    grown(tmp_path, 300)
    tile = tmp_path / "tile/1/000.p/1"
    tile.write_bytes(bytes([tile.read_bytes()[0] ^ 1]) + tile.read_bytes()[1:])
    with pytest.raises(TrailError, match="do not bear"):
        Trail.open(tmp_path, ORIGIN)


def test_another_log_s_checkpoint_is_refused(tmp_path: Path) -> None:
    grown(tmp_path, 5)
    with pytest.raises(TrailError):
        Trail.open(tmp_path, "another/trail")


def test_partial_tiles_go_once_the_full_one_is_there_and_readers_find_it(tmp_path: Path) -> None:
    trail = grown(tmp_path, 5)
    old = trail.checkpoint
    extend(trail, 256)
    assert not (tmp_path / "tile/0/000.p").exists()
    (tmp_path / "checkpoint").write_text(old, encoding="utf-8")  # a reader who took the head a moment ago
    assert Trail.open(tmp_path, ORIGIN).root == root_of(5)


def test_an_owner_that_wakes_up_late_cannot_turn_the_log_back(tmp_path: Path) -> None:
    sleeper = grown(tmp_path, 5)
    staged = sleeper.stage(leaves(5, 10))
    extend(Trail.open(tmp_path, ORIGIN), 20)
    with pytest.raises(FencedError):
        sleeper.write(staged)
    with pytest.raises(FencedError):
        sleeper.publish(staged, "note\n")
    assert Trail.open(tmp_path, ORIGIN).root == root_of(20)


def test_the_checkpoint_is_signed_by_the_log(tmp_path: Path) -> None:
    note = extend(Trail.open(tmp_path, ORIGIN), 3)
    assert (tmp_path / "checkpoint").read_text(encoding="utf-8") == note
    assert notes.open_checkpoint(note, VKEY) == Checkpoint(ORIGIN, 3, root_of(3))
