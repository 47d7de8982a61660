"""Lives of one record, invented at random: its outbox ends by knowing what the broker holds, and can end all of it.

Source and people publish and withdraw while outcomes are on their way, the broker rejects for this reason and that, and
a thief of the key corrects what stands, for its owner to disown.
"""

from __future__ import annotations

import random
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from adapters.adapter import Draft
from adapters.changes import Guard, changes
from adapters.outbox import Outbox
from adapters.trace import trace, undecided
from broker import codec
from broker.errors import InvalidReferenceError
from broker.notice import WITHDRAWAL, Envelope, Header, Reference
from broker.signing import header_digest
from tests.making import Draft as Making
from tests.member.conftest import World, draft

LIVES = 50
AUDIENCES: tuple[frozenset[str], ...] = (
    frozenset({"LV/ncb", "GE/ncb"}), frozenset({"LV/ncb"}), frozenset({"GE/ncb"}), frozenset(),
)  # fmt: skip
FAULTS = (("issued-in-future", True, 12), ("could-not-be-judged", False, 4), ("key-not-in-force", False, 8))
"""Why a notice is rejected whatever it says: code, whether that burns its id, and of how many in a hundred."""
ACTS = ("run", "drop", "withdraw", "disown", "flush", "judge", "learn", "steal")
WEIGHTS = (4, 2, 1, 2, 4, 6, 6, 2)


@dataclass
class Known:
    """What the broker knows of a notice."""

    digest: bytes
    version: int
    state: str
    kind: str = ""
    holders: frozenset[str] = frozenset()


