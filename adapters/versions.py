"""Follows the `versions` stream and keeps every directory and policy set by its digest."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker import codec, durable, members, reading, streams, turns
from broker.bus import Bus, Record
from broker.directory import Directory
from broker.errors import ConfigurationError, NoticeRejectedError, VersionRefusedError
from broker.notice import Version
from broker.trust.guard import ROOT_FILE, Guard, pinned, read_seen, signed_kind

if TYPE_CHECKING:
    from broker.trust.bundle import Opened

PAGE = 100
VERSION_LIMIT, SIGNED_LIMIT = 16 * 1024 * 1024, 1024 * 1024 * 1024
"""Bytes of one version, and of all that was published under signatures."""
SIGNED = "signed"
"""Folder with all that was published under signatures, as it came: what an auditor holds `adopted` leaves against."""
BUNDLE = "bundle"
"""What `newest` calls the newest signed directory, by its name in `signed`."""
DIRECTORIES = "directories"
GIVEN = "given"
"""The signed directory that came another way than by the bus, until the bus has shown it, or what follows it."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLACE = re.compile(r"[0-9]{12,}-[0-9a-f]{16}")


def _clock() -> int:
    return time.time_ns() // 1_000_000


class Versions:
    """What the operator has published, in one folder of the home: a file for each version, named by its SHA-256.

    `newest` names the last one of its kind in the stream that can be read, and says how far that was read and what was
    seen in it; whether the broker adopted it stands in the trail, and every leaf names the versions that it was judged
    by. Where the home has pinned a root (guard.py), only what was signed under it is kept: a directory as it adds up.
    Whatever came under signatures is kept as it came, too, in `signed`. `directories/<root>` has a file for each
    version that came as a directory under that root: nothing else is one, whatever its digest, not what came before
    there was a root; where no root is pinned, any that came is one. Several processes may have one home: each adds to
    the files there, and none writes what it remembers over another's.
    """

    def __init__(self, folder: Path, clock: Callable[[], int] = _clock) -> None:
        self._folder, self._clock = folder, clock
        self._read: dict[bytes, Directory] = {}
        self._replay: frozenset[str] | None = None
        self._root: str | None = None
        """Under which those two were read."""

    async def follow(self, bus: Bus) -> int:
        """Take in what the stream holds beyond our place; return how many versions came. Raises UnavailableError."""
        state, root, came = self._state(), pinned(self._folder.parent).root, 0
        if not state or root != self._root:  # another process may have pinned it: what was read before counts no more
            self._read, self._replay, self._root = {}, None, root
        await self._keep_earlier(bus, state)
        await self._list_earlier()
        place = _place(state)
        while records := await bus.read(streams.VERSIONS, place, limit=PAGE):
            self._folder.mkdir(parents=True, exist_ok=True)
            # From the look at what is kept until ours is kept: another may follow meanwhile, or pin a root.
            async with turns.in_turn(self._folder):
                more, place = self._take_page(records, place)
            came += more
        if self._lacks_newest():
            await self.take_missing(bus)
        self._drop_given()
        return came

    def _take_page(self, records: Sequence[Record], read_from: int) -> tuple[int, int]:
        """Take in what was read from a place on and is not behind the one kept by now; give how many, and that place.

        Where that was taken back meanwhile nothing is taken: what lies between has to be read first.
        """
        state, came = self._state(), 0
        if read_from <= _place(state) <= records[-1].offset:
            guard = self._followed()
            for record in [each for each in records if each.offset >= _place(state)]:
                self._keep_signed(record)
                taken, guard = self._take(record, state, guard)
                came += taken
            # All that it names lies there by now. A kill before this leaves the old place, from which it is read again.
            state |= {"place": records[-1].offset + 1, "seen": dict(guard.seen)}
            self._keep("newest", json.dumps(state).encode())
            self._drop_beside(state)
        return came, _place(state)

    def _drop_beside(self, state: Mapping[str, Any]) -> None:
        """Remove what a home of before had in files of their own."""
        for name in ("bundle", "expires", "seen") if BUNDLE in state else ():
            (self._folder / name).unlink(missing_ok=True)

    def accept(self, content: bytes, federation: str) -> Opened:
        """Keep a signed directory that came another way than by the bus, for whoever cannot read that yet; give it.

        It is checked like one from the bus, and its timestamp must be in force. Where no root is pinned it is checked
        under the first root that it names itself, and stands for nothing before `pin`. It counts until the bus has
        shown a directory; none of what it says is taken over into what was seen there.
        Raises VersionRefusedError, ConfigurationError where the bus has been read already.
        """
        from broker.trust import bundle  # noqa: PLC0415 -- tuf is slow to import

        if self.bundle() is not None:
            message = "this home reads the bus itself, which brings it every directory"
            raise ConfigurationError(message)
        _check_length(content)
        guard = self._accepted(pinned(self._folder.parent).root or bundle.first_root(content))
        _, after = replace(guard, hears=False).take("directory", content, self._clock())
        assert after.opened is not None
        if after.opened.directory.federation != federation:
            message = f"directory: it is of {after.opened.directory.federation}, not of {federation}"
            raise VersionRefusedError(message)
        bundle.check_current(after.opened, self._clock())
        self._folder.mkdir(parents=True, exist_ok=True)
        durable.put(self.given, content)
        return after.opened

    @property
    def given(self) -> Path:
        """Where a directory lies that was accepted, until the bus has shown it."""
        return self._folder / GIVEN

    def _accepted(self, root: str) -> Guard:
        """Stand guard by what was accepted, if it leads from that root."""
        guard = Guard(root)
        if (given := self._named(GIVEN)) is not None:
            # What came between was heard by those whom it bound.
            with suppress(VersionRefusedError):
                return replace(guard, hears=False).take("directory", given, None)[1]
        return guard

    def _drop_given(self) -> None:
        """Let go of what was accepted once the bus shows it, or what came after it."""
        if self.given.is_file() and self.bundle() is not None and not self.unshown():
            self.given.unlink(missing_ok=True)

    def unshown(self) -> str:
        """Say what of an accepted directory the bus, which has shown one, does not show; empty if it does."""
        if not self.given.is_file():  # asked by every command: where nothing was accepted nothing is opened
            return ""
        from broker.trust import roles  # noqa: PLC0415 -- as above

        followed = self._followed()
        if followed.opened is None:
            return ""
        accepted = self._accepted(followed.root or "").seen
        for role, (version, digest) in sorted(accepted.items()):
            shown, of = followed.seen.get(role, (0, ""))
            # A timestamp alone changes nothing, and whoever holds its key could write any number.
            if role != roles.TIMESTAMP and (shown < version or (shown == version and of != digest)):
                there = f"version {shown}" if shown < version else f"another version {version}"
                what = f"{role}: version {version} was accepted here, and the bus shows {there}"
                return f"{what}: ask another member which is right, then remove {self.given}"
        return "" if accepted else f"what was accepted is not signed under the pinned root: remove {self.given}"

    async def _keep_earlier(self, bus: Bus, state: Mapping[str, Any]) -> None:
        """Keep what was signed and came before: a home of an earlier version kept none of it, or it was lost."""
        if not (self._folder / SIGNED / state.get(BUNDLE, "")).exists():
            async for record in _before(bus, _place(state)):
                self._keep_signed(record)

    def _keep_signed(self, record: Record) -> None:
        """Keep a version under its place in the stream, whether it holds or not: whoever reads it checks it himself."""
        (self._folder / SIGNED).mkdir(parents=True, exist_ok=True)
        try:
            content = codec.decode(Version, record.value or b"").content
        except NoticeRejectedError:
            return
        if signed_kind(content) and len(content) <= VERSION_LIMIT:
            durable.put(self._folder / SIGNED / _signed_name(record, content), content)

    def signed(self) -> dict[str, bytes]:
        """Give all that was published under signatures, nothing of it checked, in the order of its names.

        Raises ConfigurationError where it is more than can be held, OSError for what is no file of a version.
        """
        folder, found, left = self._folder / SIGNED, dict[str, bytes](), SIGNED_LIMIT
        for each in sorted(folder.iterdir()) if folder.is_dir() else ():
            if _PLACE.fullmatch(each.name):
                found[each.name] = reading.read(each, VERSION_LIMIT)
                left -= len(found[each.name])
            if left < 0:
                message = f"{folder} has more than {SIGNED_LIMIT:,} bytes: nobody has published that much"
                raise ConfigurationError(message)
        return found

    def guard(self) -> Guard:
        """Stand guard as this home does: with its pinned root, what it has seen and the newest bundle.

        Before the bus has shown a bundle, by the one that was accepted.
        """
        guard = self._followed()
        if guard.root and guard.opened is None:
            return replace(self._accepted(guard.root), hears=guard.hears)
        return guard

    def _followed(self) -> Guard:
        """Stand guard by what the bus has shown."""
        guard, state = pinned(self._folder.parent), self._state()
        if guard.root is not None and (bundle := self._bundle(state)) is not None:
            _, guard = guard.take("directory", bundle, None)
            seen = read_seen(json.dumps(state["seen"]).encode() if "seen" in state else self._named("seen"))
            return replace(guard, seen=seen, opened=replace(guard.opened, seen=seen) if guard.opened else None)
        return guard

    def bundle(self) -> bytes | None:
        """Give the newest bundle."""
        return self._bundle(self._state())

    def _bundle(self, state: Mapping[str, Any]) -> bytes | None:
        if BUNDLE not in state:
            return self._named("bundle")  # where a home of before has it
        path = self._folder / SIGNED / str(state[BUNDLE])
        if not _PLACE.fullmatch(str(state[BUNDLE])) or not path.is_file():
            message = f"{path} is not there, the newest signed directory: `valise directory status` reads it once more"
            raise ConfigurationError(message)
        return reading.read(path, VERSION_LIMIT)

    def overdue(self) -> list[str]:
        """Name the roles of the newest bundle that have expired: red, and no reason to stop."""
        ends = self._state().get("expires") or json.loads(self._named("expires") or b"{}")
        return sorted(role for role, end in ends.items() if end <= self._clock())

    def refused(self) -> str:
        """Say why the last version of the stream was not taken, or what it lacks of what was accepted; else empty."""
        return str(self._state().get("refused", "")) or self.unshown()

    def pin(self, fingerprint: str) -> None:
        """Pin a root by its fingerprint, and read the stream again from its beginning.

        Raises ConfigurationError where another is pinned, or where a directory was accepted that it does not lead to,
        UnavailableError.
        """
        path = self._folder.parent / ROOT_FILE
        if not _DIGEST.fullmatch(fingerprint):
            message = f"{fingerprint!r} is no fingerprint: it has 64 digits 0-9, a-f"
            raise ConfigurationError(message)
        self._folder.mkdir(parents=True, exist_ok=True)
        with durable.alone(self._folder):  # who follows has kept what it took before, or takes it under this root
            if (old := pinned(path.parent).root) not in (None, "", fingerprint):
                message = f"{path} pins another root, {old}: refused"
                raise ConfigurationError(message)
            self._check_leads_to_given(fingerprint)
            if not old:  # an empty one is what a kill has left of a version before
                # First the place, then the root: a crash between them reads the stream again, and without a root.
                (self._folder / "newest").unlink(missing_ok=True)
                durable.put(path, f"{fingerprint}\n".encode("ascii"))
                self._read, self._replay = {}, None

    def _check_leads_to_given(self, fingerprint: str) -> None:
        try:
            if given := self._named(GIVEN):
                Guard(fingerprint).take("directory", given, None)
        except VersionRefusedError as error:
            message = (
                f"the directory that was accepted here is not signed under the root {fingerprint[:16]} ({error}): take "
                "that root from a member once more, not from the operator; if it is right, accept nothing from whoever "
                "sent this directory. Nothing was pinned"
            )
            raise ConfigurationError(message) from error

    def _take(self, record: Record, state: dict[str, Any], guard: Guard) -> tuple[int, Guard]:
        try:
            version = codec.decode(Version, record.value or b"")
            _check_length(version.content)
            plain, after, stale = self._passed(version, guard)
            if version.kind == "directory":
                _parsed(plain)
        except (NoticeRejectedError, VersionRefusedError) as error:
            state["refused"] = str(error)
            return 0, guard
        digest = sha256(plain).hexdigest()
        self._keep(digest, plain)
        if version.kind == "directory" and guard.root:
            self._list(digest, guard.root)
        state["refused"] = stale
        if not stale:
            state[version.kind] = digest
        if after.opened is not None and version.kind == "directory":
            state[BUNDLE] = _signed_name(record, version.content)
            state["expires"] = dict(after.opened.expires)
        return 1, after

    def _passed(self, version: Version, guard: Guard) -> tuple[bytes, Guard, str]:
        """Give what a version says; what has expired is kept, for what was judged by it, but it is not the newest."""
        try:
            return *guard.take(version.kind, version.content, self._clock()), ""
        except VersionRefusedError as error:
            return *guard.take(version.kind, version.content, None), str(error)

    def _named(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def directory(self, digest: bytes) -> Directory | None:
        """Give the directory of this digest, if it was ever published, under the root that is pinned here."""
        if digest not in self._read:
            content = self.content(digest) if self._is_listed(digest.hex()) else None
            if content is None:
                return None
            self._read[digest] = _parsed(content)
        return self._read[digest]

    def _is_listed(self, digest: str) -> bool:
        """Say whether a version came as a directory under the root that is pinned here."""
        root = pinned(self._folder.parent).root
        if root is None:
            return True
        if (folder := self._list_of(root)).is_dir():
            return (folder / digest).is_file()
        # A home of before, or one where nothing may be written: worked out, and again where that has changed.
        if self._replay is None or digest not in self._replay:
            self._replay = frozenset(self._replayed())
        return digest in self._replay

    def _list_of(self, root: str) -> Path:
        return self._folder / DIRECTORIES / root

    def _list(self, digest: str, root: str) -> None:
        folder = self._list_of(root)
        if not (folder / digest).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            durable.write(folder / digest, b"")

    async def _list_earlier(self) -> None:
        """Make the list of a home of before; it is there whole or not at all."""
        root = pinned(self._folder.parent).root
        if not root or (folder := self._list_of(root)).is_dir() or not (listed := [*self._replayed()]):
            return
        async with turns.in_turn(self._folder):  # another process may do the same
            aside = folder.with_name(f".{folder.name}.new")
            shutil.rmtree(aside, ignore_errors=True)  # a kill left it
            aside.mkdir(parents=True)
            for each in listed:
                durable.write(aside / each, b"")
            with suppress(OSError):  # the other was faster, and its list is as good
                aside.rename(folder)
            shutil.rmtree(aside, ignore_errors=True)
            durable.sync(folder.parent)

    def _replayed(self) -> Iterator[str]:
        """Take what was signed once more, from the pinned root on: what this home has taken before, nothing else.

        Whether an agreement hears whom it binds was asked then, or was not asked yet.
        """
        guard = replace(pinned(self._folder.parent), hears=False)
        for content in self.signed().values() if guard.root else ():
            kind = signed_kind(content) or ""
            try:
                plain, after = guard.take(kind, content, None)
            except VersionRefusedError:
                continue
            digest = sha256(plain).hexdigest()
            if (self._folder / digest).is_file():
                guard = after
                if kind == "directory":
                    yield digest

    def content(self, digest: bytes) -> bytes | None:
        """Give a version's bytes; None if they are not there or not what they are called."""
        try:
            content = reading.read(self._folder / digest.hex(), VERSION_LIMIT)
        except FileNotFoundError:
            return None
        return content if sha256(content).digest() == digest else None

    def newest(self) -> Directory:
        """Give the newest directory. Raises ConfigurationError where none has come yet."""
        found = self.newest_digest("directory")
        directory = self.directory(found) if found else None
        if directory is None:
            message = "no directory has arrived yet: the operator publishes it with `valise broker init`"
            if self._lacks_newest():
                message = f"the newest directory is gone from {self._folder}: any command that follows the bus reads it"
            raise ConfigurationError(message)
        return directory

    def newest_digest(self, kind: str) -> bytes | None:
        """Give the digest of the newest version of a kind, directory or policies; None where it is not here.

        What came and is gone, after an incomplete copy perhaps, `follow` takes once more.
        """
        return self._here(self._state(), kind)

    def _here(self, state: Mapping[str, Any], kind: str) -> bytes | None:
        found = state.get(kind)
        return bytes.fromhex(str(found)) if found and (self._folder / str(found)).is_file() else None

    def _lacks_newest(self) -> bool:
        state = self._state()
        return any(state.get(kind) and self._here(state, kind) is None for kind in ("directory", "policies"))

    def keep(self, content: bytes) -> bytes:
        """Keep a version that came another way (an annex, a set that is only drafted); give its digest."""
        digest = sha256(content).digest()
        self._keep(digest.hex(), content)
        return digest

    async def take_annexes(self, bus: Bus) -> None:
        """Take in all annexes that the bus holds: one for each directory. Only the operator's router may read them."""
        place = 0
        while records := await bus.read(streams.ANNEXES, place, limit=PAGE):
            for record in records:
                with suppress(NoticeRejectedError):  # nobody can have adopted what cannot be read
                    content = codec.decode(Version, record.value or b"").content
                    if self.content(sha256(content).digest()) is None:
                        self.keep(content)
            place = records[-1].offset + 1

    async def take_missing(self, bus: Bus) -> None:
        """Keep once more what was taken from `versions` and is lost or damaged here; follow first.

        It is verified again, from the pinned root on. A directory counts as taken if it is in the list of its root:
        one that is in neither is not taken now. Nothing is verified where nothing is missing.
        """
        place, lacking = _place(self._state()), self._lacks_listed()
        async for record in _before(bus, place):
            lacking = lacking or self._lacks_policies(record)
        if not lacking:
            return
        guard = replace(pinned(self._folder.parent), hears=False)
        async for record in _before(bus, place):
            guard = self._keep_again(record, guard)
        self._read = {}

    def _lacks_listed(self) -> bool:
        root = pinned(self._folder.parent).root
        listed = self._list_of(root).glob("*") if root else ()
        return any(self.content(bytes.fromhex(each.name)) is None for each in listed if _DIGEST.fullmatch(each.name))

    def _lacks_policies(self, record: Record) -> bool:
        """Say whether a version is not here by what it says; of a signed directory the list says it."""
        from broker.trust.bundle import read_policies  # noqa: PLC0415 -- tuf is slow to import

        try:
            content = codec.decode(Version, record.value or b"").content
            kind = signed_kind(content)
            plain = read_policies(content).policies.encode() if kind == "policies" else content
        except (NoticeRejectedError, VersionRefusedError):
            return False
        has_root = pinned(self._folder.parent).root is not None
        return (kind == "policies" or not has_root) and self.content(sha256(plain).digest()) is None

    def _keep_again(self, record: Record, guard: Guard) -> Guard:
        try:
            version = codec.decode(Version, record.value or b"")
            _check_length(version.content)
            plain, after = guard.take(version.kind, version.content, None)
            if version.kind == "directory":
                _parsed(plain)
        except (NoticeRejectedError, VersionRefusedError):
            return guard
        digest = sha256(plain)
        if version.kind == "directory" and not self._is_listed(digest.hexdigest()):
            return guard
        if self.content(digest.digest()) is None:
            self._keep(digest.hexdigest(), plain)
        return after

    def kept(self) -> list[str]:
        """List the digests of all versions that are here, in hex."""
        names = (each.name for each in self._folder.iterdir()) if self._folder.is_dir() else ()
        return sorted(each for each in names if _DIGEST.fullmatch(each))

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._folder / "newest").read_bytes())
        except FileNotFoundError:
            return {}
        return state

    def _keep(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        durable.put(self._folder / name, content)


def _place(state: Mapping[str, Any]) -> int:
    return int(state.get("place", 0))


def _signed_name(record: Record, content: bytes) -> str:
    return f"{record.offset:012}-{sha256(content).hexdigest()[:16]}"


async def _before(bus: Bus, place: int) -> AsyncIterator[Record]:
    """Read `versions` from its beginning up to a place."""
    at = 0
    while at < place and (records := await bus.read(streams.VERSIONS, at, limit=PAGE)):
        for record in records:
            if record.offset < place:
                yield record
        at = records[-1].offset + 1


def _check_length(content: bytes) -> None:
    if len(content) > VERSION_LIMIT:
        raise VersionRefusedError(f"it has more than {VERSION_LIMIT:,} bytes")


@lru_cache(maxsize=4)
def _parsed(content: bytes) -> Directory:
    """Read a directory once, however many homes this process opens."""
    return members.parse(content)
