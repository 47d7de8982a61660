"""Tiles and entry bundles as C2SP tlog-tiles lays them out, and the right edge of a growing tree of tiles.

Pure: bytes in, bytes out. A tile holds up to 256 hashes of one tile level; the roots of the complete subtrees among
them are kept beside, so that any hash of a proof is one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.errors import ProofError
from broker.merkle import EMPTY_ROOT, node_hash

WIDTH = 256
HEIGHT = 8
ENTRY_LIMIT = 65_535
"""Bytes of one entry: its length is a u16 (C2SP tlog-tiles, "Log entries")."""
ENTRIES = "entries"
TILE_LIMIT, BUNDLE_LIMIT = 32 * WIDTH, (2 + ENTRY_LIMIT) * WIDTH
"""Bytes of the largest tile and the largest bundle."""


def path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Name the file of a tile or (level `entries`) bundle below the log's folder (C2SP tlog-tiles, "Merkle Tree")."""
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[each : each + 3] for each in range(0, len(digits), 3)]
    name = "/".join([*("x" + each for each in parts[:-1]), parts[-1]])
    return f"tile/{level}/{name}" + ("" if width == WIDTH else f".p/{width}")


def limit_of(level: int | str) -> int:
    """Tell how many bytes a tile or (level `entries`) bundle has at most."""
    return BUNDLE_LIMIT if level == ENTRIES else TILE_LIMIT


def bundle(entries: Sequence[bytes]) -> bytes:
    """Write an entry bundle. Raises ValueError for an entry that is too long."""
    if any(len(each) > ENTRY_LIMIT for each in entries):
        message = f"an entry is longer than {ENTRY_LIMIT} bytes"
        raise ValueError(message)
    return b"".join([len(each).to_bytes(2, "big") + each for each in entries])


def unbundle(data: bytes) -> list[bytes]:
    """Read an entry bundle. Raises ProofError if it does not end with an entry's end."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + 2
        at = begin + int.from_bytes(data[at:begin], "big")
        if begin > len(data) or at > len(data):
            message = f"the bundle is cut off in its entry {len(entries)}"
            raise ProofError(message)
        entries.append(data[begin:at])
    return entries


class Tile:
    """Up to 256 hashes; `levels[r][i]` is the root of the *i*-th complete subtree of 2^r of them."""

    __slots__ = ("levels",)

    def __init__(self, levels: Sequence[Sequence[bytes]] = ()) -> None:
        self.levels: list[list[bytes]] = [list(each) for each in levels] or [[] for _ in range(HEIGHT + 1)]

    @classmethod
    def of(cls, data: bytes) -> Tile:
        """Read a tile's file. Raises ProofError if it holds no whole number of hashes, none, or too many."""
        if not data or len(data) % 32 or len(data) > 32 * WIDTH:
            message = f"a tile of {len(data)} bytes"
            raise ProofError(message)
        levels = [[data[each : each + 32] for each in range(0, len(data), 32)]]
        for _ in range(HEIGHT):
            below = levels[-1]
            levels.append([node_hash(below[each - 1], below[each]) for each in range(1, len(below), 2)])
        return cls(levels)

    def copy(self) -> Tile:
        """Copy, to try a step that may be thrown away."""
        return Tile(self.levels)

    @property
    def width(self) -> int:
        """How many hashes it holds."""
        return len(self.levels[0])

    @property
    def data(self) -> bytes:
        """The bytes of its file."""
        return b"".join(self.levels[0])

    def add(self, node: bytes) -> None:
        """Append one hash."""
        at = len(self.levels[0])
        self.levels[0].append(node)
        level = 0
        while at & 1:
            node = node_hash(self.levels[level][-2], node)
            level, at = level + 1, at >> 1
            self.levels[level].append(node)

    def peaks(self) -> list[bytes]:
        """Give the roots of the largest complete subtrees, largest first."""
        return [self.levels[each][-1] for each in range(HEIGHT, -1, -1) if self.width >> each & 1]

    @property
    def root(self) -> bytes:
        """The root of a full tile: its hash in the tile above."""
        return self.levels[HEIGHT][0]


class Edge:
    """The rightmost, partial tile of each level: enough to append leaves and tell the root."""

    __slots__ = ("size", "tiles")

    def __init__(self, size: int = 0, tiles: Sequence[Tile] = ()) -> None:
        self.size, self.tiles = size, list(tiles)

    def copy(self) -> Edge:
        """Copy, to try a step that may be thrown away."""
        return Edge(self.size, [each.copy() for each in self.tiles])

    def add(self, leaf: bytes) -> list[tuple[int, int, Tile]]:
        """Append a leaf hash; return the tiles that it completes as (level, index, tile), lowest first."""
        full: list[tuple[int, int, Tile]] = []
        node = leaf
        for level in range(64):
            if level == len(self.tiles):
                self.tiles.append(Tile())
            tile = self.tiles[level]
            tile.add(node)
            if tile.width < WIDTH:
                break
            full.append((level, self.size >> HEIGHT * (level + 1), tile))
            self.tiles[level] = Tile()
            node = tile.root
        self.size += 1
        return full

    def peaks(self) -> list[bytes]:
        """Give the roots of the largest complete subtrees, largest first."""
        return [peak for tile in reversed(self.tiles) for peak in tile.peaks()]

    def root(self) -> bytes:
        """Tell the tree head."""
        peaks = self.peaks()
        if not peaks:
            return EMPTY_ROOT
        node = peaks[-1]
        for peak in reversed(peaks[:-1]):
            node = node_hash(peak, node)
        return node


def widths(size: int) -> list[tuple[int, int, int]]:
    """List the partial tiles of a tree as (level, index, width), lowest level first (C2SP tlog-tiles)."""
    partial, level = [], 0
    while size >> HEIGHT * level:
        width = (size >> HEIGHT * level) % WIDTH
        if width:
            partial.append((level, size >> HEIGHT * (level + 1), width))
        level += 1
    return partial
