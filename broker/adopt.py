"""Tries out new versions of directory and policies beside the loop, and puts them in force.

A version is adopted as a whole or refused as a whole; what was in force before stays until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from broker import bounds, codec, members, streams
from broker.decide import Subscriptions, View
from broker.directory import NO_ANNEX, Annex, Directory
from broker.errors import NoticeRejectedError, VersionRefusedError
from broker.judge import Ruling
from broker.notice import NOTHING, Subscription, Version
from broker.rules import PolicySet, Rules, read_rules
from broker.step import InForce
from broker.trust.guard import Guard, read_seen, write_seen

if TYPE_CHECKING:
    from broker.bus import Bus, Record
    from broker.register import Register

_last: dict[tuple[bytes, bytes, bytes | None], Rules] = {}
"""What was loaded last, by the digests of policies, directory and annex: these alone say what comes of it.

A start asks for the same twice, before and after the shard is its own, and so does whoever owns the shard anew.
"""


@dataclass(frozen=True, slots=True)
class Versions:
    """What is in force, or would be: any part may still be missing on the first start."""

    directory: Directory | None = None
    annex: Annex = NO_ANNEX
    policies: PolicySet | None = None
    rules: Rules | None = None
    guard: Guard = field(default_factory=Guard)

    @property
    def in_force(self) -> InForce:
        """Digests of these versions."""
        return InForce(
            self.directory.digest if self.directory else NOTHING,
            self.policies.digest if self.policies else NOTHING,
            len(self.directory.by_index) - 1 if self.directory else 0,
        )


@dataclass(frozen=True, slots=True)
class Adoption:
    """A version record that was tried out; `versions` None: refused."""

    ruling: Ruling
    versions: Versions | None


@dataclass(slots=True)
class Adopter:
    """Keeps what is in force for one shard; everything it needs after a start stands in the register."""

    register: Register
    annexes: dict[bytes, bytes] = field(default_factory=dict)
    pinned: Callable[[], Guard] = Guard
    """Stands guard with the root of the operator's home; a home may get its first root while the broker runs."""
    view: View | None = None
    _now: Versions = field(default_factory=Versions)
    _ahead: Versions = field(default_factory=Versions)
    _tried: dict[int, Adoption] = field(default_factory=dict)
    """By offset: a version that is looked at again must not be held against those that came after it."""

    def restore(self) -> None:
        """Put in force what the register says. Raises VersionRefusedError if it does not load any more."""
        kept = {kind: self.register.get(f"version/{kind}") for kind in ("annex", "directory", "policies")}
        if kept["annex"]:
            self.annexes[sha256(kept["annex"]).digest()] = kept["annex"]
        self._ahead = Versions(guard=self._guarded(kept["directory"]))
        for kind in ("directory", "policies"):
            content = kept[kind]
            if content:
                self._ahead = self._loaded(kind, content, self._ahead.guard)
        self._now = self._ahead
        self._make_view(Subscriptions.of(_directory(self._now), self._patterns()) if self._now.directory else None)

    def _guarded(self, directory: bytes | None) -> Guard:
        """Open the bundle in force again, however old, and remember what was seen. Raises VersionRefusedError."""
        guard = self.pinned()
        if guard.root is None or directory is None:
            return guard
        plain, guard = guard.take("directory", self.register.get("version/bundle") or b"", None)
        if plain != directory:
            message = "directory: the one in the register is not the one that was signed"
            raise VersionRefusedError(message)
        return replace(guard, seen=read_seen(self.register.get("version/seen")))

    def _patterns(self) -> Mapping[str, tuple[str, ...]]:
        kept = (codec.decode(Subscription, value) for _, value in self.register.under("subscription/"))
        return {each.bureau: each.patterns for each in kept}

    def revoked(self) -> set[bytes]:
        """Tell which keys were taken out of force."""
        return {bytes.fromhex(key.partition("/")[2]) for key in self.register.keys("revoked/")}

    def inputs(self) -> list[str]:
        """List the streams to consume: nobody's notices before there are a directory and policies."""
        fixed = [streams.VERSIONS, streams.ASKS]
        if self.view is None:
            return fixed
        taking_part = sorted(self.view.directory.members)
        return fixed + [name for each in taking_part for name in (streams.receipts(each), streams.notices(each))]

    async def fetch_annexes(self, bus: Bus) -> None:
        """Read the annexes, so that a directory can be held against the one that it commits to."""
        place = 0
        while records := await bus.read(streams.ANNEXES, place):
            for record in records:
                if record.value is not None:
                    self._keep_annex(record.value)
            place = records[-1].offset + 1

    def _keep_annex(self, value: bytes) -> None:
        try:
            content = codec.decode(Version, value).content
        except NoticeRejectedError:
            return
        self.annexes[sha256(content).digest()] = content

    def try_out(self, record: Record) -> Adoption:
        """Parse, compile and test a version; may take seconds, touches nothing that is in force."""
        if record.offset not in self._tried:
            self._tried[record.offset] = self._try_out(record)
        return self._tried[record.offset]

    def _try_out(self, record: Record) -> Adoption:
        try:
            version = codec.decode(Version, record.value or b"")
            versions, plain = self._changed(version, record.at)
        except (VersionRefusedError, NoticeRejectedError) as error:
            return Adoption(Ruling("version-refused", error.code, str(error)), None)
        entries = {f"version/{version.kind}": plain}
        if versions.guard.root is not None:
            entries["version/seen"] = write_seen(versions.guard.seen)
            entries |= {"version/bundle": version.content} if version.kind == "directory" else {}
        if version.kind == "directory" and versions.annex.digest:
            entries["version/annex"] = self.annexes[versions.annex.digest]
        self._ahead = versions
        return Adoption(Ruling("adopted", version.kind, entries=entries), versions)

    def _changed(self, version: Version, now: int) -> tuple[Versions, bytes]:
        if version.kind not in ("directory", "policies"):
            message = f"no such kind of version: {version.kind}"
            raise VersionRefusedError(message)
        guard = self._ahead.guard if self._ahead.guard.root else self.pinned()
        plain, guard = guard.take(version.kind, version.content, now)
        versions = self._loaded(version.kind, plain, guard)
        if version.kind == "policies" and versions.rules and versions.policies:
            bounds.check(versions.rules, read_rules(versions.policies), _directory(versions))
        return versions, plain

    def _loaded(self, kind: str, plain: bytes, guard: Guard) -> Versions:
        old = self._ahead
        if kind == "directory":
            directory = members.parse(plain)
            if old.directory and directory.digest == old.directory.digest and guard.opened:
                return replace(old, guard=guard)  # only its timestamp is new
            _check_succession(old.directory, directory)
            annex, policies = self._annex(directory), old.policies
        else:
            directory, annex, policies = _directory(old), old.annex, PolicySet.parse(plain)
        rules = _rules(policies, directory, annex) if policies else None
        return Versions(directory, annex, policies, rules, guard)

    def _annex(self, directory: Directory) -> Annex:
        if directory.annex is None:
            return NO_ANNEX
        content = self.annexes.get(directory.annex)
        if content is None:
            message = f"annex: {directory.annex.hex()} is not on the stream `annexes`"
            raise VersionRefusedError(message)
        return members.parse_annex(content, directory)

    def adopt(self, adoption: Adoption) -> bool:
        """Put a version in force; tell whether the streams to consume have changed."""
        self._tried = {offset: each for offset, each in self._tried.items() if each is not adoption}
        if adoption.versions is None or adoption.versions.directory is None:
            return False
        before = self.inputs()
        self._now = adoption.versions
        patterns = self._patterns()
        self._make_view(Subscriptions.of(adoption.versions.directory, patterns))
        return self.inputs() != before

    def _make_view(self, subscriptions: Subscriptions | None) -> None:
        now = self._now
        if now.directory and now.rules and subscriptions is not None:
            self.view = View(now.directory, now.rules, subscriptions)

    def in_force(self, adoption: Adoption | None) -> InForce:
        """Tell the digests in force, once `adoption` is adopted."""
        versions = adoption.versions if adoption else None
        return (versions or self._now).in_force


def _rules(policies: PolicySet, directory: Directory, annex: Annex) -> Rules:
    key = (policies.digest, directory.digest, annex.digest)
    rules = _last.get(key)
    if rules is None:
        rules = Rules.load(policies, directory, annex)
        _last.clear()
        _last[key] = rules
    return rules


def _directory(versions: Versions) -> Directory:
    if versions.directory is None:
        message = "policies need a directory: write the directory first"
        raise VersionRefusedError(message)
    return versions.directory


def _check_succession(old: Directory | None, new: Directory) -> None:
    """Refuse a directory of another federation, an older one, or one that gives a bureau's index to another."""
    if old is None:
        return
    if new.federation != old.federation or new.version <= old.version:
        message = f"directory: version {new.version} of {new.federation} does not follow version {old.version}"
        raise VersionRefusedError(message)
    for bureau in old.bureaus.values():
        holder = next((each for each in new.by_index if each and each.index == bureau.index), None)
        if holder is None or holder.id != bureau.id:
            message = f"directory: index {bureau.index} belongs to {bureau.id} for ever"
            raise VersionRefusedError(message)
