"""Opens homes and buses: the one place that knows both the member's side and the kinds of bus."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.versions import Versions
from broker import durable, streams
from broker import settings as settings_file
from broker.errors import CannotSignError, ConfigurationError, ForbiddenStreamError, UnavailableError
from broker.notice import Reference
from broker.settings import Settings
from broker.signing import SigningKey
from broker.streams import World
from cli import answer, in_words, keyring
from cli.keyring import Kept
from cli.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.adapter import Pointer
    from adapters.collect import Collector
    from adapters.compose import Maker
    from adapters.inbox import Inbox
    from adapters.outbox import Outbox, Result
    from adapters.outcomes import Outcomes
    from adapters.receipts import Signer
    from broker.bus import Bus, Owned
    from broker.directory import Directory


LATER_S = 1.0
"""How long what can be done later waits for an outbox that another process keeps."""
_MEMBER, _BUREAU = re.compile(r"[A-Z][A-Z0-9]*"), re.compile(r"[A-Z][A-Z0-9]*/[a-z0-9-]+")
_NO_BUREAU = "{} is no bureau: write it as AT/ncb"


def clock() -> int:
    """Tell this machine's time in ms since the epoch."""
    return time.time_ns() // 1_000_000


def world_of(directory: Directory) -> World:
    """Give the streams that a directory needs."""
    certified = frozenset(each.id for each in directory.bureaus.values() if each.certified)
    return World(tuple(directory.members), tuple(directory.bureaus), certified)


@asynccontextmanager
async def open_bus(
    folder: Path, settings: Settings, principal: str, world: World, owned: Owned | None = None
) -> AsyncIterator[Bus]:
    """Open the bus that a home's settings name, in the name of one principal."""
    async with AsyncExitStack() as stack:
        if settings.bus_kind == "sqlite":
            from broker.sqlite import SqliteBus  # noqa: PLC0415

            path = (folder / settings.bus_address).resolve()
            if not path.parent.is_dir():
                message = f"no folder {path.parent} for the bus that {folder / 'settings.toml'} names"
                raise ConfigurationError(message)
            # Only who makes streams makes the file: whoever looks would take an empty one for a bus that answers.
            if principal != streams.SETUP and not path.is_file():
                raise UnavailableError(f"there is no bus at {path}, which {folder / 'settings.toml'} names")
            yield await stack.enter_async_context(SqliteBus(path, principal, world, clock, owned=owned))
        else:
            from broker.kafka import KafkaBus  # noqa: PLC0415 -- aiokafka is slow to import

            files = tls(folder, settings, principal)
            bus = KafkaBus(settings.bus_address, principal, files, world, owned=owned)
            yield await stack.enter_async_context(bus)


def tls(folder: Path, settings: Settings, principal: str) -> tuple[str, str, str]:
    """Name the PEM files of a principal: CA, certificate, key. Raises ConfigurationError where the settings do not."""
    files = settings.tls.get(principal)
    if files is None:
        message = f"{folder / 'settings.toml'} names no certificate for {principal}: "
        if settings.member:
            message += "once the directory names this member, `valise certificate request` asks for it"
        else:
            message += f'add [tls."{principal}"]'
        raise ConfigurationError(message)
    _say_ending(settings.member or "", principal, folder / files.certificate)
    return (str(folder / files.ca), str(folder / files.certificate), str(folder / files.key))


async def if_it_answers(work: Awaitable[object], meanwhile: str) -> bool:
    """Do what needs the bus. False: it does not answer, and it was said what the command goes on with meanwhile.

    Or it refuses us, as it does who was stopped: what is kept here may be used all the same.
    """
    try:
        await work
    except (UnavailableError, ForbiddenStreamError) as error:
        answer.aside(f"{_said_of(error)}: {meanwhile}")
        return False
    return True


def _said_of(error: UnavailableError | ForbiddenStreamError) -> str:
    """Say why the bus was of no use."""
    if isinstance(error, ForbiddenStreamError):
        why = f"nobody may before a directory in force names it; where the operator has stopped {error.principal}"
        return f"the bus refuses us ({error}; {why}, ask it to resume it)"
    if isinstance(error, CannotSignError):
        return answer.one_line(str(error))
    return f"the bus does not answer{f' ({error})' if str(error) else ''}"


