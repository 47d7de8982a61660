"""The operator's part in the federation's metadata: draft what members ask for, put in force what they have signed."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker import certificates, durable, streams, turns
from broker.bus import Bus
from broker.errors import ConfigurationError, VersionRefusedError
from broker.rules import PolicySet
from broker.signing import SigningKey
from broker.streams import OPERATOR
from broker.trust import bundle, draft, succession
from broker.trust.bundle import Opened, Trust
from broker.trust.draft import Draft, Signatory, Wanted
from broker.trust.guard import Guard
from broker.trust.roles import POLICIES, TIMESTAMP
from cli import answer, challenges
from cli.composing import compose_next, requests_in
from cli.home import clock, world_of
from cli.operator_home import NOBODY, OperatorHome, own_key
from cli.operator_streams import has_streams, make_streams, record
from cli.seed import Federation
from cli.trust import signatories

if TYPE_CHECKING:
    from broker.topics import Difference

REFRESH_MS = draft.TIMESTAMP_LIFE_MS // 2
"""A timestamp with less than this left is signed anew."""
TURN_S = 180.0
"""How long a person waits for another who activates or binds.

On Kafka that takes seconds. Nodes that give each answer at the last moment may take longer than this.
"""
_NUMBERED = re.compile(r"([0-9]+)\.draft\.json")
"""How drafts are called that were kept here."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A draft as it lies with the operator, and how much it holds."""

    path: Path
    draft: Draft
    keys: int
    new_keys: int
    members: int
    bureaus: int


@dataclass(frozen=True, slots=True)
class Activated:
    """The directory that was written, or that had been before."""

    version: int
    digest: str
    root: str
    """Fingerprint of the first root, as members pin it."""
    members: int
    bureaus: int
    keys: int
    policies: bool
    differs: tuple[Difference, ...]
    """Settings of Kafka's topics that are not what the table of streams says."""
    already: bool = False
    """Whether all of it was in force before: nothing was written."""


def operator_keys(home: OperatorHome) -> tuple[SigningKey, SigningKey]:
    """Load the operator's two keys, for snapshot and timestamp; make them if they are not there."""
    snapshot, timestamp = (own_key(home.folder / "trust" / f"{name}.pem") for name in ("snapshot", "timestamp"))
    return snapshot, timestamp


async def standing(home: OperatorHome) -> Guard:
    """Read what has been published so far; changes nothing on the bus."""
    if await has_streams(home):
        async with home.bus(OPERATOR, NOBODY) as bus:
            await home.versions.follow(bus)
    return home.versions.guard()


async def ready(home: OperatorHome) -> Guard:
    """Read what has been published so far, and bring streams and bindings to what it says.

    Called in turn (`in_turn`). What this home knows by itself may be older than the streams are: nobody loses a binding
    before they were followed.
    """
    if not await has_streams(home):
        await make_streams(home, NOBODY, take_away=False)
    guard = await standing(home)
    if guard.opened is not None:
        await make_streams(home, world_of(guard.opened.directory))
    return guard


async def bring_up(home: OperatorHome) -> None:
    """Bring streams and bindings to the directory in force and to who was stopped: what this home knows may be older.

    What is gone of them is made again, where it may be (`not_made_again`).
    """
    async with in_turn(home, TURN_S):
        if (await ready(home)).opened is None:
            await make_streams(home, NOBODY, take_away=False)


async def propose(
    home: OperatorHome, federation: Federation, folders: Sequence[Path], say: Callable[[str], None] = answer.aside
) -> Proposed:
    """Draft the next directory: the federation's file, what members ask for in `folders`, and at first the policy set.

    Of each request that is passed over, since it is refused or the federation's file does not name who asks, `say` is
    told. Raises ConfigurationError if too few members have sent their keys, VersionRefusedError if it does not hold
    together.
    """
    if home.settings.bus_kind == "kafka":
        _check_certifiable(federation)
    base = (await standing(home)).opened
    asked = list(_signatories(federation, folders, say))
    new = [each for each in asked if base is None or each.member not in base.entered]
    if base is None and len(new) < draft.LEAST:
        message = (
            "two members at least must hold the root: have another make its keys with `valise key new`, and put its "
            "signatory.json beside the key requests"
        )
        raise ConfigurationError(message)
    composed = await compose_next(home, federation, requests_in(folders), say)
    home.versions.keep(composed.annex)
    made = _first(home, composed.plain, new) if base is None else _next(composed.plain, new, base)
    written = json.loads(composed.plain)
    path = keep(home, made)
    return Proposed(
        path, made, len(written["keys"]), composed.new_keys, len(written["members"]), len(written["bureaus"])
    )


