"""Keeps all that was published under signatures, as it came: what an auditor holds `adopted` leaves against."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from broker import codec, durable, reading
from broker.bus import Record
from broker.errors import ConfigurationError, NoticeRejectedError
from broker.notice import Version
from broker.trust.guard import signed_kind

VERSION_LIMIT, LIMIT = 16 * 1024 * 1024, 1024 * 1024 * 1024
"""Bytes of one version, and of all that was published under signatures."""
_NAME = re.compile(r"[0-9]{12,}-[0-9a-f]{16}")


def name_of(record: Record, content: bytes) -> str:
    """Name a signed version by its place in the stream and its SHA-256."""
    return f"{record.offset:012}-{sha256(content).hexdigest()[:16]}"


class Signed:
    """The folder `signed` of a home's `versions`, a file for each version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, record: Record) -> None:
        """Keep a version, whether it holds or not: whoever reads it checks it himself. One that is here stays as it is.

        What is not signed is passed over.
        """
        durable.make_lasting(self.folder)
        try:
            content = codec.decode(Version, record.value or b"").content
        except NoticeRejectedError:
            return
        name = name_of(record, content)
        if signed_kind(content) and len(content) <= VERSION_LIMIT and self.content(name) is None:
            durable.put(self.folder / name, content)

    def content(self, name: str) -> bytes | None:
        """Give a version's bytes; None if they are not there or not what they are called."""
        if not _NAME.fullmatch(name):
            return None
        try:
            content = reading.read(self.folder / name, VERSION_LIMIT)
        except FileNotFoundError:
            return None
        return content if sha256(content).hexdigest().startswith(name.partition("-")[2]) else None

    def all(self) -> dict[str, bytes]:
        """Give all of it, nothing checked, in the order of its names.

        Raises ConfigurationError where it is more than can be held, OSError for what is no file of a version.
        """
        found, left = dict[str, bytes](), LIMIT
        for each in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if _NAME.fullmatch(each.name):
                found[each.name] = reading.read(each, VERSION_LIMIT)
                left -= len(found[each.name])
            if left < 0:
                message = f"{self.folder} has more than {LIMIT:,} bytes: nobody has published that much"
                raise ConfigurationError(message)
        return found
