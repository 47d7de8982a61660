"""`valise broker`: make the operator's home, write the directory, run the broker, look at it."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import click
import structlog

from broker import crash, durable, streams, up
from broker.bus import Bus, Owned
from broker.errors import (
    ConfigurationError,
    CopiedError,
    FencedError,
    ForbiddenStreamError,
    InputLostError,
    LogNotNamedError,
    RegisterEmptiedError,
    TrailError,
    UnavailableError,
    ValiseError,
    VersionRefusedError,
)
from broker.notice import CLOCK_SKEW_MS
from broker.owner import Owner
from broker.streams import ROUTER
from cli import answer, copied, disks, ending, exits, jsonlog, passphrases, refused, restoring, running, seed, snapshots
from cli.backup import backup_command, restore_command
from cli.directory import FROM, REQUESTS, propose
from cli.home import clock
from cli.operator_home import NOBODY, OperatorHome, Reach, make, operator_folder, operator_home
from cli.operator_streams import make_streams, told
from cli.options import Everywhere, Group, everywhere
from cli.progress import progress
from cli.resuming import emptied, resume_command
from cli.standing import HeldNotice, Standing, standing
from cli.trust import issuing, proposing
from cli.witnessing import WitnessedUpTo

log = structlog.get_logger()

LOOK_S = 0.5
"""Seconds between two looks for a directory with other members."""


REFRESH_LOOKS = 7200
"""Looks between two looks at the age of the timestamp: an hour."""
CERTIFICATE_LOOKS = 24 * REFRESH_LOOKS
"""Looks between two looks at the operator's certificates: a day."""
KEEP_LOOKS = 120
"""Looks between two checks of the bus file: a minute."""
HELD_LISTED = 10
"""Held notices, overdue or without a reviewer, that `status` writes out."""


@click.group(cls=Group)
def broker() -> None:
    """Make, start and look at the operator's broker."""


broker.add_command(resume_command)
broker.add_command(backup_command)
broker.add_command(restore_command)


@broker.command()
@click.option("--bus", default="", help="sqlite (the default), kafka, or kafka:HOST:PORT[,HOST:PORT…].")
@click.option("--setup", is_flag=True, help="On Kafka: make the super user again, whose files are not here any more.")
@click.option("--advertise", metavar="HOST", help="Where members reach the nodes of `valise kafka up`: not 127.0.0.1.")
@click.option("--listen", metavar="ADDRESS", help="What these listen on for members, where that is not HOST itself.")
@passphrases.prompted
@passphrases.passphrase_file
@FROM
@everywhere
def init(
    given: Everywhere,
    bus: str,
    setup: bool,
    advertise: str | None,
    listen: str | None,
    file: Path | None,
    passphrase_file: Path | None,
    ask: bool,
) -> None:
    """Make HOME/operator: settings, the log's key and trail, on Kafka all certificates. It makes no member's key.

    On Kafka the passphrase is that of the authorities' keys, those that are here already too; the log's key has the one
    that VALISE_PASSPHRASE_FILE names, with which the broker starts.
    """
    if bus.partition(":")[0] not in {"", "sqlite", "kafka"}:
        message = "--bus is sqlite, kafka or kafka:HOST:PORT"
        raise click.UsageError(message)
    bus = bus or _bus_of(given.home)
    if bus == "sqlite" and (ask or passphrase_file):
        message = "--passphrase and --passphrase-file are for the authorities' keys, which the embedded bus has not"
        raise click.UsageError(message)
    if (advertise or listen) and (bus == "sqlite" or not advertise):
        message = "--advertise, and with it --listen, say where members reach Kafka's nodes: with --bus kafka"
        raise click.UsageError(message)
    secret = passphrases.for_new(passphrase_file, ask=ask)
    reach = Reach(advertise, listen or "") if advertise else None
    home = make(given.home, _federation(file), bus, setup=setup, passphrase=secret, reach=reach)
    restoring.tell_left(given.home)
    issuing.tell_bare(home)
    if home.settings.bus_kind == "sqlite":
        asyncio.run(make_streams(home, NOBODY))
    draft = "valise directory draft" + (f" --from {shlex.quote(str(file))}" if file else "")
    then = "valise kafka up" if home.settings.bus_kind == "kafka" else draft
    answer.show(
        f"the broker's home is {home.folder}; keep {home.key_path.name} safe, hand {home.vkey_path} to everybody",
        {
            "home": str(home.folder),
            "federation": home.settings.federation,
            "bus": home.settings.bus,
            "vkey": home.vkey_path.read_text(encoding="utf-8").strip(),
        },
        as_json=given.as_json,
        then=given.again(then),
    )


def _bus_of(home: Path) -> str:
    """Give the kind of bus that a home was made for, if it was."""
    return operator_home(home).settings.bus if (operator_folder(home) / "settings.toml").is_file() else "sqlite"


