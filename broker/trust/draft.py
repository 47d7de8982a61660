"""Drafts of what is to be signed: made by one party, carried to the others, signed by each, then made a bundle.

Nothing here decides what is true: `bundle` does. A draft holds unsigned or partly signed envelopes and their files; it
may be copied, signed in several places at once and merged again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.signer import Key  # type: ignore[attr-defined] # not in __all__
from tuf.api.metadata import (  # type: ignore[attr-defined] # not in __all__
    Delegations,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from broker.errors import VersionRefusedError
from broker.signing import PublicKey, SigningKey
from broker.streams import DAY_MS
from broker.trust import circles, roles, shown
from broker.trust.bundle import Opened, Seen, WrittenBundle, WrittenPolicies, added_up
from broker.trust.roles import FEDERATION, OPERATOR, POLICIES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Pen, Standing

LIFE_MS = 400 * DAY_MS
TIMESTAMP_LIFE_MS = 30 * DAY_MS
RENEW_MS = 60 * DAY_MS
"""A draft renews what would expire within this time, too."""
ROOT_HOLDERS = 5
LEAST = roles.LEAST
POLICIES_THRESHOLD = 2


class Draft(BaseModel):
    """What is proposed, as a file that can be carried by mail or on a stick."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    draft: Literal["valise/draft/1"] = "valise/draft/1"
    title: str
    by: str
    roots: tuple[str, ...] = ()
    roles: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    policies: str | None = None

    def content(self) -> bytes:
        """Write it."""
        return roles.canonical(self.model_dump(mode="json")) + b"\n"


@dataclass(frozen=True, slots=True)
class Signatory:
    """A member's keys for metadata: `root`, offline, for root and targets; `key` for all else that it signs."""

    member: str
    root: PublicKey
    key: PublicKey


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a directory is to become. `plain` is a directory's JSON; its version does not count."""

    plain: Mapping[str, Any]
    signatories: Sequence[Signatory] = ()
    """Members that enter, or whose keys change."""
    rotated: frozenset[str] = frozenset()
    """Members whose keys change and which have those before, too, and sign with them; of others these are lost."""
    signatures: Mapping[str, int] = field(default_factory=dict)
    """Agreement → how many of its members must sign a change of it; others keep theirs."""


def read_draft(content: bytes) -> Draft:
    """Read a draft. Raises VersionRefusedError."""
    try:
        return Draft.model_validate_json(content)
    except ValidationError as error:
        message = f"no draft: {error.errors(include_url=False, include_input=False)[0]['msg']}"
        raise VersionRefusedError(message) from error


# Making


