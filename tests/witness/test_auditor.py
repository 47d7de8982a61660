"""What an auditor demands of witnesses, what a witness kept is worth, and when the operator sees red."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from broker import cosignature, notes
from broker import settings as settings_file
from broker.records import Records
from broker.settings import Settings
from broker.settings import Witness as Named
from broker.witness import Witness
from cli.home import clock
from cli.operator_home import NOBODY, operator_home
from cli.operator_streams import make_streams
from tests.audit.homes import Homes
from tests.steps.ledger import KEY, ORIGIN, VKEY, Ledger, leaf_of
from tests.witness.log import cosigner, identity

A, B, C = (f"witness.example/{each}" for each in "abc")
HOUR_S = 3600


class World(Homes):
    """A home with a trail of 12 leaves and no broker that runs."""

    @property
    def folder_of_trail(self) -> Path:
        return self.operator / "trail"

    @property
    def log(self) -> str:
        return str(self.folder_of_trail)

    def cosign(self, *names: str, size: int = 12, ago_s: int = 0, file: str = "checkpoint") -> None:
        head = notes.Checkpoint(ORIGIN, size, self.trail.root_of(size))
        time = clock() // 1000 - ago_s
        lines = (cosignature.cosign(head.text, each, identity(each).key, time) for each in names)
        note = notes.sign_checkpoint(head, KEY) + "".join(lines)
        (self.folder_of_trail / file).write_text(note, encoding="utf-8")

    def verify(self, *more: str, quorum: int | None = None, of: tuple[str, ...] = (A, B, C)) -> tuple[int, str]:
        demanded = [word for each in of for word in ("--witness", str(cosigner(each)))]
        demanded += ["--quorum", str(quorum)] if quorum else []
        said = self.audit("verify", str(self.folder_of_trail), *demanded, *more)
        return said.code, said.out + said.err


@pytest.fixture
async def world(tmp_path: Path) -> World:
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    await ledger.step(7)
    await ledger.step(5)
    ledger.stop()
    world = World(tmp_path / "home")
    (world.operator / "records.db").unlink()  # a ledger's leaves have no decision records
    Records(world.operator / "records.db").close()
    KEY.save(world.operator / "log.key")
    settings_file.save(world.operator, Settings(role="operator", federation="test-federation", bus="sqlite:../bus.db"))
    await make_streams(operator_home(world.folder), NOBODY)
    return world


def test_a_checkpoint_with_a_quorum_is_good_and_needs_no_other_view(world: World) -> None:
    world.cosign(A, B)
    code, said = world.verify(quorum=2)
    assert code == 0, said
    assert f"by {A}, {B}" in said
    assert world.audit("verify", str(world.folder_of_trail)).code == 6


def test_too_few_cosignatures_are_no_quorum(world: World) -> None:
    world.cosign(A, B)
    code, said = world.verify()
    assert code == 4
    assert "2 of the 3 named witnesses" in said
    assert world.verify(of=(C,))[0] == 4
    assert world.verify(of=(A, C), quorum=1)[0] == 0


def test_cosignatures_of_two_checkpoints_make_no_quorum(world: World) -> None:
    world.cosign(A)
    world.cosign(B, size=7, file="checkpoint.witnessed")
    assert world.verify(of=(A, B))[0] == 4


def test_cosignatures_of_one_checkpoint_are_put_together_from_what_witnesses_kept(world: World, tmp_path: Path) -> None:
    world.cosign(A)
    note, seen = (world.folder_of_trail / "checkpoint").read_text(encoding="utf-8"), tmp_path / "state.db"
    with closing(Witness(seen, identity(B), [VKEY], clock)) as witness:
        witness.add(notes.format_advance(0, [], note).encode())
    assert world.verify(of=(A, B))[0] == 4
    assert world.verify("--seen", str(seen), of=(A, B))[0] == 0


def test_one_bad_cosignature_of_a_named_witness_is_told(world: World) -> None:
    world.cosign(A, B)
    file = world.folder_of_trail / "checkpoint"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[-1] = lines[-1][:-9] + ("AAAA" if lines[-1][-9:-5] != "AAAA" else "BBBB") + lines[-1][-5:]
    file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    code, said = world.verify(of=(A, B), quorum=1)
    assert code == 4
    assert B in said


async def test_a_quorum_over_another_past_is_a_split_view(world: World, tmp_path: Path) -> None:
    world.cosign(A, B, size=7, file="checkpoint.witnessed")
    kept = (world.folder_of_trail / "checkpoint.witnessed").read_text(encoding="utf-8")
    ledger = Ledger(tmp_path / "other")
    await ledger.recover()
    await ledger.step(leaves=[leaf_of(each, "another" if each == 3 else "") for each in range(12)])
    ledger.stop()
    shutil.rmtree(world.folder_of_trail)
    shutil.copytree(ledger.folder, world.folder_of_trail)
    (world.folder_of_trail / "checkpoint.witnessed").write_text(kept, encoding="utf-8")
    code, said = world.verify(of=(A, B))
    assert code == 4
    assert "split view" in said


def test_leaves_that_no_quorum_saw_within_the_hour_are_not_called_good(world: World) -> None:
    world.cosign(A, B, size=7, file="checkpoint.witnessed")
    code, said = world.verify(of=(A, B))
    assert (code, "5 newer leaves not yet" in said) == (0, True)
    world.cosign(A, B, size=7, ago_s=HOUR_S + 5, file="checkpoint.witnessed")
    code, said = world.verify(of=(A, B))
    assert code == 6
    assert "no quorum of witnesses saw its last 5 leaves" in said.splitlines()[0]
    world.cosign(A, B, ago_s=9 * HOUR_S)
    assert world.verify(of=(A, B))[0] == 0


def test_what_a_witness_saw_is_a_view_from_outside(world: World, tmp_path: Path) -> None:
    state, note = tmp_path / "state.db", world.trail.checkpoint
    other = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, 12, bytes(32)), KEY)
    with closing(Witness(state, identity(A), [VKEY], clock)) as witness:
        witness.add(notes.format_advance(0, [], note).encode())
        trail = str(world.folder_of_trail)
        assert world.audit("verify", trail, "--seen", str(state)).code == 0
        with pytest.raises(Exception, match="two different heads"):
            witness.add(notes.format_advance(12, [], other).encode())
    said = world.audit("verify", trail, "--seen", str(state))
    assert said.code == 4
    assert "split view" in said.out
    cosigned = tmp_path / "checkpoint.kept"
    cosigned.write_text(note, encoding="utf-8")
    assert world.audit("verify", trail, "--seen", str(cosigned)).code == 0


def test_a_head_with_more_lines_that_a_witness_kept_is_the_split_view_that_it_is(world: World, tmp_path: Path) -> None:
    """A log that signs another line below its head has signed the head; C2SP lets witnesses cosign such notes."""
    state, size = tmp_path / "state.db", world.trail.size
    note = notes.sign(f"{notes.Checkpoint(ORIGIN, size, world.trail.root).text}a line\n", ORIGIN, KEY)
    other = notes.sign(f"{notes.Checkpoint(ORIGIN, size, bytes(32)).text}a line\n", ORIGIN, KEY)
    with closing(Witness(state, identity(A), [VKEY], clock)) as witness:
        witness.add(notes.format_advance(0, [], note).encode())
        assert world.audit("verify", world.log, "--seen", str(state)).code == 0
        assert world.verify("--seen", str(state), of=(A,))[0] == 0
        with pytest.raises(Exception, match="two different heads"):
            witness.add(notes.format_advance(size, [], other).encode())
    kept = tmp_path / "checkpoint.kept"
    kept.write_text(other, encoding="utf-8")
    for each in (state, kept):
        said = world.audit("verify", world.log, "--seen", str(each))
        assert said.code == 4, said
        assert "bears the signature of this log: it showed others another history (split view)" in said.out


def test_the_state_of_a_member_s_witness_beside_the_trail_is_looked_at(world: World) -> None:
    home = world.folder / "members" / "AT"
    home.mkdir(parents=True)
    with closing(Witness(home / "witness.db", identity(A), [VKEY], clock)) as witness:
        witness.add(notes.format_advance(0, [], world.trail.checkpoint).encode())
    assert world.audit("verify", str(world.folder_of_trail)).code == 0
    assert world.verify(of=(A,))[0] == 0


def test_a_proof_is_made_under_the_checkpoint_that_witnesses_cosigned_and_may_have_to_be(
    world: World, tmp_path: Path
) -> None:
    world.cosign(A, B, size=7, file="checkpoint.witnessed")
    key, demanded = ["--vkey", world.vkey], ["--witness", str(cosigner(A)), "--witness", str(cosigner(B))]
    for leaf, code in ((3, 0), (9, 4)):
        file = tmp_path / f"{leaf}.tlog-proof"
        assert world.audit("prove", str(leaf), "--to", str(file)).code == 0
        assert world.audit("verify", str(file), *key).code == 0
        assert world.audit("verify", str(file), *key, *demanded).code == code


def test_what_is_asked_wrongly_is_refused(world: World) -> None:
    assert world.verify(quorum=4)[0] == 2
    assert world.audit("verify", "--quorum", "1").code == 2
    assert world.verify(of=(A, A))[0] == 1
    said = world.audit("verify", str(world.folder_of_trail), "--witness", str(VKEY))
    assert (said.code, "no witness's verifier key" in said.err) == (1, True)


# The operator's status


def named(*names: str) -> tuple[Named, ...]:
    return tuple(Named(vkey=str(cosigner(each)), url="http://127.0.0.1:1") for each in names)


def test_an_hour_without_a_quorum_is_red(world: World) -> None:
    settings = Settings(
        role="operator",
        federation="test-federation",
        bus="sqlite:../bus.db",
        witnesses=named(A, B, C),
        witness_quorum=2,
    )
    settings_file.save(world.operator, settings)
    assert settings_file.load(world.operator) == settings
    late, in_time = HOUR_S + 1, HOUR_S // 2
    for names, ago_s, red in (((), 0, True), ((A,), 0, True), ((A, B), late, True), ((A, B), in_time, False)):
        world.cosign(*names, ago_s=ago_s)
        said = world.valise("broker", "status", "--json")
        assert said.code == 0, said
        assert said.value["witnessed"]["red"] is red
        lines = world.valise("broker", "status").out
        assert ("RED       no quorum of witnesses since" in lines) is red
    assert said.value["witnessed"]["by"] == [A, B]


def test_without_witnesses_there_is_no_word_of_them(world: World) -> None:
    said = world.valise("broker", "status", "--json")
    assert said.value["witnessed"] is None


@pytest.mark.parametrize("quorum", [0, 3])
def test_a_quorum_that_says_nothing_or_cannot_be_met_is_refused(quorum: int) -> None:
    with pytest.raises(ValueError, match="witness_quorum"):
        Settings(role="operator", federation="x", bus="sqlite:x", witnesses=named(A, B), witness_quorum=quorum)


def test_a_witness_named_twice_or_with_a_log_s_key_is_refused(world: World) -> None:
    for witnesses in (named(A, A), (Named(vkey=str(VKEY), url="http://127.0.0.1:1"),)):
        settings_file.save(
            world.operator,
            Settings(role="operator", federation="x", bus="sqlite:../bus.db", witnesses=witnesses, witness_quorum=1),
        )
        said = world.valise("broker", "status")
        assert (said.code, "settings.toml" in said.err) == (1, True)