def _federation(file: Path | None) -> seed.Federation:
    return seed.read(file) if file else seed.seed()


@broker.command("directory")
@FROM
@REQUESTS
@everywhere
def next_directory(given: Everywhere, file: Path | None, requests: tuple[Path, ...]) -> None:
    """Draft the next directory for the members to sign: the same as `valise directory draft`."""
    propose(given, file, requests)


# Running


@broker.command("up")
@click.option(
    "--lost",
    multiple=True,
    metavar="STREAM:OFFSET",
    help="Go on with a stream that has lost what was to be taken at this offset; `input-lost` names both.",
)
@click.option("--take-over", is_flag=True, help="Go on in the place of a broker that runs in this home; that one ends.")
@everywhere
def run(given: Everywhere, lost: tuple[str, ...], take_over: bool) -> None:
    """Run the broker until it is stopped (SIGTERM, Ctrl-C). It logs to stderr, its end too, one JSON object a line.

    Where a broker runs in this home already it is refused, unless it is to take over from that one.
    """
    home, passed = operator_home(given.home), dict(map(_stream_and_offset, lost))
    durable.make_private(home.folder)  # one of before was open to every account
    restoring.tell_left(home.folder.parent)
    snapshots.remove_left(home.folder)
    jsonlog.to_stderr()
    if point := os.environ.get("VALISE_CRASH_AT"):
        crash.arm(point)
    try:
        with refused.here(), running.alone(home.folder, clock(), take_over=take_over) as before:
            if before:
                log.warning("broker.takes-over", said=f"from {before}, which ends")
            asyncio.run(_until_stopped(home, passed, as_json=given.as_json))
    except ValiseError as error:
        then = _advice(given, home, error)
        log.error("broker.failed", code=error.code, said=str(error), then=then)  # noqa: TRY400 -- foreseen: no traceback
        raise click.exceptions.Exit(exits.of(error)) from error


def _advice(given: Everywhere, home: OperatorHome, error: ValiseError) -> str:
    """Say what to do about what the broker ended with."""
    if isinstance(error, running.AlreadyRunningError | FencedError):
        return _advice_on_another(given, home, error)
    if isinstance(error, InputLostError):
        goes_on = given.again(f"valise broker up --lost {shlex.quote(f'{error.stream}:{error.offset}')}")
        return f"Restore the stream if you can; if not, `{goes_on}` goes on; a leaf and its member's outcome say so"
    if isinstance(error, TrailError):
        return _advice_on_trail(given, home, error)
    refused_us = isinstance(error, ForbiddenStreamError) and home.settings.bus_kind == "kafka"
    check = f"`{given.again('valise kafka check')}` says what is missing, and `--mend` gives it back: "
    return f"{check if refused_us else ''}start it again once that is mended"


def _advice_on_another(given: Everywhere, home: OperatorHome, error: ValiseError) -> str:
    """Say what to do about another process that runs the broker, and which it is as far as it has said so."""
    if isinstance(error, running.AlreadyRunningError):
        then = given.again("valise broker up --take-over")
        return f"It goes on; `{given.again('valise broker status')}` looks at it. `{then}` takes its place, and it ends"
    other = running.of(home.folder)
    who = f"{other}, " if other and other.pid != os.getpid() else "another process "
    return f"{who}has taken this shard over, or emptied its cache: start this one again if none runs"


def _advice_on_trail(given: Everywhere, home: OperatorHome, error: TrailError) -> str:
    """Say what to do where trail, register and bus are not of one past, or may not be."""
    if isinstance(error, CopiedError):
        then = given.again("valise broker resume --seen FILE")
        return f"It is not gone on with. Whether others saw more than it holds is found out by `{then}`"
    if isinstance(error, LogNotNamedError):
        return f"Nothing was written. Have it signed first: `{given.again('valise directory draft')}`"
    if isinstance(error, RegisterEmptiedError):
        return emptied(home)
    return (
        f"Nothing was written. Do not delete anything: run `{_verify(home)}`, compare "
        "with a backup and with what the members hold, and restore the one that goes furthest"
    )


def _verify(home: OperatorHome) -> str:
    return f"valise audit verify {shlex.quote(str(home.folder / 'trail'))}"


def _stream_and_offset(said: str) -> tuple[str, int]:
    stream, _, offset = said.rpartition(":")
    if not stream or not offset.isascii() or not offset.isdigit():
        message = f"--lost {said}: it is STREAM:OFFSET, as `input-lost` names them"
        raise click.UsageError(message)
    return stream, int(offset)


