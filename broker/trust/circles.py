"""An agreement is its members' own: who must sign a change of it, and with which keys.

Root holders hand out roles, its own among them; so its file names how many must sign and which keys count, and whoever
has seen it asks for those who could sign before. A joiner's word is not enough, nor that of whoever hands out roles.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from securesystemslib.signer import Key  # type: ignore[attr-defined] # not in __all__
from tuf.api.metadata import DelegatedRole, Role, Targets  # type: ignore[attr-defined] # not in __all__

from broker.trust import roles
from broker.trust.bundle import Opened
from broker.trust.roles import AGREEMENT, refuse

USUAL = 2
"""How many must sign a change, where an agreement does not say and has so many."""


def check(before: Opened, after: Opened) -> None:
    """Refuse an agreement that too few signed of those who could before, or that binds who has not signed it.

    A key with which its member does not speak any more counts in neither: somebody else may have it.

    Raises VersionRefusedError.
    """
    for role in filter(is_agreement, after.written.roles):
        envelope, path = roles.envelope_of(after.written.roles[role], role), roles.path_of(role)
        if role in before.written.roles:
            _check_keys_named(role, before, after)
            if after.written.files[path] != before.written.files.get(path):
                roles.check_signed(before.targets, role, roles.signed_with(envelope, before.voices))
        joined = joining(role, before, after.directory.agreements[_name(role)].members) & after.entered
        heard = roles.standing(after.targets, role, roles.signed_with(envelope, after.voices)).signed
        if unheard := joined - heard:
            refuse(role, f"binds {', '.join(sorted(unheard))} without a signature of its own")


def joining(role: str, before: Opened, bound: Iterable[str]) -> frozenset[str]:
    """Tell which members an agreement binds that it did not bind before."""
    known = before.directory.agreements.get(_name(role))
    return frozenset(bound) - (known.members if known else frozenset())


def is_agreement(role: str) -> bool:
    """Say whether a role is an agreement's."""
    return role.startswith(AGREEMENT)


def _name(role: str) -> str:
    return role.removeprefix(AGREEMENT)


def _check_keys_named(role: str, before: Opened, after: Opened) -> None:
    """Refuse other keys for an agreement that does not name them: signatures of before fit its file all the same."""
    old, new = (set(each.targets.get_delegated_role(role).keyids) for each in (before, after))
    if old != new and not json.loads(after.written.files[roles.path_of(role)]).get("keys"):
        refuse(role, "is to be signed with other keys than before, and does not name them")


# Drafting


def delegated(
    circle: Mapping[str, Any],
    voices: Mapping[str, Key],
    signatures: int | None,
    base: Opened | None,
    held: Iterable[str] = (),
) -> DelegatedRole | None:
    """Write who may sign for an agreement: its members, with the keys that they speak with; None: none has entered.

    `held` are ids of keys beside these that members still have, to sign with once more. Raises VersionRefusedError
    where it is to change and nobody can.
    """
    role = AGREEMENT + circle["id"]
    given = base.targets.delegations if base else None
    old = (given.roles or {}).get(role) if given else None
    if base and old and _is_stuck(old, [*held, *(each.keyid for each in voices.values())]):
        if json.loads(base.written.files[roles.path_of(role)])["agreement"] != circle:
            refuse(role, "too few of its members have the key that they sign it with: another must take its place")
        return old
    bound = [voices[each] for each in sorted(circle["members"]) if each in voices]
    usual = min(max(old.threshold if old else 1, USUAL), len(bound))
    return roles.delegated(role, bound, signatures or usual) if bound else None


def file(agreement: Mapping[str, Any], given: DelegatedRole, base: Opened | None) -> dict[str, Any]:
    """Write an agreement's file. One of before it named keys stays as it is until something changes."""
    said = {"agreement": agreement, "signatures": given.threshold}
    named = said | {"keys": sorted(given.keyids)}
    if base is None or base.written.files.get(roles.path_of(given.name)) != roles.canonical(said).decode():
        return named
    same = set(base.targets.get_delegated_role(given.name).keyids) == set(given.keyids)
    return said if same else named


def is_unrenewable(role: str, targets: Targets) -> bool:
    """Say whether a role is an agreement's that too few could sign anew."""
    members = filter(roles.is_member, roles.thresholds(targets))
    current = [keyid for each in members for keyid in targets.get_delegated_role(each).keyids]
    return is_agreement(role) and _is_stuck(targets.get_delegated_role(role), current)


def _is_stuck(circle: Role, current: Iterable[str]) -> bool:
    """Say whether too few of those who may sign for an agreement still have the key that counts there.

    Nobody can change it any more. It stays as it is, so that its members can have other keys for all else.
    """
    return len(set(circle.keyids) & set(current)) < circle.threshold
