"""`valise broker resume`: run on from a restored backup, if nobody outside saw more than it holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import click

from broker import crash, streams
from broker.begin import Began, begin
from broker.bus import Bus
from broker.errors import (
    ConfigurationError,
    LostLeavesError,
    NothingLostError,
    NothingToCompareError,
    RegisterEmptiedError,
    TrailError,
)
from broker.notes import Vkey
from broker.owner import Owner
from broker.resume import Outside, Restored, Resumed, resume, signed
from broker.sqlite import SqliteBus
from cli import answer, copied, exits, restoring
from cli.operator_home import OperatorHome, operator_home
from cli.options import Everywhere, everywhere
from cli.seen import Seen

LOST = (
    "Refused: what came after the backup is lost here, and going on would make a second history. Restore what goes "
    "further and try again. If there is nothing, this log has ended: `{}` begins another that names it and says how "
    "much was lost"
)
NOT_LOST = "Refused: nothing is lost, this log goes on. Use `{}` without --new-log"
CONTRADICTS = (
    "Refused. Bus file, trail and decision records must be of one time: restore those that go furthest. Where another "
    "head of one size was seen, keep everything: members and auditors can prove a split view with it"
)
EMPTIED = (
    "Nothing was written: who holds what is forgotten, and no withdrawal would reach them. Put {} there that still "
    "have the stream, and delete nothing: {} may be all that is left of it"
)
NOTHING = "Refused. Ask members and auditors for the newest checkpoint that they hold: --seen FILE or FOLDER"


@click.command("resume")
@click.option(
    "--seen",
    type=click.Path(path_type=Path),
    multiple=True,
    help="What others kept, not from this backup: checkpoints, proofs, inbox.*.db, witness*.db, or a folder of them.",
)
@click.option(
    "--new-log",
    is_flag=True,
    help="Leaves are lost for good: end this log and begin another that names it. Members must sign its key.",
)
@everywhere
def resume_command(given: Everywhere, seen: tuple[Path, ...], new_log: bool) -> None:
    """Run on from a restored backup, only if nobody outside saw more of the log than it holds.

    Where somebody did and nothing better can be restored, --new-log ends the log at what is left and begins another.
    """
    home = operator_home(given.home)
    restoring.tell_left(home.folder.parent)
    refuse = partial(_refuse, given)
    try:
        _begin(given, home, seen) if new_log else _go_on(given, home, seen)
    except NothingToCompareError as error:
        refuse(error, NOTHING, exits.PARTLY)
    except NothingLostError as error:
        refuse(error, NOT_LOST.format(given.again("valise broker resume")), exits.VERIFICATION_FAILED)
    except LostLeavesError as error:
        refuse(error, LOST.format(given.again("valise broker resume --new-log --seen …")), exits.VERIFICATION_FAILED)
    except RegisterEmptiedError as error:
        refuse(error, emptied(home), exits.VERIFICATION_FAILED)
    except TrailError as error:
        refuse(error, CONTRADICTS, exits.VERIFICATION_FAILED)


def emptied(home: OperatorHome) -> str:
    """Say what to do where the register's stream was emptied."""
    those = "the data of nodes" if home.settings.bus_kind == "kafka" else "the home and bus file of the newest backup"
    return EMPTIED.format(those, home.owner().register)


def _go_on(given: Everywhere, home: OperatorHome, seen: Sequence[Path]) -> None:
    found = asyncio.run(_resume(home, seen))
    newest = found.newest
    _tell_silent(found.silent)
    answer.show(
        f"the log stands at {found.size:,} leaves; the newest of {found.compared:,} heads outside has "
        f"{newest.head.size:,} ({newest.source}), and all of them lie on this history",
        {
            "size": found.size,
            "newest": newest.head.size,
            "source": newest.source,
            "compared": found.compared,
            "silent": list(found.silent),
        },
        as_json=given.as_json,
        then=given.again("valise broker up"),
    )


def _begin(given: Everywhere, home: OperatorHome, seen: Sequence[Path]) -> None:
    if home.settings.bus_kind != "sqlite":
        message = "--new-log is for the embedded bus: on Kafka no backup of ours takes the record back"
        raise ConfigurationError(message)
    if point := os.environ.get("VALISE_CRASH_AT"):
        crash.arm(point)
    began = asyncio.run(_begin_new(home, seen))
    old, lost = began.ended, began.seen.size - began.ended.size
    answer.show(
        f"{old.origin} has ended at {old.size:,} leaves; {lost:,} after them are lost, as far as anybody showed "
        f"({began.seen.size:,}). {began.vkey.name} goes on from there; no member follows it before the next directory "
        "names its key",
        {
            "ended": old.origin,
            "size": old.size,
            "root": old.root.hex(),
            "seen": began.seen.size,
            "lost": lost,
            "origin": began.vkey.name,
            "vkey": str(began.vkey),
            "silent": None if began.silent is None else list(began.silent),
        },
        as_json=given.as_json,
        then=given.again("valise directory draft"),
    )


def _tell_silent(witnesses: Sequence[str]) -> None:
    for name in witnesses:
        answer.aside(f"the witness {name} did not answer")


def _refuse(given: Everywhere, error: TrailError, advice: str, code: int) -> None:
    if given.as_json:
        answer.aside(answer.in_json({"error": error.code, "detail": str(error), "advice": advice}))
    else:
        answer.aside(f"{error.code}: {error}\n{advice}")
    raise click.exceptions.Exit(code) from error


async def _resume(home: OperatorHome, paths: Sequence[Path]) -> Resumed:
    owner = home.owner()
    async with home.bus(streams.ROUTER) as bus:
        what = Restored(owner.trail, owner.records, owner.register, owner.origin, owner.shard, owner.key)
        found = await resume(what, bus, _kept(owner, paths), owner.witnesses, _room(bus))
        await copied.keep(home, bus)
    return found


async def _begin_new(home: OperatorHome, paths: Sequence[Path]) -> Began:
    owner = home.owner()
    async with home.bus(streams.ROUTER) as bus:
        began = await begin(owner, bus, _kept(owner, paths), _tell_silent, _room(bus))
        await copied.keep(home, bus)
    return began


def _kept(owner: Owner, paths: Sequence[Path]) -> Callable[[Vkey], list[Outside]]:
    """Read what others kept of our log, and of any that was begun after it."""
    seen = Seen(paths, owner.trail).of(owner.origin)

    def kept(log: Vkey) -> list[Outside]:
        return signed(((each.note, each.source) for each in seen.heads(log.name)), log)

    return kept


def _room(bus: Bus) -> Callable[[], Awaitable[None]]:
    return bus.leave_room if isinstance(bus, SqliteBus) else _no_room


async def _no_room() -> None:
    """Leave offsets as they are: Kafka's are its own, and no backup of ours takes them back."""
