"""Reads the federation as a lawyer wrote it (seed.toml) and composes a directory and its annex of it."""

from __future__ import annotations

import hashlib
import itertools
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker import avro
from broker.errors import ConfigurationError
from broker.members import (
    Clearance,
    WrittenAgreement,
    WrittenAnnex,
    WrittenAuditor,
    WrittenBureau,
    WrittenDirectory,
    WrittenKey,
    WrittenLog,
    WrittenMember,
    WrittenTransfer,
    canonical,
)
from broker.notice import BODY_SCHEMAS
from broker.streams import World

Basis = Literal["adequacy", "agreement", "safeguards", "derogation", "legal-area"]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Desk(_Written):
    """A kind of unit that several members have, and the purposes for which it may receive."""

    name: str
    mandates: tuple[str, ...]


class Member(_Written):
    """A state or organisation; its bureaus work in its languages."""

    id: str
    name: str
    kind: Literal["state", "organisation"] = "state"
    status: Literal["active", "suspended"] = "active"
    languages: tuple[str, ...] = ()


class Special(_Written):
    """What is special about one bureau; what is not said is as for its kind of desk and its member."""

    name: str | None = None
    mandates: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    certified: bool = False


class Order(_Written):
    """The bureaus in the order of their indices."""

    bureaus: tuple[str, ...]


class Clause(_Written):
    """The basis on which data may go from some members to others; members or names of groups."""

    between: tuple[str, ...] = ()
    source: tuple[str, ...] = Field(default=(), alias="from")
    target: tuple[str, ...] = Field(default=(), alias="to")
    both_ways: bool = False
    without: tuple[tuple[str, str], ...] = ()
    basis: Basis
    reference: str
    agreement: str | None = None

    @model_validator(mode="after")
    def _says_whom(self) -> Self:
        if bool(self.between) == bool(self.source and self.target):
            message = "a clause names `between`, or `from` and `to`"
            raise ValueError(message)
        return self


class Annex(_Written):
    """What members must not read of each other: bureaus by clearance, members under supervision."""

    supervision: tuple[str, ...] = ()
    clearances: dict[Clearance, tuple[str, ...]] = Field(default_factory=dict)


class Federation(_Written):
    """The whole federation as its file describes it: everything of a directory but keys, logs and schemas."""

    federation: str
    desks: dict[str, Desk] = Field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    order: Order
    bureau: dict[str, Special] = Field(default_factory=dict)
    members: tuple[Member, ...]
    agreements: tuple[WrittenAgreement, ...] = ()
    transfers: tuple[Clause, ...] = ()
    reviewers: tuple[str, ...] = ()
    authorities: tuple[str, ...] = ()
    annex: Annex = Annex()

    @model_validator(mode="after")
    def _excepts_what_there_is(self) -> Self:
        """Refuse an exception that keeps nobody apart and what is said of no bureau: both are typing errors."""
        for place, clause in enumerate(self.transfers):
            named = {frozenset(pair) for pair in _named_pairs(clause, self.groups)}
            for pair in clause.without:
                if frozenset(pair) not in named:
                    message = f"transfers.{place}.without: {' and '.join(pair)} are no two members of its clause"
                    raise ValueError(message)
        for name in self.bureau:
            if name not in self.order.bureaus:
                message = f"bureau.{name}: order.bureaus names no such bureau"
                raise ValueError(message)
        return self

    @property
    def world(self) -> World:
        """Who takes part, as far as streams care."""
        certified = frozenset(name for name, special in self.bureau.items() if special.certified)
        return World(tuple(each.id for each in self.members), self.order.bureaus, certified)

    def bureaus_of(self, member: str) -> list[str]:
        """List the bureaus of one member."""
        return [bureau for bureau in self.order.bureaus if bureau.startswith(f"{member}/")]


def seed() -> Federation:
    """Read the federation that comes with the program."""
    return _parse(files("cli").joinpath("seed.toml").read_text(encoding="utf-8"), "seed.toml")


