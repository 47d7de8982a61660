"""Follows the `versions` stream and keeps every directory and policy set by its digest."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.accepted import Accepted
from adapters.listed import DIGEST, Listed
from adapters.signed import VERSION_LIMIT, Signed, name_of
from broker import codec, durable, members, reading, streams, turns
from broker.bus import Bus, Record
from broker.directory import Directory
from broker.errors import ConfigurationError, NoticeRejectedError, VersionRefusedError
from broker.notice import Version
from broker.trust.guard import ROOT_FILE, Guard, pinned, read_seen, signed_kind

if TYPE_CHECKING:
    from broker.trust.bundle import Opened

PAGE = 100
SIGNED = "signed"
BUNDLE = "bundle"
"""What `newest` calls the newest signed directory, by its name in `signed`."""
BEFORE = (BUNDLE, "expires", "seen")
"""Files in which a home of before had what stands in `newest`."""
DIRECTORIES = "directories"
GIVEN = "given"
CALLED_LOST = "called_lost"
"""What `newest` calls the keys of members that the bundle calls lost, beside the name of that bundle."""


def _clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class CalledLost:
    """Keys of one member for directories that others followed without their signature, and those that speak now."""

    keys: tuple[str, ...] = ()
    speaking: tuple[str, ...] = ()


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
        self._signed, self._accepted = Signed(folder / SIGNED), Accepted(folder / GIVEN)
        self._listed = Listed(folder / DIRECTORIES)
        self._read: dict[bytes, Directory] = {}
        self._replay: frozenset[str] | None = None
        self._root: str | None = None
        """Under which those two were read."""
        self._missed = False
        """Whether a directory that had come was asked for and could not be given."""

    async def follow(self, bus: Bus) -> int:
        """Take in what the stream holds beyond our place; return how many versions came.

        Raises UnavailableError, also where there is no room for them: whoever follows for weeks goes on once there is.
        """
        with durable.room(self._folder):
            return await self._follow(bus)

    async def _follow(self, bus: Bus) -> int:
        state, came = self._state(), 0
        root = self._pinned(state)
        if not state or root != self._root:  # another process may have pinned it: what was read before counts no more
            self._read, self._replay, self._root = {}, None, root
        await self._keep_earlier(bus, state)
        await self._list_earlier(state)
        place = _place(state)
        while records := await bus.read(streams.VERSIONS, place, limit=PAGE):
            durable.make_lasting(self._folder)
            # From the look at what is kept until ours is kept: another may follow meanwhile, or pin a root.
            async with turns.alone(self._folder):
                more, place = self._take_page(records, place)
            came += more
        if self._missed or self._lacks_newest():
            await self.take_missing(bus)
        await self._tell_lost_earlier()
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
                self._signed.keep(record)
                taken, guard = self._take(record, state, guard)
                came += taken
            # All that it names lies there by now. A kill before this leaves the old place, from which it is read again.
            state |= {"place": records[-1].offset + 1, "seen": dict(guard.seen)}
            self._keep("newest", json.dumps(state).encode())
            self._drop_beside(state)
        return came, _place(state)

    def _drop_beside(self, state: Mapping[str, Any]) -> None:
        """Remove what a home of before had in files of their own."""
        for name in BEFORE if BUNDLE in state else ():
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
        self._accepted.check_whole()
        _check_length(content)
        guard = self._accepted.guard(pinned(self._folder.parent).root or bundle.first_root(content))
        _, after = replace(guard, hears=False).take("directory", content, self._clock())
        assert after.opened is not None
        if after.opened.directory.federation != federation:
            message = f"directory: it is of {after.opened.directory.federation}, not of {federation}"
            raise VersionRefusedError(message)
        bundle.check_current(after.opened, self._clock())
        self._accepted.put(content)
        return after.opened

    @property
    def given(self) -> Path:
        """Where a directory lies that was accepted, until the bus has shown it."""
        return self._accepted.file

    def _drop_given(self) -> None:
        """Let go of what was accepted once the bus shows it, or what came after it."""
        if self.given.is_file() and self.bundle() is not None and not self.unshown():
            self.given.unlink(missing_ok=True)

    def unshown(self) -> str:
        """Say what of an accepted directory the bus, which has shown one, does not show; empty if it does."""
        # Asked by every command: where nothing was accepted nothing is opened.
        return self._accepted.unshown(self._followed()) if self.given.is_file() else ""

    async def _keep_earlier(self, bus: Bus, state: Mapping[str, Any]) -> None:
        """Keep what was signed and came before: a home of an earlier version kept none of it, or it was lost.

        The list of directories is made of it where there is none.
        """
        root, newest = self._pinned(state), state.get(BUNDLE)
        listed = not root or self._listed.exists(root)
        if not listed or (self._signed.content(newest) is None if newest else not self._signed.folder.exists()):
            async for record in _before(bus, _place(state)):
                self._signed.keep(record)

    def signed(self) -> dict[str, bytes]:
        """Give all that was published under signatures, nothing of it checked, in the order of its names.

        Raises ConfigurationError where it is more than can be held, OSError for what is no file of a version.
        """
        return self._signed.all()

    def guard(self) -> Guard:
        """Stand guard as this home does: with its pinned root, what it has seen and the newest bundle.

        Before the bus has shown a bundle, by the one that was accepted.
        """
        guard = self._followed()
        if guard.root and guard.opened is None:
            return replace(self._accepted.guard(guard.root), hears=guard.hears)
        return guard

    def _followed(self) -> Guard:
        """Stand guard by what the bus has shown."""
        state = self._state()
        guard = Guard(self._pinned(state))
        if guard.root is not None and (bundle := self._bundle(state)) is not None:
            try:
                _, guard = guard.take("directory", bundle, None)
            except VersionRefusedError as error:
                if BUNDLE in state:
                    raise
                raise self._damaged(BUNDLE) from error
            seen = read_seen(json.dumps(state["seen"] if "seen" in state else self._named_json("seen")).encode())
            # A home of before may have lost its file: no less was seen than the bundle says.
            seen = {**guard.seen, **seen}
            return replace(guard, seen=seen, opened=replace(guard.opened, seen=seen) if guard.opened else None)
        return guard

    def bundle(self) -> bytes | None:
        """Give the newest bundle."""
        return self._bundle(self._state())

    def _bundle(self, state: Mapping[str, Any]) -> bytes | None:
        if BUNDLE not in state:
            return self._named("bundle")  # where a home of before has it
        if (found := self._signed.content(state[BUNDLE])) is None:
            raise self._lost(SIGNED, state[BUNDLE])
        return found

    def overdue(self) -> list[str]:
        """Name the roles of the newest bundle that have expired: red, and no reason to stop."""
        ends = self._state().get("expires") or self._named_json("expires")
        return sorted(role for role, end in ends.items() if end <= self._clock())

    def called_lost(self, member: str) -> CalledLost:
        """Tell which keys of a member the newest bundle calls lost; that is known without opening it."""
        found = self._state().get(CALLED_LOST, {}).get("members", {}).get(member)
        return CalledLost(*(tuple(found[each]) for each in ("keys", "speaking"))) if found else CalledLost()

    async def _tell_lost_earlier(self) -> None:
        """Note what the newest bundle calls lost where a Valise of before, which did not, took that in."""
        if not _lacks_lost(self._state()):
            return
        async with turns.alone(self._folder):
            if _lacks_lost(state := self._state()) and (opened := self._followed().opened):
                self._keep("newest", json.dumps({**state, CALLED_LOST: _lost_in(opened, state[BUNDLE])}).encode())

    def refused(self) -> str:
        """Say why the last version of the stream was not taken, or what it lacks of what was accepted; else empty."""
        return str(self._state().get("refused", "")) or self.unshown()

    def pin(self, fingerprint: str) -> None:
        """Pin a root by its fingerprint, and read the stream again from its beginning.

        Raises ConfigurationError where another is pinned, or where a directory was accepted that it does not lead to,
        UnavailableError.
        """
        path = self._folder.parent / ROOT_FILE
        if not DIGEST.fullmatch(fingerprint):
            message = f"{fingerprint!r} is no fingerprint: it has 64 digits 0-9, a-f"
            raise ConfigurationError(message)
        durable.make_lasting(self._folder)
        with durable.alone(self._folder):  # who follows has kept what it took before, or takes it under this root
            if (old := pinned(path.parent).root) not in (None, "", fingerprint):
                message = f"{path} pins another root, {old}: refused"
                raise ConfigurationError(message)
            self._accepted.check_leads(fingerprint)
            if not old:  # an empty one is what a kill has left of a version before
                # First the place, then the root: a crash between them reads the stream again, and without a root.
                (self._folder / "newest").unlink(missing_ok=True)
                durable.put(path, f"{fingerprint}\n".encode("ascii"))
                self._read, self._replay = {}, None

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
            self._listed.add(guard.root, digest)
        state["refused"] = stale
        if not stale:
            state[version.kind] = digest
        if after.opened is not None and version.kind == "directory":
            state[BUNDLE] = name_of(record, version.content)
            state["expires"] = dict(after.opened.expires)
            state[CALLED_LOST] = _lost_in(after.opened, state[BUNDLE])
        return 1, after

    def _passed(self, version: Version, guard: Guard) -> tuple[bytes, Guard, str]:
        """Give what a version says; what has expired is kept, for what was judged by it, but it is not the newest."""
        try:
            return *guard.take(version.kind, version.content, self._clock()), ""
        except VersionRefusedError as error:
            return *guard.take(version.kind, version.content, None), str(error)

    def _named(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _named_json(self, name: str) -> dict[str, Any]:
        """Read a file of our own; {} where it is not there. Raises ConfigurationError where it is damaged."""
        try:
            found = {} if (content := self._named(name)) is None else json.loads(content)
        except ValueError as error:
            raise self._damaged(name) from error
        if not isinstance(found, dict):
            raise self._damaged(name)
        return found

    def _damaged(self, name: str) -> ConfigurationError:
        beside = ", ".join(each for each in ("newest", *BEFORE) if (self._folder / each).exists())
        return ConfigurationError(
            f"{self._folder / name} is damaged: remove {beside} from {self._folder}, and `valise directory status` "
            "reads all that was published once more. What was seen before is forgotten then: compare the version and "
            "the root that it says with another member's"
        )

    def _lost(self, *parts: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._folder.joinpath(*parts)} is missing or damaged: `valise directory status` takes it from the bus "
            f"once more; if the bus has lost it, too, copy {self._folder} from a backup"
        )

    def directory(self, digest: bytes) -> Directory | None:
        """Give the directory of this digest, if it was ever published, under the root that is pinned here.

        One that is missing or damaged, of all that came, `follow` takes once more after it was asked for here.
        """
        if digest not in self._read:
            listed = self._is_listed(digest.hex())
            content = self.content(digest) if listed else None
            if content is None:
                self._missed |= self._was_taken(digest.hex()) or self._has_file(digest.hex())
                return None
            self._read[digest] = _parsed(content)
        return self._read[digest]

    def _was_taken(self, digest: str) -> bool:
        """Say whether this home calls a version a directory that it took: in the list, which may be lost, or newest."""
        root = pinned(self._folder.parent).root
        listed = root is None or self._listed.has(root, digest)
        return listed or self._state().get("directory") == digest

    def _has_file(self, digest: str) -> bool:
        return (self._folder / digest).is_file()

    def _is_listed(self, digest: str) -> bool:
        """Say whether a version came as a directory under the root that is pinned here."""
        root = self._pinned(self._state())
        if root is None:
            return True
        if self._listed.exists(root):
            return self._listed.has(root, digest)
        # A home of before, or one where nothing may be written: worked out, and again where that has changed.
        if self._replay is None or digest not in self._replay:
            self._replay = frozenset(self._replayed())
        return digest in self._replay

    async def _list_earlier(self, state: Mapping[str, Any]) -> None:
        """Make the list of a home of before."""
        root = self._pinned(state)
        if not root or self._listed.exists(root) or not (listed := [*self._replayed()]):
            return
        async with turns.alone(self._folder):  # another process may do the same
            self._listed.make(root, listed)

    def _replayed(self) -> Iterator[str]:
        """Take what was signed once more, from the pinned root on: what this home has taken before, nothing else.

        Whether an agreement hears whom it binds was asked then, or was not asked yet.
        """
        state = self._state()
        guard = Guard(self._pinned(state), hears=False)
        for content in self.signed().values() if guard.root else ():
            kind = signed_kind(content) or ""
            try:
                plain, after = guard.take(kind, content, None)
            except VersionRefusedError:
                continue
            digest = sha256(plain).hexdigest()
            if self._has_file(digest) or state.get(kind) == digest:
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
        """Give the newest directory. Raises ConfigurationError where none has come yet, or it is lost here."""
        if (directory := self.newest_if_any()) is None:
            self.check_kept()
            why = self.refused() or "the operator publishes it with `valise directory activate`"
            message = f"no directory has arrived yet: {why}"
            raise ConfigurationError(message)
        return directory

    def newest_if_any(self) -> Directory | None:
        """Give the newest directory; None where none has come yet. Raises ConfigurationError where it is lost here."""
        if (digest := self.named_newest("directory")) is None:
            return None
        if (directory := self.directory(digest)) is None:
            raise self._lost(digest.hex() if self.content(digest) is None else DIRECTORIES)
        return directory

    def named_newest(self, kind: str) -> bytes | None:
        """Give the digest of the newest version of a kind, be it here or not; None where none has come yet."""
        found = self._state().get(kind)
        return bytes.fromhex(found) if found else None

    def newest_digest(self, kind: str) -> bytes | None:
        """Give the digest of the newest version of a kind, directory or policies; None where it is not here whole.

        What came and is missing or damaged, after an incomplete copy perhaps, `follow` takes once more.
        """
        if (digest := self.named_newest(kind)) is None:
            return None
        here = self.directory(digest) if kind == "directory" else self.content(digest)
        return None if here is None else digest

    def _lacks_newest(self) -> bool:
        return any(self.named_newest(each) and self.newest_digest(each) is None for each in ("directory", "policies"))

    def check_kept(self) -> None:
        """Raise ConfigurationError where it is lost here what has come: that is not the same as nothing has."""
        if self.has_read() and not self._state():
            raise self._lost("newest")

    def has_read(self) -> bool:
        """Say whether anything has come from the bus, be it here or not."""
        return bool(self._state()) or any(self._signed.folder.glob("*"))

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

        It is verified again, from the pinned root on. A directory counts as taken if it is in the list of its root, or
        the newest; one whose file alone is here if it would be taken today, too. Nothing is verified where nothing is
        missing.
        """
        state, lacking = self._state(), self._missed or self._lacks_newest() or self._lacks_listed()
        place = _place(state)
        async for record in _before(bus, place):
            self._signed.keep(record)
            lacking = lacking or self._lacks_policies(record)
        self._missed = False
        if not lacking:
            return
        guard = Guard(self._pinned(state), hears=False)
        async for record in _before(bus, place):
            guard = self._keep_again(record, guard)
        self._read = {}

    def _lacks_listed(self) -> bool:
        """Say whether a directory of the list is not here, or one that is here not in the list."""
        if not (root := pinned(self._folder.parent).root):
            return False
        listed = self._listed.all(root)
        unlisted = (self.content(bytes.fromhex(each)) for each in self.kept() if each not in listed)
        return any(self.content(bytes.fromhex(each)) is None for each in listed) or any(map(_is_directory, unlisted))

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
        if version.kind == "directory" and not self._was_taken(digest.hexdigest()):
            heard = replace(guard, hears=True)
            if not self._has_file(digest.hexdigest()) or not _passes(version, heard):
                return guard
        if self.content(digest.digest()) is None:
            self._keep(digest.hexdigest(), plain)
        if version.kind == "directory" and guard.root:
            self._listed.add(guard.root, digest.hexdigest())
        return after

    def kept(self) -> list[str]:
        """List the digests of all versions that are here, in hex."""
        names = (each.name for each in self._folder.iterdir()) if self._folder.is_dir() else ()
        return sorted(each for each in names if DIGEST.fullmatch(each))

    def _state(self) -> dict[str, Any]:
        state = self._named_json("newest")
        digests = (state[each] for each in ("directory", "policies") if each in state)
        kinds = isinstance(state.get("place", 0), int) and isinstance(state.get(BUNDLE, ""), str)
        if not kinds or not all(DIGEST.fullmatch(str(each)) for each in digests):
            raise self._damaged("newest")
        return state

    def _pinned(self, state: Mapping[str, Any]) -> str | None:
        """Give the root that is pinned here. Raises ConfigurationError where it is lost: anything would pass."""
        root = pinned(self._folder.parent).root
        if root is None and BUNDLE in state:
            message = (
                f"{self._folder.parent / ROOT_FILE} is gone: write into it the root that `valise directory status` "
                "shows another member"
            )
            raise ConfigurationError(message)
        return root

    def _keep(self, name: str, content: bytes) -> None:
        durable.make_lasting(self._folder)
        durable.put(self._folder / name, content)


