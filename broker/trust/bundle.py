"""Opens the bundles that `versions` carries: metadata with targets, verified against a pinned root and what was seen.

A bundle holds the chain of roots, the newest envelope of each role and the file that each role signed. What comes out
is the directory that they add up to: it is the same whoever opens the bundle, and its digest is that of this result.
The TUF client workflow (specification 1.0, §5.3 to §5.6) holds but for time: an expired timestamp, and a member's or
agreement's expired role, are told and stop nothing; the rest must not have expired when a bundle is first adopted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import (  # type: ignore[attr-defined] # not in __all__
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from broker import members
from broker.directory import Directory
from broker.trust import roles
from broker.trust.roles import FEDERATION, POLICIES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, refuse

Seen = Mapping[str, tuple[int, str]]
"""Role → version and digest of the newest metadata that was taken for true."""
MUST_BE_FRESH = frozenset({ROOT, TARGETS, SNAPSHOT, FEDERATION, POLICIES})
_MetadataT = TypeVar("_MetadataT", bound=Signed)
_ModelT = TypeVar("_ModelT", bound=BaseModel)


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WrittenBundle(_Written):
    """A bundle as `versions` carries it: every part is text exactly as it was signed."""

    bundle: Literal["valise/directory/1"] = "valise/directory/1"
    roots: tuple[str, ...]
    """The root of version 1 and all that followed it."""
    roles: dict[str, str]
    files: dict[str, str]

    def content(self) -> bytes:
        """Write it the one way that digests are made of."""
        return roles.canonical(self.model_dump(mode="json"))


class WrittenPolicies(_Written):
    """A policy set with the metadata that allows it."""

    bundle: Literal["valise/policies/1"] = "valise/policies/1"
    role: str
    policies: str

    def content(self) -> bytes:
        """Write it the one way that digests are made of."""
        return roles.canonical(self.model_dump(mode="json"))


class WrittenMemberFile(_Written):
    """What a member alone says: its bureaus and the keys that they sign with."""

    bureaus: tuple[members.WrittenBureau, ...] = ()
    keys: tuple[members.WrittenKey, ...] = ()
    voices: tuple[str, ...] = ()
    """Ids of the keys with which it speaks, once one has taken over from another: what that one signed names it."""


class WrittenAgreementFile(_Written):
    """An agreement, and how many of its members must sign a change of it, with which keys."""

    agreement: members.WrittenAgreement
    signatures: int
    keys: tuple[str, ...] = ()
    """Ids of the keys that count; none: a file of before this field came."""


class WrittenJointFile(BaseModel):
    """What is decided jointly: all of a directory but keys and version; bureaus only of members without a role yet."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    bureaus: tuple[members.WrittenBureau, ...] = ()
    agreements: tuple[members.WrittenAgreement, ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """What a party holds for true before it opens a bundle: a pinned root, and the newest that it has seen."""

    root: str
    """Fingerprint of a root: whatever follows it in its chain is trusted, too."""
    seen: Seen = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle that was verified."""

    directory: Directory
    plain: bytes
    """The directory that it adds up to, canonical."""
    written: WrittenBundle
    root: Root
    targets: Targets
    seen: Seen
    expires: Mapping[str, int]
    """Role → when it expires, ms since the epoch."""

    def overdue(self, now: int) -> list[str]:
        """Name the roles that have expired: red, and no reason to stop."""
        return sorted(role for role, end in self.expires.items() if end <= now)

    @property
    def entered(self) -> frozenset[str]:
        """Members that speak for themselves."""
        given = self.targets.delegations
        return frozenset(filter(roles.is_member, given.roles or ())) if given else frozenset()

    @property
    def voices(self) -> frozenset[str]:
        """Ids of the keys with which members speak now; an agreement may hang on others, which are nobody's word."""
        return frozenset(keyid for each in self.entered for keyid in self.targets.get_delegated_role(each).keyids)


def fingerprint(root: str) -> str:
    """Tell a root by what was signed, for two people to compare."""
    return roles.digest(roles.envelope_of(root, ROOT))


def first_root(content: bytes) -> str:
    """Tell the root that a bundle begins with, not verified: two people compare it. Raises VersionRefusedError."""
    chain = read_bundle(content).roots
    if not chain:
        refuse(ROOT, "is not in the bundle")
    return fingerprint(chain[0])


def check_current(opened: Opened, now: int) -> None:
    """Refuse a bundle that may be an old one: its timestamp has expired. Raises VersionRefusedError."""
    if TIMESTAMP in opened.overdue(now):
        refuse(TIMESTAMP, "has expired: there is a newer directory, or the operator has to sign it anew")


def pinned(root: str) -> Root:
    """Read a root that is trusted as it is; it must be signed by itself. Raises VersionRefusedError."""
    envelope = roles.envelope_of(root, ROOT)
    found = roles.read(Root, envelope, ROOT)
    roles.check_root(found)
    roles.check_signed(found, ROOT, envelope)
    return found


def read_bundle(content: bytes) -> WrittenBundle:
    """Read the parts of a bundle, none of them verified. Raises VersionRefusedError."""
    return _parsed(WrittenBundle, content, "directory")


def read_policies(content: bytes) -> WrittenPolicies:
    """Read a signed policy set and its metadata, nothing verified. Raises VersionRefusedError."""
    return _parsed(WrittenPolicies, content, POLICIES)


def open_bundle(content: bytes, trust: Trust, now: int | None) -> Opened:
    """Verify a bundle; `now` None: it was adopted before. Raises VersionRefusedError that says which role fails."""
    written = read_bundle(content)
    taking = _Taking(trust.seen, now)
    root = _newest_root(written.roots, trust.root, taking)
    timestamp = taking.take(Timestamp, root, TIMESTAMP, written)
    _check_meta(timestamp.snapshot_meta, SNAPSHOT, written)
    snapshot = taking.take(Snapshot, root, SNAPSHOT, written)
    _check_snapshot(snapshot, written, trust.seen)
    targets = taking.take(Targets, root, TARGETS, written)
    roles.check_delegations(targets)
    files = dict(_files(targets, written, taking))
    plain = added_up(files, targets, snapshot.version)
    directory = members.parse(plain)
    taking.check_fresh()
    return Opened(
        directory, plain, written, root, targets, MappingProxyType(taking.seen), MappingProxyType(taking.expires)
    )


def open_policies(content: bytes, targets: Targets, seen: Seen, now: int | None) -> tuple[bytes, Seen]:
    """Verify a signed policy set under delegations in force; give the set and what was seen of its role."""
    written = read_policies(content)
    taking = _Taking(seen, now)
    signed = taking.take_text(Targets, targets, POLICIES, written.role)
    policies = written.policies.encode()
    check_file(signed, POLICIES, policies)
    taking.check_fresh()
    return policies, {POLICIES: taking.seen[POLICIES]}


def _newest_root(chain: tuple[str, ...], trusted: str, taking: _Taking) -> Root:
    """Follow the chain from the pinned root: each is signed by the one before and by itself (TUF §5.3).

    It must lead over the root that was seen before: the keys of those that this one replaced sign no other way on.
    """
    _, seen = taking.seen.get(ROOT, (0, trusted))
    prints = [fingerprint(each) for each in chain]
    if trusted not in prints:
        refuse(ROOT, f"the root {trusted[:16]} that is pinned here is not in the chain")
    begin = prints.index(trusted)
    root = pinned(chain[begin])
    for text in chain[begin + 1 :]:
        roles.check_signed(root, ROOT, roles.envelope_of(text, ROOT))
        following = pinned(text)
        if following.version != root.version + 1:
            refuse(ROOT, f"version {following.version} does not follow version {root.version}")
        root = following
    taking.note(root, ROOT, prints[-1])
    if seen not in prints[begin:]:
        refuse(ROOT, f"the root {seen[:16]} that was seen before is not in the chain")
    return root


class _Taking:
    """Takes metadata in, role after role, and holds it against what was seen before."""

    def __init__(self, seen: Seen, now: int | None) -> None:
        self.seen, self.expires = dict(seen), dict[str, int]()
        self._now = now

    def take(self, kind: type[_MetadataT], delegator: Root | Targets, role: str, written: WrittenBundle) -> _MetadataT:
        if role not in written.roles:
            refuse(role, "is not in the bundle")
        return self.take_text(kind, delegator, role, written.roles[role])

    def take_text(self, kind: type[_MetadataT], delegator: Root | Targets, role: str, text: str) -> _MetadataT:
        envelope = roles.envelope_of(text, role)
        roles.check_signed(delegator, role, envelope)
        signed = roles.read(kind, envelope, role)
        self.note(signed, role, roles.digest(envelope))
        return signed

    def note(self, signed: Signed, role: str, digest: str) -> None:
        """Refuse what is older than what was seen, or another of the same version (TUF §5.3.5, §5.4.3, §5.5.5)."""
        version, before = self.seen.get(role, (0, ""))
        if signed.version < version:
            refuse(role, f"version {signed.version} is older than version {version}, which was seen before")
        if signed.version == version and digest != before:
            refuse(role, f"there are two different versions {version}")
        self.seen[role] = (signed.version, digest)
        self.expires[role] = roles.in_ms(signed)

    def check_fresh(self) -> None:
        """Refuse to adopt what has expired; whoever has adopted it already goes on with it."""
        for role, end in self.expires.items():
            if self._now is not None and end <= self._now and role in MUST_BE_FRESH:
                refuse(role, "has expired: it must be signed again before it can be adopted")


def _check_meta(meta: MetaFile, role: str, written: WrittenBundle) -> None:
    """Check that a role's envelope is the one that snapshot or timestamp mean (TUF §5.5.2, §5.6.2)."""
    _check_bytes(meta, role, written.roles.get(role, "").encode())


def _check_bytes(meta: MetaFile | TargetFile, role: str, data: bytes) -> None:
    if "sha256" not in (meta.hashes or {}):
        refuse(role, "is listed without its SHA-256")
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        refuse(role, "is not the one that is listed", error)


def _check_snapshot(snapshot: Snapshot, written: WrittenBundle, seen: Seen) -> None:
    """Check that a bundle holds exactly what its snapshot lists, and that nothing that was there is gone."""
    listed = {name.removesuffix(".json") for name in snapshot.meta}
    carried = set(written.roles) - {SNAPSHOT, TIMESTAMP}
    for role in sorted(listed ^ carried):
        refuse(role, "is in the bundle but not in its snapshot" if role in carried else "is not in the bundle")
    for role in sorted(set(seen) - listed - {ROOT, SNAPSHOT, TIMESTAMP, POLICIES}):
        refuse(role, "was there before and is gone")
    for role in listed:
        _check_meta(snapshot.meta[f"{role}.json"], role, written)


def _files(targets: Targets, written: WrittenBundle, taking: _Taking) -> Iterator[tuple[str, bytes]]:
    """Give the file that each delegated role signed."""
    given = (targets.delegations.roles if targets.delegations else None) or {}
    wanted = set(given) - {POLICIES}
    for role in sorted(wanted ^ (set(written.roles) - {SNAPSHOT, TIMESTAMP, TARGETS})):
        refuse(role, "is not in the bundle" if role in wanted else "nobody was given this role")
    for path in sorted(set(written.files) - set(map(roles.path_of, wanted))):
        refuse(path, "is signed by nobody")
    for role in sorted(wanted):
        signed = taking.take(Targets, targets, role, written)
        text = written.files.get(roles.path_of(role), "").encode()
        check_file(signed, role, text)
        yield role, text


def check_file(signed: Targets, role: str, text: bytes) -> None:
    """Check that a role signs its own file, these bytes, and nothing else. Raises VersionRefusedError."""
    path = roles.path_of(role)
    if set(signed.targets) != {path} or signed.delegations is not None:
        refuse(role, f"signs {path} and nothing else")
    _check_bytes(signed.targets[path], role, text)


def named_members(joint: bytes) -> frozenset[str]:
    """Tell which members the joint file names, none of it verified. Raises VersionRefusedError."""
    listed = _said(FEDERATION, joint).get("members")
    named = (each.get("id") for each in listed if isinstance(each, dict)) if isinstance(listed, list) else ()
    return frozenset(each for each in named if isinstance(each, str))


def check_named(targets: Targets, joint: bytes) -> None:
    """Check that whoever has a voice is a member: it counts in all that members decide. Raises VersionRefusedError."""
    named, given = named_members(joint), targets.delegations
    for each in sorted({roles.owner(key) for key in given.keys.values()} if given else ()):
        if each not in named:
            refuse(each, "has a voice and is no member: the federation's file (--from) has to name it first")


def _said(role: str, text: bytes) -> dict[str, Any]:
    """Read what a role says, and check that it speaks of its own only."""
    if roles.is_member(role):
        mine = _parsed(WrittenMemberFile, text, role)
        for name in [each.id for each in mine.bureaus] + [each.bureau for each in mine.keys]:
            if name.partition("/")[0] != role:
                refuse(role, f"speaks of {name}, which is not its own")
    elif role.startswith(roles.AGREEMENT):
        circle = _parsed(WrittenAgreementFile, text, role)
        if circle.agreement.id != role.removeprefix(roles.AGREEMENT):
            refuse(role, f"speaks of {circle.agreement.id}")
    else:
        _parsed(WrittenJointFile, text, role)
    return _loaded(text, role)


def added_up(files: Mapping[str, bytes], targets: Targets, version: int) -> bytes:
    """Add up what the roles say to one directory. Raises VersionRefusedError where one speaks of what is another's."""
    said = {role: _said(role, text) for role, text in files.items()}
    check_named(targets, files[FEDERATION])
    joint = dict(said[FEDERATION])
    bureaus, keys, agreements = (list(joint.pop(each, ())) for each in ("bureaus", "keys", "agreements"))
    if keys or "version" in joint:
        refuse(FEDERATION, "gives keys or a version, which are not its own to give")
    for each in (
        *(one["id"].partition("/")[0] for one in bureaus),
        *(roles.AGREEMENT + one["id"] for one in agreements),
    ):
        if each in said:
            refuse(FEDERATION, f"speaks for {each}, which speaks for itself")
    for role, file in said.items():
        if roles.is_member(role):
            _check_voices(role, file, targets)
            bureaus, keys = bureaus + file.get("bureaus", []), keys + file.get("keys", [])
        elif role.startswith(roles.AGREEMENT):
            _check_circle(role, file, targets)
            agreements = [*agreements, file["agreement"]]
    return roles.canonical(
        joint
        | {
            "version": version,
            "bureaus": sorted(bureaus, key=lambda each: each["index"]),
            "keys": sorted(keys, key=lambda each: (each["bureau"], each["valid_from"], each["key_id"])),
            "agreements": sorted(agreements, key=lambda each: each["id"]),
        }
    )


def _check_voices(member: str, file: Mapping[str, Any], targets: Targets) -> None:
    if file.get("voices") and set(file["voices"]) != set(targets.get_delegated_role(member).keyids):
        refuse(member, "names another key than that with which it speaks")


def _check_circle(role: str, file: Mapping[str, Any], targets: Targets) -> None:
    """Check that an agreement is signed by as many of its own members as it names, under those keys, by no others."""
    delegation = targets.get_delegated_role(role)
    owners = {roles.owner(targets.get_key(each)) for each in delegation.keyids}
    if delegation.threshold != file["signatures"]:
        refuse(role, f"names {file['signatures']} signatures, but {delegation.threshold} would do")
    if file.get("keys") and set(file["keys"]) != set(delegation.keyids):
        refuse(role, "names other keys than those that may sign it")
    if not owners <= set(file["agreement"]["members"]):
        refuse(role, "can be signed by a member that it does not bind")


def _parsed(kind: type[_ModelT], content: bytes, what: str) -> _ModelT:
    _loaded(content, what)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        refuse(what, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", error)


def _loaded(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content, object_pairs_hook=members.no_name_twice)
    except (ValueError, RecursionError) as error:
        refuse(what, "is no JSON", error)
    if not isinstance(found, dict):
        refuse(what, "is no JSON object")
    return found
