"""The operator before witnesses: parties that cosign a head only if it extends the last one they saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from broker import codec, cosignature, merkle, notes
from broker.notice import CLOCK_SKEW_MS, Leaf
from broker.signing import SigningKey
from broker.witness import AnotherSizeError, ContradictionError, Identity, NotSignedByLogError, Witness
from tests.attacks.scene import ALL, Scene, two_logs
from tests.honest_broker import LOG, HonestBroker
from tests.making import NOW
from tests.member.conftest import draft

DAY = 86_400_000
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


def test_a_witness_whose_clock_is_slow_accuses_no_operator(kept: Scene, witness: Witness, tmp_path: Path) -> None:
    """Of two who cosigned one head the newest word counts: exit 0."""
    name, key = "witness.example/slow", SigningKey.from_seed(sha256(b"another witness").digest())
    request = asked(kept.operator, 0)
    with closing(Witness(tmp_path / "slow.db", Identity(name, key), [LOG], lambda: NOW)) as slow:
        cosigned(kept, witness.add(request) + slow.add(request))
    others = ("--witness", str(cosignature.cosigner(name, key.public.raw)), "--quorum", "2")
    assert kept.verify("--witness", VKEY, *others).exit == 0


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