@contextmanager
def going_on(without: str) -> Iterator[None]:
    """Say, once for the same reason, what could not be done now, and go on: time has to mend it."""
    try:
        yield
    except UnavailableError as error:
        _say_once(f"{without}: {answer.one_line(str(error)) or error.code}")


def _say_ending(member: str, principal: str, certificate: Path) -> None:
    """Say once that a certificate soon ends, whenever that is found: without the next one its owner is cut off."""
    from broker import certificates  # noqa: PLC0415 -- only a Kafka home needs it

    end = certificates.expiry(certificate) if certificate.is_file() else None
    if end and end < datetime.now(UTC) + certificates.RENEW_BEFORE:
        ask = "make the next one with `valise broker init`, `--from` and passphrase as before"
        if member:
            unit = principal.partition(".")[2]
            whose = "--adapter" if principal == streams.adapter(member) else f"--bureau {member}/{unit}"
            ask = f"ask for the next one with `valise certificate request {whose}` and have the operator sign it"
        elif principal == streams.SETUP:
            ask = "make the next one with `valise broker init --setup`, `--from` and passphrase as before"
        ends = "ends" if end > datetime.now(UTC) else "has ended"  # said once more then
        _say_once(f"RED: the certificate of {principal} {ends} {end:%Y-%m-%d}: {ask}")


@lru_cache
def _say_once(said: str) -> None:
    answer.aside(said)


@lru_cache
def _say_red(expired: str, refused: str) -> None:
    """Say once what is wrong with the signed directory; nothing stops for it."""
    if expired:
        said = f"RED: expired in the directory: {expired}; news may be kept from us. See `valise directory status`"
        answer.aside(said)
    if refused:
        answer.aside(f"RED: the last version from the operator was refused here: {answer.one_line(refused)}")


def say_called_lost(folder: Path, member: str, versions: Versions) -> None:
    """Say once, to a member, that its key for directories was called lost without its doing."""
    if (found := versions.called_lost(member)).keys:
        from cli.trust import called_lost  # noqa: PLC0415 -- tuf is slow to import

        if said := called_lost.unasked(folder, member, found):
            _say_once(said)


@lru_cache
def _loaded(kept: Kept, changed: int) -> SigningKey:  # noqa: ARG001 -- what was changed since is another
    """Load a key once in a process: who follows its inbox would type a passphrase every few seconds."""
    return kept.load()


