"""The operator calls leaves lost and begins a new log: to be rid of them, or of what members saw of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from hashlib import sha256

from broker import begun, codec, merkle, notes, streams
from broker.begun import ENDED, OPENING_KEY
from broker.members import WrittenLog
from broker.notes import Checkpoint, Vkey
from broker.notice import BEGUN, LOST, DecisionRecord, Entry, Leaf, Opening
from broker.signing import decision_digest
from broker.trail import Trail
from tests.attacks.scene import ALL, Scene, Verdict, leaf_but, root_of, verified
from tests.honest_broker import LOG, LOG_KEY, HonestBroker
from tests.member.conftest import draft

NEW = notes.vkey(begun.after(LOG.name), LOG_KEY.public.raw)


@dataclass
class Anew:
    """A new log that keeps `cut` leaves of the old one and says that it had `seen`."""

    scene: Scene
    cut: int
    seen: int

    def __post_init__(self) -> None:
        old = list(self.operator.leaves)
        self.old = old
        decision = codec.encode(self._record())
        self.entry = Entry(self.cut, codec.encode(self._leaf(BEGUN, decision)), bytes(32), decision)
        lost = [codec.encode(self._leaf(LOST, b""))] * (self.seen - self.cut - 1)
        self.operator.leaves = [*old[: self.cut], self.entry.leaf, *lost]

    @property
    def operator(self) -> HonestBroker:
        return self.scene.operator

    def _record(self) -> DecisionRecord:
        said = begun.detail(self._old_head(self.cut), self._old_head(self.seen))
        return DecisionRecord("", 0, 0, self.operator.now, sha256(b"").digest(), detail=said)

    def _old_head(self, size: int) -> str:
        leaves = (self.operator.leaves + [b""] * size)[:size]
        return notes.sign_checkpoint(Checkpoint(LOG.name, size, root_of(leaves)), LOG_KEY)

    def _leaf(self, kind: str, decision: bytes) -> Leaf:
        code = LOG.name if kind == BEGUN else None
        digest, directory = decision_digest(bytes(32), decision), self.operator.directory.digest
        return Leaf(kind, self.operator.now, code, None, None, 0, directory, bytes(32), digest, None)

    async def name(self) -> None:
        """Have the members sign a directory that names the new log."""
        changed = {"version": self.operator.written.version + 1, "logs": (WrittenLog(shard=0, vkey=str(NEW)),)}
        self.operator.written = self.operator.written.model_copy(update=changed)
        await self.operator.publish_directory()

    async def open(self, old: int) -> None:
        """Show the new log, going on from a head of `old` leaves."""
        size = len(self.operator.leaves)
        head = notes.sign_checkpoint(Checkpoint(NEW.name, size, root_of(self.operator.leaves)), LOG_KEY)
        advance = notes.format_advance(old, merkle.consistency_proof(old, size, self.operator.subtree), head)
        proof = merkle.inclusion_proof(self.cut, size, self.operator.subtree)
        opening = Opening(codec.encode(self.entry), notes.format_proof(self.cut, proof, head), advance)
        await self.scene.bus.append(streams.CHECKPOINTS, [(OPENING_KEY, codec.encode(opening))])

    def verify(self) -> Verdict:
        """Lay the new log out on disk and run `valise audit verify`."""
        return checked(self.scene, self.operator.leaves, self._old_head(self.cut) if self.cut else "")


def checked(scene: Scene, leaves: list[bytes], ended: str, key: Vkey = NEW) -> Verdict:
    """Write a log of this key to disk and hold it against what members kept."""
    shutil.rmtree(scene.trail)
    log = Trail.open(scene.trail, key.name)
    staged = log.stage(leaves)
    log.write(staged)
    log.publish(staged, notes.sign_checkpoint(Checkpoint(key.name, staged.size, staged.root), LOG_KEY))
    if ended:
        (scene.trail / f"{ENDED}1").write_text(ended, encoding="utf-8")
    (scene.folder / "vkey").write_text(f"{key}\n", encoding="utf-8")
    return verified(scene.folder, "--vkey", str(scene.folder / "vkey"))


async def test_the_operator_opens_a_new_log_that_no_directory_names(kept: Scene) -> None:
    """Nobody signed a directory with its key: members stay with the old log, and their tools ring, once."""
    anew = Anew(kept, 6, 8)
    await anew.open(6)
    for _ in range(2):
        assert (await kept.collect()).alarms == ["log-not-named"]
        assert await kept.learn() == ["log-not-named"]


async def test_the_operator_opens_a_new_log_on_another_history(kept: Scene) -> None:
    """He has the new log signed for, and rewrites a leaf before the one at which he says that the old one ended:
    no proof leads there from the heads that members saw. They refuse it and what is proven under it."""
    kept.operator.leaves[3] = leaf_but(kept.operator.leaves[3], code="erased")
    anew = Anew(kept, 6, 8)
    await anew.name()
    await anew.open(6)
    seen = await kept.collect()
    assert [each for each in seen.alarms if each in ("bad-checkpoint", "new-log")] == ["bad-checkpoint"]
    assert anew.verify().exit == 4


async def test_the_operator_loses_a_leaf_that_a_bureau_holds(kept: Scene) -> None:
    """He claims a loss to be rid of a decision. All is signed and open: every member's tool rings, and for ever after
    `audit verify` says which leaves are gone and who holds what of them. It never says good: exit 6."""
    assert (await kept.collect()).alarms == []
    anew = Anew(kept, 6, 8)
    await anew.name()
    await anew.open(6)
    assert (await kept.collect()).alarms == ["new-log"]
    assert await kept.learn() == ["new-log"]
    verdict = anew.verify()
    assert (verdict.exit, verdict.findings) == (6, [])
    assert verdict.value["lost"]["gaps"] == [{"origin": LOG.name, "first": 6, "last": 7}]
    assert 6 in verdict.value["lost"]["held"]["LV/inbox.ncb.db"]


async def test_the_operator_admits_to_fewer_lost_leaves_than_members_saw(kept: Scene) -> None:
    """Members saw 8 leaves, he says that it were 7: `lost-more`, and exit 4."""
    assert (await kept.collect()).alarms == []
    anew = Anew(kept, 6, 7)
    await anew.name()
    await anew.open(6)
    assert (await kept.collect()).alarms == ["new-log", "lost-more"]
    (data,) = await kept.publish(draft("R-5"))
    anew.operator.record(data, {"LV/ncb": ALL})
    assert anew.verify().says("kept has another root")


async def test_the_operator_goes_back_to_the_log_that_has_ended(kept: Scene) -> None:
    """After the new log he shows some member the old one again, where its leaves still were: `unknown-head`."""
    anew = Anew(kept, 6, 8)
    await anew.name()
    await anew.open(6)
    assert (await kept.collect()).alarms == ["new-log"]
    kept.operator.leaves = [*anew.old, anew.old[0]]
    kept.operator.sealed = 8
    await kept.operator.seal()
    assert (await kept.collect()).alarms == ["new-log", "unknown-head"]


async def test_the_operator_calls_leaves_lost_within_one_log(kept: Scene) -> None:
    """Without a new name there is no loss: whatever stands there instead is exit 4."""
    leaves = Anew(kept, 6, 8).operator.leaves
    assert checked(kept, leaves, "", LOG).says("begins a log after")
    assert checked(kept, [*leaves[:6], leaves[7]], "", LOG).says("no log was begun before it")


async def test_the_operator_hides_that_a_log_went_on_from_another(kept: Scene) -> None:
    """A later log without the leaf that says so, or with it elsewhere than the old one ended by its checkpoint: 4."""
    old = list(kept.operator.leaves)
    ended = notes.sign_checkpoint(Checkpoint(LOG.name, 6, root_of(old[:6])), LOG_KEY)
    assert checked(kept, old, "").says("no leaf says what")
    assert checked(kept, old, ended).says("and no leaf says so")
    assert checked(kept, Anew(kept, 5, 8).operator.leaves, ended).says("elsewhere than where the checkpoint")