async def _until_stopped(home: OperatorHome, lost: Mapping[str, int], *, as_json: bool) -> None:
    working = asyncio.ensure_future(_run(home, lost, as_json=as_json))
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a supervisor may have it ignored; how children end must be known
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    with suppress(asyncio.CancelledError):
        await working
    log.info("broker.stopped", said="everything taken in is on record")


async def _run(home: OperatorHome, lost: Mapping[str, int], *, as_json: bool) -> None:
    """Work for ever. A directory with other members or bureaus has other streams: the bus is then opened anew.

    A bus that does not answer at the start is told by ending; once the broker was up it is opened again until it does.
    """
    said = False

    def ready() -> None:
        nonlocal said
        if not said:
            _say_ready(home, as_json=as_json)
        said = True

    owner, owned = replace(home.owner(), lost=lost), Owned()
    while True:
        try:
            with durable.room(home.folder):
                await _run_until_other_streams(home, owner, owned, ready)
        except FencedError:
            raise
        except UnavailableError as error:
            if not said:
                raise
            log.warning("broker.unavailable", code=error.code, said=str(error))
            await asyncio.sleep(up.AGAIN_S)


async def _run_until_other_streams(home: OperatorHome, owner: Owner, owned: Owned, ready: Callable[[], None]) -> None:
    async with home.bus(streams.OPERATOR, NOBODY) as bus:
        await home.versions.follow(bus)
        await home.versions.take_missing(bus)
    home.check_log(owner)
    world = home.world()
    async with home.bus(ROUTER, world, owned) as bus:
        await copied.check(home, bus)
        # An auditor is given the home, not the bus: what its leaves name lies in it, wherever it was drafted.
        await home.versions.take_annexes(bus)
        working = asyncio.ensure_future(up.run(owner, bus, ready))
        try:
            await _watch(home, bus, working)
        except ForbiddenStreamError:
            # The broker adopted the new directory before we saw it; anything else is refused to us for good.
            await home.versions.follow(bus)
            if home.world() == world:
                raise
        finally:
            working.cancel()
            (ended,) = await asyncio.gather(working, return_exceptions=True)
            if isinstance(ended, FencedError):  # whatever else went wrong: opened again, we would fence our successor
                raise ended


async def _watch(home: OperatorHome, ours: Bus, working: asyncio.Future[None]) -> None:
    """Return when a directory with other streams has come; raise what the broker fails with.

    Meanwhile the timestamp of the signed directory is signed anew before it expires, certificates that end soon ring,
    and how far the bus file goes is kept: a backup copied in its place is then known by what it lacks, though nobody
    started the broker in between. A home that cannot be written now, or a bus that does not answer, is logged and tried
    again.
    """
    world, looks = home.world(), 0
    async with home.bus(streams.OPERATOR, NOBODY) as bus:
        while home.world() == world:
            if looks % REFRESH_LOOKS == 0:
                await _refresh(home, bus)
            if looks % CERTIFICATE_LOOKS == 0:
                _ring_ending(home)
            looks += 1
            if looks % KEEP_LOOKS == 0:
                with _unless_unavailable("bus-file.not-checked"):  # in a minute again
                    await copied.check(home, ours)
            done, _ = await asyncio.wait([working], timeout=LOOK_S)
            if done:
                working.result()
            with _unless_unavailable("versions.not-followed"):  # at the next look again
                await home.versions.follow(bus)


@contextmanager
def _unless_unavailable(event: str) -> Iterator[None]:
    """Log what cannot be done now and comes again, instead of raising UnavailableError."""
    try:
        yield
    except UnavailableError as error:
        log.warning(event, code=error.code, said=str(error))


def _ring_ending(home: OperatorHome) -> None:
    """Log which of the operator's certificates end soon: who runs for months opens no bus anew, which would say so.

    A node's that cannot be read, damaged or not ours to read, ends nobody who does without it.
    """
    try:
        ends = ending.of_operator(home, clock())
    except (ConfigurationError, OSError) as error:
        log.warning("certificates.not-read", said=str(error))
        return
    for each in ends:
        log.error("certificate.ends", alarm=True, principal=each.principal, said=each.said(clock()))


async def _refresh(home: OperatorHome, bus: Bus) -> None:
    """Sign the timestamp anew if it is time; if that cannot be done it will turn red, and traffic goes on."""
    try:
        with durable.room(home.folder):
            await proposing.refresh(home, bus)
    except (ConfigurationError, UnavailableError, VersionRefusedError) as error:
        log.warning("timestamp.not-signed", code=error.code, said=str(error))


def _say_ready(home: OperatorHome, *, as_json: bool) -> None:
    """Say that the broker is up. Where that goes there may be no room, as for a log: the work goes on without it."""
    said = f"the broker of {home.settings.federation} is up on {home.settings.bus}; Ctrl-C stops it"
    if as_json:
        ready = {"ready": True, "pid": os.getpid(), "shard": home.settings.shard, "bus": home.settings.bus}
        said = answer.in_json(ready)
    try:
        answer.say(said)
        sys.stdout.flush()
    except OSError as error:
        log.warning("ready.not-said", said=str(error))


