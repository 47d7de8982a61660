"""Sets up a whole federation in one folder, every party with a home of its own, and runs its broker beside us."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from broker import certificates, notes, streams
from broker import settings as settings_file
from broker.bus import Bus
from broker.certificates import pki_of
from broker.distribute import GROUP
from broker.errors import ConfigurationError, UnavailableError
from broker.examine import examine
from broker.report import Report
from cli import keyring, keys
from cli.auditor import enrolled
from cli.home import MemberHome, clock, member_home
from cli.operator_home import OperatorHome, make, operator_home, tls_of
from cli.seed import Federation
from cli.seen import Seen, beside
from cli.trust import issuing, proposing, signatories, signing, vouched
from cli.trust.proposing import Activated

READY_LIMIT_S = 60.0
LOOK_S = 0.02
STOP_LIMIT_S = 20.0
AUDITOR = "auditor-1"
"""Who may look at clear data in a federation that is made here."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """A federation in one folder."""

    home: Path
    federation: Federation
    operator: OperatorHome

    @property
    def members(self) -> list[str]:
        """The members that have a home here."""
        return sorted(each.parent.name for each in (self.home / "members").glob("*/settings.toml"))

    def bureaus_of(self, member: str) -> list[str]:
        """Name the bureaus of a member that have a key here."""
        folder = self.home / "members" / member
        return [each for each in self.federation.bureaus_of(member) if keyring.kept(folder, each)]

    def member(self, bureau: str) -> MemberHome:
        """Open a member's home, acting for one of its bureaus."""
        return member_home(self.home, bureau)


async def set_up(home: Path, federation: Federation, bus: str, bureaus: Iterable[str], say: Say) -> Stage:
    """Make the operator's home and those of the members whose bureaus are named, and write the directory.

    Everybody makes its own keys; the operator gets requests only. Raises ConfigurationError if there is one already.
    """
    _check_new(home)
    operator = make(home, federation, bus)
    enrolled.make_key(operator.folder / "auditors", AUDITOR, federation.federation)
    if operator.settings.bus_kind == "kafka":  # before anybody is told where it serves: its ports may be others' by now
        operator = _serving(home, operator, say)
    stage = Stage(home, federation, operator)
    named = list(bureaus)
    for member in dict.fromkeys(each.partition("/")[0] for each in named):
        _make_member(stage, member, [each for each in named if each.startswith(f"{member}/")])
    await agree(stage)
    return stage


async def agree(stage: Stage) -> Activated:
    """Let the operator draft the next directory, each member here sign it with its own keys, the operator activate it.

    A member that enters later pins the fingerprint that another member tells it.
    """
    proposed = await proposing.propose(stage.operator, stage.federation, [stage.home / "members"])
    opened = stage.operator.versions.guard().opened
    made = proposed.draft
    root = stage.operator.versions.guard().root
    for member in stage.members:
        if root:
            stage.member(stage.bureaus_of(member)[0]).versions.pin(root)
        made, _ = await asyncio.to_thread(signing.sign, stage.home / "members" / member, member, made, opened)
    done = await proposing.activate(stage.operator, [made])
    if stage.operator.settings.bus_kind == "kafka":
        _certify(stage)
    return done


async def joined(stage: Stage, federation: Federation, bureaus: Sequence[str]) -> Stage:
    """Let a member enter a federation that runs: it makes its home and keys, and all sign the directory that has it."""
    larger = replace(stage, federation=federation)
    _make_member(larger, bureaus[0].partition("/")[0], bureaus)
    await agree(larger)
    return larger


def _check_new(home: Path) -> None:
    if (home / "operator").exists() or (home / "members").exists():
        message = f"{home} holds a federation already: name another folder with --home, or remove it"
        raise ConfigurationError(message)


