"""`valise policy activate`: writes a version of the policy set; each shard adopts it in a step of its own."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker import codec, streams
from broker.errors import VersionRefusedError
from broker.notice import DecisionRecord, Leaf, Version
from broker.rules import PolicySet
from broker.streams import OPERATOR
from broker.trust import draft
from cli import answer, exits
from cli.directory import tell
from cli.home import clock
from cli.officer import in_force
from cli.officer.rewritten import rule_changes
from cli.officer.sets import open_set
from cli.operator_home import OperatorHome, operator_home
from cli.options import Everywhere, confirm, everywhere
from cli.trust import proposing
from cli.trust.policies import SUFFIX, must_be_signed, propose, signed

if TYPE_CHECKING:
    from broker.trust.draft import Draft
    from cli.officer.in_force import Basis

LOOK_S = 0.2
"""Seconds between two looks at the trail."""
IN_FORCE, WRITTEN, REFUSED, ALREADY = "in-force", "written", "refused", "already-in-force"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a version: `state` as above, the leaf that says so, and the broker's reason."""

    state: str
    leaf: int | None = None
    detail: str = ""


@click.command()
@click.argument("name", metavar="DIR|DIGEST|DRAFT")
@click.option("--author", default=OPERATOR, show_default=True, help="The member that drafted it, if one did.")
@click.option("--wait", default=10.0, show_default=True, help="Seconds to wait for the broker to adopt it.")
@everywhere
def activate(given: Everywhere, name: str, author: str, wait: float) -> None:
    """Put a policy set in force: a folder, or an earlier version by its digest (that is how to go back).

    It is read, checked and tried here first; the broker does the same again and refuses what must not be in force. Two
    members must sign it: a draft for them is written, and once they have signed it, it is activated by its file.
    """
    home = operator_home(given.home)
    basis, ready = in_force.at_operator(home), signed(home, Path(name)) if name.endswith(SUFFIX) else None
    other = PolicySet.parse(ready.policies) if ready else open_set(name, home.versions)
    if other.digest == basis.policies.digest:
        _show(given, other, Done(ALREADY), basis)
        return
    try_out(other, basis)
    changes = list(rule_changes(basis.policies, other))
    if not given.yes:
        for line in changes:
            answer.aside(f"  {line}")
        confirm(f"activate {other.digest.hex()[:16]} in place of {basis.policies.digest.hex()[:16]}?")
    if ready is None and must_be_signed(home):
        path, opened = propose(home, other.content, author)
        tell(
            given,
            path,
            opened,
            f"drafted the policy set {other.digest.hex()[:16]}; two members must sign it",
            versions=home.versions,
        )
        return
    content, made = (ready.content, ready.draft) if ready else (other.content, None)
    done = asyncio.run(_write(home, other, content, wait, made))
    _show(given, other, done, basis, changes)
    exits.end({REFUSED: exits.FAILED, WRITTEN: exits.UNDECIDED}.get(done.state, exits.DONE))


def try_out(policies: PolicySet, basis: Basis) -> None:
    """Load a set as the broker will. Raises VersionRefusedError that says that the old one stays."""
    from broker import bounds  # noqa: PLC0415
    from broker.rules import Rules, read_rules  # noqa: PLC0415 -- cedarpy is slow to import

    try:
        read, annex = read_rules(policies), in_force.known_annex(basis)
        bounds.check(Rules(read, basis.directory, annex), read, basis.directory)
        Rules.load(policies, basis.directory, annex)
    except VersionRefusedError as error:
        message = f"{error}. Nothing was written; {basis.policies.digest.hex()[:16]} stays in force"
        raise VersionRefusedError(message) from error


# Writing


async def _write(
    home: OperatorHome, policies: PolicySet, content: bytes, wait: float, made: Draft | None = None
) -> Done:
    """Write a set; give what became of it within `wait` seconds. Raises VersionRefusedError, UnavailableError.

    `made`: the draft that was signed; one that was written before and not adopted yet is only waited for.
    """
    size = in_force.trail_of(home).size
    home.versions.keep(policies.content)
    written = codec.encode(Version("policies", content))
    async with proposing.in_turn(home, proposing.TURN_S), home.bus(OPERATOR) as bus:
        await home.versions.follow(bus)
        if made is None or draft.left(made, home.versions.guard().seen):
            with proposing.drafted_before():  # in force may be another than was compared with
                home.versions.guard().take("policies", content, clock())
            await bus.append(streams.VERSIONS, [(b"", written)])
            await home.versions.follow(bus)
        if home.versions.newest_digest("policies") != policies.digest:
            raise proposing.not_taken(home, f"policy set {policies.digest.hex()[:16]}")
    deadline = time.monotonic() + wait
    while True:
        done = _adopted(home, policies.digest, sha256(written).digest(), size)
        if done or time.monotonic() >= deadline:
            return done or Done(WRITTEN)
        await asyncio.sleep(LOOK_S)


def _adopted(home: OperatorHome, digest: bytes, written: bytes, begin: int) -> Done | None:
    """Look in the trail for what became of the version since leaf `begin`; `written`: the digest of its record."""
    trail = in_force.trail_of(home)
    for number in range(begin, trail.size):
        leaf = codec.decode(Leaf, trail.entry(number))
        if leaf.kind == "adopted" and leaf.policies == digest:
            return Done(IN_FORCE, number)
        if leaf.kind == "version-refused" and (found := _record(home, number)) and found.record_digest == written:
            return Done(REFUSED, number, found.detail)
    return None


def _record(home: OperatorHome, number: int) -> DecisionRecord | None:
    from broker.records import Records  # noqa: PLC0415

    with closing(Records.to_read(home.owner().records)) as records:
        found = records.get(number)
    return codec.decode(DecisionRecord, found[1]) if found else None


# Telling


def _show(given: Everywhere, policies: PolicySet, done: Done, basis: Basis, changes: list[str] | None = None) -> None:
    before, digest = basis.policies.digest.hex()[:16], policies.digest.hex()
    said = {
        ALREADY: f"{digest[:16]} is in force already",
        IN_FORCE: f"{digest[:16]} is in force since leaf {done.leaf}; to go back: valise policy activate {before}",
        WRITTEN: f"{digest[:16]} is written and not adopted yet; the broker adopts it as soon as it runs",
        REFUSED: f"the broker refused it in leaf {done.leaf}: {done.detail}; {before} stays in force",
    }
    first = "\n".join([said[done.state], *(f"  {each}" for each in changes or ())])
    value: dict[str, Any] = {
        "state": done.state,
        "digest": digest,
        "before": basis.policies.digest.hex(),
        "leaf": done.leaf,
        "detail": done.detail,
        "changes": changes or [],
    }
    answer.show(first, value, as_json=given.as_json, then=given.again("valise policy list"))
