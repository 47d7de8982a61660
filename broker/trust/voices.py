"""Whose keys count for what under a root and delegations, and how many members must sign."""

from __future__ import annotations

from tuf.api.metadata import Root, Targets  # type: ignore[attr-defined] # not in __all__

from broker.trust import roles
from broker.trust.bundle import Opened

Voices = dict[tuple[str, str], set[str]]
"""Member (or the operator) and key id → the roles that this key may sign."""


def voices(root: Root | None, targets: Targets | None) -> Voices:
    """List every key that counts."""
    found: Voices = {}
    given = targets.delegations if targets else None
    for keys, handed in (
        (root.keys, root.roles) if root else ({}, {}),
        (given.keys, given.roles or {}) if given else ({}, {}),
    ):
        for role, each in handed.items():
            for keyid in filter(keys.__contains__, each.keyids):
                found.setdefault((roles.owner(keys[keyid]), keyid), set()).add(role)
    return found


def standing(base: Opened | None) -> Voices:
    """List every key that counts in what is in force."""
    return voices(base.root, base.targets) if base else {}


def lost(targets: Targets | None) -> frozenset[tuple[str, str]]:
    """List members and ids of their keys from which others took over without their signature."""
    given = roles.thresholds(targets) if targets else {}
    return frozenset((each, keyid) for each in given if targets for keyid in roles.lost(targets, each))


def thresholds(root: Root | None, targets: Targets | None) -> dict[str, int]:
    """Tell how many members must sign, for each role."""
    found = {role: each.threshold for role, each in root.roles.items()} if root else {}
    return found | (roles.thresholds(targets) if targets else {})