def found(holders: Sequence[Signatory], operator: tuple[PublicKey, PublicKey], now: int, base: Root | None) -> str:
    """Write a root: more than half of the holders, two at least, must sign; `operator` signs snapshot and timestamp."""
    threshold = max(roles.LEAST, len(holders) // 2 + 1)
    keys = [roles.listed(each.root, each.member) for each in holders]
    own = [roles.listed(each, OPERATOR) for each in operator]
    given = {
        ROOT: Role([each.keyid for each in keys], threshold),
        TARGETS: Role([each.keyid for each in keys], threshold),
        SNAPSHOT: Role([own[0].keyid], 1),
        TIMESTAMP: Role([own[1].keyid], 1),
    }
    listed = {each.keyid: each for each in (*keys, *own)}
    root = Root(base.version + 1 if base else 1, None, roles.at(now + LIFE_MS), listed, given)
    roles.check_root(root)
    return roles.text_of(roles.written(root))


def propose(wanted: Wanted, base: Opened | None, root: str | None, now: int, title: str, by: str) -> Draft:
    """Draft what must be signed for a directory to become what is wanted: changed roles only.

    `root` is the first root where there is no `base` yet. Raises VersionRefusedError if it would not hold together.
    """
    targets, changed = _targets(wanted, base, now)
    files = {role: json_of(each) for role, each in _split(wanted, targets, base).items()}
    envelopes = {TARGETS: roles.text_of(roles.written(targets))} if changed else {}
    for role, text in files.items():
        if base is None or not _stands(base, targets, role, text, now):
            envelopes[role] = roles.text_of(roles.written(_signing(role, text, _version(base, role), now)))
    added_up(files, targets, 1)
    kept = {roles.path_of(role): files[role].decode() for role in envelopes if role != TARGETS}
    return Draft(title=title, by=by, roots=(root,) if root else (), roles=envelopes, files=kept)


def propose_root(holders: Sequence[Signatory], base: Opened, operator: tuple[PublicKey, PublicKey], now: int) -> Draft:
    """Draft the next root, and the delegations signed anew under it; the holders of the last root must sign it, too."""
    title = f"the root passes to {', '.join(each.member for each in holders)}"
    version = _version(base, TARGETS) + 1
    targets = Targets(version, None, roles.at(now + LIFE_MS), {}, base.targets.delegations)
    roots = (found(holders, operator, now, base.root),)
    return Draft(title=title, by=OPERATOR, roots=roots, roles={TARGETS: roles.text_of(roles.written(targets))})


def with_policies(draft: Draft, policies: bytes, version: int, author: str, now: int) -> Draft:
    """Add a policy set to a draft, so that it is signed in one go."""
    more = propose_policies(policies, version, author, now)
    return draft.model_copy(update={"roles": draft.roles | more.roles, "policies": more.policies})


def propose_policies(policies: bytes, version: int, author: str, now: int) -> Draft:
    """Draft what two members sign to allow a policy set; `version` must be higher than any that was in force."""
    signed = _signing(POLICIES, policies, version - 1, now)
    signed.targets["policies.json"].unrecognized_fields["custom"] = {"author": author}
    envelope = roles.text_of(roles.written(signed))
    title = f"policy set {roles.digest(roles.envelope_of(envelope, POLICIES))[:16]}"
    return Draft(title=title, by=author, roles={POLICIES: envelope}, policies=policies.decode())


def json_of(value: Mapping[str, Any]) -> bytes:
    """Write a role's file."""
    return roles.canonical(dict(value))


def _signing(role: str, text: bytes, before: int, now: int) -> Targets:
    path = roles.path_of(role)
    return Targets(before + 1, None, roles.at(now + LIFE_MS), {path: TargetFile.from_data(path, text, ["sha256"])})


def _version(base: Opened | None, role: str) -> int:
    return base.seen.get(role, (0, ""))[0] if base else 0


def _stands(base: Opened, targets: Targets, role: str, text: bytes, now: int) -> bool:
    """Say whether what is signed says this already, for long enough (or nobody could renew it), by keys that count."""
    if base.written.files.get(roles.path_of(role), "").encode() != text:
        return False
    if base.expires[role] <= now + RENEW_MS and not circles.is_unrenewable(role, targets):
        return False
    return not roles.standing(targets, role, roles.envelope_of(base.written.roles[role], role)).missing


def _targets(wanted: Wanted, base: Opened | None, now: int) -> tuple[Targets, bool]:
    """Write who may speak for what, and tell whether that is new."""
    voices = _voices(wanted, base)
    given = base.targets.delegations if base else None
    old = (given.roles if given else None) or {}
    joint = [each for _, each in sorted(voices.items())]
    standing = roles.delegated(FEDERATION, joint, old[FEDERATION].threshold if old else max(2, len(joint) // 2 + 1))
    if not old:
        standing.threshold = min(standing.threshold, ROOT_HOLDERS // 2 + 1)
    made = [standing, roles.delegated(POLICIES, joint, POLICIES_THRESHOLD)]
    made += [
        roles.delegated(member, [key], 1, _gone(member, key, wanted, base)) for member, key in sorted(voices.items())
    ]
    held = [_voice(base, each).keyid for each in wanted.rotated & base.entered] if base else []
    for circle in wanted.plain["agreements"]:
        if one := circles.delegated(circle, voices, wanted.signatures.get(circle["id"]), base, held):
            made.append(one)
    known = (given.keys if given else {}) | {each.keyid: each for each in joint}
    keys = {keyid: known[keyid] for each in made for keyid in each.keyids}
    delegations = Delegations(keys, {each.name: each for each in made})
    changed = base is None or given != delegations or base.expires[TARGETS] <= now + RENEW_MS
    if base is not None and not changed:
        return base.targets, False
    targets = Targets(_version(base, TARGETS) + 1, None, roles.at(now + LIFE_MS), {}, delegations)
    roles.check_delegations(targets)
    return targets, True


def _voices(wanted: Wanted, base: Opened | None) -> dict[str, Key]:
    """Give the key with which each member that has entered speaks."""
    voices: dict[str, Key] = {}
    if base is not None:
        voices = {member: _voice(base, member) for member in base.entered}
    return voices | {each.member: roles.listed(each.key, each.member) for each in wanted.signatories}


def _gone(member: str, key: Key, wanted: Wanted, base: Opened | None) -> frozenset[str]:
    """Tell which of a member's keys are lost: once so called, for good."""
    if base is None or member not in base.entered:
        return frozenset()
    before, lost = _keyids(base.targets, member), roles.lost(base.targets, member)
    return lost if before == {key.keyid} or member in wanted.rotated else lost | before


def _keyids(targets: Targets, member: str) -> frozenset[str]:
    return frozenset(targets.get_delegated_role(member).keyids)


def _voice(base: Opened, member: str) -> Key:
    return base.targets.get_key(base.targets.get_delegated_role(member).keyids[0])


def _split(wanted: Wanted, targets: Targets, base: Opened | None) -> dict[str, dict[str, Any]]:
    """Take a directory apart into what each role says."""
    given = (targets.delegations.roles if targets.delegations else None) or {}
    joint = {name: value for name, value in wanted.plain.items() if name not in ("version", "keys")}
    joint["bureaus"] = [each for each in joint["bureaus"] if _member(each["id"]) not in given]
    joint["agreements"] = [each for each in joint["agreements"] if roles.AGREEMENT + each["id"] not in given]
    said: dict[str, dict[str, Any]] = {FEDERATION: joint}
    for role in filter(roles.is_member, given):
        said[role] = {
            "bureaus": [each for each in wanted.plain["bureaus"] if _member(each["id"]) == role],
            "keys": [each for each in wanted.plain["keys"] if _member(each["bureau"]) == role],
            **_voices_named(role, targets, base),
        }
    for each in wanted.plain["agreements"]:
        if (role := roles.AGREEMENT + each["id"]) in given:
            said[role] = circles.file(each, given[role], base)
    return said


def _voices_named(member: str, targets: Targets, base: Opened | None) -> dict[str, list[str]]:
    """Name the keys with which a member speaks, once one has taken over from another."""
    if base is None or member not in base.entered:
        return {}
    keyids, said = _keyids(targets, member), json.loads(base.written.files[roles.path_of(member)])
    changed = keyids != _keyids(base.targets, member)
    return {"voices": sorted(keyids)} if changed or said.get("voices") else {}


def _member(bureau: str) -> str:
    return bureau.partition("/")[0]


# Signing


def sign(draft: Draft, base: Opened | None, member: str, keys: Iterable[SigningKey]) -> tuple[Draft, list[str]]:
    """Sign, with a member's keys, every role of a draft for which they count; tell which these are.

    Raises VersionRefusedError where the draft shows something else than would be signed.
    """
    check_shown(draft, base)
    signed, done, pens = draft, list[str](), [Pen(each, member) for each in keys]
    for asked in _asked(draft, base):
        envelope = roles.envelope_of(asked.text, asked.role)
        entitled = _entitled(asked.delegator, asked.role)
        mine = [each for each in pens if each.public_key.keyid in entitled]
        if not mine:  # merging reads every role: done for each of them it grew with the square of their number
            continue
        for pen in mine:
            envelope.sign(pen)
        if asked.role not in done:
            done.append(asked.role)
        signed = merge([signed, asked.within(draft, roles.text_of(envelope))])
    return signed, done


def merge(drafts: Sequence[Draft]) -> Draft:
    """Put the signatures of several copies of one draft together. Raises VersionRefusedError if they differ."""
    first = drafts[0]
    for each in drafts[1:]:
        if (each.files, each.policies, set(each.roles), len(each.roots)) != (
            first.files, first.policies, set(first.roles), len(first.roots),
        ):  # fmt: skip
            message = "these are not copies of one draft"
            raise VersionRefusedError(message)
    merged = {role: _merged([each.roles[role] for each in drafts], role) for role in first.roles}
    roots = tuple(_merged(copies, ROOT) for copies in zip(*(each.roots for each in drafts), strict=True))
    return first.model_copy(update={"roles": merged, "roots": roots})


def _merged(copies: Sequence[str], role: str) -> str:
    envelopes = [roles.envelope_of(each, role) for each in copies]
    for each in envelopes[1:]:
        if each.payload != envelopes[0].payload:
            message = f"{role}: these are not copies of one draft"
            raise VersionRefusedError(message)
        envelopes[0].signatures.update(each.signatures)
    return roles.text_of(envelopes[0])


@dataclass(frozen=True, slots=True)
class _Asked:
    """An envelope of a draft, and who must sign it.

    A new root is asked for twice, by the old one and by itself; so is an agreement whose members change, and a member's
    file that names another key for it, unless the one before is lost.
    """

    role: str
    text: str
    delegator: Root | Targets

    def within(self, draft: Draft, text: str) -> Draft:
        if self.role == ROOT:
            return draft.model_copy(update={"roots": (text,)})
        return draft.model_copy(update={"roles": draft.roles | {self.role: text}})


def _asked(draft: Draft, base: Opened | None) -> Iterator[_Asked]:
    root, targets = governors(draft, base)
    for text in draft.roots:
        if base is not None:
            yield _Asked(ROOT, text, base.root)
        if root is not None:
            yield _Asked(ROOT, text, root)
    for role, text in draft.roles.items():
        if base is not None and (_changes_circle(draft, base, role) or _takes_over(role, base, targets)):
            yield _Asked(role, text, base.targets)
        delegator = root if role == TARGETS else targets
        if delegator is not None:
            yield _Asked(role, text, delegator)


def _changes_circle(draft: Draft, base: Opened, role: str) -> bool:
    """Say whether an agreement changes together with those who may sign for it."""
    path = roles.path_of(role)
    known = circles.is_agreement(role) and role in base.written.roles and TARGETS in draft.roles
    return known and draft.files.get(path) != base.written.files.get(path)


def _takes_over(role: str, base: Opened, targets: Targets | None) -> bool:
    """Say whether a member is to speak with another key, to which the one before has to say yes."""
    if targets is None or role not in base.entered or _entitled(targets, role) == _keyids(base.targets, role):
        return False
    return not _keyids(base.targets, role) <= roles.lost(targets, role)


def governors(draft: Draft, base: Opened | None) -> tuple[Root | None, Targets | None]:
    """Give the root and the delegations that will govern once a draft is in force."""
    root, targets = (base.root, base.targets) if base else (None, None)
    if len(draft.roots) > 1:
        roles.refuse(ROOT, "a draft holds one new root at most")
    for text in draft.roots:
        root = roles.read(Root, roles.envelope_of(text, ROOT), ROOT)
        roles.check_root(root)
    if TARGETS in draft.roles:
        targets = roles.read(Targets, roles.envelope_of(draft.roles[TARGETS], TARGETS), TARGETS)
        roles.check_delegations(targets)
    return root, targets


def check_shown(draft: Draft, base: Opened | None) -> None:
    """Refuse a draft whose envelopes sign anything else than it shows. Raises VersionRefusedError."""
    shown.check(draft, governors(draft, base)[1], base)


def _entitled(delegator: Root | Targets, role: str) -> set[str]:
    try:
        return set(delegator.get_delegated_role(role).keyids)
    except ValueError:
        return set()


def standings(draft: Draft, base: Opened | None) -> list[Standing]:
    """Tell, for each role of a draft, who has signed it and who could; a member that joins an agreement must."""
    found = [
        roles.standing(each.delegator, each.role, roles.envelope_of(each.text, each.role))
        for each in _asked(draft, base)
    ]
    return [_with_consent(each, draft, base) for each in found]


def _with_consent(standing: Standing, draft: Draft, base: Opened | None) -> Standing:
    """Ask for the signature of every member that joins, whatever the threshold: nobody is bound unheard."""
    joining = _joining(standing.role, draft, base) & standing.could
    absent = len(joining - standing.signed)
    if absent <= standing.missing:
        return standing
    return Standing(standing.role, len(standing.signed) + absent, standing.signed, standing.could)


def _joining(role: str, draft: Draft, base: Opened | None) -> frozenset[str]:
    if not circles.is_agreement(role) or base is None:
        return frozenset()
    said = json.loads(draft.files.get(roles.path_of(role), "{}"))
    return circles.joining(role, base, said.get("agreement", {}).get("members", ()))


# Putting in force


def assemble(draft: Draft, base: Opened | None, snapshot: SigningKey, timestamp: SigningKey, now: int) -> bytes:
    """Make the next bundle of a draft, signed by the operator. Raises VersionRefusedError that says who must sign."""
    _check_complete(draft, base)
    old = base.written if base else WrittenBundle(roots=(), roles={}, files={})
    kept = {
        role: text for role, text in (old.roles | draft.roles).items() if role not in (SNAPSHOT, TIMESTAMP, POLICIES)
    }
    meta = {f"{role}.json": _meta(text, role) for role, text in kept.items()}
    listed = Snapshot(_version(base, SNAPSHOT) + 1, None, roles.at(now + LIFE_MS), meta)
    signed = _by_operator(listed, snapshot)
    written = WrittenBundle(
        roots=(*old.roots, *draft.roots), roles=kept | {SNAPSHOT: signed}, files=old.files | draft.files
    )
    return _stamped(written, _version(base, TIMESTAMP), timestamp, now).content()


def left(draft: Draft, seen: Seen) -> frozenset[str]:
    """Name the roles of a draft that are not in force as it has them, by what was seen so far."""
    asked = [*draft.roles.items(), *((ROOT, text) for text in draft.roots)]
    known = {role: digest for role, (_, digest) in seen.items()}
    return frozenset(role for role, text in asked if known.get(role) != roles.digest(roles.envelope_of(text, role)))


def plain_after(draft: Draft, base: Opened | None) -> bytes:
    """Give the directory as it will be once a draft is in force. Raises VersionRefusedError if it does not add up."""
    check_shown(draft, base)
    _, targets = governors(draft, base)
    if targets is None:
        roles.refuse(TARGETS, "nobody has a role yet")
    files = (base.written.files if base else {}) | draft.files
    given = (targets.delegations.roles if targets.delegations else None) or {}
    texts = {role: files.get(roles.path_of(role), "").encode() for role in given if role != POLICIES}
    return added_up(texts, targets, _version(base, SNAPSHOT) + 1)


def refresh(base: Opened, timestamp: SigningKey, now: int) -> bytes:
    """Sign the timestamp anew; nothing else changes, and the directory keeps its digest."""
    return _stamped(base.written, _version(base, TIMESTAMP), timestamp, now).content()


def allowed(draft: Draft, base: Opened | None) -> bytes:
    """Make the signed policy set of a draft. Raises VersionRefusedError that says who must sign."""
    _check_complete(draft, base)
    if draft.policies is None or POLICIES not in draft.roles:
        roles.refuse(POLICIES, "the draft holds no policy set")
    return WrittenPolicies(role=draft.roles[POLICIES], policies=draft.policies).content()


def _check_complete(draft: Draft, base: Opened | None) -> None:
    for each in standings(draft, base):
        if each.missing:
            could = ", ".join(sorted(each.could - each.signed)) or "nobody who could"
            roles.refuse(each.role, f"{each.missing} more must sign: {could}")


def _stamped(written: WrittenBundle, before: int, key: SigningKey, now: int) -> WrittenBundle:
    meta = _meta(written.roles[SNAPSHOT], SNAPSHOT)
    signed = _by_operator(Timestamp(before + 1, None, roles.at(now + TIMESTAMP_LIFE_MS), meta), key)
    return written.model_copy(update={"roles": written.roles | {TIMESTAMP: signed}})


def _by_operator(signed: Snapshot | Timestamp, key: SigningKey) -> str:
    envelope = roles.written(signed)
    envelope.sign(Pen(key, OPERATOR))
    return roles.text_of(envelope)


def _meta(text: str, role: str) -> MetaFile:
    version = json.loads(roles.envelope_of(text, role).payload)["version"]
    return MetaFile.from_data(version, text.encode(), ["sha256"])
