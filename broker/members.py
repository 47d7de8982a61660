"""The directory: members, bureaus, keys in force, agreements.

What the operator wrote (`Written…`, pydantic) is parsed once and turned into a frozen `Directory` with fast look-ups;
nobody else opens a directory's JSON. Its digest is the SHA-256 of the bytes as they arrived. The annex holds what
members must not read of each other; the directory commits to it by digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker import points
from broker.directory import Agreement, Annex, Bureau, Directory, Key, Member, Transfer
from broker.errors import VersionRefusedError
from broker.notice import PURPOSES
from broker.signing import PublicKey, key_id

_Model = TypeVar("_Model", bound=BaseModel)
INDEX_LIMIT = 1 << 16
"""Bureau indices stay below this, so that a mask stays below 8 KiB."""
NO_BUREAU = "adapter"
"""What no bureau can be called: its principal would be that of the member's adapter (streams.py)."""

MemberId = Annotated[str, Field(pattern=r"\A[A-Z][A-Z0-9]*\z", max_length=32)]
BureauId = Annotated[str, Field(pattern=r"\A[A-Z][A-Z0-9]*/[a-z0-9-]+\z", max_length=96)]
AgreementId = Annotated[str, Field(pattern=r"\A[a-z0-9-]+\z", max_length=96)]
AuditorId = Annotated[str, Field(pattern=r"\A[a-z][a-z0-9-]*\z", max_length=96)]
Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Fingerprint = Annotated[str, Field(pattern=r"\A[0-9a-f]{16}\z")]
Words = Annotated[str, Field(min_length=1, max_length=1024)]
Status = Literal["active", "suspended"]
Clearance = Literal["open", "restricted", "confidential", "secret"]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WrittenMember(_Written):
    """A state or organisation, as the operator writes it."""

    id: MemberId
    name: Words
    kind: Literal["state", "organisation"]
    status: Status = "active"


class WrittenBureau(_Written):
    """A unit of a member. `index` is its place in every mask: given once and never reused."""

    id: BureauId
    index: int = Field(ge=0, lt=INDEX_LIMIT)
    name: Words
    mandates: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    certified: bool = False


class WrittenKey(_Written):
    """A signing key of one bureau; times are ms since the epoch."""

    key_id: Digest
    bureau: BureauId
    algorithm: Literal["ed25519"] = "ed25519"
    public: Digest  # 32 bytes as well
    valid_from: int
    valid_until: int


class WrittenAuditor(_Written):
    """A key of an operator's or auditor's that signs looks at clear data, and nothing else; `id` is a pseudonym.

    An id is never that of a member or bureau: those begin with a capital letter.
    """

    id: AuditorId
    key_id: Digest
    algorithm: Literal["ed25519"] = "ed25519"
    public: Digest
    valid_from: int
    valid_until: int


class WrittenAgreement(_Written):
    """A named circle; policies speak of it. `own_terms`: what rests on it counts only for notices that name it."""

    id: AgreementId
    title: Words
    basis: Words
    members: tuple[MemberId, ...]
    status: Status = "active"
    own_terms: bool = False


class WrittenTransfer(_Written):
    """A fact about an ordered pair: data of `source` may go to `target`, and why."""

    source: MemberId
    target: MemberId
    basis: Literal["adequacy", "agreement", "safeguards", "derogation", "legal-area"]
    reference: Words
    agreement: AgreementId | None = None


class WrittenLog(_Written):
    """The public key of one shard's trail, as a signed-note verifier key."""

    shard: int = Field(ge=0)
    vkey: Words


class WrittenDirectory(_Written):
    """The whole directory as the operator writes it."""

    federation: str = Field(min_length=1, max_length=255)
    version: int = Field(ge=1)
    members: tuple[WrittenMember, ...]
    bureaus: tuple[WrittenBureau, ...]
    keys: tuple[WrittenKey, ...] = ()
    auditors: tuple[WrittenAuditor, ...] = ()
    agreements: tuple[WrittenAgreement, ...] = ()
    transfers: tuple[WrittenTransfer, ...] = ()
    reviewers: tuple[BureauId, ...] = ()
    authorities: tuple[BureauId, ...] = ()
    compartment_schemas: tuple[Fingerprint, ...] = ()
    annex: Digest | None = None
    logs: tuple[WrittenLog, ...] = ()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for check in (_check_unique, _check_bureaus, _check_keys, _check_agreements, _check_transfers, _check_offices):
            check(self)
        return self


class WrittenAnnex(_Written):
    """What members must not read of each other, as the operator writes it."""

    clearances: dict[BureauId, Clearance] = Field(default_factory=dict)
    supervision: tuple[MemberId, ...] = ()


def parse(content: bytes) -> Directory:
    """Read a directory. Raises VersionRefusedError naming the place."""
    written = _read(WrittenDirectory, content, "directory")
    return _concluded(written, hashlib.sha256(content).digest())