@dataclass
class Life:
    """One record of AT's, before a broker that keeps of it what broker/judge.py does."""

    world: World
    chance: random.Random
    outbox: Outbox
    known: dict[bytes, Known] = field(default_factory=dict)
    stolen: list[bytes] = field(default_factory=list)
    faults: bool = True
    place: int = 0
    said: int = 0

    # The broker

    async def judge(self) -> int:
        """Judge what has come since the last time; give how many that were."""
        records = await self.world.bus.read("notices.at", self.place)
        for each in records:
            self.place = each.offset + 1
            drawn = self.chance.randrange(100) if self.faults else 100
            await self._take(each.value or b"", drawn)
        return len(records)

    async def _take(self, data: bytes, drawn: int = 100) -> Header:
        envelope = codec.decode(Envelope, data)
        header, digest = codec.decode(Header, envelope.header), header_digest(envelope.header)
        before = self.known.get(header.notice_id)
        if before and before.kind:
            return header
        subject = next((each for each in header.references if each.relation in ("corrects", "withdraws")), None)
        for code, burns, share in FAULTS:
            if 0 <= drawn < share:
                await self._reject(data, header, digest, code if burns else f"-{code}")
                return header
            drawn -= share
        if before or (subject and not self._may(header, subject)):
            await self._reject(data, header, digest, "invalid-reference")
            return header
        holders = self._end(header, subject) if subject else frozenset[str]()
        told = holders if header.kind == WITHDRAWAL else self.chance.choice(AUDIENCES)
        self.known[header.notice_id] = Known(digest, header.version, "routed", header.kind, holders | told)
        await self.world.broker.route(data, dict.fromkeys(sorted(told), (header.compartments[-1].name,)))
        return header

    def _may(self, header: Header, subject: Reference) -> bool:
        target = self.known.get(subject.notice_id)
        if target is None:
            return subject.relation == "withdraws"
        if subject.relation == "corrects" and (target.state == "withdrawn" or header.version <= target.version):
            return False
        refused = target.state == "refused" and (target.version > 1 or subject.relation == "withdraws")
        return target.state != "replaced" and not refused

    def _end(self, header: Header, subject: Reference) -> frozenset[str]:
        target = self.known.setdefault(subject.notice_id, Known(subject.header_digest, 0, ""))
        target.state = "withdrawn" if header.kind == WITHDRAWAL else "replaced"
        holders, target.holders = target.holders, frozenset()
        return holders

    async def _reject(self, data: bytes, header: Header, digest: bytes, code: str) -> None:
        """Reject a notice, and burn its id unless a "-" stands before the code."""
        burns = not code.startswith("-")
        if burns:
            version = max(header.version, 2) if header.references else header.version
            state = "withdrawn" if header.notice_id in self.known else "refused"
            self.known[header.notice_id] = Known(digest, version, state, header.kind)
        outcome = self.world.broker.reject(data, code.removeprefix("-"), signed=burns)
        await self.world.broker.seal()
        await self.world.broker.tell("AT", outcome)

    def live(self) -> set[bytes]:
        """Name what the broker holds live of the record."""
        return {each for each, known in self.known.items() if known.state == "routed" and known.kind != WITHDRAWAL}

    async def steal(self) -> None:
        """Let a thief publish a version of the record, mostly as a correction of one that stands."""
        live = sorted(self.live())
        target = self.chance.choice([*live, *live, b""]) if live else b""
        version, references = self.chance.randint(1, 6), tuple[Reference, ...]()
        if target:
            known = self.known[target]
            version = known.version + self.chance.randint(1, 3)
            references = (Reference("AT/ncb", target, known.digest, "corrects"),)
        made = Making("AT/ncb").but(
            notice_id=self.chance.randbytes(16), record="R-1", version=version, references=references
        )
        self.stolen.append((await self._take(codec.encode(made.envelope()))).notice_id)

    # AT

    async def run(self) -> None:
        """Let the source have the record, and say something new of it."""
        self.said += 1
        self._apply(draft(action_sought=f"{self.said}"))

    async def drop(self) -> None:
        """Let the source have it no more."""
        self._apply()

    def _apply(self, *drafts: Draft) -> None:
        before = self.outbox.published("list")
        found = changes(before, drafts, Guard(accept_withdrawals=True, accept_corrections=True))
        self.outbox.apply(found, "list", previous=before)

    async def withdraw(self) -> None:
        """Let a person withdraw it."""
        with suppress(InvalidReferenceError):
            self.outbox.withdraw("R-1")

    async def disown(self) -> None:
        """Let a person disown something of the thief's of which AT has heard."""
        if heard := [each for each in self.stolen if self.outbox.is_foreign(str(uuid.UUID(bytes=each)))]:
            self.outbox.disown(self.chance.choice(heard))

    async def flush(self) -> int:
        """Send what waits."""
        return await self.outbox.flush(self.world.bus)

    async def learn(self) -> int:
        """Hear the outcomes."""
        return (await self.world.machine("AT/ncb").outcomes(self.outbox).drain()).records

    # Both

    async def settle(self) -> None:
        """Go on until nothing is on its way; nothing is rejected any more but for what it says."""
        self.faults = False
        for _ in range(12):
            if not any([await self.flush(), await self.judge(), await self.learn()]):
                return
        pytest.fail("it never comes to an end")

    async def disown_all(self) -> None:
        """Let the owner disown whatever of the thief's stands."""
        while standing := self.live() & set(self.stolen):
            for each in standing:
                self.outbox.disown(each)
            await self.settle()

    def remembers(self) -> bool:
        """Say whether what the outbox has kept of what stands is what it would work out from all versions now."""
        kept = [each["place"] for each in self.outbox.holding.standing("AT/ncb", "R-1")]
        self.outbox.database.execute("BEGIN IMMEDIATE")
        try:
            self.outbox.database.execute("DELETE FROM standing")
            return kept == [each["place"] for each in self.outbox.holding.standing("AT/ncb", "R-1")]
        finally:
            self.outbox.database.execute("ROLLBACK")

    def undecided(self) -> set[bytes]:
        """Name what has no outcome yet, by the story of each notice."""
        rows = self.outbox.database.execute("SELECT notice_id FROM envelopes").fetchall()
        stories = {bytes(each): trace(self.outbox.database, bytes(each)) for (each,) in rows}
        return {each for each, story in stories.items() if story and not story.outcome}

    def standing(self) -> set[bytes]:
        """Name what the outbox says stands, but for what waits for a key that never comes: the broker never had it."""
        found = {bytes(each["notice_id"]): each["outcome"] for each in self.outbox.holding.standing("AT/ncb", "R-1")}
        return {each for each, outcome in found.items() if outcome or each in self.known}


@pytest.mark.parametrize("seed", range(LIVES))
async def test_an_outbox_knows_what_the_broker_holds_of_a_record_and_can_end_all_of_it(world: World, seed: int) -> None:
    chance = random.Random(seed)
    life = Life(world, chance, world.machine("AT/ncb").outbox())
    for act in chance.choices(ACTS, WEIGHTS, k=chance.randint(6, 26)):
        await getattr(life, act)()
        assert life.remembers(), act
        assert life.undecided() == undecided(life.outbox.database), act
    await life.settle()
    await life.disown_all()
    assert life.remembers()
    assert life.standing() == life.live()
    assert set(life.outbox.published("list")) == ({"R-1"} if life.outbox.standing("AT/ncb", "R-1") else set())
    await life.drop()
    await life.settle()
    assert life.live() == set()
    await life.run()
    await life.settle()
    assert len(life.live()) == 1
    life.outbox.close()
