"""What was signed with which key, and what of it is in doubt, as register, records and trail have it.

Notices are found as long as they are in force (the register keeps their envelope), statements as long as the trail.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from broker import codec
from broker.directory import Directory
from broker.notice import Envelope, Header, Leaf, Revocation, Standing, Statement
from broker.recorded import brought
from broker.records import Records
from broker.register import Register
from broker.trail import Trail

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Use:
    """How often a key signed, and when last: the `now` of the leaf, ms since the epoch."""

    signed: int
    last: int


@dataclass(frozen=True, slots=True)
class Doubted:
    """A notice in force that was recorded while its key may have been in other hands."""

    issuer: str
    notice_id: bytes
    record: str
    leaf_number: int
    recorded_at: int
    holders: tuple[str, ...]
    """Bureaus that hold it."""


class KeyUse:
    """Looks at one shard's files; the broker may run meanwhile."""

    def __init__(self, register: Register, records: Records, trail: Trail) -> None:
        self._register, self._records, self._trail = register, records, trail

    def revocations(self) -> dict[bytes, Revocation]:
        """Give the revocations in force by the key that they revoke."""
        kept = (codec.decode(Statement, value) for _, value in self._register.under("revoked/"))
        found = (codec.decode(Revocation, each.payload) for each in kept)
        return {each.key_id: each for each in found}

    def since(
        self, at: int, progress: Progress = lambda _done, _size: None, members: Collection[str] = ("",)
    ) -> dict[bytes, Use]:
        """Tell which keys signed what was recorded from `at` on: statements, and notices that are in force.

        `progress` is told how many records and notices were looked at. `members`: whose notices count, all by default;
        the register is by issuer, and has all that was ever in force.
        """
        begin = self._first_leaf(at)
        uses: dict[bytes, tuple[int, int]] = {}
        for done, (key_id, leaf_number) in enumerate(chain(self._statements(begin), self._notices(begin, members)), 1):
            progress(done, 0)
            if key_id:
                signed, last = uses.get(key_id, (0, 0))
                uses[key_id] = signed + 1, max(last, leaf_number)
        # `now` of leaves never goes back.
        return {key_id: Use(signed, self._now(last)) for key_id, (signed, last) in uses.items()}

    def in_doubt(
        self, revocation: Revocation, directory: Directory, progress: Progress = lambda _done, _size: None
    ) -> list[Doubted]:
        """List what stands recorded under a revoked key since it was compromised, oldest first.

        `progress` is told how many notices of its member were looked at.
        """
        if revocation.compromised_since is None:
            return []
        begin = self._first_leaf(revocation.compromised_since)
        found = []
        of_member = self._envelopes(begin, revocation.bureau.partition("/")[0])
        for done, (issuer, standing, envelope) in enumerate(of_member, 1):
            progress(done, 0)
            if envelope.key_id == revocation.key_id:
                found.append(self._doubted(issuer, standing, envelope, directory))
        return sorted(found, key=lambda each: each.leaf_number)

    def _doubted(self, issuer: str, standing: Standing, envelope: Envelope, directory: Directory) -> Doubted:
        header = codec.decode(Header, envelope.header)
        holders = tuple(directory.ids[each.index] for each in standing.holders)
        now = self._now(standing.leaf_number)
        return Doubted(issuer, header.notice_id, header.record, standing.leaf_number, now, holders)

    def _statements(self, begin: int) -> Iterator[tuple[bytes, int]]:
        """Give key and leaf of each record, b"" as the key where it is no statement."""
        for leaf_number, _, record in self._records.since(begin):
            if leaf_number < self._trail.size:
                statement = brought(record).statement
                yield codec.decode(Statement, statement).key_id if statement else b"", leaf_number

    def _notices(self, begin: int, members: Collection[str]) -> Iterator[tuple[bytes, int]]:
        for member in members:
            for _, standing, envelope in self._envelopes(begin, member):
                yield envelope.key_id, standing.leaf_number

    def _envelopes(self, begin: int, member: str = "") -> Iterator[tuple[str, Standing, Envelope]]:
        """Give the notices in force (of one member) that were recorded at leaf `begin` or after."""
        for name, value in self._register.under(f"notice/{member}/" if member else "notice/"):
            standing = codec.decode(Standing, value)
            if standing.envelope and begin <= standing.leaf_number < self._trail.size:
                yield name.split("/", 1)[1].rpartition("/")[0], standing, codec.decode(Envelope, standing.envelope)

    def _first_leaf(self, at: int) -> int:
        """Find the first leaf recorded at or after a time: the `now` of leaves never goes back (DESIGN §6)."""
        return bisect_left(range(self._trail.size), at, key=self._now)

    def _now(self, leaf_number: int) -> int:
        return codec.decode(Leaf, self._trail.entry(leaf_number)).now
