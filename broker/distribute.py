"""Copies what is on record to inboxes and outcome streams, each with its proof.

Nothing leaves before the checkpoint that covers its leaf is signed. The place in `routed` moves after the
acknowledgements; a copy made twice carries the same delivery number and is dropped by the collector.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from broker import codec, crash, streams
from broker.notice import Entry, Routed
from broker.route import Route, deliveries, restored

if TYPE_CHECKING:
    from broker.bus import Bus, Copies
    from broker.seal import Sealer
    from broker.step import Done

log = structlog.get_logger()
GROUP = "distribute"
READ_LIMIT = 200
BREATH = 32
"""Deliveries made before the loop may turn to something else."""


class Distribute:
    """Seals committed steps and sends out what they routed."""

    def __init__(self, bus: Bus, sealer: Sealer, shard: int, clock: Callable[[], int]) -> None:
        self._bus, self._sealer, self._shard, self._clock = bus, sealer, shard, clock

    async def catch_up(self) -> None:
        """Send what was committed before this start and may not have left. Call after the sealer has recovered."""
        place = await self._bus.place(GROUP, streams.ROUTED, partition=self._shard)
        while records := await self._bus.read(streams.ROUTED, place, limit=READ_LIMIT, partition=self._shard):
            routes = [restored(codec.decode(Routed, record.value or b"")) for record in records]
            place = records[-1].offset + 1
            await self._send(routes, place)
            log.info("routed.copied-again", leaves=len(routes), place=place)

    async def run(self, committed: asyncio.Queue[tuple[Done, int]]) -> None:
        """Seal and send committed steps as they come, those that wait together."""
        while True:
            steps = [await committed.get()]
            while not committed.empty():
                steps.append(committed.get_nowait())
            await self._seal([done for done, _ in steps])
            place = max(place for _, place in steps)
            await self._send([route for done, _ in steps for route in done.routes], place)
            for _ in steps:
                committed.task_done()

    async def _seal(self, steps: Sequence[Done]) -> None:
        entries: list[Entry] = [entry for done in steps for entry in done.entries]
        await self._sealer.seal(entries, steps[-1].head)
        crash.here("distribute.sealed")

    async def _send(self, routes: Sequence[Route], place: int) -> None:
        if not routes:
            return
        now = self._clock()
        proofs = self._sealer.proofs([route.leaf_number for route in routes])
        copies: list[Copies] = []
        outcomes: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
        for turn, (route, proof) in enumerate(zip(routes, proofs, strict=True), 1):
            expired = route.expires is not None and route.expires <= now
            copies += deliveries(route, proof, self._shard, expired=expired)
            if route.outcome:
                told = (b"", codec.encode(replace(route.outcome, proof=proof)))
                for member in route.tell:
                    outcomes[member].append(told)
            if turn % BREATH == 0:
                await asyncio.sleep(0)  # ingest goes on meanwhile
        await self._bus.fan_out(copies, partition=self._shard)
        crash.here("distribute.copied")
        for member, values in outcomes.items():
            await self._bus.append(streams.outcomes(member), values, partition=self._shard)
        crash.here("distribute.told")
        await self._bus.keep_place(GROUP, streams.ROUTED, place, partition=self._shard)
        crash.here("distribute.kept-place")
        log.debug("routed.copied", leaves=len(routes), copies=sum(len(each.own) for each in copies))
