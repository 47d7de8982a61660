"""What the rules may know of a notice.

Everything is computed from signed bytes and the directory. Names that the directory does not know never get in here, so
the values are few and a look-up keyed by them stays small. Sets of bureaus are masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.notice import AREAS, EVERYONE, H3, Header, Origin, Routing
from broker.quick import quick

if TYPE_CHECKING:
    from broker.directory import Annex, Directory

NO_LIMIT = (1 << 63) - 1
"""Stands for a day that the header does not set: the greatest Long of Cedar."""

Mask = int
"""A set of bureaus: `Set<Bureau>` of the schema. Other `int` facts are Longs."""
MemberId = str
"""The id of a member: an entity, no String of the schema."""
BureauId = str
"""The id of a bureau: an entity, no String of the schema."""
LATER = frozenset({"holders"})
"""Facts that came when sets were in force already: a set of before does not declare them, and is not told them."""


@quick
@dataclass(frozen=True, slots=True)
class Facts:
    """The attributes of a Notice as `policies/schema.cedarschema` declares them, and `now` of the context.

    The types tell the compiler what each is: `Mask`, `MemberId`, `BureauId`, or a plain value.
    """

    now: int
    kind: str
    issuer: BureauId
    owner: MemberId
    purpose: str
    confidentiality: str
    urgency: str
    handling: frozenset[str]
    exercise: bool
    released: bool
    """A reviewing bureau has approved it."""
    areas: frozenset[str]
    """The first parts of its topics, as far as rules may speak of them."""
    supervised: bool
    """Its issuer's member is under supervision."""
    unreadable: bool
    """It is H3, and a bureau that it names reads none of its languages."""
    derogation: bool
    """The issuer breaks the glass: a threat to life."""
    corrects: bool
    holders: Mask
    """Of a correction: the bureaus that hold what it corrects; to have been given it itself to review is not that."""
    retain_until: int
    review_due: int
    everyone: bool
    audience: Mask
    denied: Mask
    addressed: Mask
    named: Mask
    granted: Mask
    """The bureaus that hold a grant in force."""
    agreements: frozenset[str]
    origins_known: bool
    sources: frozenset[MemberId]
    lawful: Mask
    """The bureaus to which data of all its sources may go, under the agreements that it names."""
    consented: Mask
    subject_categories: frozenset[str]
    minor: str
    special_categories: frozenset[str]
    protected_from: Mask


def facts_of(
    header: Header,
    routing: Routing,
    directory: Directory,
    annex: Annex,
    now: int,
    *,
    released: bool = False,
    holders: int | None = None,
) -> Facts:
    """Compute the facts of one notice at one `now`. Needs a header and routing that `verify` has checked.

    `holders`: who holds what it corrects.
    """
    audience = routing.audience
    named = directory.bureau_mask(audience.to)
    granted = directory.bureau_mask(each.bureau for each in routing.grants if now < each.until)
    addressed = directory.mask(audience.to) | granted
    origins = tuple(origin for origin in routing.origins if not _without_terms(origin, header.member))
    corrects = any(each.relation == "corrects" for each in header.references)
    sources = frozenset({header.member, *(_member(each) for each in origins)} & directory.members.keys())
    return Facts(
        now=now,
        kind=header.kind,
        issuer=header.issuer,
        owner=header.member,
        purpose=header.purpose,
        confidentiality=header.confidentiality,
        urgency=header.urgency,
        handling=frozenset(header.handling),
        exercise=header.exercise,
        released=released,
        areas=frozenset(each.partition(".")[0] for each in header.topics).intersection(AREAS),
        supervised=header.member in annex.supervision,
        unreadable=H3 in header.handling and directory.reads_none(named, header.languages),
        derogation=routing.derogation is not None,
        corrects=corrects,
        holders=holders & directory.everyone if corrects and holders else 0,
        retain_until=NO_LIMIT if header.retain_until is None else header.retain_until,
        review_due=NO_LIMIT if header.review_due is None else header.review_due,
        everyone=audience.everyone,
        audience=_audience(routing, addressed, directory),
        denied=directory.mask(routing.deny),
        addressed=addressed,
        named=named,
        granted=granted,
        agreements=frozenset(filter(directory.has_agreement, audience.agreements)),
        origins_known=all(each.owner is not None and directory.names(each.owner) for each in origins),
        sources=sources,
        lawful=directory.lawful_mask(sources, audience.agreements),
        consented=_consented(origins, directory),
        subject_categories=frozenset(routing.subject_categories),
        minor=routing.minor,
        special_categories=frozenset(routing.special_categories),
        protected_from=directory.mask(each.partition("/")[0] for each in routing.protected_from),  # the state, whole
    )


def _audience(routing: Routing, addressed: int, directory: Directory) -> int:
    """Give whom the issuer meant. That a suspended agreement permits nothing is a rule, and a term of `decide`."""
    if routing.audience.everyone:
        return directory.everyone
    mask = addressed
    for agreement in routing.audience.agreements:
        mask |= directory.circle_mask(agreement)
    return mask


def carried(routing: Routing, known: Facts, directory: Directory) -> int:
    """Give whom a correction goes on to under a suspended agreement: of its circle those who hold what it corrects."""
    mask = 0
    for agreement in routing.audience.agreements if known.holders else ():
        mask |= directory.circle_mask(agreement) & ~directory.agreement_mask(agreement)
    return mask & known.holders


def indices(mask: int) -> Iterator[int]:
    """List the bureaus of a mask by index."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _member(origin: Origin) -> str:
    return (origin.owner or "").partition("/")[0]


def _without_terms(origin: Origin, issuer: str) -> bool:
    """Say whether these are the issuer's own facts, for which its audience says it all."""
    return _member(origin) == issuer and not origin.releasable_to


def _consented(origins: tuple[Origin, ...], directory: Directory) -> int:
    """Give the bureaus to which every origin has consented. An owner needs nobody's consent for its own facts."""
    mask = directory.everyone
    for origin in origins:
        if EVERYONE not in origin.releasable_to:
            mask &= directory.mask((_member(origin), *origin.releasable_to))
    return mask