# Looking


@broker.command()
@everywhere
def status(given: Everywhere) -> None:
    """Say how far the trail is, what is in it, what waits, and when each member was last heard of."""
    home = operator_home(given.home)
    restoring.tell_left(home.folder.parent)
    issuing.tell_bare(home)
    found = asyncio.run(standing(home, progress("looked at")))
    stale = found.waiting is None or found.old_keys is None
    if given.as_json:
        answer.show("", asdict(found) | {"stale": stale}, as_json=True)
    else:
        for line in _lines(found):
            answer.say(line)
        answer.say(_verify(home))
    exits.end(exits.UNAVAILABLE if stale else exits.DONE)


def _lines(found: Standing) -> Iterator[str]:
    if not found.size:
        yield "the trail is empty: nothing has been taken in yet"
    else:
        yield (
            f"{found.size:,} leaves; the last head is of {answer.when(found.head_at)} "
            f"({max(found.head_age_ms or 0, 0) // 1000:,} s ago)"
        )
        if (ahead := -(found.head_age_ms or 0)) > CLOCK_SKEW_MS:
            yield (
                f"RED       the log is {ahead // 1000:,} s ahead of the clock here, and no leaf goes back in time: "
                "till then notices and keys may be called expired; set the clock right"
            )
    yield "leaves    " + (", ".join(f"{count:,} {kind}" for kind, count in found.kinds.items()) or "none")
    if found.waiting is None:
        yield "waiting   unknown: the bus does not answer"
    else:
        yield "waiting   " + (", ".join(f"{count:,} {name}" for name, count in found.waiting.items()) or "nothing")
    yield from _bus_lines(found)
    if found.old_keys is None:
        yield "old keys  unknown: the register was emptied, the next start makes it anew"
    elif found.old_keys:
        yield f"old keys  still signed with by {', '.join(found.old_keys)}; see `valise key list`"
    if found.held:
        yield from _held_lines(found.held)
    if found.witnessed:
        yield from _witnessed_lines(found.witnessed)
    if found.expired:
        yield f"RED       expired: {', '.join(found.expired)}; traffic goes on; see `valise directory status`"
    heard = (f"{name} {answer.when(at)}" for name, at in found.last_seen.items() if at is not None)
    yield "last seen " + (", ".join(heard) or "nobody")
    if unseen := [name for name, at in found.last_seen.items() if at is None]:
        yield "not seen  " + ", ".join(unseen)


def _bus_lines(found: Standing) -> Iterator[str]:
    for name, at in found.late.items():
        yield f"RED       {name} waits since {answer.when(at)}: start the broker; Kafka drops it after 30 days"
    for each in found.differs:
        yield f"RED       {told(each)}; see `valise kafka check`"
    for name in found.lost:
        yield f"RED       {name} is lost, and was not taken; `valise broker up` says more, and stops"
    for disk in found.disks:
        if disk.scarce:
            yield f"RED       {disks.said(disk)}; {disks.MAKE_ROOM}"
    for certificate in found.ending:
        yield f"RED       {certificate.said(clock())}"


def _held_lines(held: list[HeldNotice]) -> Iterator[str]:
    waiting, stuck = ([each for each in held if bool(each.reviewers) is can] for can in (True, False))
    if waiting:
        yield f"held      {len(waiting):,} wait for review, the oldest since {answer.when(waiting[0].since)}"
    yield from _red([(each, f"silent: {', '.join(each.reviewers)}") for each in waiting if each.late])
    if stuck:
        yield (
            f"RED       {len(stuck):,} held that nobody can review: no reviewing bureau may see them, or none that was "
            "given them still reviews; once the directory names one, their issuers correct them"
        )
    yield from _red([(each, "nobody can review it") for each in stuck])


def _red(held: list[tuple[HeldNotice, str]]) -> Iterator[str]:
    for each, why in held[:HELD_LISTED]:
        yield f"RED       {each.notice} (leaf {each.leaf}) since {answer.when(each.since)}; {why}"
    if len(held) > HELD_LISTED:
        yield f"RED       and {len(held) - HELD_LISTED:,} more; --json lists all"


def _witnessed_lines(found: WitnessedUpTo) -> Iterator[str]:
    by = ", ".join(found.by) or "nobody"
    yield f"witnessed {found.size:,} leaves, by {by}; {found.quorum} of {len(found.of)} are enough"
    if found.red:
        since = answer.when(found.at)
        yield f"RED       no quorum of witnesses since {since}; traffic goes on; ask {', '.join(found.of)}"
