"""The operator before witnesses: parties that cosign a head only if it extends the last one they saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from broker import codec, cosignature, merkle, notes, streams
from broker.notice import CLOCK_SKEW_MS, Leaf
from broker.report import Report, Taken
from broker.signing import SigningKey
from broker.witness import AnotherSizeError, ContradictionError, Identity, NotSignedByLogError, Witness
from tests.attacks.scene import ALL, Scene, two_logs
from tests.honest_broker import LOG, HonestBroker
from tests.making import NOW
from tests.member.conftest import draft

HOUR, DAY = 3_600_000, 86_400_000
NAME = "witness.example/lv"
KEY = SigningKey.from_seed(sha256(b"a witness").digest())
VKEY = str(cosignature.cosigner(NAME, KEY.public.raw))


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    """A witness that has seen nothing yet, and whose clock is right: some hours after the first leaf."""
    with closing(Witness(tmp_path / "witness.db", Identity(NAME, KEY), [LOG], lambda: NOW + DAY)) as made:
        yield made


def asked(broker: HonestBroker, old: int) -> bytes:
    """The request to cosign a broker's head, which goes on from `old` leaves."""
    proof = merkle.consistency_proof(old, len(broker.leaves), broker.subtree) if old else []
    return notes.format_advance(old, proof, notes.sign_checkpoint(broker.head(), broker.key)).encode()


def at(tmp_path: Path, now: int) -> Witness:
    """A witness whose clock says so."""
    return Witness(tmp_path / "late.db", Identity(NAME, KEY), [LOG], lambda: now)


def cosigned(scene: Scene, line: str) -> None:
    """Put a cosignature on the checkpoint on disk."""
    note = notes.sign_checkpoint(scene.operator.head(), scene.operator.key)
    (scene.trail / "checkpoint").write_text(note + line, encoding="utf-8")


def test_a_witness_vouches_for_an_honest_log(kept: Scene, witness: Witness) -> None:
    """The stories below would mean nothing if this did not hold: exit 0."""
    cosigned(kept, witness.add(asked(kept.operator, 0)))
    assert kept.verify("--witness", VKEY).exit == 0


def test_the_operator_dates_leaves_ahead(kept: Scene, tmp_path: Path) -> None:
    """He writes a time that is to come into a leaf, so that what he would reject is over by then. Whoever cosigned the
    head saw that leaf before, exit 4."""
    with closing(at(tmp_path, NOW)) as witness:
        cosigned(kept, witness.add(asked(kept.operator, 0)))
    verdict = kept.verify("--witness", VKEY)
    assert verdict.exit == 4
    assert verdict.says(f"the witness {NAME} had seen it by then")
    assert verdict.says("is ahead of time by")


@pytest.mark.parametrize(
    ("ahead", "slow", "members", "exit_code"),
    [(HOUR, 0, "LV GE", 4), (HOUR, 0, "LV", 0), (0, HOUR, "LV", 0), (2 * CLOCK_SKEW_MS, 0, "LV GE", 0)],
)
async def test_the_operator_had_dated_leaves_ahead_when_members_took_them_in(
    kept: Scene, ahead: int, slow: int, members: str, exit_code: int
) -> None:
    """By now time has caught up, and no witness was asked. LV and GE know when they took in what is dated an hour
    later: exit 4. One of them alone may have a slow clock, which is told and accuses nobody; within ten minutes none
    is."""
    (data,) = await kept.publish(draft("R-5"))
    kept.operator.now += ahead
    kept.home("LV/ncb").now -= slow
    await kept.operator.route(data, {f"{each}/ncb": ALL for each in members.split()})
    for each in ("LV/ncb", "GE/ncb"):
        await kept.collect(each)
    kept.lay_out()
    verdict = kept.verify()
    assert verdict.exit == exit_code, verdict
    assert verdict.says("is ahead of time by 3600000 ms: GE, LV had taken in what is dated so by then") == bool(
        exit_code
    )
    late = {"leaf": 8, "ms": HOUR}
    told = dict.fromkeys(members.split(), late) if max(ahead, slow) == HOUR else {}
    assert verdict.value["compared"]["ahead"] == told


@pytest.mark.parametrize(
    ("ahead", "honest", "was"), [(1, 0, False), (2, 0, True), (2, 1, True), (2, 2, False), (3, 2, True), (3, 3, False)]
)
def test_two_members_and_more_than_half_say_that_a_log_was_ahead(ahead: int, honest: int, *, was: bool) -> None:
    """Among many there are always some whose clock is slow."""
    taken = {str(each): Taken(each, HOUR if each < ahead else 0) for each in range(ahead + honest)}
    assert Report("log", taken=taken).was_ahead == was


