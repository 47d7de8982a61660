"""Asks for looks at clear data: each is a leaf of the trail before anything is shown."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker import codec, streams
from broker.errors import ConfigurationError, ForbiddenStreamError, UnavailableError, ValiseError
from broker.notice import LOOK_LEAVES, LOOK_TYPE, DecisionRecord, Leaf, Look, Statement
from broker.records import Records
from broker.trail import Trail
from cli import copied
from cli.auditor import enrolled
from cli.home import clock
from cli.options import confirm

if TYPE_CHECKING:
    from cli.auditor.enrolled import Auditor
    from cli.operator_home import OperatorHome

WAIT_S = 10.0
LOOK_AGAIN_S = 0.1
REASON_LIMIT = 200


class LookRefusedError(ValiseError):
    """The broker recorded the look as refused: nothing is shown."""

    code = "look-refused"


@dataclass(frozen=True, slots=True)
class Why:
    """What a person gives for a look: the reference, the key, and how long the broker may take to record it."""

    reason: str
    key_file: Path | None
    wait_s: float


def asks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a look; it gets them as `why`."""

    @click.option("--reason", default="", help="The reference of the request or case; no personal data.")
    @click.option("--key", "key_file", type=click.Path(path_type=Path), help="The key that signs the look.")
    @click.option(
        "--wait", "wait_s", default=WAIT_S, type=click.FloatRange(min=0), help="Seconds for the broker to record it."
    )
    @functools.wraps(command)
    def with_why(*args: Any, reason: str, key_file: Path | None, wait_s: float, **more: Any) -> Any:
        return command(*args, why=Why(reason, key_file, wait_s), **more)

    return with_why


@dataclass(frozen=True, slots=True)
class Looked:
    """A look that is on record."""

    leaf_number: int
    by: str
    reason: str
    leaves: tuple[int, ...]


def looked(home: OperatorHome, leaves: Mapping[str, Sequence[int]], why: Why, *, yes: bool) -> list[Looked]:
    """Have looks recorded for whoever sits here; `yes`: the home is trusted, ask nothing.

    Raises as `ask`, ConfigurationError that says what to do, click.Abort without a yes.
    """
    reason = why.reason.strip()
    if not 1 <= len(reason) <= REASON_LIMIT or not reason.isprintable():
        message = f"say why with --reason: the reference of the request or case, 1 to {REASON_LIMIT} characters"
        raise ConfigurationError(message)
    auditor = enrolled.auditor(home.folder / "auditors", why.key_file, home.versions.newest())
    if not yes and not _lies_in(home, auditor.file):
        bus = copied.bus_file(home) or home.settings.bus
        confirm(
            f"{auditor.file} does not lie in {home.folder}, which may be somebody else's: it signs the look as"
            f" {auditor.id} of {home.settings.federation}, which goes to the bus that is named there, {bus}. Trust it?"
        )
    return asyncio.run(ask(home, auditor, leaves, reason, why.wait_s))


def _lies_in(home: OperatorHome, key: Path) -> bool:
    """Say whether a key lies in the home itself; a link there may lead to anybody's."""
    return key.resolve().is_relative_to(home.folder.resolve())


def statements(
    auditor: Auditor, federation: str, leaves: Mapping[str, Sequence[int]], reason: str, now: int
) -> list[tuple[Look, bytes]]:
    """Sign looks at leaves, given by issuer member: each member is told of its own notices only."""
    made = []
    for member, numbers in sorted(leaves.items()):
        for begin in range(0, len(numbers), LOOK_LEAVES):
            part = tuple(numbers[begin : begin + LOOK_LEAVES])
            look = Look(federation, auditor.id, os.urandom(16), member, part, reason, now)
            payload = codec.encode(look)
            signature = auditor.key.sign_payload(LOOK_TYPE, payload)
            made.append((look, codec.encode(Statement(LOOK_TYPE, payload, auditor.key.public.id, signature))))
    return made


async def ask(
    home: OperatorHome, auditor: Auditor, leaves: Mapping[str, Sequence[int]], reason: str, wait_s: float
) -> list[Looked]:
    """Put looks on the stream `asks` and return once each is a leaf under a checkpoint on disk.

    Raises UnavailableError where the broker does not record it in time, LookRefusedError where it refuses.
    """
    signed = statements(auditor, home.settings.federation, leaves, reason, clock())
    begin = Trail.open(home.folder / "trail").size
    try:
        async with asyncio.timeout(wait_s):
            async with home.bus(streams.OPERATOR) as bus:
                await bus.append(streams.ASKS, [(b"", value) for _, value in signed])
            digests = [sha256(value).digest() for _, value in signed]
            found = await _recorded(home, begin, set(digests))
    except TimeoutError as error:
        message = (
            f"the broker did not record the look within {wait_s:g} s, so nothing is shown: start it with"
            " `valise broker up`; what needs no clear data works without it (--digests-only)"
        )
        raise UnavailableError(message) from error
    except ForbiddenStreamError as error:
        message = f"the look cannot be asked for, so nothing is shown: {error}"
        raise UnavailableError(message) from error
    return [
        Looked(found[digest], look.by, look.reason, look.leaves)
        for digest, (look, _) in zip(digests, signed, strict=True)
    ]


async def _recorded(home: OperatorHome, begin: int, wanted: set[bytes]) -> dict[bytes, int]:
    """Wait until every record is a leaf of kind `look` below the checkpoint on disk."""
    found: dict[bytes, int] = {}
    while wanted - found.keys():
        trail = Trail.open(home.folder / "trail")
        records = Records.to_read(home.folder / "records.db")
        try:
            for number, _salt, record in records.since(begin):
                if number >= trail.size:
                    break
                begin = number + 1
                decision = codec.decode(DecisionRecord, record)
                if decision.stream == streams.ASKS and decision.record_digest in wanted:
                    _check_kind(codec.decode(Leaf, trail.entry(number)))
                    found[decision.record_digest] = number
        finally:
            records.close()
        if wanted - found.keys():
            await asyncio.sleep(LOOK_AGAIN_S)  # another process writes the trail
    return found


def _check_kind(leaf: Leaf) -> None:
    if leaf.kind != "look":
        message = f"the broker refused the look ({leaf.code or leaf.kind}): nothing is shown"
        raise LookRefusedError(message)
