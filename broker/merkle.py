"""RFC 6962 hashing, inclusion and consistency proofs, and the fixed-depth tree of rows.

Pure: bytes in, bytes out. Every hash is 32 bytes (SHA-256). Proofs are lists of hashes in the order of RFC 6962.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256, shake_256
from operator import itemgetter
from typing import NamedTuple

from broker.errors import ProofError

EMPTY_ROOT = sha256(b"").digest()
EMPTY_TAG = b"valise/empty/v1\0"
ROWS_TAG = b"valise/rows/v1\0"
LEAST_DEPTH = 6


def leaf_hash(entry: bytes) -> bytes:
    """Hash a leaf (RFC 6962 §2.1)."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an interior node (RFC 6962 §2.1)."""
    return sha256(b"\1" + left + right).digest()


def _split(size: int) -> int:
    """Largest power of two smaller than `size` (RFC 6962 §2.1)."""
    return 1 << (size - 1).bit_length() - 1


def root(hashes: Sequence[bytes]) -> bytes:
    """Compute the tree head of leaf hashes (RFC 6962 §2.1)."""
    frontier = Frontier()
    for each in hashes:
        frontier.add(each)
    return frontier.root()


class Frontier:
    """The right edge of a growing tree: enough to append leaves and tell the root.

    `peaks` are the roots of the complete subtrees, largest first.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if len(peaks) != size.bit_count():
            message = f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(peaks)}"
            raise ValueError(message)
        self.size, self.peaks = size, list(peaks)

    def copy(self) -> Frontier:
        """Copy, to try a step that may be thrown away."""
        return Frontier(self.size, self.peaks)

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self.peaks.pop(), node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Tell the tree head."""
        if not self.peaks:
            return EMPTY_ROOT
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = node_hash(peak, node)
        return node


Subtree = Callable[[int, int], bytes]
"""(level, index) → root of the complete subtree of 2^level leaves that begins at leaf index·2^level."""


