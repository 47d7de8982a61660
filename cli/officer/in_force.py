"""Which directory, annex and policy set are in force at a home, or were for one leaf, by what lies in the home.

No bus is opened: the home may be one that somebody else handed over, and it says where its bus is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from broker import codec, members
from broker.directory import NO_ANNEX, Annex, Directory
from broker.errors import ConfigurationError
from broker.notice import NOTHING, Leaf
from broker.trail import Trail
from cli.auditor.shards import shard_of, trails

if TYPE_CHECKING:
    from adapters.versions import Versions
    from broker.rules import PolicySet
    from cli.home import MemberHome
    from cli.operator_home import OperatorHome

T = TypeVar("T")
TAKEN_IN = (
    "run at the home itself, `valise broker up` (an operator's) or `valise directory status` (a member's) takes in"
    " what the bus holds, and what was lost or damaged here once more"
)
"""What to do where a home lacks a version."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision rests on. `annex` None: this party may not know it."""

    directory: Directory
    annex: Annex | None
    policies: PolicySet


def trail_of(home: OperatorHome) -> Trail:
    """Open the trail of the shard that an operator's home owns."""
    owner = home.owner()
    return Trail.open(owner.trail, owner.origin)


def by_shard(home: OperatorHome) -> dict[int, bytes]:
    """Give for each shard with leaves in this home the digest of the policy set that its last one names."""
    opened = {shard_of(folder): Trail.open(folder) for folder in trails(home.folder)}
    last = {shard: codec.decode(Leaf, trail.entry(trail.size - 1)) for shard, trail in opened.items() if trail.size}
    return {shard: leaf.policies for shard, leaf in last.items() if leaf.policies != NOTHING}


def at_operator(home: OperatorHome) -> Basis:
    """Give what the last leaf of its shard names; before there is one, what was published last.

    Raises ConfigurationError. Another shard may have another set in force until its next step: see `by_shard`.
    """
    trail = trail_of(home)
    last = codec.decode(Leaf, trail.entry(trail.size - 1)) if trail.size else None
    if last and NOTHING not in (last.directory, last.policies):
        return of_leaf(home.versions, last)
    digests = [home.versions.named_newest(kind) for kind in ("directory", "policies")]
    return _basis(home.versions, digests[0] or NOTHING, digests[1] or NOTHING)


def of_leaf(versions: Versions, leaf: Leaf) -> Basis:
    """Give what a leaf names. Raises ConfigurationError."""
    return _basis(versions, leaf.directory, leaf.policies)


def at_member(home: MemberHome, leaf: Leaf | None = None) -> Basis:
    """Give what a member knows: the versions that a leaf names, or the newest. Raises ConfigurationError."""
    directory = directory_of(home.versions, leaf.directory) if leaf else home.versions.newest()
    policies = leaf.policies if leaf else home.versions.named_newest("policies")
    return Basis(directory, None, policy_set(home.versions, policies))


def policy_set(versions: Versions, digest: bytes | None) -> PolicySet:
    """Give a policy set that was published. Raises ConfigurationError."""
    from broker.rules import PolicySet  # noqa: PLC0415 -- cedarpy is slow to import

    return PolicySet.parse(found(versions.content(digest) if digest else None, "policy set", digest))


def known_annex(basis: Basis) -> Annex:
    """Give the annex of an operator's basis."""
    return NO_ANNEX if basis.annex is None else basis.annex


def directory_of(versions: Versions, digest: bytes) -> Directory:
    """Give a directory that was published. Raises ConfigurationError."""
    return found(versions.directory(digest), "directory", digest)


def annex_of(versions: Versions, directory: Directory) -> Annex:
    """Give the annex that a directory commits to. Raises ConfigurationError."""
    if directory.annex is None:
        return NO_ANNEX
    return members.parse_annex(found(versions.content(directory.annex), "annex", directory.annex), directory)


def found(version: T | None, what: str, digest: bytes | None) -> T:
    """Give a version that was looked for. Raises ConfigurationError that names it, and says who can mend it."""
    if version is None:
        named = f" {digest.hex()[:16]}" if digest and digest != NOTHING else ""
        message = f"the {what}{named} is not in `versions` of this home: {TAKEN_IN}"
        raise ConfigurationError(message)
    return version


def _basis(versions: Versions, directory: bytes, policies: bytes) -> Basis:
    listed = directory_of(versions, directory)
    return Basis(listed, annex_of(versions, listed), policy_set(versions, policies))
