"""Stands between the stream `versions` and whoever acts on it: takes what is signed, and remembers what it has seen.

Where a root is pinned only bundles pass, and what passes is what they add up to. Where none is (a bare test) only what
is unsigned passes: a bundle that cannot be checked is never believed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from broker import reading
from broker.errors import ConfigurationError, VersionRefusedError

if TYPE_CHECKING:
    from broker.trust.bundle import Opened, Seen

ROOT_FILE = "root.sha256"
"""The fingerprint of a home's pinned root, beside its settings: the SHA-256 of what was signed."""
_FINGERPRINT, _FILE_LIMIT = re.compile(r"([0-9a-f]{64})?"), 1024
_SIGNED = {b'{"bundle":"valise/directory/': "directory", b'{"bundle":"valise/policies/': "policies"}
"""How what is signed begins (canonical JSON has this name first), and which kind of version that is."""


def signed_kind(content: bytes) -> str | None:
    """Say which kind of version these bytes are by their own word, directory or policies; None: nothing signed."""
    return next((kind for begin, kind in _SIGNED.items() if content.startswith(begin)), None)


@dataclass(frozen=True, slots=True)
class Guard:
    """What a party holds for true. `root` is the fingerprint of the pinned root; None: nothing is pinned here."""

    root: str | None = None
    seen: Seen = field(default_factory=dict)
    opened: Opened | None = None
    """The newest bundle that passed."""
    hears: bool = True
    """Whether those whom a directory concerns must have been heard (succession.py): not where it was taken before."""

    def take(self, kind: str, content: bytes, now: int | None) -> tuple[bytes, Guard]:
        """Give what a version says, and the guard that has seen it; `now` None: it was taken before.

        Raises VersionRefusedError.
        """
        signed = signed_kind(content) is not None
        if self.root is None:
            if signed:
                message = (
                    f"{kind}: it is signed, but no root is pinned here: `valise directory trust FINGERPRINT` pins one"
                )
                raise VersionRefusedError(message)
            return content, self
        if not signed:
            message = f"{kind}: it is not signed, and the root that is pinned here lets nothing else pass"
            raise VersionRefusedError(message)
        return self._opened(content, now) if kind == "directory" else self._allowed(content, now)

    def _opened(self, content: bytes, now: int | None) -> tuple[bytes, Guard]:
        from broker.trust import bundle, succession  # noqa: PLC0415 -- tuf is slow to import, most commands open no bundle

        found = bundle.open_bundle(content, bundle.Trust(self.root or "", self.seen), now)
        if self.opened is not None and self.hears:
            succession.check(self.opened, found)
        return found.plain, replace(self, seen=found.seen, opened=found)

    def _allowed(self, content: bytes, now: int | None) -> tuple[bytes, Guard]:
        from broker.trust import bundle  # noqa: PLC0415 -- as above

        if self.opened is None:
            message = "policies: the signed directory that says who may allow them has not come yet"
            raise VersionRefusedError(message)
        policies, seen = bundle.open_policies(content, self.opened.targets, self.seen, now)
        return policies, replace(self, seen={**self.seen, **seen})

    def overdue(self, now: int) -> list[str]:
        """Name the roles that have expired."""
        return self.opened.overdue(now) if self.opened else []


def pinned(home: Path) -> Guard:
    """Stand guard over a home, with the root that is pinned there, if any; an empty one lets nothing pass.

    The home may be one that somebody else handed over. Raises ConfigurationError for what is no fingerprint, OSError
    for what is no regular file.
    """
    path = home / ROOT_FILE
    try:
        root = reading.read(path, _FILE_LIMIT).decode(errors="replace").strip()
    except FileNotFoundError:
        return Guard()
    if not _FINGERPRINT.fullmatch(root):
        message = f"{path} holds no fingerprint of a root: it has 64 digits 0-9, a-f"
        raise ConfigurationError(message)
    return Guard(root)


def write_seen(seen: Mapping[str, tuple[int, str]]) -> bytes:
    """Write what was seen."""
    return json.dumps(dict(seen), sort_keys=True).encode()


def read_seen(content: bytes | None) -> Seen:
    """Read what was seen."""
    found: dict[str, tuple[int, str]] = json.loads(content or b"{}")
    return {role: (version, digest) for role, (version, digest) in found.items()}