def range_root(begin: int, end: int, subtree: Subtree) -> bytes:
    """Compute MTH(D[begin:end]) of a range that RFC 6962 proofs speak of, from complete subtrees."""
    size = end - begin
    if size & (size - 1) == 0 and begin % size == 0:
        return subtree(size.bit_length() - 1, begin // size)
    middle = begin + _split(size)
    return node_hash(range_root(begin, middle, subtree), range_root(middle, end, subtree))


def inclusion_proof(number: int, size: int, subtree: Subtree) -> list[bytes]:
    """Prove that leaf `number` is in the tree of `size` leaves (RFC 6962 §2.1.1). Raises ValueError out of range."""
    if not 0 <= number < size:
        message = f"leaf {number} is not in a tree of {size}"
        raise ValueError(message)
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if number < middle:
            proof.append(range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(range_root(begin, middle, subtree))
            begin = middle
    proof.reverse()
    return proof


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Prove that the tree of `new` leaves extends that of `old` (RFC 6962 §2.1.2). Raises ValueError for old = 0."""
    if not 0 < old <= new:
        message = f"no consistency proof from {old} to {new}"
        raise ValueError(message)
    proof: list[bytes] = []
    begin, end, known = 0, new, True
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(range_root(middle, end, subtree))
            end = middle
        else:
            proof.append(range_root(begin, middle, subtree))
            begin, known = middle, False
    if not known:
        proof.append(range_root(begin, end, subtree))
    proof.reverse()
    return proof


def _check_hashes(proof: Sequence[bytes], *others: bytes) -> None:
    if any(len(each) != 32 for each in (*proof, *others)):
        message = "a hash is not 32 bytes"
        raise ProofError(message)


def check_inclusion(leaf: bytes, number: int, size: int, proof: Sequence[bytes], head: bytes) -> None:
    """Check an inclusion proof of a leaf hash (RFC 9162 §2.1.3.2). Raises ProofError."""
    _check_hashes(proof, leaf, head)
    if not 0 <= number < size:
        message = f"leaf {number} is not in a tree of {size}"
        raise ProofError(message)
    if _fold(leaf, number, size, proof) != head:
        message = f"the inclusion proof of leaf {number} does not lead to the head of size {size}"
        raise ProofError(message)


def _fold(leaf: bytes, number: int, size: int, proof: Sequence[bytes]) -> bytes:
    node, fn, sn = leaf, number, size - 1
    for sibling in proof:
        if sn == 0:
            message = "the inclusion proof is too long"
            raise ProofError(message)
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        message = "the inclusion proof is too short"
        raise ProofError(message)
    return node


def check_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Check that `new_root` extends `old_root` (RFC 9162 §2.1.4.2). Raises ProofError."""
    _check_hashes(proof, old_root, new_root)
    if not 0 < old <= new:
        message = f"no consistency proof leads from size {old} to {new}"
        raise ProofError(message)
    if old == new:
        if proof or old_root != new_root:
            message = f"two different heads of size {old}"
            raise ProofError(message)
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path or _fold_both(old, new, path) != (old_root, new_root):
        message = f"the head of size {new} does not extend the head of size {old}"
        raise ProofError(message)


def _fold_both(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if sn == 0:
            message = "the consistency proof is too long"
            raise ProofError(message)
        if fn & 1 or fn == sn:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        message = "the consistency proof is too short"
        raise ProofError(message)
    return first, second


def rows_depth(highest_index: int) -> int:
    """Tell the depth of the rows' tree: ⌈log2(highest bureau index + 1)⌉, at least 6 (DESIGN §8)."""
    return max(LEAST_DEPTH, highest_index.bit_length())


def row_hash(salt: bytes, row: bytes) -> bytes:
    """Hash one salted row as an RFC 6962 leaf."""
    return sha256(b"\0" + salt + row).digest()


class Rows:
    r"""The rows' tree of one notice: fixed depth, empty subtrees that give nothing to count.

    `seed` is 32 secret bytes. Row *i*'s salt is the *i*-th 32 bytes of SHAKE256(`"valise/rows/v1\0"` ‖ seed); an empty
    subtree is SHA-256(`"valise/empty/v1\0"` ‖ seed ‖ u8 level ‖ u32 position), level 0 being the rows.
    """

    __slots__ = ("_tag", "depth", "paths", "salts")

    def __init__(self, seed: bytes, depth: int) -> None:
        self.depth, self._tag = depth, EMPTY_TAG + seed
        self.salts = shake_256(ROWS_TAG + seed).digest(32 << depth)
        self.paths: dict[int, bytes] = {}

    def salt(self, index: int) -> bytes:
        """Give the salt of row `index`."""
        return self.salts[32 * index : 32 * index + 32]

    def build(self, rows: dict[int, bytes]) -> bytes:
        """Take the encoded rows by bureau index, return the root. Raises ValueError for an index beyond the depth."""
        if not rows:
            return sha256(self._tag + _place(self.depth, 0)).digest()
        shape, salts, tag = _shape(self.depth, tuple(rows)), self.salts, self._tag
        nodes = [sha256(b"\0" + salts[32 * i : 32 * i + 32] + row).digest() for i, row in rows.items()]
        hashes: list[bytes] = []
        for empty, pairs in shape.levels:
            nodes += [sha256(tag + suffix).digest() for suffix in empty]
            hashes += nodes
            nodes = [sha256(b"\1" + nodes[left] + nodes[right]).digest() for left, right in pairs]
        self.paths = {index: b"".join(siblings(hashes)) for index, siblings in shape.siblings}
        return nodes[0]

    def path(self, index: int) -> bytes:
        """Give the sibling hashes of a row that is in the tree, lowest level first, 32 bytes each."""
        return self.paths[index]


class _Shape(NamedTuple):
    """Which hashes a tree of rows needs where: the same for all notices that go to the same bureaus."""

    levels: tuple[tuple[tuple[bytes, ...], tuple[tuple[int, int], ...]], ...]
    """Of each level, rows first: the suffixes of its empty subtrees, which follow what is there; pairs to hash."""
    siblings: tuple[tuple[int, Callable[[list[bytes]], tuple[bytes, ...]]], ...]
    """Bureau index → its path out of the hashes of all levels, in the order in which they are made."""


@lru_cache(maxsize=256)  # at 200 bureaus some 60 KB each
def _shape(depth: int, indices: tuple[int, ...]) -> _Shape:
    if any(not 0 <= index < 1 << depth for index in indices):
        message = f"a bureau index is beyond a tree of depth {depth}"
        raise ValueError(message)
    levels, paths, made = [], {index: list[int]() for index in indices}, 0
    there = list(indices)
    for level in range(depth):
        missing = [each ^ 1 for each in there if each ^ 1 not in there]
        at = {position: place for place, position in enumerate([*there, *missing])}
        for index, path in paths.items():
            path.append(made + at[index >> level ^ 1])
        above = sorted({position >> 1 for position in at})
        pairs = tuple((at[2 * each], at[2 * each + 1]) for each in above)
        levels.append((tuple(_place(level, each) for each in missing), pairs))
        there, made = above, made + len(at)
    return _Shape(tuple(levels), tuple((index, itemgetter(*path)) for index, path in paths.items()))


def _place(level: int, position: int) -> bytes:
    return level.to_bytes(1, "big") + position.to_bytes(4, "big")


def check_row(salt: bytes, row: bytes, index: int, path: bytes, rows_root: bytes) -> None:
    """Check that a salted row stands at `index` below `rows_root`. Raises ProofError."""
    depth, rest = divmod(len(path), 32)
    if rest or depth < LEAST_DEPTH or not 0 <= index < 1 << depth or len(salt) != 32:
        message = "the row's path has a wrong form"
        raise ProofError(message)
    node = row_hash(salt, row)
    for level in range(depth):
        sibling = path[32 * level : 32 * level + 32]
        node = node_hash(sibling, node) if index >> level & 1 else node_hash(node, sibling)
    if node != rows_root:
        message = "the row is not below the root of rows in the leaf"
        raise ProofError(message)