def _check_certifiable(federation: Federation) -> None:
    """Refuse who could never have its certificate, before members sign that it takes part.

    Raises ConfigurationError that says what to do.
    """
    for each in federation.members:
        certificates.member_subject(each.id, streams.adapter(each.id).partition(".")[2])
    for bureau in federation.order.bureaus:
        member, _, unit = bureau.partition("/")
        try:
            if bureau in federation.world.certified:
                certificates.member_subject(member, unit)
        except ConfigurationError as error:
            message = (
                f"{bureau}: {error}. One that is in force already keeps its name: take `certified` from it in the "
                "federation's file, and its member's adapter reads for it"
            )
            raise ConfigurationError(message) from error


def _signatories(federation: Federation, folders: Sequence[Path], say: Callable[[str], None]) -> Iterator[Signatory]:
    """Read the members' requests; who is no member would count among those who sign for all."""
    members = {each.id for each in federation.members}
    for path in signatories.found_in(folders):
        found = signatories.read(path, federation.federation)
        if found.member in members:
            yield found
        else:
            say(f"{path}: the federation has no member {found.member}: add it to its file first")


def _first(home: OperatorHome, plain: bytes, asked: Sequence[Signatory]) -> Draft:
    now, operator = clock(), tuple(each.public for each in operator_keys(home))
    root = draft.found(asked[: draft.ROOT_HOLDERS], (operator[0], operator[1]), now, None)
    made = draft.propose(Wanted(json.loads(plain), asked), None, root, now, "found the federation", OPERATOR)
    return draft.with_policies(made, PolicySet.packaged().content, 1, OPERATOR, now)


def _next(plain: bytes, asked: Sequence[Signatory], base: Opened) -> Draft:
    entering = f"{', '.join(each.member for each in asked)} enter" if asked else "the next directory"
    return draft.propose(Wanted(json.loads(plain), asked), base, None, clock(), entering, OPERATOR)


async def change(home: OperatorHome, title: str, wanted: Mapping[str, Any], base: Opened, **more: Any) -> Path:
    """Draft one change of the directory in force; keep it among the operator's drafts."""
    return keep(home, draft.propose(Wanted(wanted, **more), base, None, clock(), title, OPERATOR))


def pass_root(home: OperatorHome, base: Opened, holders: Sequence[str], folders: Sequence[Path]) -> Path:
    """Draft the next root, held by these members, of whose requests the keys are taken. Raises ConfigurationError."""
    known = signatories.of(holders, folders, base.directory.federation)
    absent = [each for each in holders if each not in known or each not in base.entered]
    if absent:
        message = f"{', '.join(absent)}: not entered, or no signatory.json in {', '.join(map(str, folders))}"
        raise ConfigurationError(message)
    operator = operator_keys(home)
    public = operator[0].public, operator[1].public
    return keep(home, draft.propose_root([known[each] for each in dict.fromkeys(holders)], base, public, clock()))


def keep(home: OperatorHome, made: Draft) -> Path:
    """Keep a draft in the operator's home under the next number.

    Raises ConfigurationError if it is empty, UnavailableError.
    """
    if not made.roles and not made.roots:
        message = "nothing would change: there is nothing to sign"
        raise ConfigurationError(message)
    folder = home.folder / "drafts"
    durable.make_lasting(folder)
    with durable.alone(folder):  # from the look at the numbers until ours is taken
        taken = [int(found[1]) for each in folder.iterdir() if (found := _NUMBERED.fullmatch(each.name))]
        path = folder / f"{max(taken, default=0) + 1}.draft.json"
        durable.put(path, made.content())
    return path


@asynccontextmanager
async def in_turn(home: OperatorHome, wait_s: float | None = None) -> AsyncIterator[None]:
    """Let nobody else of this home write versions or set bindings from our look at what is in force until ours is.

    Two versions that are signed after the same look have the same numbers: nobody takes the second. Bindings that are
    set after an older look cut off who has entered since. The operator's keys are loaded before, which may ask for a
    passphrase. In a folder in which nobody waits for anything else. Raises UnavailableError if another does not come to
    its end within `wait_s`, by default as `durable.alone` waits.
    """
    folder = home.folder / "trust"
    durable.make_lasting(folder)
    async with turns.alone(folder, wait_s):
        yield


async def activate(home: OperatorHome, copies: Sequence[Draft]) -> Activated:
    """Put a draft in force, from one copy or several that were signed apart; what is in force already stays so.

    The annex goes first: the broker refuses a directory whose annex it cannot find. Raises VersionRefusedError that
    says whose signature is missing, what has changed since it was drafted, or why nobody takes what was written;
    UnavailableError.
    """
    made = draft.merge(copies)
    if not made.roots and set(made.roles) == {POLICIES}:
        message = "the draft holds a policy set only: `valise policy activate DRAFT`"
        raise ConfigurationError(message)
    keys = operator_keys(home)
    async with in_turn(home, TURN_S):
        return await _activated(home, made, keys)


