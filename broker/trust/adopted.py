"""Holds each version that a trail put in force against what members signed, from a pinned root on.

Nothing needs to be believed of where the signed versions come from: what does not hold under the root counts as absent.
What is expired is not looked at: when a version came to the broker no leaf says.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from broker.errors import VersionRefusedError
from broker.notice import NOTHING
from broker.trust import voices
from broker.trust.guard import Guard, signed_kind


class Adopted:
    """Takes versions in the order of their leaves; each is looked for among what was signed after the one before."""

    def __init__(self, root: str, signed: Iterable[bytes]) -> None:
        self._guard, self._place = Guard(root), 0
        self._signed = [(signed_kind(each), each) for each in signed]
        self._in_force = {"directory": NOTHING, "policies": NOTHING}

    @property
    def lost(self) -> list[tuple[str, str]]:
        """Name members and ids of their keys from which, up to now, others took over without their signature."""
        return sorted(voices.lost(self._guard.opened.targets)) if self._guard.opened else []

    def take(self, kind: str, digest: bytes) -> str:
        """Say why a version cannot have been put in force; empty if enough members signed it, and nothing newer before.

        `kind`: directory or policies; `digest`: of what the signed version adds up to.
        """
        if self._in_force[kind] == digest:
            return ""  # its timestamp alone is new
        refused = ""
        for place, (of_kind, content) in enumerate(self._signed[self._place :], self._place):
            if of_kind != kind:
                continue
            try:
                plain, guard = self._guard.take(kind, content, None)
            except VersionRefusedError as error:
                refused = refused or str(error)
                continue
            if sha256(plain).digest() == digest:
                self._guard, self._place, self._in_force[kind] = guard, place + 1, digest
                return ""
        return refused or "nobody signed it"