async def test_of_several_leaves_that_were_dated_ahead_the_worst_is_told(kept: Scene) -> None:
    """The log was two hours ahead, then one: how far it was is not told by its end."""
    kept.operator.now += 2 * HOUR
    for each in await kept.publish(draft("R-5"), draft("R-6")):
        await kept.operator.route(each, {"LV/ncb": ALL})
        await kept.collect()
        kept.home("LV/ncb").now += HOUR
    kept.lay_out()
    assert kept.verify().value["compared"]["ahead"] == {"LV": {"leaf": 8, "ms": 2 * HOUR}}


async def test_a_cosigned_head_that_members_kept_shows_later_that_leaves_were_dated_ahead(
    kept: Scene, witness: Witness, tmp_path: Path
) -> None:
    """What the witness cosigned then is gone from the operator's disk, where a newer head is cosigned in time. LV has
    it: exit 4. Without LV's file nothing shows it."""
    size = len(kept.operator.leaves)
    with closing(at(tmp_path, NOW)) as early:
        line = early.add(asked(kept.operator, 0))
    note = notes.sign_checkpoint(kept.operator.head(), kept.operator.key) + line
    body = notes.format_advance(size, [], note)
    await kept.bus.append(streams.CHECKPOINTS, [(b"", body.encode())])
    await kept.collect()
    kept.operator.record((await kept.publish(draft("R-5")))[0], {"GE/ncb": ALL})
    kept.lay_out()
    cosigned(kept, witness.add(asked(kept.operator, 0)))
    verdict = kept.verify("--witness", VKEY)
    assert (verdict.exit, verdict.says("is ahead of time by")) == (4, True)
    (kept.folder / "members" / "LV" / "inbox.ncb.db").unlink()
    assert kept.verify("--witness", VKEY).exit == 0


SLOW, SLOW_KEY = "witness.example/slow", SigningKey.from_seed(sha256(b"another witness").digest())


def slow(tmp_path: Path) -> Witness:
    """A second witness, whose clock stands still at the first leaf."""
    return Witness(tmp_path / "slow.db", Identity(SLOW, SLOW_KEY), [LOG], lambda: NOW)


BOTH = ("--witness", VKEY, "--witness", str(cosignature.cosigner(SLOW, SLOW_KEY.public.raw)), "--quorum", "2")


def test_a_witness_whose_clock_is_slow_accuses_no_operator(kept: Scene, witness: Witness, tmp_path: Path) -> None:
    """Of two who cosigned one head the newest word counts: exit 0."""
    request = asked(kept.operator, 0)
    with closing(slow(tmp_path)) as other:
        cosigned(kept, witness.add(request) + other.add(request))
    assert kept.verify(*BOTH).exit == 0


async def test_a_witness_whose_clock_is_slow_accuses_no_operator_alone_either(
    kept: Scene, witness: Witness, tmp_path: Path
) -> None:
    """It is the first to cosign the newest head, and the auditor named a quorum of two: what one says by itself is not
    believed. The head before has both; what came after it no quorum saw: exit 6."""
    request, size = asked(kept.operator, 0), len(kept.operator.leaves)
    with closing(slow(tmp_path)) as other:
        cosigned(kept, witness.add(request) + other.add(request))
        note = (kept.trail / "checkpoint").read_text(encoding="utf-8")
        kept.operator.record((await kept.publish(draft("R-5")))[0], {"LV/ncb": ALL})
        kept.lay_out()
        (kept.trail / "checkpoint.witnessed").write_text(note, encoding="utf-8")
        cosigned(kept, other.add(asked(kept.operator, size)))
    verdict = kept.verify(*BOTH)
    assert (verdict.exit, verdict.findings) == (6, [])


@pytest.mark.parametrize(("more", "exit_code"), [(0, 0), (2000, 4)])
def test_a_bus_and_a_witness_whose_clocks_differ_as_much_as_the_broker_bears_accuse_nobody(
    kept: Scene, tmp_path: Path, more: int, exit_code: int
) -> None:
    """Each may be five minutes from the broker's own."""
    last = codec.decode(Leaf, kept.operator.leaves[-1]).now // 1000 * 1000  # a cosignature has seconds
    with closing(at(tmp_path, last + 1000 - 2 * CLOCK_SKEW_MS - more)) as witness:
        cosigned(kept, witness.add(asked(kept.operator, 0)))
    assert kept.verify("--witness", VKEY).exit == exit_code


