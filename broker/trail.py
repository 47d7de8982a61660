"""The tile log on disk: append leaves, publish a head, prove.

The folder is laid out as C2SP tlog-tiles says: `checkpoint`, `tile/0/000`, `tile/0/000.p/5`, `tile/entries/000` …
A head is published in three calls: `stage` (in memory, nothing kept), `write` (entries and tiles, durable), `publish`
(the checkpoint, durable); then `adopt` makes it the trail's own head. What lies on disk beyond the checkpoint is what a
crash left: it is written again. `write` and `publish` block and may run in a thread; all else belongs to the loop.
Memory does not grow with the number of leaves.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from broker import crash, durable, notes, reading
from broker.errors import FencedError, ProofError, TrailError
from broker.merkle import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash, node_hash, range_root
from broker.notes import Checkpoint
from broker.tiles import ENTRIES, HEIGHT, WIDTH, Edge, Tile, bundle, limit_of, path, unbundle, widths

CACHED_TILES = 64
CACHED_BUNDLES = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Staged:
    """A head in the making: the files to write, what a full tile makes superfluous, and the state to adopt."""

    edge: Edge
    tail: tuple[bytes, ...]
    root: bytes
    files: tuple[tuple[str, bytes], ...]
    superseded: tuple[str, ...]
    full: tuple[tuple[int, int, Tile], ...]

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self.edge.size


class Trail:
    """The log in one folder, at the head that its checkpoint names. `tail` are the entries of the last, open bundle."""

    def __init__(self, folder: Path, origin: str, edge: Edge, tail: tuple[bytes, ...], note: str) -> None:
        self.folder, self.origin, self.checkpoint = folder, origin, note
        self._edge, self._tail, self.root = edge, tail, edge.root()
        self._tiles: OrderedDict[tuple[int, int], Tile] = OrderedDict()
        self._bundles: OrderedDict[int, list[bytes]] = OrderedDict()

    @classmethod
    def open(cls, folder: Path, origin: str = "") -> Trail:
        """Open at the checkpoint on disk, an empty log without one; whose signature it bears is `Sealer`'s to check.

        Raises TrailError if the tiles do not bear the checkpoint, or it is another log's than `origin`.
        """
        file = folder / "checkpoint"
        try:
            note = reading.read(file, notes.NOTE_LIMIT).decode() if os.path.lexists(file) else ""
            head = notes.parse_checkpoint(notes.parse(note).text) if note else Checkpoint(origin, 0, EMPTY_ROOT)
            edge, tail = _load(folder, head.size)
        except (OSError, ProofError, UnicodeDecodeError) as error:
            raise TrailError(f"{folder}: {error}") from error
        if edge.root() != head.root or (origin and head.origin != origin):
            message = f"{folder}: the tiles do not bear the checkpoint {head.origin} of size {head.size}"
            raise TrailError(message)
        return cls(folder, head.origin, edge, tail, note)

    @property
    def size(self) -> int:
        """Number of leaves under the published head."""
        return self._edge.size

    def frontier(self) -> Frontier:
        """Give the right edge, for ingest to go on from."""
        return Frontier(self.size, self._edge.peaks())

    def go_on_as(self, origin: str) -> None:
        """Sign the next heads under another name: a new log begins with the leaves of this one (`begun`)."""
        self.origin = origin

    # Writing: stage → write → publish → adopt.

    def stage(self, leaves: Sequence[bytes]) -> Staged:
        """Work out the tree that these leaves complete; nothing is kept."""
        edge, full = self._edge.copy(), list[tuple[int, int, Tile]]()
        for leaf in leaves:
            full.extend(edge.add(leaf_hash(leaf)))
        entries, first = [*self._tail, *leaves], self.size // WIDTH
        files = [(path(level, index), tile.data) for level, index, tile in full]
        for begin in range(0, len(entries), WIDTH):
            part = entries[begin : begin + WIDTH]
            files.append((path(ENTRIES, first + begin // WIDTH, len(part)), bundle(part)))
        before = set(widths(self.size))  # a partial tile that has not grown lies there already
        files += [
            (path(level, index, width), edge.tiles[level].data)
            for level, index, width in widths(edge.size)
            if (level, index, width) not in before
        ]
        tail = tuple(entries[len(entries) - len(entries) % WIDTH :])
        superseded = [path(level, index) for level, index, _ in full]
        superseded += [path(ENTRIES, index) for level, index, _ in full if level == 0]
        return Staged(edge, tail, edge.root(), tuple(files), tuple(superseded), tuple(full))

    def write(self, staged: Staged) -> None:
        """Write entries and tiles; return once files and directories are durable. May be done again after a crash.

        Raises FencedError if somebody else has published since.
        """
        self.check_ours()
        folders: set[Path] = set()
        opened: list[int] = []
        try:
            for name, data in staged.files:
                file = self.folder / name
                folders |= durable.make(file.parent)
                opened.append(durable.begin(file, data))
            crash.here("seal.tiles-unsynced")
            durable.sync_together(opened, folders)
        finally:
            for each in opened:
                os.close(each)
        crash.here("seal.tiles-written")

    def publish(self, staged: Staged, note: str) -> None:
        """Write the checkpoint aside, then rename it into place; return once it is durable.

        Raises FencedError if somebody else has published since: a stopped owner that wakes up must not turn back the
        log of its successor.
        """
        with durable.alone(self.folder):
            self.check_ours()
            aside = self.folder / "checkpoint.new"
            descriptor = durable.begin(aside, note.encode())
            try:
                os.fsync(descriptor)  # its place in the folder need not last: the rename gives it another
            finally:
                os.close(descriptor)
            crash.here("seal.checkpoint-aside")
            aside.replace(self.folder / "checkpoint")
            crash.here("seal.checkpoint-renamed")
            durable.sync(self.folder)
        crash.here("seal.checkpoint-durable")
        self._drop_partial(staged.superseded)

    def cosign(self, note: str) -> None:
        """Put the same head with more signatures in the checkpoint's place; durable on return. May run in a thread.

        Not while another thread publishes. Raises FencedError if somebody else has published since.
        """
        with durable.alone(self.folder):
            self.check_ours()
            aside = self.folder / "checkpoint.new"
            durable.write(aside, note.encode())
            crash.here("cosign.aside")
            aside.replace(self.folder / "checkpoint")
            self.checkpoint = note
            crash.here("cosign.renamed")
            durable.sync(self.folder)

    def check_ours(self) -> None:
        """Check that the head on disk is ours; more signatures under it change nothing. Raises FencedError."""
        file = self.folder / "checkpoint"
        there = file.read_text(encoding="utf-8") if file.exists() else ""
        if there.partition("\n\n")[0] != self.checkpoint.partition("\n\n")[0]:
            raise FencedError

    def _drop_partial(self, full: Sequence[str]) -> None:
        """Remove what full tiles replace (C2SP tlog-tiles, "Partial Tiles"); what a crash leaves here harms nobody."""
        for name in full:
            folder = self.folder / f"{name}.p"
            if folder.is_dir():
                for each in folder.iterdir():
                    each.unlink()
                folder.rmdir()

    def adopt(self, staged: Staged, note: str) -> None:
        """Go on from the head that was published."""
        self._edge, self._tail, self.root, self.checkpoint = staged.edge, staged.tail, staged.root, note
        for level, index, tile in staged.full[-CACHED_TILES:]:
            _keep(self._tiles, (level, index), tile, CACHED_TILES)

    # Reading.

    def entry(self, number: int) -> bytes:
        """Give one leaf. Raises IndexError beyond the head, TrailError if the disk no longer has it."""
        if not 0 <= number < self.size:
            message = f"leaf {number} is not in a trail of {self.size}"
            raise IndexError(message)
        index, place = divmod(number, WIDTH)
        return self._bundle(index)[place]

    def entries(self, begin: int = 0) -> Iterator[bytes]:
        """Stream the leaves from `begin` to the head."""
        for number in range(begin, self.size):
            yield self.entry(number)

    def _bundle(self, index: int) -> Sequence[bytes]:
        if index == self.size // WIDTH:
            return self._tail
        return _cached(self._bundles, index, self._read_bundle, CACHED_BUNDLES)

    def _read_bundle(self, index: int) -> list[bytes]:
        return self._whole(ENTRIES, index, lambda data: _entries(data, WIDTH))

    def _whole(self, level: int | str, index: int, parse: Callable[[bytes], T]) -> T:
        name = path(level, index)
        try:
            return parse(reading.read(self.folder / name, limit_of(level)))
        except (OSError, ProofError) as error:
            raise TrailError(f"{name}: {error}") from error

    def _tile(self, level: int, index: int) -> Tile:
        if index == self.size >> HEIGHT * (level + 1):
            return self._edge.tiles[level]
        return _cached(self._tiles, (level, index), self._read_tile, CACHED_TILES)

    def _read_tile(self, place: tuple[int, int]) -> Tile:
        return self._whole(*place, lambda data: _tile(data, WIDTH))

    def subtree(self, level: int, index: int) -> bytes:
        """Give the root of the complete subtree of 2^level leaves that begins at leaf index·2^level."""
        tile_level, inner = divmod(level, HEIGHT)
        number, place = divmod(index << inner, WIDTH)
        return self._tile(tile_level, number).levels[inner][place >> inner]

    def root_of(self, size: int) -> bytes:
        """Tell the head of an earlier size."""
        return range_root(0, size, self.subtree) if size else EMPTY_ROOT

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Prove that the tree of `new` leaves extends that of `old`; nothing to prove from 0 (C2SP tlog-witness)."""
        return consistency_proof(old, new, self.subtree) if old else []

    def prove(self, number: int, size: int, checkpoint: str) -> str:
        """Write the tlog-proof of one leaf under the checkpoint of `size`."""
        return self.proofs([number], size, checkpoint)[0]

    def proofs(self, numbers: Sequence[int], size: int, checkpoint: str) -> list[str]:
        """Write the tlog-proofs of many leaves under one checkpoint: what they share is looked up once.

        Raises ValueError for a leaf that is not in a tree of `size`, or a size beyond the head.
        """
        if size > self.size or any(not 0 <= each < size for each in numbers):
            message = f"no proof of leaves {list(numbers)[:3]}… in a tree of {size}; the trail has {self.size}"
            raise ValueError(message)
        above = self._peaks(size)
        return [f"{notes.PROOF_HEAD}\nindex {each}\n{self._above(0, each, above)}\n{checkpoint}" for each in numbers]

    def _above(self, level: int, index: int, known: dict[tuple[int, int], str]) -> str:
        """Give the proof's lines from a subtree up to the root."""
        text = known.get((level, index))
        if text is None:
            text = _line(self.subtree(level, index ^ 1)) + self._above(level + 1, index >> 1, known)
            known[level, index] = text
        return text

    def _peaks(self, size: int) -> dict[tuple[int, int], str]:
        """Give the lines above each of the largest complete subtrees of a tree (RFC 6962 §2.1.1)."""
        begin, peaks = 0, list[tuple[int, int]]()
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                peaks.append((level, begin >> level))
                begin += 1 << level
        right: bytes | None = None
        lines, roots = {}, [self.subtree(*each) for each in peaks]
        for place in range(len(peaks) - 1, -1, -1):
            left = "".join(map(_line, reversed(roots[:place])))
            lines[peaks[place]] = (_line(right) if right else "") + left
            right = node_hash(roots[place], right) if right else roots[place]
        return lines


