"""Which directory, annex and policy set are in force at a home, or were for one leaf."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from adapters.versions import Versions
from broker import codec, members, streams
from broker.directory import NO_ANNEX, Annex, Directory
from broker.errors import ConfigurationError, NoticeRejectedError, UnavailableError
from broker.notice import Leaf, Version
from broker.streams import OPERATOR, ROUTER
from broker.trail import Trail

if TYPE_CHECKING:
    from broker.rules import PolicySet
    from cli.home import MemberHome
    from cli.operator_home import OperatorHome

T = TypeVar("T")
NOTHING = bytes(32)
"""What a leaf names where there was no version yet."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision rests on. `annex` None: this party may not know it."""

    directory: Directory
    annex: Annex | None
    policies: PolicySet


def trail_of(home: OperatorHome) -> Trail:
    """Open the trail of an operator's home."""
    return Trail.open(home.folder / "trail", home.owner().origin)


def at_operator(home: OperatorHome) -> Basis:
    """Give what the last leaf names; before there is one, what was published last. Raises ConfigurationError."""
    trail = trail_of(home)
    last = codec.decode(Leaf, trail.entry(trail.size - 1)) if trail.size else None
    if last and NOTHING not in (last.directory, last.policies):
        return of_leaf(home, last)
    digests = [home.versions.newest_digest(kind) for kind in ("directory", "policies")]
    return _basis(home, digests[0] or NOTHING, digests[1] or NOTHING)


def of_leaf(home: OperatorHome, leaf: Leaf) -> Basis:
    """Give what a leaf names, fetched from the bus where this home lacks it. Raises ConfigurationError."""
    return _basis(home, leaf.directory, leaf.policies)


def at_member(home: MemberHome, leaf: Leaf | None = None) -> Basis:
    """Give what a member knows: the versions that a leaf names, or the newest. Raises ConfigurationError."""
    directory = home.versions.directory(leaf.directory) if leaf else home.versions.newest()
    policies = leaf.policies if leaf else home.versions.newest_digest("policies")
    return Basis(
        _found(directory, "directory", leaf.directory if leaf else None), None, policy_set(home.versions, policies)
    )


def policy_set(versions: Versions, digest: bytes | None) -> PolicySet:
    """Give a policy set that was published. Raises ConfigurationError."""
    from broker.rules import PolicySet  # noqa: PLC0415 -- cedarpy is slow to import

    return PolicySet.parse(_found(versions.content(digest) if digest else None, "policy set", digest))


def known_annex(basis: Basis) -> Annex:
    """Give the annex of an operator's basis."""
    return NO_ANNEX if basis.annex is None else basis.annex


def _basis(home: OperatorHome, directory: bytes, policies: bytes) -> Basis:
    if home.versions.directory(directory) is None or home.versions.content(policies) is None:
        fetch(home)
    listed = _found(home.versions.directory(directory), "directory", directory)
    return Basis(listed, _annex(home, listed), policy_set(home.versions, policies))


def _annex(home: OperatorHome, directory: Directory) -> Annex:
    if directory.annex is None:
        return NO_ANNEX
    if home.versions.content(directory.annex) is None:
        fetch(home)
    return members.parse_annex(_found(home.versions.content(directory.annex), "annex", directory.annex), directory)


def _found(found: T | None, what: str, digest: bytes | None) -> T:
    if found is None:
        named = f" {digest.hex()[:16]}" if digest and digest != NOTHING else ""
        message = f"the {what}{named} is not here: it comes with the bus, so let the home follow it once"
        raise ConfigurationError(message)
    return found


def fetch(home: OperatorHome) -> None:
    """Take in all versions and annexes that the bus holds: it keeps them for ever."""
    try:
        asyncio.run(_fetch(home))
    except UnavailableError as error:
        message = f"a version is not in {home.folder / 'versions'}, and the bus that has it does not answer: {error}"
        raise ConfigurationError(message) from error


async def _fetch(home: OperatorHome) -> None:
    async with home.bus(OPERATOR) as bus:
        await home.versions.follow(bus)
    place = 0
    async with home.bus(ROUTER) as bus:
        while records := await bus.read(streams.ANNEXES, place):
            for record in records:
                _keep_annex(home.versions, record.value or b"")
            place = records[-1].offset + 1


def _keep_annex(versions: Versions, value: bytes) -> None:
    try:
        versions.keep(codec.decode(Version, value).content)
    except NoticeRejectedError:
        return  # nobody can have adopted what cannot be read
