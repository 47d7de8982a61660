"""The roles of the federation's metadata: whose keys they hold, and whose signatures count (the one door to tuf).

TUF metadata (specification 1.0) in DSSE envelopes, so that the bytes that were signed are checked before they are
read. A key carries the name of its member, and thresholds count distinct members, never keys. Roles: `root` and
`targets` by root keys of several members; `federation` (what is decided jointly), `policies` and one `agreement-…` for
each agreement by members' keys; one for each member, called by its id; `snapshot` and `timestamp`, and nothing else, by
the operator.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NoReturn, TypeVar

from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import Key, Signature, Signer, SSlibKey  # type: ignore[attr-defined] # not in __all__
from tuf.api.dsse import SimpleEnvelope
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Role, Root, Signed, Targets  # type: ignore[attr-defined] # not in __all__

from broker.errors import VersionRefusedError
from broker.signing import PublicKey, SigningKey

MEMBER = "x-valise-member"
"""Field of a key that names whose it is."""
LOST = "x-valise-lost"
"""Field of a member's delegation: ids of its keys from which others took over without their signature.

Delegations in which no member has it were drafted before that was asked."""
OPERATOR = "operator"
ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
FEDERATION, POLICIES = "federation", "policies"
AGREEMENT = "agreement-"
LEAST = 2
"""No joint role but an agreement's can have a lower threshold."""
TYPE = SimpleEnvelope.DEFAULT_PAYLOAD_TYPE
_MetadataT = TypeVar("_MetadataT", bound=Signed)
_HOSTILE = (RepositoryError, SigningError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What tuf throws at bytes of any shape."""


class Pen(Signer):
    """Signs metadata with a key that signing.py loaded: private keys have one place."""

    def __init__(self, key: SigningKey, member: str) -> None:
        self._key, self._member = key, member

    @property
    def public_key(self) -> Key:
        """The key as metadata lists it."""
        return listed(self._key.public, self._member)

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: object = None) -> Signer:
        """Refuse: keys come from signing.py only."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Sign the DSSE encoding of a payload."""
        return Signature(self._key.public.id.hex(), self._key.sign(payload).hex())


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose signatures a role's envelope carries, against what its delegation asks for."""

    role: str
    threshold: int
    signed: frozenset[str]
    """Members whose signature is good."""
    could: frozenset[str]
    """Members whose signature would count."""

    @property
    def missing(self) -> int:
        """How many members' signatures are still needed."""
        return max(0, self.threshold - len(self.signed))


def listed(public: PublicKey, member: str) -> Key:
    """Write a key as metadata lists it: its id is ours (signing.key_id), so that one key never has two."""
    return SSlibKey(public.id.hex(), "ed25519", "ed25519", {"public": public.raw.hex()}, {MEMBER: member})


def owner(key: Key) -> str:
    """Name the member whose key it is, or the operator."""
    return str(key.unrecognized_fields[MEMBER])


def keys_of(targets: Targets, member: str) -> dict[str, PublicKey]:
    """Give the keys with which a member signs what is its own alone, by id; none if it does not speak for itself."""
    given = targets.delegations
    role = (given.roles or {}).get(member) if given and is_member(member) else None
    if given is None or role is None:
        return {}
    return {each: PublicKey.of(bytes.fromhex(str(given.keys[each].keyval["public"]))) for each in role.keyids}


def lost(targets: Targets, member: str) -> frozenset[str]:
    """Give the ids of a member's keys that are lost by the word of those who hand out roles."""
    return frozenset(targets.get_delegated_role(member).unrecognized_fields.get(LOST, ()))


def tells_lost(targets: Targets) -> bool:
    """Say whether delegations tell which keys of members are lost, be it none: those of before had no such field."""
    given = (targets.delegations.roles if targets.delegations else None) or {}
    return any(LOST in each.unrecognized_fields for each in given.values())


def path_of(role: str) -> str:
    """Give the one target file that a delegated role may sign."""
    if role in (FEDERATION, POLICIES):
        return f"{role}.json"
    if role.startswith(AGREEMENT):
        return f"agreements/{role.removeprefix(AGREEMENT)}.json"
    return f"members/{role}.json"


def is_member(role: str) -> bool:
    """Say whether a role is one member's own: only those are written in capitals."""
    return role[:1].isupper()


def delegated(role: str, keys: Iterable[Key], threshold: int, gone: Iterable[str] = ()) -> DelegatedRole:
    """Write a delegation; `gone`: ids of a member's keys that are lost."""
    keyids, paths, field = [each.keyid for each in keys], [path_of(role)], {LOST: sorted(gone)}
    return DelegatedRole(
        role, keyids, threshold, terminating=True, paths=paths, unrecognized_fields=field if is_member(role) else None
    )


def thresholds(targets: Targets) -> dict[str, int]:
    """Tell how many members must sign for each role that is handed out."""
    given = (targets.delegations.roles if targets.delegations else None) or {}
    return {role: delegation.threshold for role, delegation in given.items()}


# Envelopes


def written(signed: Signed) -> SimpleEnvelope[Any]:
    """Put metadata into an envelope that nobody has signed yet."""
    return SimpleEnvelope(canonical(signed.to_dict()), TYPE, {})


def text_of(envelope: SimpleEnvelope[Any]) -> str:
    """Write an envelope the one way that bundles carry it."""
    data = envelope.to_dict()
    data["signatures"] = sorted(data["signatures"], key=lambda each: str(each["keyid"]))
    return canonical(data).decode()


def canonical(data: object) -> bytes:
    """Write JSON the one way that digests are made of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def envelope_of(text: str, role: str) -> SimpleEnvelope[Any]:
    """Read an envelope, not yet what is in it. Raises VersionRefusedError."""
    try:
        envelope: SimpleEnvelope[Any] = SimpleEnvelope.from_bytes(text.encode())
        if envelope.payload_type != TYPE or b64encode(envelope.payload).decode() != json.loads(text)["payload"]:
            refuse(role, "no envelope of TUF metadata")
    except _HOSTILE as error:
        refuse(role, "no envelope of TUF metadata", error)
    return envelope


def read(kind: type[_MetadataT], envelope: SimpleEnvelope[Any], role: str) -> _MetadataT:
    """Read what an envelope holds; whose signatures it has must have been checked. Raises VersionRefusedError."""
    try:
        signed = envelope.get_signed()
    except _HOSTILE as error:
        refuse(role, "no TUF metadata", error)
    if not isinstance(signed, kind) or canonical(signed.to_dict()) != envelope.payload:
        # Bytes that tuf would write otherwise may mean another thing to the next reader.
        refuse(role, f"no {kind.__name__} metadata in canonical form")
    return signed


def digest(envelope: SimpleEnvelope[Any]) -> str:
    """Tell what was signed by its SHA-256."""
    return sha256(envelope.payload).hexdigest()


def in_ms(signed: Signed) -> int:
    """Tell when metadata expires, ms since the epoch."""
    return int(signed.expires.timestamp() * 1000)


def at(ms: int) -> datetime:
    """Write a time as TUF does: whole seconds, UTC."""
    return datetime.fromtimestamp(ms // 1000, UTC)


# Signatures


def signed_with(envelope: SimpleEnvelope[Any], keyids: Collection[str]) -> SimpleEnvelope[Any]:
    """Give an envelope with those of its signatures that these keys made."""
    kept = {each: signature for each, signature in envelope.signatures.items() if each in keyids}
    return SimpleEnvelope(envelope.payload, envelope.payload_type, kept)


def standing(delegator: Root | Targets, role: str, envelope: SimpleEnvelope[Any]) -> Standing:
    """Count whose signatures an envelope has for a role: each member once. Raises VersionRefusedError."""
    try:
        result = delegator.get_verification_result(role, envelope.pae(), envelope.signatures)
    except _HOSTILE as error:
        refuse(role, "nobody was given this role", error)
    signed = frozenset(owner(each) for each in result.signed.values())
    return Standing(role, result.threshold, signed, signed | {owner(each) for each in result.unsigned.values()})


def check_signed(delegator: Root | Targets, role: str, envelope: SimpleEnvelope[Any]) -> None:
    """Demand that enough different members signed. Raises VersionRefusedError that names them."""
    found = standing(delegator, role, envelope)
    if found.missing:
        who = ", ".join(sorted(found.signed)) or "nobody"
        refuse(role, f"signed by {who}: {found.missing} more of {found.threshold} different members must sign")


# The shape of what hands out roles


def check_root(root: Root) -> None:
    """Check whose keys a root lists. Raises VersionRefusedError."""
    _check_keys(root.keys, ROOT)
    for role, given in root.roles.items():
        _check_listed(given, root.keys, role)
        owners = [owner(root.keys[each]) for each in given.keyids if each in root.keys]
        if role in (SNAPSHOT, TIMESTAMP):
            _must(all(each == OPERATOR for each in owners), role, "is the operator's alone")
        else:
            _check_joint(role, owners, given.threshold, LEAST)


def check_delegations(targets: Targets) -> None:
    """Check whose keys the delegations list, and for what. Raises VersionRefusedError."""
    _must(not targets.targets, TARGETS, "signs nothing itself")
    given = targets.delegations
    _must(given is not None and given.roles is not None, TARGETS, "gives nobody a role")
    if given is None or given.roles is None:
        return
    _check_keys(given.keys, TARGETS)
    _must(FEDERATION in given.roles, FEDERATION, "nobody was given this role")
    asked = tells_lost(targets)
    own = {each for role, delegation in given.roles.items() if is_member(role) for each in delegation.keyids}
    for role, delegation in given.roles.items():
        _check_listed(delegation, given.keys, role)
        _must(delegation.paths == [path_of(role)] and delegation.terminating, role, "may sign one file only")
        owners = [owner(given.keys[each]) for each in delegation.keyids]
        if is_member(role):
            _must(set(owners) == {role} and delegation.threshold == 1, role, f"is signed by {role} alone")
            _must(not asked or LOST in delegation.unrecognized_fields, role, "does not say which of its keys are lost")
            _check_lost(delegation, role)
        else:
            _must(LOST not in delegation.unrecognized_fields, role, "calls keys lost, which are no member's")
            _check_joint(role, owners, delegation.threshold, 1 if role.startswith(AGREEMENT) else LEAST)
        if role in (FEDERATION, POLICIES):
            _must(own.issuperset(delegation.keyids), role, "can be signed with a key with which no member speaks")


def _check_listed(given: Role, keys: Mapping[str, Key], role: str) -> None:
    _must(set(given.keyids) <= set(keys), role, "names a key that is not listed")


def _check_lost(delegation: DelegatedRole, role: str) -> None:
    gone = delegation.unrecognized_fields.get(LOST, ())
    written = isinstance(gone, list | tuple) and all(isinstance(each, str) for each in gone)
    _must(written and sorted(set(gone)) == list(gone), role, "does not say which of its keys are lost")
    _must(not set(gone) & set(delegation.keyids), role, "is to speak with a key that was lost")


def _check_joint(role: str, owners: list[str], threshold: int, least: int) -> None:
    _must(OPERATOR not in owners, role, "the operator has no part in it")
    _must(threshold >= least, role, f"needs the signatures of {least} members at least")
    _must(len(set(owners)) >= threshold, role, f"asks for {threshold} members' signatures, but has fewer members")


def _check_keys(keys: Mapping[str, Key], role: str) -> None:
    """Check that each key is Ed25519, sound, called by its own id, and somebody's: one key never counts twice."""
    for keyid, key in keys.items():
        try:
            public = PublicKey.of(bytes.fromhex(str(key.keyval["public"])))
            sound = key.to_dict() == listed(public, owner(key)).to_dict() and public.id.hex() == keyid == key.keyid
        except (ValueError, KeyError, TypeError) as error:
            refuse(role, f"key {keyid[:16]} is no Ed25519 key of a member", error)
        _must(sound, role, f"key {keyid[:16]} is no Ed25519 key of a member")


def _must(fine: bool, role: str, reason: str) -> None:
    if not fine:
        refuse(role, reason)


def refuse(role: str, reason: str, cause: BaseException | None = None) -> NoReturn:
    """Refuse metadata. Raises VersionRefusedError."""
    message = f"{role}: {reason}"
    raise VersionRefusedError(message) from cause
