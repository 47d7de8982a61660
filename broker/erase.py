"""Takes from the bus, at once where the store can, what notices that were withdrawn or refused in review leave there.

Of such a notice and the versions that it corrected go the records of `notices.<member>`, `routed`, `register` and its
holders' inboxes: compartments and salts. What stays is what the trail is checked by: leaves, and decision records with
header, routing and salted digests of the rest. A bureau that had not collected it yet finds the withdrawal, which names
the numbers that it erases. Where only retention erases (Kafka) the bus does nothing here.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from broker import codec, crash, streams
from broker.errors import AlreadyWithdrawnError, UnavailableError
from broker.notice import NOT_RELEASED, DecisionRecord, Header, Leaf, Outcome
from broker.register import notice_key
from broker.route import delivery_key
from broker.threads import to_the_end

if TYPE_CHECKING:
    from broker.bus import Bus
    from broker.records import Records
    from broker.register import Register
    from broker.route import Route

log = structlog.get_logger()
ENDED = ("withdrawn", "refused")
"""States of which nothing is kept but what the register says."""
IN_FORCE = ("routed", "held", "restricted")
"""States of a notice whose copies may wait: they go from disk with it when it ends."""
HELD, REPEATED = "held", "repeated"
PRUNE_S = 3600.0
AGAIN_S = 1.0
REST = 10
"""How many times as long as it took to write a file anew it is then left alone."""
TRIES = 30
"""Failures in a row, a second or more apart, before it is an alarm: readers come and go."""
Named = tuple[str, bytes]
"""Issuer and id of a notice."""


@dataclass(slots=True)
class _Plan:
    """What is to go, by stream; of `replaced` keys in the register the newest record stays."""

    keys: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    offsets: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    replaced: set[bytes] = field(default_factory=set)

    def origin(self, record: DecisionRecord) -> None:
        """Let the record go that brought a notice: it has its leaf."""
        if record.stream.startswith("notices."):
            self.offsets[record.stream].add(record.offset)


class Eraser:
    """Erases for one shard. `take` belongs to whoever sends, `run` goes on beside it; `leaf` reads a leaf."""

    def __init__(
        self, bus: Bus, register: Register, records: Records, leaf: Callable[[int], bytes], shard: int
    ) -> None:
        self._bus, self._register, self._records, self._leaf, self._shard = bus, register, records, leaf, shard
        self._dirty = asyncio.Event()
        # What a start finds may be what a kill left between dropping and scrubbing.
        self._dirty.set()

    async def take(self, routes: Sequence[Route]) -> None:
        """Drop what these routes ended, and copies of what was on record. Raises UnavailableError, FencedError.

        Call once they are sent, before their place is kept: a kill in between repeats it. May be called again.
        """
        plan, late = _Plan(), False
        for route in routes:
            if told := _of_copy(route):
                plan.origin(codec.decode(DecisionRecord, route.decision))
                late |= told.code not in IN_FORCE
        ends = [route for route in routes if route.ends and self._over(route.ends)]
        for route in ends:
            await self._plan(route, plan)
        if any(route.ends for route in routes):
            # After all that was read: on a cache that was emptied meanwhile nothing has ended, and the place would move
            # on behind a body that nobody takes from disk any more.
            self._register.check_ours()
        dropped = await self._drop(plan)
        if ends:
            log.info("notices.erased", ended=len(ends), records=dropped)
        if ends or late:
            self._dirty.set()

    def _over(self, notice: Named) -> bool:
        standing = self._register.standing(*notice)
        return standing is not None and standing.state in ENDED

    async def _plan(self, route: Route, plan: _Plan) -> None:
        if not route.ends:
            return
        bureaus, leaves = {each.bureau for each in route.lines.recipients if each.erases}, set[int]()
        refused = codec.decode(Leaf, route.leaf).kind == NOT_RELEASED
        # Of a correction that was refused the version before it stays with those who hold it.
        for named, leaf_number, record in islice(self._versions(*route.ends), 1 if refused else None):
            plan.origin(record)
            plan.replaced.add(notice_key(*named).encode())
            leaves |= {leaf_number, *await self._releases(leaf_number, record.header)}
            bureaus |= {each.bureau for each in record.rows}
        if refused:
            # Nothing tells the other reviewers why a number is missing: theirs goes by retention.
            bureaus = self._reviewer(route)
        keys = {delivery_key(each) for each in leaves}
        for stream in (streams.ROUTED, *map(streams.inbox, bureaus)):
            plan.keys[stream] |= keys

    def _versions(self, issuer: str, notice_id: bytes) -> Iterator[tuple[Named, int, DecisionRecord]]:
        """Give a notice and the versions before it, from the headers on record."""
        following: Named | None = (issuer, notice_id)
        seen = set[Named]()
        while following and following not in seen:
            seen.add(following)
            standing = self._register.standing(*following)
            kept = self._records.get(standing.leaf_number) if standing else None
            record = codec.decode(DecisionRecord, kept[1]) if kept else None
            if standing is None or record is None or not record.header:
                return
            header = codec.decode(Header, record.header)
            if (header.issuer, header.notice_id) != following:
                return  # its withdrawal came before it: the leaf is the withdrawal's, which stays
            yield following, standing.leaf_number, record
            following = _before(header)

    async def _releases(self, leaf_number: int, header: bytes) -> list[int]:
        """Find the leaf of the release of a notice that was held: it has no entry in the register."""
        if codec.decode(Leaf, self._leaf(leaf_number)).kind != HELD:
            return []
        found, listed = await to_the_end(self._records.releases, leaf_number)
        following = leaf_number + 1
        while following < listed and (page := await to_the_end(self._records.page, following)):
            likely = ((number, record) for number, _, record in page if header in record)
            found += [number for number, record in likely if codec.decode(DecisionRecord, record).header == header]
            following = page[-1][0] + 1
        return found

    def _reviewer(self, route: Route) -> set[str]:
        """Name who refused a held notice, and so has it: the issuer of the approval in the leaf before."""
        kept = self._records.get(route.leaf_number - 1)
        header = codec.decode(DecisionRecord, kept[1]).header if kept else b""
        return {codec.decode(Header, header).issuer} if header else set()

    async def _drop(self, plan: _Plan) -> int:
        dropped = 0
        for stream in sorted(plan.keys.keys() | plan.offsets.keys()):
            keys, offsets = plan.keys.get(stream, ()), plan.offsets.get(stream, ())
            dropped += await self._bus.erase(stream, keys=sorted(keys), offsets=sorted(offsets), partition=self._shard)
            crash.here(f"erase.{stream.partition('.')[0]}")
        if plan.replaced:
            dropped += await self._bus.compact(streams.REGISTER, sorted(plan.replaced), partition=self._shard)
        return dropped

    # Beside the sending.

    async def run(self) -> None:
        """Take dropped bytes from disk as they come, and every hour what is past its retention; for ever."""
        pruned, failed = monotonic(), 0
        while True:
            began = monotonic()
            try:
                if began - pruned >= PRUNE_S:
                    await self._bus.prune()
                    pruned = began
                if self._dirty.is_set():
                    await self._scrub()
                failed = 0
            except UnavailableError as error:
                self._dirty.set()
                failed += 1
                log.warning("erasure.unfinished", alarm=failed >= TRIES, code=error.code)
            await asyncio.sleep(max(AGAIN_S, REST * (monotonic() - began)))
            with suppress(TimeoutError):
                async with asyncio.timeout(PRUNE_S):
                    await self._dirty.wait()

    async def _scrub(self) -> None:
        self._dirty.clear()
        await self._bus.scrub()
        crash.here("erase.bus-scrubbed")
        self._register.scrub()


def _of_copy(route: Route) -> Outcome | None:
    """Give the outcome of a record that brought again what is on record, or what was withdrawn before it came."""
    told = route.outcome
    if told is None or not (
        (told.kind == REPEATED and told.notice_id is not None) or told.code == AlreadyWithdrawnError.code
    ):
        return None
    return told


def _before(header: Header) -> Named | None:
    """Name the version that this one corrects."""
    corrected = [each for each in header.references if each.relation == "corrects"]
    return (corrected[0].issuer, corrected[0].notice_id) if corrected else None
