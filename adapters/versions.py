"""Follows the `versions` stream and keeps every directory and policy set by its digest."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from broker import codec, members, streams
from broker.bus import Bus
from broker.errors import ConfigurationError, NoticeRejectedError, VersionRefusedError
from broker.members import Directory
from broker.notice import Version

PAGE = 100


class Versions:
    """What the operator has published, in one folder of the home: a file for each version, named by its SHA-256.

    `newest` is the last one of its kind in the stream that can be read; whether the broker adopted it stands in the
    trail, and every leaf names the versions that it was judged by.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[bytes, Directory] = {}

    async def follow(self, bus: Bus) -> int:
        """Take in what the stream holds beyond our place; return how many versions came."""
        state = self._state()
        came = 0
        while records := await bus.read(streams.VERSIONS, int(state.get("place", 0)), limit=PAGE):
            for record in records:
                came += self._take(record.value, state)
                state["place"] = record.offset + 1
            # Files first, then the place: a crash between them reads the same versions again.
            self._keep("newest", json.dumps(state).encode())
        return came

    def _take(self, value: bytes | None, state: dict[str, str | int]) -> int:
        try:
            version = codec.decode(Version, value or b"")
            if version.kind == "directory":
                _parsed(version.content)
        except (NoticeRejectedError, VersionRefusedError):
            return 0
        digest = sha256(version.content).hexdigest()
        self._keep(digest, version.content)
        state[version.kind] = digest
        return 1

    def directory(self, digest: bytes) -> Directory | None:
        """Give the directory of this digest, if it was ever published."""
        if digest not in self._read:
            content = self.content(digest)
            if content is None:
                return None
            self._read[digest] = _parsed(content)
        return self._read[digest]

    def content(self, digest: bytes) -> bytes | None:
        """Give a version's bytes; None if they are not there or not what they are called."""
        try:
            content = (self._folder / digest.hex()).read_bytes()
        except FileNotFoundError:
            return None
        return content if sha256(content).digest() == digest else None

    def newest(self) -> Directory:
        """Give the newest directory. Raises ConfigurationError where none has come yet."""
        found = self.newest_digest("directory")
        directory = self.directory(found) if found else None
        if directory is None:
            message = "no directory has arrived yet: the operator publishes it with `valise broker init`"
            raise ConfigurationError(message)
        return directory

    def newest_digest(self, kind: str) -> bytes | None:
        """Give the digest of the newest version of a kind: directory or policies."""
        found = self._state().get(kind)
        return bytes.fromhex(str(found)) if found else None

    def _state(self) -> dict[str, str | int]:
        try:
            state: dict[str, str | int] = json.loads((self._folder / "newest").read_bytes())
        except FileNotFoundError:
            return {}
        return state

    def _keep(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".{name}.{os.getpid()}"
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._folder / name)


@lru_cache(maxsize=4)
def _parsed(content: bytes) -> Directory:
    """Read a directory once, however many homes this process opens."""
    return members.parse(content)
