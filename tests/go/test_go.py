"""Stock Go readers (golang.org/x/mod/sumdb note and tlog) accept our log, and we a note that they signed."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from broker import merkle, notes
from tests.steps.ledger import KEY, ORIGIN, VKEY, Ledger

SOURCE = Path(__file__).parent / "reader"
FAILED = 4


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built once. A missing `go` is a failure, never a reason to skip."""
    program = tmp_path_factory.mktemp("go") / "reader"
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", str(program), "."],
        cwd=SOURCE,
        check=True,
        capture_output=True,
        timeout=240,
    )
    return program


@pytest.fixture
async def ledger(tmp_path: Path) -> Ledger:
    """A log of 600 leaves, sealed in steps."""
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    for count in (5, 300, 295):
        (tmp_path / f"checkpoint-{count}").write_text(await ledger.step(count), encoding="utf-8")
    return ledger


def run(reader: Path, *words: object, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(reader), *map(str, words)], input=given, capture_output=True, text=True, timeout=60, check=False
    )


def test_go_reads_our_log_every_leaf_and_every_past_of_it(reader: Path, ledger: Ledger, tmp_path: Path) -> None:
    done = run(reader, "check", ledger.folder, tmp_path / "checkpoint-5", tmp_path / "checkpoint-300")
    assert (done.returncode, done.stdout, done.stderr) == (0, "600\n", "")


@pytest.mark.parametrize(
    ("file", "place"),
    [("tile/0/000", 40), ("tile/0/002.p/88", 33), ("tile/entries/001", 90), ("checkpoint", 60), ("tile/1/000.p/2", 3)],
)
def test_go_finds_one_changed_byte(reader: Path, ledger: Ledger, file: str, place: int) -> None:
    path = ledger.folder / file
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    done = run(reader, "check", ledger.folder)
    assert done.returncode == FAILED
    assert done.stderr


def test_go_refuses_a_past_that_is_another(reader: Path, ledger: Ledger, tmp_path: Path) -> None:
    """Signed by the log's own key, of a size that it had, with another root."""
    other = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, 305, bytes(32)), KEY)
    (tmp_path / "other").write_text(other, encoding="utf-8")
    assert run(reader, "check", ledger.folder, tmp_path / "other").returncode == FAILED


@pytest.mark.parametrize("number", [0, 4, 255, 256, 599])
def test_go_checks_our_proofs(reader: Path, ledger: Ledger, tmp_path: Path, number: int) -> None:
    leaves = [entry.leaf for entries, _ in ledger.steps for entry in entries]
    (tmp_path / "leaf").write_bytes(leaves[number])
    (tmp_path / "proof").write_text(ledger.sealer.proofs([number])[0], encoding="utf-8")
    done = run(reader, "proof", tmp_path / "proof", VKEY, tmp_path / "leaf")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "leaf").write_bytes(leaves[number - 1])
    assert run(reader, "proof", tmp_path / "proof", VKEY, tmp_path / "leaf").returncode == FAILED


def test_we_open_a_note_that_go_signed(reader: Path) -> None:
    root = merkle.leaf_hash(b"leaf")
    done = run(reader, "sign", ORIGIN, given=f"{ORIGIN}\n1\n{base64.b64encode(root).decode()}\n")
    vkey, _, note = done.stdout.partition("\n")
    assert notes.open_checkpoint(note, notes.parse_vkey(vkey)) == notes.Checkpoint(ORIGIN, 1, root)
