"""Copies what is on record to inboxes and outcome streams, each with its proof.

Nothing leaves before the checkpoint that covers its leaf is signed. The place in `routed` moves after the
acknowledgements; a copy made twice carries the same delivery number and is dropped by the collector.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from broker import codec, crash, streams
from broker.bus import NOTHING_LOST, passed_over
from broker.errors import FencedError, InputLostError, OffsetGoneError
from broker.handover import COPIES
from broker.notice import Entry, Routed
from broker.route import Route, deliveries, restored, told

if TYPE_CHECKING:
    from broker.bus import Bus, Copies, Record
    from broker.erase import Eraser
    from broker.handover import Committed, Handover
    from broker.seal import Sealer
    from broker.step import Done

log = structlog.get_logger()
GROUP = "distribute"
READ_LIMIT = 200
BREATH = 32
"""Deliveries made before the loop may turn to something else."""


@dataclass(frozen=True, slots=True)
class _Sealed:
    """What a sealed head covers and may leave."""

    routes: Sequence[Route]
    proofs: Sequence[str]
    steps: list[Committed]


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What leaves with one batch: deliveries, and outcomes by member."""

    copies: list[Copies] = field(default_factory=list)
    outcomes: dict[str, list[tuple[bytes, bytes]]] = field(default_factory=lambda: defaultdict(list))