def _make_member(stage: Stage, member: str, bureaus: Sequence[str]) -> None:
    """Make a member's home: its settings, and a key and a request for each of its bureaus."""
    folder = stage.home / "members" / member
    kafka = stage.operator.settings.bus_kind == "kafka"
    certified = stage.federation.world.certified
    units = ["adapter", *(each.partition("/")[2] for each in bureaus if each in certified)] if kafka else []
    bus = stage.operator.settings.bus if kafka else "sqlite:../../bus.db"
    tls = {name: tls_of(name) for name in (certificates.principal(member, unit) for unit in units)}
    federation = stage.federation.federation
    settings_file.save(folder, settings_file.of_member(bureaus[0], federation, bus, tls))
    for bureau in bureaus:
        keys.make_key(folder, bureau, federation)
    signatories.make(folder, member, federation)
    for unit in units:
        vouched.write(folder, member, unit, federation, clock())


def _serving(home: Path, operator: OperatorHome, say: Say) -> OperatorHome:
    """Start one node as `valise kafka up` does, and give the home that names where it serves."""
    from cli import nodes  # noqa: PLC0415 -- only a Kafka home needs it

    nodes.start(operator.folder, 1, say)
    return operator_home(home)


def _certify(stage: Stage) -> None:
    """Let the operator sign what members ask for, now that the directory says who they are, and each take it home."""
    requests = vouched.found_in([stage.home / "members"])
    done = issuing.issue(stage.operator, requests, clock())
    if done.refused:
        raise ConfigurationError("; ".join(done.refused))
    for each in done.issued:
        member = each.name.partition(".")[0].upper()
        issuing.accept(stage.home / "members" / member, member, each, clock())


def stop_kafka(stage: Stage) -> None:
    """Stop the node."""
    from broker import node  # noqa: PLC0415 -- only a Kafka home needs it

    node.stop(node.load(stage.operator.folder / "kafka", pki_of(stage.operator.folder)))


def verified(stage: Stage) -> Report:
    """Examine the whole trail against what every collector of this home kept, as `valise audit verify` does."""
    folder = stage.operator.folder / "trail"
    key = notes.parse_vkey(stage.operator.vkey_path.read_text(encoding="utf-8"))
    others = Seen(beside(folder), folder)
    return examine(folder, key, others.heads(key.name), others.deliveries(), told=others.told())


@asynccontextmanager
async def running(stage: Stage, *more: str) -> AsyncIterator[None]:
    """Run the broker in a process of its own (`valise broker up`) while the block runs; it logs to broker.log.

    `more`: further words of that command.

    Raises UnavailableError if it does not come up, or has ended before it was told to.
    """
    log = stage.operator.folder / "broker.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli.main", "broker", "up", "--home", str(stage.home), "--json", *more,
            stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=Path(__file__).parent.parent, env=dict(os.environ),
        )  # fmt: skip
    try:
        await _ready(process, log)
        yield
        if process.returncode is not None:
            raise UnavailableError(f"the broker has ended by itself ({process.returncode}): see {log}")
    finally:
        await _stop(process)


async def _ready(process: asyncio.subprocess.Process, log: Path) -> None:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_LIMIT_S):
            said = await process.stdout.readline()
    except TimeoutError as error:
        raise UnavailableError(f"the broker did not come up within {READY_LIMIT_S:.0f} s: see {log}") from error
    if b"ready" not in said:
        raise UnavailableError(f"the broker did not come up: see {log}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_LIMIT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def settled(stage: Stage, limit: float = 120.0) -> None:
    """Return once the broker has taken up, sealed and sent out all that members have sent so far.

    Looks as the router does. Raises UnavailableError if it takes longer than `limit` seconds.
    """
    world, shard = stage.operator.world(), str(stage.operator.settings.shard)
    async with stage.operator.bus(streams.ROUTER, world) as bus:
        try:
            async with asyncio.timeout(limit):
                for name in world.inputs():
                    await _passed(bus, shard, name)
                await _passed(bus, GROUP, streams.ROUTED)
        except TimeoutError as error:
            raise UnavailableError(f"the broker has not caught up within {limit:.0f} s") from error


async def _passed(bus: Bus, group: str, stream: str) -> None:
    """Return once a group stands behind every record of a stream, also of a step that is still to be shown."""
    end = await bus.written(stream)
    while (place := await bus.place(group, stream)) < end:
        # An offset that no record fills (the mark of a commit) may stand before the end: hence the look.
        if await bus.end(stream) >= end and not await bus.read(stream, place, limit=1):
            return
        await asyncio.sleep(LOOK_S)  # another process moves the place