def parse_annex(content: bytes, directory: Directory) -> Annex:
    """Read the annex that this directory commits to. Raises VersionRefusedError naming the place."""
    digest = hashlib.sha256(content).digest()
    if digest != directory.annex:
        raise VersionRefusedError(f"annex: {digest.hex()} is not the one that the directory commits to")
    written = _read(WrittenAnnex, content, "annex")
    for bureau in written.clearances:
        if bureau not in directory.bureaus:
            raise VersionRefusedError(f"annex: clearances.{bureau}: no such bureau")
    for place, member in enumerate(written.supervision):
        if member not in directory.members:
            raise VersionRefusedError(f"annex: supervision.{place}: no such member {member}")
    return Annex(digest, MappingProxyType(dict(written.clearances)), frozenset(written.supervision))


def canonical(model: BaseModel) -> bytes:
    """Write a model the one way that digests are made of."""
    data = model.model_dump(mode="json")
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _read(kind: type[_Model], content: bytes, what: str) -> _Model:
    try:
        # A name given twice would mean one thing to us and another to the next reader.
        json.loads(content, object_pairs_hook=no_name_twice)
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "as a whole"
        raise VersionRefusedError(f"{what}: {place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise VersionRefusedError(f"{what}: as a whole: {error}") from error


def no_name_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of JSON's pairs (`object_pairs_hook`). Raises ValueError where a name is given twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is given twice")
    return found


def _refuse_if(wrong: bool, place: str, reason: str) -> None:
    if wrong:
        raise ValueError(f"{place}: {reason}")


def _check_unique(written: WrittenDirectory) -> None:
    columns: dict[str, list[object]] = {
        "members id": [each.id for each in written.members],
        "bureaus id": [each.id for each in written.bureaus],
        "bureaus index": [each.index for each in written.bureaus],
        "keys key_id": [*(each.key_id for each in written.keys), *(each.key_id for each in written.auditors)],
        "agreements id": [each.id for each in written.agreements],
        "compartment_schemas": list(written.compartment_schemas),
        "logs shard": [each.shard for each in written.logs],
        "transfers": [(each.source, each.target, each.basis, each.agreement) for each in written.transfers],
    }
    for column, values in columns.items():
        seen: set[object] = set()
        for place, value in enumerate(values):
            _refuse_if(value in seen, f"{column.split()[0]}.{place}", f"{column.split()[-1]} {value} is given twice")
            seen.add(value)


def _check_bureaus(written: WrittenDirectory) -> None:
    members = {each.id for each in written.members}
    for place, each in enumerate(written.bureaus):
        at = f"bureaus.{place}"
        member, _, name = each.id.partition("/")
        _refuse_if(member not in members, at, f"{each.id} belongs to no member")
        _refuse_if(name == NO_BUREAU, at, f"no bureau can be called {NO_BUREAU}")
        unknown = sorted(set(each.mandates) - set(PURPOSES))
        _refuse_if(bool(unknown), at, f"no such purpose: {', '.join(unknown)}")


def _check_keys(written: WrittenDirectory) -> None:
    bureaus = {each.id for each in written.bureaus}
    for place, each in enumerate(written.keys):
        at = f"keys.{place}"
        _check_point(at, each.public)
        _refuse_if(each.bureau not in bureaus, at, f"no such bureau {each.bureau}")
        _refuse_if(each.key_id != key_id(bytes.fromhex(each.public)).hex(), at, "key_id does not fit the public key")
        _refuse_if(each.valid_from >= each.valid_until, at, "valid_until is not after valid_from")
    for place, one in enumerate(written.auditors):
        at = f"auditors.{place}"
        _check_point(at, one.public)
        _refuse_if(one.key_id != key_id(bytes.fromhex(one.public)).hex(), at, "key_id does not fit the public key")
        _refuse_if(one.valid_from >= one.valid_until, at, "valid_until is not after valid_from")


def _check_point(at: str, public: str) -> None:
    """Refuse a key that is no point, another encoding of one, or of small order. Raises ValueError naming the place."""
    try:
        points.check(bytes.fromhex(public))
    except ValueError as error:
        raise ValueError(f"{at}: {error}") from error


def _check_agreements(written: WrittenDirectory) -> None:
    members = {each.id for each in written.members}
    for place, each in enumerate(written.agreements):
        unknown = sorted(set(each.members) - members)
        _refuse_if(bool(unknown), f"agreements.{place}", f"no such member: {', '.join(unknown)}")
        _refuse_if(len(set(each.members)) != len(each.members), f"agreements.{place}", "a member is given twice")


def _check_transfers(written: WrittenDirectory) -> None:
    members = {each.id for each in written.members}
    circles = {each.id: set(each.members) for each in written.agreements}
    for place, each in enumerate(written.transfers):
        at = f"transfers.{place}"
        pair = {each.source, each.target}
        _refuse_if(not pair <= members, at, f"no such member: {', '.join(sorted(pair - members))}")
        _refuse_if(each.source == each.target, at, "source and target are the same")
        if each.agreement is not None:
            _refuse_if(each.agreement not in circles, at, f"no such agreement {each.agreement}")
            _refuse_if(not pair <= circles[each.agreement], at, f"not both are members of {each.agreement}")


def _check_offices(written: WrittenDirectory) -> None:
    bureaus = {each.id for each in written.bureaus}
    for office, named in (("reviewers", written.reviewers), ("authorities", written.authorities)):
        unknown = sorted(set(named) - bureaus)
        _refuse_if(bool(unknown), office, f"no such bureau: {', '.join(unknown)}")


def _concluded(written: WrittenDirectory, digest: bytes) -> Directory:
    members = {each.id: Member(**each.model_dump()) for each in written.members}
    bureaus = {each.id: _bureau(each) for each in written.bureaus}
    agreements = {
        each.id: Agreement(each.id, each.title, each.basis, frozenset(each.members), each.status, each.own_terms)
        for each in written.agreements
    }
    transfers = tuple(Transfer(**each.model_dump()) for each in written.transfers)
    masks = _masks(members, bureaus)
    lawful = _lawful(transfers, agreements)
    return Directory(
        digest=digest,
        federation=written.federation,
        version=written.version,
        members=MappingProxyType(members),
        bureaus=MappingProxyType(bureaus),
        by_index=_by_index(bureaus),
        ids=tuple(each.id if each else "" for each in _by_index(bureaus)),
        keys=MappingProxyType({bytes.fromhex(each.key_id): _key(each) for each in written.keys}),
        auditors=MappingProxyType({bytes.fromhex(each.key_id): _auditor(each) for each in written.auditors}),
        agreements=MappingProxyType(agreements),
        transfers=transfers,
        reviewers=_union(masks.get(each, 0) for each in written.reviewers),
        authorities=_union(masks.get(each, 0) for each in written.authorities),
        compartment_schemas=frozenset(map(bytes.fromhex, written.compartment_schemas)),
        annex=bytes.fromhex(written.annex) if written.annex else None,
        logs=MappingProxyType({each.shard: each.vkey for each in written.logs}),
        everyone=_union(masks.get(member, 0) for member in members),
        _names=frozenset(members) | frozenset(bureaus),
        _masks=masks,
        _agreement_masks={
            each.id: _union(masks.get(member, 0) for member in each.members)
            for each in agreements.values()
            if each.active
        },
        _lawful=lawful,
        _lawful_masks={each: _union(masks.get(member, 0) for member in targets) for each, targets in lawful.items()},
    )


def _lawful(
    transfers: Iterable[Transfer], agreements: Mapping[str, Agreement]
) -> dict[tuple[str, str | None], frozenset[str]]:
    found: dict[tuple[str, str | None], set[str]] = {}
    for each in transfers:
        circle = agreements[each.agreement] if each.agreement else None
        if circle is None or circle.active:
            under = circle.id if circle and circle.own_terms else None
            found.setdefault((each.source, under), set()).add(each.target)
    return {each: frozenset(targets) for each, targets in found.items()}


def _bureau(written: WrittenBureau) -> Bureau:
    return Bureau(
        id=written.id,
        index=written.index,
        member=written.id.partition("/")[0],
        name=written.name,
        mandates=frozenset(written.mandates),
        languages=written.languages,
        certified=written.certified,
    )


def _key(written: WrittenKey) -> Key:
    public = PublicKey.of(bytes.fromhex(written.public))
    return Key(public.id, written.bureau, written.algorithm, public, written.valid_from, written.valid_until)


def _auditor(written: WrittenAuditor) -> Key:
    public = PublicKey.of(bytes.fromhex(written.public))
    return Key(public.id, written.id, written.algorithm, public, written.valid_from, written.valid_until)


def _by_index(bureaus: Mapping[str, Bureau]) -> tuple[Bureau | None, ...]:
    places: list[Bureau | None] = [None] * (max((each.index for each in bureaus.values()), default=-1) + 1)
    for each in bureaus.values():
        places[each.index] = each
    return tuple(places)


def _masks(members: Mapping[str, Member], bureaus: Mapping[str, Bureau]) -> dict[str, int]:
    """Map names to masks; a suspended member's name and its bureaus' are left out, so that they never receive."""
    masks: dict[str, int] = {}
    for each in bureaus.values():
        if members[each.member].active:
            masks[each.id] = 1 << each.index
            masks[each.member] = masks.get(each.member, 0) | 1 << each.index
    return masks


def _union(masks: Iterable[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union
