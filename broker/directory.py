"""What a directory of one version says: members, bureaus, keys, agreements, with fast look-ups.

Made by members.py alone, from what the operator wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from broker.notice import CONFIDENTIALITIES

if TYPE_CHECKING:
    from broker.signing import PublicKey

DEFAULT_CLEARANCE = "restricted"
"""Clearance of a bureau that the annex does not list."""


@dataclass(frozen=True, slots=True)
class Member:
    """A state or organisation that takes part."""

    id: str
    name: str
    kind: str
    status: str

    @property
    def active(self) -> bool:
        """Whether it takes part now: a suspended member sends and receives nothing."""
        return self.status == "active"


@dataclass(frozen=True, slots=True)
class Bureau:
    """A unit of a member; bit `index` of every bureau mask is its own."""

    id: str
    index: int
    member: str
    name: str
    mandates: frozenset[str]
    languages: tuple[str, ...]
    certified: bool


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key; revocations stand in the trail, not here."""

    key_id: bytes
    bureau: str
    algorithm: str
    public: PublicKey
    valid_from: int
    valid_until: int

    def in_force(self, now: int) -> bool:
        """Say whether valid-from ≤ now < valid-until."""
        return self.valid_from <= now < self.valid_until


@dataclass(frozen=True, slots=True)
class Agreement:
    """A named circle of members."""

    id: str
    title: str
    basis: str
    members: frozenset[str]
    status: str
    own_terms: bool

    @property
    def active(self) -> bool:
        """Whether it can still carry anything new."""
        return self.status == "active"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A recorded basis on which data of `source` may go to `target`."""

    source: str
    target: str
    basis: str
    reference: str
    agreement: str | None


@dataclass(frozen=True, slots=True)
class Annex:
    """Clearances and members under supervision; a bureau that is not listed has `DEFAULT_CLEARANCE`."""

    digest: bytes | None
    clearances: Mapping[str, str]
    supervision: frozenset[str]

    def clearance(self, bureau: str) -> str:
        """Name the highest confidentiality that this bureau may see."""
        return self.clearances.get(bureau, DEFAULT_CLEARANCE)

    def cleared_for(self, bureau: str) -> frozenset[str]:
        """Name every confidentiality that this bureau may see."""
        return frozenset(CONFIDENTIALITIES[: CONFIDENTIALITIES.index(self.clearance(bureau)) + 1])


NO_ANNEX = Annex(None, MappingProxyType({}), frozenset())


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """Members, bureaus, keys and agreements of one version; masks never hold a bureau of a suspended member."""

    digest: bytes
    federation: str
    version: int
    members: Mapping[str, Member]
    bureaus: Mapping[str, Bureau]
    by_index: tuple[Bureau | None, ...]
    ids: tuple[str, ...]
    """Bureau ids by index; "" where an index is not given."""
    keys: Mapping[bytes, Key]
    auditors: Mapping[bytes, Key]
    """Keys that sign looks at clear data; `bureau` is the auditor's id."""
    agreements: Mapping[str, Agreement]
    transfers: tuple[Transfer, ...]
    reviewers: int
    """The bureaus to which a notice goes that must be reviewed; no member can make its own bureau one."""
    authorities: int
    """The bureaus that may withdraw any member's notice by order."""
    compartment_schemas: frozenset[bytes]
    annex: bytes | None
    logs: Mapping[int, str]
    everyone: int
    _names: frozenset[str]
    """Members and bureaus."""
    _masks: Mapping[str, int]
    _agreement_masks: Mapping[str, int]
    _lawful: Mapping[tuple[str, str | None], frozenset[str]]
    """(source, agreement with terms of its own or None) → members to which its data may go."""
    _lawful_masks: Mapping[tuple[str, str | None], int]

    def key(self, key_id: bytes) -> Key | None:
        """Find a key, in force or not."""
        return self.keys.get(key_id)

    def is_active(self, member: str) -> bool:
        """Say whether a member is in the directory and not suspended."""
        found = self.members.get(member)
        return found is not None and found.active

    def bureaus_of(self, member: str) -> tuple[Bureau, ...]:
        """List a member's bureaus, by index."""
        return tuple(bureau for bureau in self.by_index if bureau is not None and bureau.member == member)

    def mask(self, names: Iterable[str]) -> int:
        """Give the bureaus that these members (all theirs) and bureaus name; unknown and suspended ones add nothing."""
        mask = 0
        for name in names:
            mask |= self._masks.get(name, 0)
        return mask

    def bureau_mask(self, names: Iterable[str]) -> int:
        """Give the bureaus that are named by their own id; a member's name adds nothing."""
        mask = 0
        for name in names:
            if "/" in name:
                mask |= self._masks.get(name, 0)
        return mask

    def may_order(self, bureau: str) -> bool:
        """Say whether a bureau may withdraw what others published."""
        return bool(self._masks.get(bureau, 0) & self.authorities) and bureau in self.bureaus

    def reviews(self, bureau: str) -> bool:
        """Say whether a bureau reviews what the rules hold."""
        return bool(self._masks.get(bureau, 0) & self.reviewers) and bureau in self.bureaus

    def names(self, name: str) -> bool:
        """Say whether this is a member or a bureau, suspended or not."""
        return name in self._names

    def names_all(self, names: Iterable[str]) -> bool:
        """Say whether each of these is a member or a bureau, suspended or not."""
        return self._names.issuperset(names)

    def has_agreement(self, agreement: str) -> bool:
        """Say whether there is such an agreement, suspended or not."""
        return agreement in self.agreements

    def agreement_mask(self, agreement: str) -> int:
        """Give the bureaus of an agreement's members; nobody where it is suspended or unknown."""
        return self._agreement_masks.get(agreement, 0)

    def circle_mask(self, agreement: str) -> int:
        """Give the bureaus of an agreement's members, suspended or not: whom an issuer meant when it named it."""
        found = self.agreements.get(agreement)
        return self.mask(found.members) if found else 0

    def transfer_ok(self, source: str, target: str, agreements: Iterable[str] = ()) -> bool:
        """Say whether data of `source` may go to `target` on a basis in force; within a member always.

        A basis that rests on an agreement with terms of its own counts only where that is among `agreements`.
        """
        return source == target or any(
            target in self._lawful.get((source, each), frozenset()) for each in (None, *agreements)
        )

    def lawful_mask(self, sources: Iterable[str], agreements: Iterable[str]) -> int:
        """Give the bureaus to which data of all these members may go, under these agreements (`transfer_ok`)."""
        mask, under = self.everyone, tuple(agreements)
        for source in sources:
            lawful = self._masks.get(source, 0)
            for each in (None, *under):
                lawful |= self._lawful_masks.get((source, each), 0)
            mask &= lawful
        return mask

    def reads_none(self, bureaus: int, languages: Iterable[str]) -> bool:
        """Say whether one of these bureaus reads none of the languages."""
        spoken = frozenset(languages)
        named = (each for each in self.by_index if each is not None and bureaus >> each.index & 1)
        return any(spoken.isdisjoint(each.languages) for each in named)

    def bureaus_in(self, mask: int) -> tuple[str, ...]:
        """Name the bureaus of a mask, by index."""
        return tuple(bureau.id for bureau in self.by_index if bureau is not None and mask >> bureau.index & 1)
