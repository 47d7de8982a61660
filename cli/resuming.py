"""`valise broker resume`: run on from a restored backup, if nobody outside saw more than it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from broker import streams
from broker.errors import LostLeavesError, NothingToCompareError, TrailError
from broker.notes import Vkey
from broker.register import Register
from broker.resume import Outside, Restored, Resumed, resume, signed
from broker.sqlite import SqliteBus
from cli import answer, exits, restored
from cli.operator_home import OperatorHome, operator_home
from cli.options import Everywhere, everywhere
from cli.seen import Seen

LOST = (
    "Refused: what came after the backup is lost here, and going on would make a second history. Restore what goes "
    "further and try again. If there is nothing, this log has ended: it must not be continued"
)
CONTRADICTS = (
    "Refused. Bus file, trail and decision records must be of one time: restore those that go furthest. Where another "
    "head of one size was seen, keep everything: members and auditors can prove a split view with it"
)
NOTHING = "Refused. Ask members and auditors for the newest checkpoint that they hold: --seen FILE or FOLDER"


@click.command("resume")
@click.option(
    "--seen",
    type=click.Path(path_type=Path),
    multiple=True,
    help="What others kept, not from this backup: checkpoints, proofs, inbox.*.db, witness*.db, or a folder of them.",
)
@everywhere
def resume_command(given: Everywhere, seen: tuple[Path, ...]) -> None:
    """Run on from a restored backup, only if nobody outside saw more of the log than it holds."""
    home = operator_home(given.home)
    try:
        found = asyncio.run(_resume(home, seen))
    except NothingToCompareError as error:
        _refuse(error, NOTHING, exits.PARTLY)
    except LostLeavesError as error:
        _refuse(error, LOST, exits.VERIFICATION_FAILED)
    except TrailError as error:
        _refuse(error, CONTRADICTS, exits.VERIFICATION_FAILED)
    newest = found.newest
    for name in found.silent:
        click.echo(f"the witness {name} did not answer", err=True)
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


def _refuse(error: TrailError, advice: str, code: int) -> None:
    click.echo(f"{error.code}: {error}", err=True)
    click.echo(advice, err=True)
    raise click.exceptions.Exit(code) from error


async def _resume(home: OperatorHome, paths: Sequence[Path]) -> Resumed:
    owner = home.owner()
    seen = Seen(paths, owner.trail).of(owner.origin)

    def kept(log: Vkey) -> list[Outside]:
        return signed(((each.note, each.source) for each in seen.heads(owner.origin)), log)

    async with home.bus(streams.ROUTER) as bus:
        what = Restored(owner.trail, owner.records, owner.origin, owner.shard, owner.key)
        room = bus.leave_room if isinstance(bus, SqliteBus) else _no_room
        found = await resume(what, bus, kept, owner.witnesses, room)
    if owner.register.exists():
        with closing(Register(owner.register)) as register:
            register.forget()  # it may belong to another past; the stream has it all
    restored.keep(home)
    return found


async def _no_room() -> None:
    """Leave offsets as they are: Kafka's are its own, and no backup of ours takes them back."""
