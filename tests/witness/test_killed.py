"""The operator is killed while it puts cosignatures into its checkpoint: nothing is lost and it starts again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker import cosignature, crash, notes, streams
from broker.notes import Checkpoint
from tests.fake_bus import START
from tests.killed import killed
from tests.steps.ledger import ORIGIN, VKEY, Ledger
from tests.witness.log import cosigner, identity

NAME = "witness.example/w1"


def _cosigned(ledger: Ledger) -> tuple[Checkpoint, str]:
    head = Checkpoint(ORIGIN, ledger.trail.size, ledger.trail.root)
    line = cosignature.cosign(head.text, NAME, identity(NAME).key, START // 1000)
    return head, notes.sign_checkpoint(head, ledger.key) + line


def _cosign_until_killed(home: Path, point: str) -> None:
    async def work() -> None:
        ledger = Ledger(home)
        await ledger.recover()
        await ledger.step(5)
        crash.arm(point)
        await ledger.sealer.cosigned(*_cosigned(ledger), keep=True)

    asyncio.run(work())


@pytest.mark.parametrize("point", ["cosign.aside", "cosign.renamed"])
async def test_a_kill_while_cosignatures_are_written_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, point: str
) -> None:
    home = tmp_path / "home"
    killed(_cosign_until_killed, home, point)
    # The bus outlives the process: what it had committed and published stands there.
    twin = Ledger(tmp_path / "twin")
    await twin.recover()
    await twin.step(5)
    again = Ledger(home, twin.bus)
    assert await again.recover() == twin.steps[-1][1]
    assert len(cosignature.cosignatures(again.trail.checkpoint, [cosigner(NAME)])) == (point == "cosign.renamed")
    assert notes.open_checkpoint(again.trail.checkpoint, VKEY).size == 5
    await again.sealer.cosigned(*_cosigned(again), keep=True)
    again.frontier = twin.frontier
    await again.step(3)
    assert len(await again.bus.read(streams.CHECKPOINTS, 0)) == 2
    for each in (twin, again):
        each.stop()