class Distribute:
    """Seals committed steps and sends out what they routed."""

    def __init__(
        self,
        bus: Bus,
        sealer: Sealer,
        eraser: Eraser,
        shard: int,
        clock: Callable[[], int],
        lost: Mapping[str, int] = NOTHING_LOST,
    ) -> None:
        self._bus, self._sealer, self._eraser = bus, sealer, eraser
        self._shard, self._clock, self._lost = shard, clock, lost

    async def catch_up(self, *, has_sent: bool = False) -> None:
        """Send what was committed before this start and may not have left. Call after the sealer has recovered.

        `has_sent`: something was sent before. Raises FencedError if another owner has committed since, InputLostError
        as `Bus.own` does, and where `routed` is as if nothing ever was.
        """
        # Nobody reads `register` by its place: kept for what `Bus.place` then surely tells.
        await self._bus.keep_place(GROUP, streams.REGISTER, 0, partition=self._shard)
        place = await self._held(await self._bus.place(GROUP, streams.ROUTED, partition=self._shard), has_sent=has_sent)
        while records := await self._bus.read(streams.ROUTED, place, limit=READ_LIMIT, partition=self._shard):
            for routes, place in parts(records):
                # The sealer has recovered all that was committed before we owned the shard; this is beyond it.
                if any(route.leaf_number >= self._sealer.trail.size for route in routes):
                    raise FencedError
                await self._send(routes, self._proofs(routes), place)
                log.info("routed.copied-again", leaves=len(routes), place=place)

    async def _held(self, place: int, *, has_sent: bool) -> int:
        """Give our place, moved on over what is lost where the operator said so: bureaus find the gap themselves."""
        start, end = 0, await self._bus.end(streams.ROUTED, partition=self._shard)
        if place == end == 0 and has_sent:
            return await self._made_again()
        try:
            await self._bus.read(streams.ROUTED, place, limit=1, partition=self._shard)
        except OffsetGoneError as error:
            start = error.start
        if place + 1 == start == end:  # all was sent, and only the mark of its commit stood there: Kafka counts it
            return end
        gap = passed_over((streams.ROUTED, self._shard), place, (start, end), self._lost)
        if gap is None:
            return place
        log.error("routed.lost", alarm=True, said=gap.fault)
        await self._bus.keep_place(GROUP, streams.ROUTED, gap.offset + 1, partition=self._shard)
        return gap.offset + 1

    async def _made_again(self) -> int:
        """Begin anew in `routed` where the operator said so, once: what had not left was lost with it."""
        if await self._bus.has_place(GROUP, streams.ROUTED, partition=self._shard):  # Kafka's go with their topic
            return 0
        what = f"{streams.ROUTED} was lost, and made again: what was on record and had not been sent was lost with it"
        if self._lost.get(streams.ROUTED) != 0:
            raise InputLostError(streams.ROUTED, 0, what)
        log.error("routed.lost", alarm=True, said=what)
        await self._bus.keep_place(GROUP, streams.ROUTED, 0, partition=self._shard)
        return 0

    async def run(self, committed: Handover) -> None:
        """Seal and send committed steps as they come, those that wait together.

        While some are sent others are sealed.
        """
        sealed: asyncio.Queue[_Sealed] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._seal_all(committed, sealed))
            tasks.create_task(self._send_all(sealed, committed))

    async def _seal_all(self, committed: Handover, sealed: asyncio.Queue[_Sealed]) -> None:
        while True:
            steps = await committed.get()
            await self._seal([each.done for each in steps])
            routes = [route for each in steps for route in each.done.routes]
            await sealed.put(_Sealed(routes, self._proofs(routes), steps))

    async def _send_all(self, sealed: asyncio.Queue[_Sealed], committed: Handover) -> None:
        """Send what is sealed, in order; while one is acknowledged the next is made and on its way."""
        before: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                batch = await sealed.get()
                parcel = await self._packed(batch.routes, batch.proofs)
                # Started before we wait: the bus keeps the order of the calls.
                copying = tasks.create_task(self._bus.fan_out(parcel.copies, partition=self._shard))
                if before:
                    await before
                before = tasks.create_task(self._finished(batch, parcel, copying, committed))

    async def _finished(
        self, batch: _Sealed, parcel: _Parcel, copying: asyncio.Task[None], committed: Handover
    ) -> None:
        await copying
        await self._settle(batch.routes, parcel, max(each.place for each in batch.steps))
        committed.sent(batch.steps)

    async def _seal(self, steps: Sequence[Done]) -> None:
        entries: list[Entry] = [entry for done in steps for entry in done.entries]
        await self._sealer.seal(entries, steps[-1].head)
        crash.here("distribute.sealed")

    def _proofs(self, routes: Sequence[Route]) -> list[str]:
        return self._sealer.proofs([route.leaf_number for route in routes])

    async def _send(self, routes: Sequence[Route], proofs: Sequence[str], place: int) -> None:
        parcel = await self._packed(routes, proofs)
        await self._bus.fan_out(parcel.copies, partition=self._shard)
        await self._settle(routes, parcel, place)

    async def _packed(self, routes: Sequence[Route], proofs: Sequence[str]) -> _Parcel:
        """Make the deliveries and outcomes of these routes."""
        now = self._clock()
        parcel = _Parcel()
        for turn, (route, proof) in enumerate(zip(routes, proofs, strict=True), 1):
            expired = route.expires is not None and route.expires <= now
            parcel.copies.extend(deliveries(route, proof, self._shard, expired=expired))
            if route.outcome:
                answer = (b"", told(route.outcome, proof))
                for member in route.tell:
                    parcel.outcomes[member].append(answer)
            if turn % BREATH == 0:
                await asyncio.sleep(0)  # ingest goes on meanwhile
        return parcel

    async def _settle(self, routes: Sequence[Route], parcel: _Parcel, place: int) -> None:
        """Tell the issuers, once all copies are durable, erase what ended, and keep the place."""
        if not routes:
            return
        crash.here("distribute.copied")
        async with asyncio.TaskGroup() as telling:
            for member, values in parcel.outcomes.items():
                telling.create_task(self._bus.append(streams.outcomes(member), values, partition=self._shard))
        crash.here("distribute.told")
        await self._eraser.take(routes)
        crash.here("distribute.erased")
        await self._bus.keep_place(GROUP, streams.ROUTED, place, partition=self._shard)
        crash.here("distribute.kept-place")
        log.debug("routed.copied", leaves=len(routes), copies=sum(len(each.own) for each in parcel.copies))


def parts(records: Sequence[Record], most: int = COPIES) -> Iterator[tuple[list[Route], int]]:
    """Make the routes of records again, those of `most` deliveries at once and no more, and the place behind them."""
    routes, copies = list[Route](), 0
    for record in records:
        routes.append(restored(codec.decode(Routed, record.value or b"")))
        copies += len(routes[-1].lines.recipients)
        if copies >= most:
            yield routes, record.offset + 1
            routes, copies = [], 0
    if routes:
        yield routes, records[-1].offset + 1
