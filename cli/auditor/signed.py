"""Holds the versions that a trail put in force against what members signed, and tells what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.versions import Versions
from broker.errors import ConfigurationError
from broker.report import Finding, Report
from broker.trust.adopted import Adopted
from broker.trust.guard import pinned
from cli.officer.in_force import TAKEN_IN
from cli.seen import Seen

OWN = "the operator's own word: name one with --root"
FEW = 3
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Root:
    """A root's fingerprint and who pinned it; `fingerprint` None: nobody here did."""

    fingerprint: str | None
    source: str = ""
    asked: bool = False
    """Whether the auditor named it."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """What checking came to. `checked` None: there was nothing to check with, and `why` says what is missing."""

    root: Root
    checked: int | None
    findings: tuple[Finding, ...] = ()
    why: str = ""
    lost: tuple[tuple[str, str], ...] = ()
    """Members and ids of their keys that others took over from by the word of the root's holders alone."""

    @property
    def whole(self) -> bool:
        """Whether what the auditor asked for was done."""
        return self.checked is not None or not self.root.asked

    def lines(self) -> Iterator[tuple[str, str]]:
        """Tell it for people."""
        if self.checked is None:
            yield "signatures", f"of directories and policy sets not checked: {self.why}"
            return
        yield "signatures", f"{self.checked} directories and policy sets put in force, each signed by enough members"
        yield "signed under", f"the root {self.root.fingerprint}, {self.root.source}"
        for member, keyid in self.lost:
            said = "another took over without its signature, as the root's holders called it lost; ask the member"
            yield "key lost", f"{member} (key {keyid[:16]}): {said}"

    def value(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "root": self.root.fingerprint,
            "pinned": self.root.source,
            "checked": self.checked,
            "why": self.why,
            "lost": [{"member": member, "key_id": keyid} for member, keyid in self.lost],
        }


def check(trail: Path, report: Report, others: Seen, root: str | None) -> Signatures:
    """Check whose signatures stand behind each version that the trail names, in the order of their leaves.

    `root`: the fingerprint that the auditor holds; else what members pinned whose files are compared with, last the
    operator's. Raises ConfigurationError where those differ, or where it is none.
    """
    if root and not _FINGERPRINT.fullmatch(root):
        message = f"{root!r} is no fingerprint: it has 64 digits 0-9, a-f, as `valise directory status` tells a member"
        raise ConfigurationError(message)
    found = Root(root, "as you named it", asked=True) if root else _root(trail, others)
    if found.fingerprint is None:
        return Signatures(found, None, why="no root is pinned here: name one with --root")
    signed = _signed(trail, others)
    if not signed:
        why = f"nothing that was signed is kept beside the trail, or with members: {TAKEN_IN}"
        return Signatures(found, None, why=why)
    adopted = Adopted(found.fingerprint, signed)
    wrong = [
        Finding(f"leaf {each.leaf_number}", f"puts {each.what} {each.digest.hex()[:16]} in force: {reason}")
        for each in report.in_force
        if (reason := adopted.take(each.what, each.digest))
    ]
    return Signatures(found, len(report.in_force) - len(wrong), tuple(wrong), lost=tuple(adopted.lost))


def _root(trail: Path, others: Seen) -> Root:
    homes = _homes(others)
    roots = {each: root for each in homes if (root := pinned(each).root)}
    if len(set(roots.values())) > 1:
        said = ", ".join(f"{each.name} {root[:16]}" for each, root in roots.items())
        message = f"members have pinned different roots ({said}): ask them which is right, and name it with --root"
        raise ConfigurationError(message)
    if roots:
        who = ", ".join(each.name for each in roots) if len(roots) <= FEW else f"{len(roots)} members"
        return Root(next(iter(roots.values())), f"as {who} pinned it")
    return Root(pinned(trail.resolve().parent).root, OWN)


def _homes(others: Seen) -> list[Path]:
    return sorted({each.parent for each in others.files})


def _signed(trail: Path, others: Seen) -> list[bytes]:
    """Gather what was signed wherever it is kept: it speaks for itself."""
    kept = Versions(trail.resolve().parent / "versions").signed()
    for each in _homes(others):
        kept |= Versions(each / "versions").signed()
    return [kept[name] for name in sorted(kept)]