def test_a_log_that_began_long_after_its_empty_head_was_cosigned_is_not_called_ahead_of_time(
    kept: Scene, witness: Witness, tmp_path: Path
) -> None:
    """Of no leaves none is dated ahead: exit 0."""
    empty = notes.sign_checkpoint(notes.Checkpoint(LOG.name, 0, merkle.EMPTY_ROOT), kept.operator.key)
    with closing(at(tmp_path, NOW - DAY)) as early:
        line = early.add(notes.format_advance(0, [], empty).encode())
    seen = tmp_path / "empty"
    seen.write_text(empty + line, encoding="utf-8")
    cosigned(kept, witness.add(asked(kept.operator, 0)))
    assert kept.verify("--witness", VKEY, "--seen", str(seen)).exit == 0


async def test_the_operator_shows_two_members_two_logs_before_a_witness(kept: Scene, witness: Witness) -> None:
    """The witness has cosigned what LV was shown. For GE's log of the same size, and for what he adds to it, there is
    no cosignature: `not-consistent`; with `--witness` GE's log is exit 4 by itself, before anybody compares."""
    other = await two_logs(kept)
    witness.add(asked(kept.operator, 0))
    with pytest.raises(ContradictionError):
        witness.add(asked(other, 9))
    (data,) = await kept.publish(draft("R-more"))
    other.record(data, {"GE/ncb": ALL})
    with pytest.raises(ContradictionError):
        witness.add(asked(other, 9))
    kept.lay_out(other.leaves)
    verdict = kept.verify("--witness", VKEY, "--seen", str(kept.folder / "members" / "GE"))
    assert verdict.exit == 4
    assert verdict.says("0 of the 1 named witnesses cosigned a checkpoint")


async def test_the_operator_shows_an_auditor_the_word_of_a_witness_for_another_log(
    kept: Scene, witness: Witness
) -> None:
    """He lays the head that the witness cosigned beside a log that it never saw: `split view`, exit 4."""
    other = await two_logs(kept)
    note = notes.sign_checkpoint(kept.operator.head(), kept.operator.key)
    line = witness.add(asked(kept.operator, 0))
    kept.lay_out(other.leaves)
    (kept.trail / "checkpoint.witnessed").write_text(note + line, encoding="utf-8")
    verdict = kept.verify("--witness", VKEY, "--seen", str(kept.folder / "members" / "GE"))
    assert verdict.exit == 4
    assert verdict.says("split view")


def test_the_operator_takes_a_witness_back_to_yesterday(kept: Scene, witness: Witness) -> None:
    """After a restored backup he goes on from four leaves. The witness has seen eight: `another-size`, and says so."""
    witness.add(asked(kept.operator, 0))
    del kept.operator.leaves[4:]
    for old in (0, 4):
        with pytest.raises(AnotherSizeError, match="8 leaves"):
            witness.add(asked(kept.operator, old))


def test_the_operator_signs_for_a_witness(kept: Scene, witness: Witness) -> None:
    """He writes a cosignature in the witness's name with the log key. The auditor names the witness by its key:
    exit 4."""
    witness.add(asked(kept.operator, 0))
    cosigned(kept, cosignature.cosign(kept.operator.head().text, NAME, kept.operator.key, NOW // 1000))
    verdict = kept.verify("--witness", VKEY)
    assert verdict.exit == 4
    assert verdict.says("0 of the 1 named witnesses")


def test_a_thief_asks_a_witness_for_a_log_of_his_own(kept: Scene, witness: Witness) -> None:
    """Whoever has not the log key makes no head that a witness looks at, and cannot push it on: `not-signed-by-log`."""
    thief = HonestBroker(kept.bus, NOW, key=KEY, leaves=list(kept.operator.leaves[:3]))
    with pytest.raises(NotSignedByLogError):
        witness.add(asked(thief, 0))
    assert witness.add(asked(kept.operator, 0))


def test_a_witness_cosigns_what_it_never_saw(kept: Scene) -> None:
    """A witness that sells its word cosigns any head. It alone is no quorum of two: exit 4; and what members kept
    speaks against the log as before."""
    other = SigningKey.from_seed(sha256(b"another witness").digest())
    honest = str(cosignature.cosigner("witness.example/ge", other.public.raw))
    kept.operator.leaves[0], first = kept.operator.leaves[1], kept.operator.leaves[0]
    assert first != kept.operator.leaves[0]
    kept.lay_out()
    cosigned(kept, cosignature.cosign(kept.operator.head().text, NAME, KEY, NOW // 1000))
    verdict = kept.verify("--witness", VKEY, "--witness", honest)
    assert verdict.exit == 4
    assert verdict.says("1 of the 2 named witnesses")
    assert verdict.says("split view")
