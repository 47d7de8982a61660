"""Examines a whole trail offline, with public keys only.

Every entry is hashed again, every tile compared with what the entries make of it, the root with the signed checkpoint,
every kept head with the root of its size, every kept delivery with its leaf. Streams: memory does not grow with the
number of leaves. Where a hash and what it is made from differ, the tile above tells which of the two was changed.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from broker import begun, codec, cosignature, earlier, extent, notes, reading
from broker.begun import GAP
from broker.errors import NoticeRejectedError, ProofError
from broker.few import few
from broker.merkle import EMPTY_ROOT, check_row, leaf_hash
from broker.notes import Checkpoint, Vkey
from broker.notice import BEGUN, CLOCK_SKEW_MS, LOST, NOT_RELEASED, NOTHING, ORDERED, RELEASED, Leaf, Row
from broker.report import Gap, PutInForce, Report, Taken
from broker.tiles import ENTRIES, WIDTH, Edge, Tile, path, unbundle, widths
from broker.trail import read_part

RECORD_KINDS = frozenset({"routed", "held", "rejected", "repeated"})
FOLLOWING = frozenset({RELEASED, NOT_RELEASED, ORDERED})
"""Kinds of leaf that say what the notice of the leaf before did to another."""
SPOKEN_OF = RECORD_KINDS | FOLLOWING
"""Kinds of leaf that a later one may be about: a receipt names that under which its bureau got it, a look any of it."""
EVENT_KINDS = frozenset(
    {
        "receipt",
        "subscribed",
        "revoked",
        "look",
        "adopted",
        "version-refused",
        "resumed",
        RELEASED,
        NOT_RELEASED,
        ORDERED,
        BEGUN,
        LOST,
    }
)
CODED = frozenset({"rejected", "repeated", "receipt", "adopted", "version-refused", BEGUN})
"""Kinds of leaf that bear a code. On any other it would be told in the place of what the leaf is: `routed`, `held` …"""
DIRECTORY = "directory"
VERSIONS = (DIRECTORY, "policies")
"""What an `adopted` leaf may put in force, in the order of a leaf."""
ONCE = frozenset({"routed", "held"})
"""Kinds of leaf of which a notice has one at most."""
AHEAD_MS = 2 * CLOCK_SKEW_MS
"""How much later than it was cosigned, or taken in by a member, an honest leaf is dated at most: it bears the bus's
time, a cosignature that of its witness, and either may be that far from the broker's, which refuses a witness only
beyond that (`submit`)."""
CACHED_BUNDLES = 1024
PROGRESS_EVERY = 64
"""Bundles between two words of progress."""


@dataclass(frozen=True, slots=True)
class SeenHead:
    """A head as somebody else kept it."""

    size: int
    root: bytes
    note: str
    source: str
    at: int | None = None
    """By when it was there (ms), where the auditor trusts the clocks that say so: those of a quorum of witnesses."""


@dataclass(frozen=True, slots=True)
class SeenDelivery:
    """A delivery as its bureau kept it."""

    leaf_number: int
    leaf: bytes
    bureau: str
    delivery_number: int
    row: bytes
    salt: bytes
    path: bytes
    index: int
    source: str
    taken_at: int | None = None
    """When its collector took it in, by its own clock (ms)."""


@dataclass(frozen=True, slots=True)
class SeenLeaf:
    """A leaf as somebody kept it who was told of it: an issuer's outcome, another's receipt, a proof, a bundle."""

    number: int
    leaf: bytes
    source: str


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
    walk = _Walk(folder, key, head, report, iter(heads), iter(deliveries), iter(told))
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
        heads: Iterator[SeenHead],
        deliveries: Iterator[SeenDelivery],
        told: Iterator[SeenLeaf],
    ) -> None:
        self._folder, self._key, self._head, self._report = folder, key, head, report
        self._edge, self._whole, self._now = Edge(), True, 0
        self._heads, self._deliveries, self._told = heads, deliveries, told
        self._next_head, self._next_delivery, self._next_told = (
            next(heads, None), next(deliveries, None), next(told, None),
        )  # fmt: skip
        self._parent: tuple[int, bytes] = (-1, b"")
        self._records: OrderedDict[int, bytes] = OrderedDict()
        self._in_force: tuple[bytes, bytes] | None = None
        self._replaced: set[bytes] = set()
        self._before: Leaf | None = None
        self._ends = _ends_of(folder, key, report)
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
        while self._next_head and self._next_head.size <= self._edge.size:
            self._check_head(self._next_head)
            self._next_head = next(self._heads, None)

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
        while self._next_delivery and self._next_delivery.leaf_number <= number:
            self._check_delivery(self._next_delivery, entry if self._next_delivery.leaf_number == number else None)
            self._next_delivery = next(self._deliveries, None)
        while self._next_told and self._next_told.number <= number:
            self._check_told(self._next_told, entry if self._next_told.number == number else None)
            self._next_told = next(self._told, None)
        try:
            leaf = codec.decode(Leaf, entry)
        except NoticeRejectedError as error:
            self._report.add(f"leaf {number}", f"cannot be read ({error.code})")
            return 0
        if leaf.kind not in RECORD_KINDS | EVENT_KINDS:
            self._report.add(f"leaf {number}", "is of an unknown kind")
        elif leaf.code is not None and leaf.kind not in CODED:
            self._report.add(
                f"leaf {number}", f"is {leaf.kind}, and bears the code {leaf.code}, which none of them has"
            )
        if leaf.now < self._now:
            self._report.add(f"leaf {number}", f"goes back in time by {self._now - leaf.now} ms")
        self._now = max(self._now, leaf.now)
        self._check_in_force(number, leaf)
        self._check_following(number, leaf)
        self._check_gap(number, leaf)
        if leaf.header_digest and leaf.kind in ONCE:
            self._notices[leaf.header_digest[0]].append(_short(leaf.header_digest))
        if leaf.about is not None and not self._is_record(leaf.about, number, kinds):
            self._report.add(f"leaf {number}", f"speaks of leaf {leaf.about}, which is no record leaf before it")
        return int(leaf.kind in SPOKEN_OF)

    def _check_in_force(self, number: int, leaf: Leaf) -> None:
        """Check that versions change only where one is adopted, and that no directory that was replaced comes back."""
        before, now = self._in_force, (leaf.directory, leaf.policies)
        if before == now:
            return
        for place, what in enumerate(VERSIONS):
            if (before[place] if before else NOTHING) == now[place]:
                continue
            if before and (leaf.kind, leaf.code) != ("adopted", what):
                self._report.add(f"leaf {number}", f"names other {what} than those that were adopted")
                return
            if what == DIRECTORY and now[place] in self._replaced:
                self._report.add(f"leaf {number}", "adopts a directory that was replaced before")
            self._report.in_force.append(PutInForce(number, what, now[place]))
            if before:
                self._replaced.add(before[place])
        self._in_force = now

    def _check_following(self, number: int, leaf: Leaf) -> None:
        """Check that what a reviewer or an authority is said to have decided comes right after what it sent."""
        before, self._before = self._before, leaf
        if leaf.kind in FOLLOWING and (before is None or (before.kind, before.about) != ("routed", leaf.about)):
            self._report.add(f"leaf {number}", f"is {leaf.kind} without the word that says so before it")

    def _check_gap(self, number: int, leaf: Leaf) -> None:
        """Check that a new log begins where its name says so, and what was lost before it stands in one stretch."""
        gaps, origin = self._report.gaps, leaf.code or ""
        if leaf.kind == BEGUN:
            gaps.append(Gap(origin, number, number))
            if not begun.is_before(origin, self._key.name) or (
                len(gaps) > 1 and not begun.is_before(gaps[-2].origin, origin)
            ):
                self._report.add(f"leaf {number}", f"begins a log after {origin}, and this one is {self._key.name}")
            if self._ends.pop(origin, number) != number:
                self._report.add(f"leaf {number}", f"begins a log elsewhere than where the checkpoint of {origin} ends")
        elif leaf.kind == LOST:
            if not gaps or gaps[-1].last != number - 1:
                self._report.add(f"leaf {number}", "is called lost, and no log was begun before it")
            else:
                gaps[-1].last = number

    def _is_lost(self, number: int) -> bool:
        """Say whether a leaf of an ended log is among those that are lost."""
        return any(each.first <= number <= each.last for each in self._report.gaps)

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

    # What others kept.

    def _check_head(self, seen: SeenHead) -> None:
        self._report.heads += seen.size > 0  # of no leaves there is one root only: it compares nothing
        root = EMPTY_ROOT if seen.size == 0 else self._edge.root()
        if root == seen.root:
            self._report.agreed = max(self._report.agreed, seen.size)
            self._check_not_ahead(seen)
            return
        if self._is_lost(seen.size - 1) and self._is_of_ended(seen):
            self._note_lost(seen.source, seen.size - 1)
            return
        self._report.add(
            f"leaves {self._report.agreed} to {seen.size - 1}",
            f"the head of size {seen.size} that {seen.source} kept has another root{self._signed(seen)}",
        )

    def _check_not_ahead(self, seen: SeenHead) -> None:
        """Check that no leaf is dated later than it was seen: it would have made what was in force, or due, be over."""
        ahead = self._now - seen.at if seen.at is not None and seen.size else 0
        if ahead > AHEAD_MS:
            self._report.add(
                f"leaf {seen.size - 1}", f"is ahead of time by {ahead} ms: {seen.source} had seen it by then"
            )

    def _is_of_ended(self, seen: SeenHead) -> bool:
        """Say whether a head is of a log that this one went on from, and bears its signature."""
        try:
            origin = cosignature.head_of(notes.parse(seen.note).text).origin
            head = cosignature.open_head(seen.note, begun.key_of(origin, self._key))
        except ProofError:
            return False
        return (head.size, head.root) == (seen.size, seen.root) and head.origin != self._key.name

    def _note_lost(self, source: str, number: int) -> None:
        self._report.lost.setdefault(source, []).append(number)

    def _signed(self, seen: SeenHead) -> str:
        try:
            head = cosignature.open_head(seen.note, self._key)
        except ProofError:
            return ", but does not bear the signature of this log"
        if (head.size, head.root) != (seen.size, seen.root):
            return ", but its note says something else"
        return " and bears the signature of this log: it showed others another history (split view)"

    def _check_delivery(self, seen: SeenDelivery, entry: bytes | None) -> None:
        self._report.deliveries += 1
        name = f"delivery {seen.delivery_number} of {seen.bureau} ({seen.source})"
        if entry is None:
            self._report.add(f"leaf {seen.leaf_number}", f"{name} has it, the trail has not")
        elif entry != seen.leaf and _stands_for_lost(entry):
            self._note_lost(seen.source, seen.leaf_number)
        elif entry != seen.leaf:
            self._report.add(f"leaf {seen.leaf_number}", f"{name} has another leaf of this number")
        else:
            self._check_row(seen, name)

    def _check_told(self, seen: SeenLeaf, entry: bytes | None) -> None:
        self._report.told += 1
        if entry is None:
            self._report.add(f"leaf {seen.number}", f"{seen.source} was told of it, the trail has it not")
        elif entry != seen.leaf and _stands_for_lost(entry):
            self._note_lost(seen.source, seen.number)
        elif entry != seen.leaf:
            self._report.add(f"leaf {seen.number}", f"{seen.source} was told of another leaf of this number")

    def _check_row(self, seen: SeenDelivery, name: str) -> None:
        try:
            leaf, row = codec.decode(Leaf, seen.leaf), codec.decode(Row, seen.row)
            check_row(seen.salt, seen.row, seen.index, seen.path, leaf.rows or b"")
        except (ProofError, NoticeRejectedError):
            self._report.add(f"leaf {seen.leaf_number}", f"the row of {name} is not below its root of rows")
            return
        if (row.bureau, row.delivery_number) != (seen.bureau, seen.delivery_number):
            self._report.add(f"leaf {seen.leaf_number}", f"the row of {name} is another's")
        elif seen.taken_at is not None:
            self._note_taken(seen, leaf.now - seen.taken_at)

    def _note_taken(self, seen: SeenDelivery, ahead: int) -> None:
        """Note by how much a leaf is dated later than a member took it in, where that is most and more than honest."""
        member, taken = seen.bureau.partition("/")[0], self._report.taken
        worst = taken.setdefault(member, Taken(seen.leaf_number, 0))
        if ahead > max(AHEAD_MS, worst.ahead):
            taken[member] = Taken(seen.leaf_number, ahead)

    def _check_taken(self) -> None:
        """Check that no leaf is dated later than members took it in."""
        if self._report.was_ahead:
            ahead = self._report.ahead()
            first = min(ahead.values(), key=lambda each: each.leaf_number)
            self._report.add(
                f"leaf {first.leaf_number}",
                f"is ahead of time by {first.ahead} ms: {few(sorted(ahead))} had taken in what is dated so by then",
            )

    # The end.

    def finish(self) -> None:
        """Examine the right edge, and what others have of more than there is."""
        self._check_once()
        self._check_taken()
        self._report.now = self._now
        if begun.place_of(self._key.name) > 1 and not self._report.gaps and self._head.size:
            self._report.add("checkpoint", f"no leaf says what {self._key.name} goes on from")
        for origin, size in self._ends.items():
            self._report.add(f"leaf {size}", f"{origin} ended here by its checkpoint, and no leaf says so")
        if self._whole:
            for level, index, _ in widths(self._edge.size):
                if level:
                    self._check_tile(level, index, self._edge.tiles[level])
            if self._edge.root() != self._head.root:
                self._report.add("checkpoint", f"its root is not that of the {self._head.size} leaves")
        self._finish_heads()
        while seen := self._next_delivery:
            self._check_delivery(seen, None)
            self._next_delivery = next(self._deliveries, None)
        while kept := self._next_told:
            self._check_told(kept, None)
            self._next_told = next(self._told, None)

    def _finish_heads(self) -> None:
        while seen := self._next_head:
            if seen.size <= self._edge.size:
                self._check_head(seen)
            else:
                self._report.heads += 1
                what = f"the head of size {seen.size} that {seen.source} kept cannot be met"
                ends = f"the trail ends at {self._head.size} leaves" if self._whole else "leaves are missing"
                self._report.add(f"leaf {self._edge.size}", f"{what}: {ends}")
            self._next_head = next(self._heads, None)


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


def _stands_for_lost(entry: bytes) -> bool:
    """Say whether a leaf stands in the place of one that was lost."""
    try:
        return codec.decode(Leaf, entry).kind in GAP
    except NoticeRejectedError:
        return False


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")


def _repeated(some: array[int]) -> Iterator[int]:
    ordered = sorted(some)
    return (one for one, after in pairwise(ordered) if one == after)


def _remember(cache: OrderedDict[int, bytes], index: int, kinds: bytes) -> None:
    cache[index] = kinds
    if len(cache) > CACHED_BUNDLES:
        cache.popitem(last=False)