async def _activated(home: OperatorHome, made: Draft, keys: tuple[SigningKey, SigningKey]) -> Activated:
    if await has_streams(home):
        _assembled(made, await standing(home), keys)  # `setup` stays in its safe for what would be refused
    guard = await ready(home)
    if guard.opened is None and made.roots:
        guard = await _founded(home, made, guard, keys)
    opened, content, policies = _assembled(made, guard, keys)
    world = world_of(opened.directory)
    differs = await make_streams(home, world)
    before = guard.opened.directory.keys if guard.opened else {}
    # Before they are published: cut off between the two we could not tell which keys are new.
    new = {each.bureau for id_, each in opened.directory.keys.items() if id_ not in before}
    used = challenges.answered(home.folder, new)
    async with home.bus(OPERATOR, world) as bus:
        await _publish(home, bus, opened, content, policies)
    if lacking := draft.left(made, home.versions.guard().seen):
        challenges.wait_again(home.folder, used)
        raise not_taken(home, ", ".join(sorted(lacking)))
    found = opened.directory
    return Activated(
        found.version, found.digest.hex(), guard.root or "", len(found.members), len(found.bureaus), len(found.keys),
        POLICIES in made.roles, differs, content is None and policies is None,
    )  # fmt: skip


def not_taken(home: OperatorHome, what: str) -> VersionRefusedError:
    """Say why what was written is not in force, now that the stream was followed: `in_turn` excludes this home only."""
    reason = home.versions.refused() or "something else is in force by now"
    return VersionRefusedError(
        f"{what}: it was written, and is not in force: {reason}. Perhaps another home of the operator wrote at the "
        "same time: see `valise directory status`, then the same command again, or draft it anew"
    )


def _assembled(
    made: Draft, guard: Guard, keys: tuple[SigningKey, SigningKey]
) -> tuple[Opened, bytes | None, bytes | None]:
    """Give the directory that is to be in force, and what of it and of the policies is still to be written.

    Raises VersionRefusedError.
    """
    left = draft.left(made, guard.seen)
    policies = draft.allowed(made, guard.opened) if POLICIES in left else None
    if guard.opened is not None and left <= {POLICIES}:
        # A kill came after it was written, or this home was restored from before: the same command goes on.
        return guard.opened, None, policies
    content = draft.assemble(made, guard.opened, *keys, clock())
    root = guard.root or (bundle.fingerprint(made.roots[0]) if made.roots else "")
    with drafted_before():
        opened = bundle.open_bundle(content, Trust(root, guard.seen), clock())
        if guard.opened is not None:
            succession.check(guard.opened, opened)
    return opened, content, policies


@contextmanager
def drafted_before() -> Iterator[None]:
    """Have a refusal, which knows the numbers of versions only, say what helps. Raises VersionRefusedError."""
    try:
        yield
    except VersionRefusedError as error:
        message = f"{error}; no version was written. If another was activated since this was drafted, draft it anew"
        raise VersionRefusedError(message) from error


async def _founded(home: OperatorHome, made: Draft, guard: Guard, keys: tuple[SigningKey, SigningKey]) -> Guard:
    """Pin the first root once all have signed it, and read under it what may have been published before this home was.

    Raises VersionRefusedError.
    """
    _assembled(made, guard, keys)
    home.versions.pin(guard.root or bundle.fingerprint(made.roots[0]))
    return await ready(home)


async def _publish(home: OperatorHome, bus: Bus, opened: Opened, content: bytes | None, policies: bytes | None) -> None:
    """Write what is to be in force, the directory and the policies: what is None stands there already."""
    if content and opened.directory.annex is not None:
        annex = home.versions.content(opened.directory.annex)
        if annex is None:
            message = (
                f"annex: {opened.directory.annex.hex()} is missing or damaged in {home.folder / 'versions'}: copy it "
                "from a backup, or draft this once more"
            )
            raise VersionRefusedError(message)
        await bus.append(streams.ANNEXES, [record("annex", annex)])
    parts = (("directory", content), ("policies", policies))
    await bus.append(streams.VERSIONS, [record(kind, each) for kind, each in parts if each])
    await home.versions.follow(bus)


async def refresh(home: OperatorHome, bus: Bus) -> bool:
    """Sign the timestamp anew if half its time is over; tell whether it was. The operator can do this alone.

    Raises VersionRefusedError where nobody takes what was written, UnavailableError.
    """
    if not _due(home.versions.guard()):
        return False
    key = operator_keys(home)[1]
    async with in_turn(home):  # not for long: a broker sees nothing else meanwhile, and asks again
        await home.versions.follow(bus)
        guard = home.versions.guard()
        if guard.opened is None or not _due(guard):
            return False
        await bus.append(streams.VERSIONS, [record("directory", draft.refresh(guard.opened, key, clock()))])
        await home.versions.follow(bus)
        if home.versions.guard().seen[TIMESTAMP] == guard.seen[TIMESTAMP]:
            raise not_taken(home, TIMESTAMP)
    return True


def _due(guard: Guard) -> bool:
    return guard.opened is not None and guard.opened.expires[TIMESTAMP] <= clock() + REFRESH_MS
