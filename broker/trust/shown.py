"""Holds what a draft's envelopes would have somebody sign against what the draft shows.

A member reads the files of a draft and signs its envelopes: whoever drafts could let the two differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tuf.api.metadata import Root, Signed, Targets  # type: ignore[attr-defined] # not in __all__

from broker.trust import bundle, roles
from broker.trust.roles import FEDERATION, POLICIES, ROOT, TARGETS, refuse

if TYPE_CHECKING:
    from broker.trust.bundle import Opened
    from broker.trust.draft import Draft

_Signed = TypeVar("_Signed", bound=Signed)


def check(draft: Draft, targets: Targets | None, base: Opened | None) -> None:
    """Refuse a draft that shows another file than is signed, or more, or signs what was in force before.

    And one by which somebody who is no member gets a voice, which would count in all that members decide together.

    `targets`: the delegations that govern once it is in force. Raises VersionRefusedError.
    """
    given = roles.thresholds(targets) if targets else {}
    _check_files(draft)
    for text in draft.roots:
        _check_newer(Root, text, ROOT, base)
    for role, text in draft.roles.items():
        signed = _check_newer(Targets, text, role, base)
        if role != TARGETS:
            # Without this an agreement, which is signed under the delegations of before, too, could go unshown.
            if role not in given:
                refuse(role, "nobody was given this role")
            file = draft.policies if role == POLICIES else draft.files.get(roles.path_of(role))
            bundle.check_file(signed, role, (file or "").encode())
    if targets is not None:
        path = roles.path_of(FEDERATION)
        text = draft.files.get(path, base.written.files.get(path, "") if base else "")
        bundle.check_named(targets, text.encode())


def _check_files(draft: Draft) -> None:
    signed = {roles.path_of(role) for role in draft.roles if role not in (TARGETS, POLICIES)}
    for path in sorted(set(draft.files) - signed):
        refuse(path, "is signed by nobody")
    if draft.policies is not None and POLICIES not in draft.roles:
        refuse(POLICIES, "the set is signed by nobody")


def _check_newer(kind: type[_Signed], text: str, role: str, base: Opened | None) -> _Signed:
    envelope = roles.envelope_of(text, role)
    signed = roles.read(kind, envelope, role)
    before, digest = base.seen.get(role, (0, "")) if base else (0, "")
    if signed.version <= before:
        if roles.digest(envelope) == digest:
            refuse(role, f"version {before} was activated already, as this draft has it: nothing is left to be signed")
        overtaken = f"version {signed.version} does not follow version {before}, which was seen before"
        refuse(role, f"{overtaken}: the draft was overtaken by another, have it drafted anew")
    return signed