def _lacks_lost(state: Mapping[str, Any]) -> bool:
    return BUNDLE in state and state.get(CALLED_LOST, {}).get("of") != state[BUNDLE]


def _lost_in(opened: Opened, name: str) -> dict[str, Any]:
    """List the keys that a bundle of this name calls lost, by member, and those that speak for each such member."""
    from broker.trust import roles, voices  # noqa: PLC0415 -- as above

    found: dict[str, dict[str, list[str]]] = {}
    for member, keyid in sorted(voices.lost(opened.targets)):
        speaking = sorted(roles.keys_of(opened.targets, member))
        found.setdefault(member, {"keys": [], "speaking": speaking})["keys"].append(keyid)
    return {"of": name, "members": found}


def _place(state: Mapping[str, Any]) -> int:
    return int(state.get("place", 0))


async def _before(bus: Bus, place: int) -> AsyncIterator[Record]:
    """Read `versions` from its beginning up to a place."""
    at = 0
    while at < place and (records := await bus.read(streams.VERSIONS, at, limit=PAGE)):
        for record in records:
            if record.offset < place:
                yield record
        at = records[-1].offset + 1


def _is_directory(content: bytes | None) -> bool:
    try:
        return content is not None and bool(members.parse(content))
    except VersionRefusedError:
        return False


def _passes(version: Version, guard: Guard) -> bool:
    try:
        guard.take(version.kind, version.content, None)
    except VersionRefusedError:
        return False
    return True


def _check_length(content: bytes) -> None:
    if len(content) > VERSION_LIMIT:
        raise VersionRefusedError(f"it has more than {VERSION_LIMIT:,} bytes")


@lru_cache(maxsize=4)
def _parsed(content: bytes) -> Directory:
    """Read a directory once, however many homes this process opens."""
    return members.parse(content)
