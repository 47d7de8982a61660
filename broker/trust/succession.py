"""Whom a directory must have heard by what was in force before it: an agreement's members, and who gets another key.

Root holders hand out roles, and could give any key a member's name. So whoever has seen a member's key asks that it has
signed the file that names the next one; or that the holders of the root say, in the delegation and for good, that it is
lost. Neither can be done without everybody seeing it. It counts from the first delegations on that tell what is lost:
of before there are keys that were followed lawfully by others, and whoever reads all from the beginning meets them.
"""

from __future__ import annotations

import json

from broker.trust import circles, roles
from broker.trust.bundle import Opened
from broker.trust.roles import TARGETS, refuse


def check(before: Opened, after: Opened) -> None:
    """Refuse a directory that changes an agreement or a member's key over the heads of those whose they are.

    Raises VersionRefusedError.
    """
    circles.check(before, after)
    asked = roles.tells_lost(before.targets), roles.tells_lost(after.targets)
    if not any(asked):
        return
    if not asked[1]:
        refuse(TARGETS, "hide which keys of members were lost")
    for member in sorted(before.entered & after.entered):
        _check_voice(member, before, after)


def _check_voice(member: str, before: Opened, after: Opened) -> None:
    old, new = (frozenset(each.targets.get_delegated_role(member).keyids) for each in (before, after))
    was, lost = (roles.lost(each.targets, member) for each in (before, after))
    if not was <= lost:
        refuse(member, "hides which of its keys were lost")
    if old == new:
        return
    path = roles.path_of(member)
    if frozenset(json.loads(after.written.files[path]).get("voices", ())) != new:
        # What its old key signed over a file that names no key says nothing of the new one.
        refuse(member, "is to speak with another key than before, and its file does not name it")
    envelope = roles.envelope_of(after.written.roles[member], member)
    if not old <= lost and roles.standing(before.targets, member, envelope).missing:
        refuse(member, "is to speak with another key than before, which has not signed that, nor is it called lost")
