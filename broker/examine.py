"""Examines a whole trail offline, with public keys only.

Every entry is hashed again, every tile compared with what the entries make of it, the root with the signed checkpoint,
every kept head with the root of its size, every kept delivery with its leaf. Streams: memory does not grow with the
number of leaves. Where a hash and what it is made from differ, the tile above tells which of the two was changed.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from broker import begun, codec, earlier, extent, notes, reading
from broker.errors import NoticeRejectedError, ProofError
from broker.leaves import ONCE, SPOKEN_OF, Succession
from broker.merkle import EMPTY_ROOT, leaf_hash
from broker.notes import Checkpoint, Vkey
from broker.notice import Leaf
from broker.report import Report
from broker.seen import Comparison, SeenDelivery, SeenHead, SeenLeaf
from broker.tiles import ENTRIES, WIDTH, Edge, Tile, path, unbundle, widths
from broker.trail import read_part

CACHED_BUNDLES = 1024
PROGRESS_EVERY = 64
"""Bundles between two words of progress."""


def examine(
    folder: Path,
    key: Vkey,
    heads: Iterable[SeenHead] = (),
    deliveries: Iterable[SeenDelivery] = (),
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    told: Iterable[SeenLeaf] = (),
) -> Report:
    """Examine the log in `folder`; `heads` come by rising size, `deliveries` and `told` by rising leaf number."""
    report = Report(key.name)
    head = _head(folder, key, report)
    walk = _Walk(folder, key, head, report, heads, deliveries, told)
    for done, some in enumerate(extent.bundles(folder, head.size)):
        walk.some(some)
        if done % PROGRESS_EVERY == 0:
            progress(report.leaves, head.size)
    walk.finish()
    if not report.wrong:  # where the tiles in force do not hold, nothing can be told from them about earlier ones
        for place, what in earlier.changed(folder, head.size):
            report.add(place, what)
    return report


def _head(folder: Path, key: Vkey, report: Report) -> Checkpoint:
    """Read the checkpoint; one that cannot be trusted is still examined for what it says."""
    checkpoint, known = Checkpoint(key.name, 0, EMPTY_ROOT), False
    try:
        note = reading.read(folder / "checkpoint", notes.NOTE_LIMIT).decode()
        checkpoint, known = notes.parse_checkpoint(notes.parse(note).text), True
        notes.open_checkpoint(note, key)
    except FileNotFoundError:
        known = not (folder / "tile").exists()  # before the first leaf there is none
        if not known:
            report.add("checkpoint", "is missing")
    except (OSError, UnicodeDecodeError, ProofError) as error:
        report.add("checkpoint", f"cannot be trusted: {error}")
    report.size, report.root = checkpoint.size, checkpoint.root if known else None
    return checkpoint


class _Walk:
    """One pass over the leaves. `_edge` is the tree as far as it was walked."""

    def __init__(
        self,
        folder: Path,
        key: Vkey,
        head: Checkpoint,
        report: Report,
        heads: Iterable[SeenHead],
        deliveries: Iterable[SeenDelivery],
        told: Iterable[SeenLeaf],
    ) -> None:
        self._folder, self._head, self._report = folder, head, report
        self._edge, self._whole = Edge(), True
        self._kept = Comparison(key, report, heads, deliveries, told)
        self._parent: tuple[int, bytes] = (-1, b"")
        self._records: OrderedDict[int, bytes] = OrderedDict()
        self._succession = Succession(key, report, _ends_of(folder, key, report))
        # Eight bytes of each notice's digest, by its first byte: little memory, and sorted a bucket at a time.
        self._notices = [array("Q") for _ in range(256)]
        self._again: tuple[int, list[bytes]] = (-1, [])

    def some(self, bundles: range) -> None:
        """Examine one bundle, or pass over many in a row of which nothing lies on disk."""
        if len(bundles) == 1:
            self._bundle(bundles[0])
            return
        self._whole = False
        end = min(bundles.stop * WIDTH, self._head.size)
        first, last = path(ENTRIES, bundles[0]), path(ENTRIES, bundles[-1], end - bundles[-1] * WIDTH)
        what = f"are missing with their hashes: leaves {bundles[0] * WIDTH} to {end - 1}"
        self._report.add(f"{first} to {last}", what)

    def _bundle(self, index: int) -> None:
        """Examine one bundle of entries and the tile of its hashes."""
        width = min(WIDTH, self._head.size - index * WIDTH)
        entries = self._entries(index, width)
        hashes = [leaf_hash(each) for each in entries]
        trusted = self._compare(index, width, hashes)
        kinds = bytearray(width)
        for place in range(width):
            number = index * WIDTH + place
            if place < len(entries):
                kinds[place] = self._leaf(number, entries[place], bytes(kinds))
            if place >= len(trusted):
                self._whole = False  # from here on no root can be told
            if self._whole:
                self._grow(trusted[place])
        _remember(self._records, index, bytes(kinds))

    def _entries(self, index: int, width: int) -> list[bytes]:
        name = path(ENTRIES, index, width)
        try:
            entries = unbundle(read_part(self._folder, ENTRIES, index, width))
        except FileNotFoundError:
            self._report.add(name, f"is missing: leaves {index * WIDTH} to {index * WIDTH + width - 1}")
            return []
        except (OSError, ProofError) as error:
            self._report.add(name, f"cannot be read: {error}")
            return []
        if len(entries) != width:
            self._report.add(name, f"holds {len(entries)} entries instead of {width}")
        return entries

    def _tile(self, level: int, index: int, width: int) -> bytes | None:
        name = path(level, index, width)
        try:
            data = read_part(self._folder, level, index, width)
        except FileNotFoundError:
            self._report.add(name, "is missing")
            return None
        except OSError as error:
            self._report.add(name, f"cannot be read: {error}")
            return None
        if len(data) != 32 * width:
            self._report.add(name, f"holds {len(data)} bytes instead of {32 * width}")
        return data

    def _compare(self, index: int, width: int, hashes: list[bytes]) -> list[bytes]:
        """Compare entries with their tile; return the hashes to go on with: those that the tile above bears out."""
        data = self._tile(0, index, width)
        if data is None:
            return hashes[:width]
        listed = [data[each : each + 32] for each in range(0, len(data) - len(data) % 32, 32)]
        if hashes == listed:
            return hashes
        by_entries, by_tile = self._borne_out(index, hashes), self._borne_out(index, listed)
        self._name(index, width, hashes, listed, "entry" if by_tile else "tile" if by_entries else "")
        return hashes[:width] if by_entries or (len(hashes) >= width and not by_tile) else listed[:width]

    def _borne_out(self, index: int, hashes: list[bytes]) -> bool:
        """Whether the tile above, or the checkpoint for the last tile, is made from these hashes."""
        number, place = divmod(index, WIDTH)
        if (index + 1) * WIDTH > self._head.size:
            edge = self._edge.copy()
            for each in hashes:
                edge.add(each)
            return self._whole and edge.size == self._head.size and edge.root() == self._head.root
        if len(hashes) != WIDTH:
            return False
        if self._parent[0] != number:
            width = min(WIDTH, self._head.size // WIDTH - number * WIDTH)
            try:
                self._parent = (number, read_part(self._folder, 1, number, width))
            except OSError:
                self._parent = (number, b"")
        return Tile.of(b"".join(hashes)).root == self._parent[1][32 * place : 32 * place + 32]

    def _name(self, index: int, width: int, hashes: list[bytes], listed: list[bytes], blame: str) -> None:
        """Say where entries and tile part, and which of them was changed if the tile above tells."""
        wrong = [each for each in range(min(len(hashes), len(listed))) if hashes[each] != listed[each]]
        if not wrong:
            return  # one is cut off or too long: told already
        number, more = index * WIDTH + wrong[0], f" (and {len(wrong) - 1} more in this bundle)" if wrong[1:] else ""
        entry, tile = path(ENTRIES, index, width), path(0, index, width)
        if blame == "entry":
            self._report.add(f"{entry}, leaf {number}", f"was changed: its hash in {tile} is another{more}")
        elif blame == "tile":
            self._report.add(f"{tile}, hash {wrong[0]}", f"was changed: leaf {number} hashes to another{more}")
        else:
            self._report.add(f"leaf {number}", f"{entry} and {tile} differ{more}")

    def _grow(self, leaf: bytes) -> None:
        for level, index, tile in self._edge.add(leaf):
            if level:
                self._check_tile(level, index, tile)
        self._report.leaves += 1
        self._kept.grown(self._edge, self._succession.now)

    def _check_tile(self, level: int, index: int, tile: Tile) -> None:
        """Compare a tile of hashes of tiles with what those hash to."""
        data = self._tile(level, index, tile.width)
        if data is None or data == tile.data:
            return
        for place, node in enumerate(tile.levels[0]):
            if data[32 * place : 32 * place + 32] != node:
                below = path(level - 1, index * WIDTH + place)
                self._report.add(f"{path(level, index, tile.width)}, hash {place}", f"is not the root of {below}")
                return

    # What a leaf says.

    def _leaf(self, number: int, entry: bytes, kinds: bytes) -> int:
        """Examine one leaf; return 1 for a record leaf, 0 for an event leaf."""
        self._kept.leaf(number, entry)
        try:
            leaf = codec.decode(Leaf, entry)
        except NoticeRejectedError as error:
            self._report.add(f"leaf {number}", f"cannot be read ({error.code})")
            return 0
        self._succession.take(number, leaf)
        if leaf.header_digest and leaf.kind in ONCE:
            self._notices[leaf.header_digest[0]].append(_short(leaf.header_digest))
        if leaf.about is not None and not self._is_record(leaf.about, number, kinds):
            self._report.add(f"leaf {number}", f"speaks of leaf {leaf.about}, which is no record leaf before it")
        return int(leaf.kind in SPOKEN_OF)

    def _check_once(self) -> None:
        """Check that each notice was taken in once: a second leaf of it went to somebody behind its issuer's back."""
        twice = {each for some in self._notices for each in _repeated(some)}
        seen: dict[bytes, int] = {}
        for number in self._numbers() if twice else ():
            leaf = self._read_again(number)
            digest = leaf.header_digest if leaf and leaf.kind in ONCE else None
            if digest is None or _short(digest) not in twice:
                continue
            if digest in seen:
                self._report.add(f"leaf {number}", f"takes in the notice of leaf {seen[digest]} once more")
            seen.setdefault(digest, number)

    def _numbers(self) -> Iterator[int]:
        """Give the numbers of the leaves whose bundles lie on disk."""
        for some in extent.bundles(self._folder, self._head.size):
            if len(some) == 1:
                yield from range(some[0] * WIDTH, min(some.stop * WIDTH, self._head.size))

    def _read_again(self, number: int) -> Leaf | None:
        index, place = divmod(number, WIDTH)
        if self._again[0] != index:
            width = min(WIDTH, self._head.size - index * WIDTH)
            try:
                self._again = (index, unbundle(read_part(self._folder, ENTRIES, index, width)))
            except (OSError, ProofError):
                self._again = (index, [])  # told where it stands
        try:
            return codec.decode(Leaf, self._again[1][place])
        except (IndexError, NoticeRejectedError):
            return None

    def _is_record(self, about: int, number: int, kinds: bytes) -> bool:
        if not 0 <= about < number:
            return False
        index, place = divmod(about, WIDTH)
        if index == number // WIDTH:
            return bool(kinds[place])
        if index not in self._records:
            _remember(self._records, index, self._kinds(index))
        self._records.move_to_end(index)
        found = self._records[index]
        return place < len(found) and bool(found[place])

    def _kinds(self, index: int) -> bytes:
        """Read again which leaves of an earlier bundle are record leaves."""
        kinds = bytearray()
        try:
            for entry in unbundle(read_part(self._folder, ENTRIES, index, WIDTH)):
                kinds.append(codec.decode(Leaf, entry).kind in SPOKEN_OF)
        except (OSError, ProofError, NoticeRejectedError):
            return bytes(kinds)  # told where it stands
        return bytes(kinds)

    # The end.

    def finish(self) -> None:
        """Examine the right edge, and what others have of more than there is."""
        self._check_once()
        self._kept.check_taken()
        self._report.now = self._succession.now
        self._succession.finish(self._head.size)
        if self._whole:
            for level, index, _ in widths(self._edge.size):
                if level:
                    self._check_tile(level, index, self._edge.tiles[level])
            if self._edge.root() != self._head.root:
                self._report.add("checkpoint", f"its root is not that of the {self._head.size} leaves")
        ends = f"the trail ends at {self._head.size} leaves" if self._whole else "leaves are missing"
        self._kept.finish(self._edge, self._succession.now, ends)


def _ends_of(folder: Path, key: Vkey, report: Report) -> dict[str, int]:
    """Read where the logs ended that this one went on from, as the checkpoints kept in its folder say."""
    ends = dict[str, int]()
    try:
        for note in begun.ended(folder):
            head = begun.open_checkpoint(note, key)
            ends[head.origin] = head.size
    except (OSError, UnicodeDecodeError, ProofError) as error:
        report.add(f"{begun.ENDED}*", f"cannot be trusted: {error}")
    return ends


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _repeated(some: array[int]) -> Iterator[int]:
    ordered = sorted(some)
    return (one for one, after in pairwise(ordered) if one == after)


def _remember(cache: OrderedDict[int, bytes], index: int, kinds: bytes) -> None:
    cache[index] = kinds
    if len(cache) > CACHED_BUNDLES:
        cache.popitem(last=False)