def read(path: Path) -> Federation:
    """Read a federation's file. Raises ConfigurationError naming the place."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigurationError(message) from error
    return _parse(text, str(path))


def _parse(text: str, name: str) -> Federation:
    try:
        # tomllib gives lists; a member or agreement may be checked strictly only as JSON is.
        return Federation.model_validate(_frozen(tomllib.loads(text)))
    except tomllib.TOMLDecodeError as error:
        message = f"{name}: {error}"
        raise ConfigurationError(message) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = ": ".join(filter(None, (name, ".".join(map(str, first["loc"])), first["msg"])))
        raise ConfigurationError(message) from error


def _frozen(value: object) -> object:
    """Turn lists into tuples, which the strict models of members.py ask for."""
    if isinstance(value, dict):
        return {name: _frozen(each) for name, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def compose(
    federation: Federation,
    keys: Iterable[WrittenKey],
    logs: Sequence[WrittenLog],
    version: int,
    auditors: Sequence[WrittenAuditor] = (),
) -> tuple[bytes, bytes]:
    """Make the canonical bytes of a directory and of the annex that it commits to. Raises ConfigurationError."""
    try:
        annex = canonical(WrittenAnnex(clearances=_clearances(federation), supervision=federation.annex.supervision))
        directory = WrittenDirectory(
            federation=federation.federation,
            version=version,
            members=tuple(_member(each) for each in federation.members),
            bureaus=tuple(_bureau(federation, index, name) for index, name in enumerate(federation.order.bureaus)),
            keys=tuple(sorted(keys, key=lambda key: (key.bureau, key.valid_from, key.key_id))),
            auditors=tuple(auditors),
            agreements=federation.agreements,
            transfers=tuple(_transfers(federation)),
            reviewers=federation.reviewers,
            authorities=federation.authorities,
            compartment_schemas=tuple(sorted(avro.fingerprint(name).hex() for name in BODY_SCHEMAS)),
            annex=hashlib.sha256(annex).hexdigest(),
            logs=tuple(logs),
        )
    except ValidationError as error:
        message = f"the federation does not hold together: {error.errors(include_url=False)[0]['msg']}"
        raise ConfigurationError(message) from error
    return canonical(directory), annex


def _clearances(federation: Federation) -> dict[str, Clearance]:
    return {bureau: level for level, bureaus in federation.annex.clearances.items() for bureau in bureaus}


def _member(member: Member) -> WrittenMember:
    return WrittenMember(id=member.id, name=member.name, kind=member.kind, status=member.status)


def _bureau(federation: Federation, index: int, name: str) -> WrittenBureau:
    member, _, unit = name.partition("/")
    special = federation.bureau.get(name, Special())
    desk = federation.desks.get(unit, Desk(name=unit, mandates=()))
    languages = next((each.languages for each in federation.members if each.id == member), ())
    return WrittenBureau(
        id=name,
        index=index,
        name=special.name or desk.name,
        mandates=desk.mandates if special.mandates is None else special.mandates,
        languages=languages if special.languages is None else special.languages,
        certified=special.certified,
    )


def _transfers(federation: Federation) -> Iterator[WrittenTransfer]:
    """Give every ordered pair of every clause; one that an earlier clause gave on the same ground is left out."""
    seen: set[tuple[str, str, str, str | None]] = set()
    for clause in federation.transfers:
        for source, target in _pairs(clause, federation.groups):
            fact = (source, target, clause.basis, clause.agreement)
            if fact not in seen:
                seen.add(fact)
                yield WrittenTransfer(
                    source=source,
                    target=target,
                    basis=clause.basis,
                    reference=clause.reference,
                    agreement=clause.agreement,
                )


def _pairs(clause: Clause, groups: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    apart = {frozenset(pair) for pair in clause.without}
    return (pair for pair in _named_pairs(clause, groups) if frozenset(pair) not in apart)


def _named_pairs(clause: Clause, groups: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Give the pairs that a clause names, those that it excepts, too."""
    between = _named(clause.between, groups)
    source, target = _named(clause.source, groups), _named(clause.target, groups)
    pairs = itertools.chain(
        itertools.permutations(between, 2),
        itertools.product(source, target),
        itertools.product(target, source) if clause.both_ways else (),
    )
    return (pair for pair in pairs if pair[0] != pair[1])


def _named(names: Iterable[str], groups: dict[str, tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(member for name in names for member in groups.get(name, (name,))))
