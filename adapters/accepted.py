"""Keeps the signed directory that came another way than by the bus, until the bus has shown it, or what follows it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from broker import durable
from broker.errors import ConfigurationError, VersionRefusedError
from broker.trust.guard import Guard


class Accepted:
    """The file of it, which `Versions` checks before it is put there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def put(self, content: bytes) -> None:
        """Put it in the place of the one before."""
        durable.make_lasting(self.file.parent)
        durable.put(self.file, content)

    def guard(self, root: str) -> Guard:
        """Stand guard by it, if it leads from that root."""
        guard = Guard(root)
        if (content := self._content()) is not None:
            # What came between was heard by those whom it bound.
            with suppress(VersionRefusedError):
                return replace(guard, hears=False).take("directory", content, None)[1]
        return guard

    def unshown(self, followed: Guard) -> str:
        """Say what of it the bus, by which `followed` stands, does not show though it has shown one; empty if it does.

        Also where it is damaged.
        """
        from broker.trust import roles  # noqa: PLC0415 -- tuf is slow to import

        if not followed.root:
            return ""
        accepted = self.guard(followed.root).seen
        if not accepted:
            return f"what was accepted is damaged, or not signed under the pinned root: remove {self.file}"
        for role, (version, digest) in sorted(accepted.items()) if followed.opened else ():
            shown, of = followed.seen.get(role, (0, ""))
            # A timestamp alone changes nothing, and whoever holds its key could write any number.
            if role != roles.TIMESTAMP and (shown < version or (shown == version and of != digest)):
                there = f"version {shown}" if shown < version else f"another version {version}"
                what = f"{role}: version {version} was accepted here, and the bus shows {there}"
                return f"{what}: ask another member which is right, then remove {self.file}"
        return ""

    def check_whole(self) -> None:
        """Check that it is what was put there: it held then. Raises ConfigurationError."""
        from broker.trust import bundle  # noqa: PLC0415 -- as above

        try:
            if (content := self._content()) is not None:
                Guard(bundle.first_root(content)).take("directory", content, None)
        except VersionRefusedError as error:
            message = f"{self.file} is damaged: remove it, and accept once more what the operator sent last"
            raise ConfigurationError(message) from error

    def check_leads(self, fingerprint: str) -> None:
        """Check that a root, which is about to be pinned, leads to it. Raises ConfigurationError."""
        self.check_whole()
        try:
            if (content := self._content()) is not None:
                Guard(fingerprint).take("directory", content, None)
        except VersionRefusedError as error:
            message = (
                f"the directory that was accepted here is not signed under the root {fingerprint[:16]} ({error}): take "
                "that root from a member once more, not from the operator; if it is right, accept nothing from whoever "
                "sent this directory. Nothing was pinned"
            )
            raise ConfigurationError(message) from error

    def _content(self) -> bytes | None:
        try:
            return self.file.read_bytes()
        except FileNotFoundError:
            return None