@dataclass(frozen=True, slots=True)
class MemberHome:
    """One member's home, acting for one of its bureaus."""

    folder: Path
    settings: Settings
    bureau: str

    @property
    def member(self) -> str:
        """The member."""
        return self.bureau.partition("/")[0]

    @property
    def unit(self) -> str:
        """The bureau without its member, as files are called."""
        return self.bureau.partition("/")[2]

    @property
    def versions(self) -> Versions:
        """The directories and policy sets that came."""
        return Versions(self.folder / "versions")

    def of(self, bureau: str) -> MemberHome:
        """Give the same home, acting for another bureau."""
        return replace(self, bureau=bureau)

    def key(self, bureau: str = "") -> SigningKey:
        """Load a bureau's signing key. Raises ConfigurationError, or CannotSignError for a token that is not there."""
        kept = self.kept_key(bureau)
        return _loaded(kept, kept.path.stat().st_ctime_ns)

    def kept_key(self, bureau: str = "") -> Kept:
        """Find the key with which a bureau signs now. Raises ConfigurationError."""
        name = bureau or self.bureau
        if name.partition("/")[0] != self.member:
            message = f"{self.folder} is the home of {self.member} and has no key of {name}"
            raise ConfigurationError(message)
        # Which key is in force the newest directory says: where that is lost, none is guessed.
        return keyring.signing(self.folder, name, self.versions.newest_if_any(), clock())

    def world(self) -> World:
        """Give the streams, as far as this home knows them; its own, and what all may read, before it has entered."""
        return world_of(self.versions.newest()) if self._entered() else World((self.member,), (self.bureau,))

    def _entered(self) -> bool:
        """Say whether the newest directory that this home knows names the member."""
        known = self.versions.newest_digest("directory") is not None
        return known and self.member in self.versions.newest().members

    def inbox_principal(self) -> str:
        """Name who may read the bureau's inbox: the bureau itself where it holds a certificate."""
        (principal,) = self.world().readers(streams.inbox(self.bureau))
        return principal

    @asynccontextmanager
    async def bus(self, principal: str = "") -> AsyncIterator[Bus]:
        """Open the bus in the name of the member's adapter, or another of its principals.

        In the end, when what is new has come, it is said where the member's own voice was taken from it.
        """
        try:
            if not self._entered():  # as far as is known here: the newest directory may name it by now
                async with open_bus(self.folder, self.settings, streams.adapter(self.member), self.world()) as first:
                    await self.versions.follow(first)
            name = principal or streams.adapter(self.member)
            async with open_bus(self.folder, self.settings, name, self.world()) as bus:
                _say_red(", ".join(self.versions.overdue()), self.versions.refused())
                yield bus
        finally:
            say_called_lost(self.folder, self.member, self.versions)

    async def follow(self) -> None:
        """Take in the newest directory and policies. Raises UnavailableError."""
        async with self.bus() as bus:
            await self.versions.follow(bus)

    @asynccontextmanager
    async def inbox_bus(self) -> AsyncIterator[Bus]:
        """Open the bus as whoever may read the bureau's inbox; versions are followed first, they say who.

        And outcomes: a receipt that was rejected for its key or its date is sent again. An outbox that another process
        keeps, as a long publication does, is said and waits after LATER_S: what has come for the bureau does not.
        """
        async with self.bus() as bus:
            await self.versions.follow(bus)
            with going_on("what became of our own notices cannot be taken in now"), self.outbox(LATER_S) as outbox:
                await self.learn(bus, outbox)
        async with self.bus(self.inbox_principal()) as bus:
            yield bus

    def signer(self) -> Signer:
        """Make who signs the bureau's receipts and statements."""
        from adapters.receipts import Signer  # noqa: PLC0415

        return Signer(self.settings.federation, self.bureau, self.key(), clock)

    def maker(self) -> Maker:
        """Make what envelopes are made with. Raises ConfigurationError where no directory has come.

        It asks for each key once, also for one that cannot be had: a person may have to type a passphrase for it. A
        token that is not there is looked for again: nobody is asked for its PIN before it is.
        """
        from adapters.compose import Maker  # noqa: PLC0415

        loaded: dict[str, SigningKey | ConfigurationError] = {}

        def key(bureau: str) -> SigningKey:
            if bureau not in loaded:
                try:
                    loaded[bureau] = self.key(bureau)
                except ConfigurationError as error:
                    loaded[bureau] = error
            found = loaded[bureau]
            if isinstance(found, ConfigurationError):
                raise found
            return found

        return Maker(self.versions.newest(), key, clock, os.urandom)

    @contextmanager
    def outbox(self, wait: float | None = None) -> Iterator[Outbox]:
        """Open the outbox of the member. `wait`: seconds for another process that keeps it, if not as for all files."""
        from adapters.database import WAIT_S  # noqa: PLC0415
        from adapters.outbox import Outbox  # noqa: PLC0415

        path, wait = self.folder / "outbox.db", WAIT_S if wait is None else wait
        outbox = Outbox(path, self.maker(), self.bureau, self.resolve, wait)
        try:
            yield outbox
        finally:
            outbox.close()

    @contextmanager
    def inbox(self) -> Iterator[Inbox]:
        """Open the inbox of the bureau."""
        from adapters.inbox import Inbox  # noqa: PLC0415

        path = self.folder / f"inbox.{self.unit}.db"
        if not path.exists():
            self.kept_key()  # who has none leaves no empty inbox behind
        inbox = Inbox(path)
        try:
            yield inbox
        finally:
            inbox.close()

    def collector(self, bus: Bus, inbox: Inbox) -> Collector:
        """Make the collector of the bureau."""
        from adapters.collect import Collector  # noqa: PLC0415
        from adapters.outcomes import rejected_in  # noqa: PLC0415

        rejections = partial(rejected_in, self.folder / "outbox.db")
        return Collector(bus, inbox, self.versions, self.signer(), os.urandom, self.settings.shard, rejections)

    def outcomes(self, bus: Bus, outbox: Outbox) -> Outcomes:
        """Make what follows the member's outcomes."""
        from adapters.outcomes import Outcomes  # noqa: PLC0415

        forget = partial(keyring.forget, self.folder)
        return Outcomes(bus, outbox, self.versions, self.member, clock, self.settings.shard, forget)

    async def take_outcomes(self, bus: Bus, outbox: Outbox) -> None:
        """Take in all outcomes that are there now, and say how far that is."""
        await self.outcomes(bus, outbox).drain(progress("taken in", "outcomes"))

    async def learn(self, bus: Bus, outbox: Outbox) -> None:
        """Take in the outcomes, then send what waits, if anything does. What cannot be sent is said and stops nothing.

        Raises UnavailableError where the outcomes cannot be taken in.
        """
        await self.take_outcomes(bus, outbox)
        if outbox.waits():
            await self.try_to_send(bus, outbox)

    async def try_to_send(self, bus: Bus, outbox: Outbox) -> None:
        """Send what waits, or can come again by now. What cannot be sent is said and stops nothing."""
        with going_on("what waits in the outbox could not be sent"):
            await self.flush(bus, outbox)

    async def flush(self, bus: Bus, outbox: Outbox, tell: Callable[[Result], object] | None = None) -> None:
        """Send what waits. What waits for want of its bureau's key is said on stderr, and stops no other bureau.

        `tell` is given what follows withdrawals that told nobody, or why that cannot be made, which is said, too.
        Raises UnavailableError.
        """
        from adapters.sender import NoKeyError  # noqa: PLC0415 -- as with all of the outbox: most commands send nothing

        def told(result: Result) -> None:
            _say_once(in_words.follows(result))
            if tell:
                tell(result)

        try:
            await outbox.flush(bus, self.settings.shard, told)
        except NoKeyError as error:
            _say_once(answer.one_line(str(error)))

    def resolve(self, pointer: Pointer) -> Reference | None:
        """Find the newest notice of another bureau's record in this bureau's inbox."""
        with self.inbox() as inbox:
            line = inbox.of_record(pointer.issuer, pointer.record)
        return Reference(line.issuer, line.notice_id, line.header_digest, pointer.relation) if line else None


