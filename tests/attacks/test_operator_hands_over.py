"""The operator hands the auditor a folder that is to keep his tool busy, or to exhaust it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker import notes
from tests.steps.ledger import KEY, ORIGIN, Ledger

SIZE, ENDLESS = 600, 9_000_000_000_000_000_000
ROOT, LIMIT_S = Path(__file__).parent.parent.parent, 60.0


@pytest.fixture
async def ledger(tmp_path: Path) -> Ledger:
    """A trail of 600 leaves, whose heads and deliveries AT's collector kept."""
    ledger = Ledger(tmp_path / "home")
    await ledger.recover()
    await ledger.step(SIZE)
    ledger.stop()
    ledger.keep()
    return ledger


def verify(ledger: Ledger, *more: str) -> dict[str, Any]:
    """Verify in a process of its own: a tool that hangs is ended, and found out."""
    command = [sys.executable, "-m", "cli.main", "audit", "verify", str(ledger.folder), "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=ROOT)
    assert done.returncode == 4, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def wrong(ledger: Ledger, *more: str) -> list[str]:
    """What is wrong, as PLACE: WHAT."""
    return [f"{each['place']}: {each['what']}" for each in verify(ledger, *more)["findings"]]


def claim(ledger: Ledger, size: int, *, signed: bool = True) -> None:
    """Write a checkpoint of as many leaves as one likes."""
    note = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, size, bytes(32)), KEY)
    if not signed:
        note = note.replace(ORIGIN, f"{ORIGIN}-1")
    (ledger.folder / "checkpoint").write_text(note, encoding="utf-8")


@pytest.mark.parametrize("signed", [True, False])
def test_the_operator_claims_more_leaves_than_a_walk_could_ever_visit(ledger: Ledger, signed: bool) -> None:
    """The walk ends with what lies on disk; what lies nowhere is named as one stretch."""
    claim(ledger, ENDLESS, signed=signed)
    told = wrong(ledger)
    assert any(f"are missing with their hashes: leaves 512 to {ENDLESS - 1}" in each for each in told), told
    assert any(each.startswith("checkpoint: cannot be trusted") for each in told) is not signed


def test_the_operator_puts_one_bundle_far_beyond_his_log(ledger: Ledger) -> None:
    """A file with a high number makes nobody walk up to it, nor do its notices, which were taken in before."""
    claim(ledger, ENDLESS)
    far = ledger.folder / "tile/entries/x020/x000/x000/x000/x000/000"
    far.parent.mkdir(parents=True)
    far.write_bytes((ledger.folder / "tile/entries/000").read_bytes())
    told = wrong(ledger)
    assert any(f"leaves 512 to {20 * 1000**5 * 256 - 1}" in each for each in told), told