def _line(digest: bytes) -> str:
    return b64encode(digest).decode() + "\n"


def _load(folder: Path, size: int) -> tuple[Edge, tuple[bytes, ...]]:
    """Read the partial tiles and the open bundle of a size. Raises OSError or ProofError."""
    tiles = [Tile() for _ in range((size.bit_length() + HEIGHT - 1) // HEIGHT)]
    for level, index, width in widths(size):
        tiles[level] = _tile(read_part(folder, level, index, width), width)
    width = size % WIDTH
    tail = _entries(read_part(folder, ENTRIES, size // WIDTH, width), width) if width else []
    if [leaf_hash(each) for each in tail] != (tiles[0].levels[0] if tiles else []):
        message = f"{path(ENTRIES, size // WIDTH, width)} does not fit its tile"
        raise ProofError(message)
    return Edge(size, tiles), tuple(tail)


def read_part(folder: Path, level: int | str, index: int, width: int) -> bytes:
    """Read a partial tile or bundle, or the full one where the partial is gone already. Raises OSError."""
    with suppress(FileNotFoundError):
        return reading.read(folder / path(level, index, width), limit_of(level))
    data = reading.read(folder / path(level, index), limit_of(level))
    if level != ENTRIES:
        return data[: 32 * width]
    return bundle(unbundle(data)[:width])


def _tile(data: bytes, width: int) -> Tile:
    tile = Tile.of(data)
    if tile.width != width:
        message = f"a tile of {tile.width} hashes instead of {width}"
        raise ProofError(message)
    return tile


def _entries(data: bytes, width: int) -> list[bytes]:
    entries = unbundle(data)
    if len(entries) != width:
        message = f"a bundle of {len(entries)} entries instead of {width}"
        raise ProofError(message)
    return entries


K = TypeVar("K")


def _cached(cache: OrderedDict[K, T], key: K, read: Callable[[K], T], limit: int) -> T:
    found = cache.get(key)
    if found is None:
        found = read(key)
        _keep(cache, key, found, limit)
    else:
        cache.move_to_end(key)
    return found


def _keep(cache: OrderedDict[K, T], key: K, value: T, limit: int) -> None:
    cache[key] = value
    while len(cache) > limit:
        cache.popitem(last=False)