def member_home(home: Path, bureau: str | None) -> MemberHome:
    """Find a member's home: `home` itself, or the one below it that the bureau names.

    Raises ConfigurationError that says what to do.
    """
    folder = _folder(home, bureau)
    settings = settings_file.load(folder)
    if settings.role != "member":
        message = f"{folder} is the operator's home: name a bureau with --bureau"
        raise ConfigurationError(message)
    acting = bureau or settings.bureau
    if not acting or "/" not in acting:
        message = f"say for which bureau of {settings.member}: --bureau {settings.member}/ncb"
        raise ConfigurationError(message)
    if acting.partition("/")[0] != settings.member:
        message = f"{folder} is the home of {settings.member}, not of {acting}"
        raise ConfigurationError(message)
    with suppress(OSError):  # one of before was open to every account; an auditor may read one that is not his
        durable.make_private(folder)
    return MemberHome(folder, settings, acting)


def settling(home: Path, bureau: str | None) -> tuple[Path, str, Settings | None]:
    """Find where a member's home is or is to be made: its folder, the bureau, its settings where it has them.

    Raises ConfigurationError.
    """
    if bureau is None or any((each / "settings.toml").is_file() for each in (home, _folder(home, bureau))):
        found = member_home(home, bureau)
        return found.folder, found.bureau, found.settings
    if not _BUREAU.fullmatch(bureau):
        raise ConfigurationError(_NO_BUREAU.format(bureau))
    return _folder(home, bureau), bureau, None


def _folder(home: Path, bureau: str | None) -> Path:
    if (home / "settings.toml").is_file():
        return home
    if bureau:
        name = bureau.partition("/")[0]
        if not _MEMBER.fullmatch(name):
            raise ConfigurationError(_NO_BUREAU.format(bureau))
        return home / "members" / name
    found = sorted(each.parent for each in (home / "members").glob("*/settings.toml"))
    if len(found) == 1:
        return found[0]
    if not found:
        message = f"no home in {home}: name one with --home or VALISE_HOME, or make one with `valise demo`"
    else:
        names = ", ".join(each.name for each in found[:5])
        message = f"{home} holds the homes of {len(found)} members ({names} …): say which with --bureau"
    raise ConfigurationError(message)
