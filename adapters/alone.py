"""Checks a draft by itself, with no home: as the outbox makes it and the broker verifies it, in a directory made up.

That directory has whatever the draft names, where any could, and others besides. So what is refused here is refused
everywhere. Who takes part, what is published or held, and whether the federation's name takes the notice over the
limit, only an outbox knows (`Outbox.rehearse`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import count

from pydantic import TypeAdapter, ValidationError

from adapters.adapter import Draft, Pointer
from adapters.compose import OF_ONE_RECORD, Maker, Place, check_pointer, compose
from broker import avro, members
from broker.directory import Directory
from broker.errors import InvalidFieldError
from broker.members import (
    INDEX_LIMIT,
    NO_BUREAU,
    AgreementId,
    BureauId,
    MemberId,
    WrittenAgreement,
    WrittenBureau,
    WrittenDirectory,
    WrittenKey,
    WrittenMember,
)
from broker.notice import BODY_SCHEMAS, Reference
from broker.signing import PublicKey, SigningKey

_MEMBER, _BUREAU, _AGREEMENT = (TypeAdapter[str](each) for each in (MemberId, BureauId, AgreementId))
NAMES_LIMIT = (INDEX_LIMIT - 3) // 2
"""Names that a made-up directory has: each may be a bureau, and the only other of its member is one more. Beside them
stand the issuer, one more of its member, and the member more. Of more no draft below the size limit makes sense."""


def check(draft: Draft, key: SigningKey, now: int) -> None:
    """Check a draft without home and directory. Raises NoticeRejectedError; what `key` signs is thrown away."""
    named = frozenset(sorted(set(_named(draft)))[:NAMES_LIMIT])
    issuer = _issuer(draft, named)
    directory = _made_up(named, frozenset(draft.audience.agreements), issuer, key.public)
    references = tuple(_reference(each, issuer, draft.record) for each in draft.pointers)
    compose(draft, Place(issuer, 1, references, bytes(8), 1), Maker(directory, lambda _: key, lambda: now, bytes))


def _named(draft: Draft) -> Iterator[str]:
    """Name the members and bureaus of a draft that a directory has to have."""
    yield from (*draft.audience.to, *draft.deny, *draft.protected_from)
    yield from (each.bureau for each in draft.grants)


def _issuer(draft: Draft, named: Collection[str]) -> str:
    """Name who issues it: the draft's bureau; else the issuer of what it changes, as nobody else may; else anybody."""
    if not draft.bureau:
        changed = (each.issuer for each in draft.pointers if each.relation in OF_ONE_RECORD)
        return next(filter(_is_bureau, changed), _other(named, f"{_other(named, 'X')}/"))
    if not _is_bureau(draft.bureau):
        message = "bureau"
        raise InvalidFieldError(message)
    return draft.bureau


def _reference(pointer: Pointer, issuer: str, record: str) -> Reference:
    check_pointer(pointer, record)
    return Reference(pointer.issuer or issuer, bytes(16), bytes(32), pointer.relation)


@lru_cache
def _made_up(named: frozenset[str], agreements: frozenset[str], issuer: str, public: PublicKey) -> Directory:
    """Make a directory of these, of a bureau more of each member, and of a member more, which is in each agreement."""
    other = _other(named, "Y")
    bureaus = {issuer, *filter(_is_bureau, named)}
    states = {other, *(each for each in named if _fits(_MEMBER, each)), *(each.partition("/")[0] for each in bureaus)}
    bureaus |= {_other(bureaus, f"{each}/") for each in states}
    written = WrittenDirectory(
        federation="any",
        version=1,
        members=tuple(WrittenMember(id=each, name=each, kind="state") for each in states),
        bureaus=tuple(WrittenBureau(id=each, index=place, name=each) for place, each in enumerate(bureaus)),
        keys=(
            WrittenKey(
                key_id=public.id.hex(), bureau=issuer, public=public.raw.hex(), valid_from=0, valid_until=1 << 62
            ),
        ),
        agreements=tuple(
            WrittenAgreement(id=each, title=each, basis=each, members=(other,))
            for each in agreements
            if _fits(_AGREEMENT, each)
        ),
        authorities=(issuer,),
        compartment_schemas=tuple(avro.fingerprint(each).hex() for each in BODY_SCHEMAS),
    )
    return members.parse(members.canonical(written))


def _other(taken: Collection[str], beginning: str) -> str:
    """Name one that is not among those."""
    return next(each for number in count() if (each := f"{beginning}{number}") not in taken)


def _is_bureau(name: str) -> bool:
    return _fits(_BUREAU, name) and name.partition("/")[2] != NO_BUREAU


def _fits(kind: TypeAdapter[str], name: str) -> bool:
    try:
        kind.validate_python(name)
    except ValidationError:
        return False
    return True
