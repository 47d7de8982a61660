"""Submits the newest checkpoint to witnesses and keeps what they cosign (C2SP tlog-witness, "add-checkpoint").

Beside the way of a notice: traffic never waits for a witness, and nothing that a witness does or leaves out stops it.
All witnesses are asked at once, in rounds, because cosignatures make a quorum only over the same checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import structlog

from broker import cosignature, fetch, notes
from broker.cosignature import Cosigned
from broker.errors import FencedError, ProofError, TrailError, UnavailableError
from broker.fetch import Answer
from broker.moments import gone_by
from broker.notes import Checkpoint
from broker.notice import CLOCK_SKEW_MS
from broker.owner import Known, Witnesses
from broker.seal import Sealer
from broker.witnessed import NO_QUORUM_MS, since

log = structlog.get_logger()
ROUND_S = 1.0
"""Seconds between two rounds."""
START_S = 3.0
"""Seconds that a start waits for the word of witnesses."""
AGAIN_LEAST_MS, AGAIN_MOST_MS = 2_000, 300_000
"""Milliseconds before a witness that failed is asked again: doubled each time, up to the second figure."""
REFRESH_MS = 600_000
"""Milliseconds after which an unchanged head is submitted again: that a witness is dead shows on a quiet log, too."""


class _UselessError(ProofError):
    """What a witness answered is no cosignature of the checkpoint."""

    code = "no-cosignature"


@dataclass(slots=True)
class _Turn:
    """How it went with one witness. Times in ms, by our clock."""

    size: int = 0  # of the last checkpoint that it saw, as it says
    cosigned: Checkpoint | None = None
    at: int = 0  # when it cosigned
    failed_at: int = 0
    pause: int = 0

    def due(self, head: Checkpoint, now: int) -> bool:
        rested = gone_by(self.pause, self.failed_at, now)
        return rested and (self.cosigned != head or gone_by(REFRESH_MS, self.at, now))

    def failed(self, now: int) -> None:
        self.pause = min(max(AGAIN_LEAST_MS, 2 * self.pause), AGAIN_MOST_MS)
        self.failed_at = now

    def done(self, head: Checkpoint, now: int) -> None:
        self.size, self.cosigned, self.at, self.failed_at, self.pause = head.size, head, now, 0, 0


@dataclass(slots=True)
class _Round:
    """One head and what witnesses say to it."""

    head: Checkpoint
    note: str
    found: dict[bytes, Cosigned]

    def with_lines(self) -> str:
        return cosignature.with_lines(self.note, self.found)


@dataclass(slots=True)
class Submit:
    """Asks the witnesses of one shard's log."""

    sealer: Sealer
    witnesses: Witnesses
    clock: Callable[[], int]
    limit_s: float = fetch.ANSWER_S
    _turns: dict[bytes, _Turn] = field(default_factory=dict)
    _announced: tuple[int, int] = (0, 0)
    _confirmed: int | None = None
    _alarmed: int | None = None

    async def run(self) -> None:
        """Go round for ever; return at once where nobody is to be asked."""
        while self.witnesses.known:
            await self.round()
            await asyncio.sleep(ROUND_S)

    async def round(self) -> None:
        """Have the newest head cosigned by everybody whose turn it is; what comes in is kept as it comes.

        Raises FencedError if another process has taken the shard.
        """
        if shown := self.sealer.shown():
            head, note = shown
            this = _Round(head, note, cosignature.cosignatures(note, self.witnesses.cosigners))
            async with asyncio.TaskGroup() as tasks:
                for each in self.witnesses.known:
                    if self._turn(each).due(head, self.clock()):
                        tasks.create_task(self._ask(each, this))
            await self._announce(this)  # whoever came after the quorum
        await self._alarm()

    def _turn(self, witness: Known) -> _Turn:
        return self._turns.setdefault(witness.cosigner.public.id, _Turn())

    async def _ask(self, witness: Known, this: _Round) -> None:
        turn, name = self._turn(witness), witness.cosigner.name
        try:
            cosigned = await self._cosigned(witness, turn, this)
        except (UnavailableError, ProofError) as error:
            turn.failed(self.clock())
            log.warning("witness.failed", witness=name, code=error.code, why=str(error)[:200], again_ms=turn.pause)
            return
        turn.done(this.head, self.clock())
        this.found[witness.cosigner.public.id] = cosigned
        at = cosignature.quorum_time(this.found, self.witnesses.quorum)
        await self.sealer.cosigned(this.head, this.with_lines(), keep=at is not None)
        if at is not None:
            self._confirmed = at * 1000
            if self._announced[0] < this.head.size:
                await self._announce(this)

    async def _cosigned(self, witness: Known, turn: _Turn, this: _Round) -> Cosigned:
        """Ask from the size that the witness last had; if it was another, once more from there."""
        answer = await self._add(witness, turn.size, this)
        if answer.status == 409:
            turn.size = _size(answer)
            answer = await self._add(witness, turn.size, this)
        if answer.status != 200:
            message = f"it answers {answer.status}"
            raise _UselessError(message)
        found = cosignature.cosignatures(f"{this.head.text}\n".encode() + answer.body, [witness.cosigner])
        if not found:
            message = "its answer holds no cosignature of its own"
            raise _UselessError(message)
        (cosigned,) = found.values()
        if abs(cosigned.time * 1000 - self.clock()) > CLOCK_SKEW_MS:
            message = f"its clock says {cosigned.time}"
            raise _UselessError(message)
        return cosigned

    async def _add(self, witness: Known, old: int, this: _Round) -> Answer:
        if old > this.head.size:
            # Its word alone proves nothing and stops nothing; at a start the log's own signature is asked for.
            message = f"it says that it saw {old} leaves; there are {this.head.size}"
            raise _UselessError(message)
        proof = self.sealer.trail.consistency(old, this.head.size)
        body = notes.format_advance(old, proof, this.note).encode()
        return await fetch.ask(witness.place, "/add-checkpoint", body, limit_s=self.limit_s)

    async def _announce(self, this: _Round) -> None:
        """Show members a quorum's cosignatures: when it is there, and when others have joined it."""
        here = (this.head.size, len(this.found))
        if len(this.found) < self.witnesses.quorum or here <= self._announced:
            return
        before, self._announced = self._announced, here  # at once: whoever comes meanwhile has no more to tell
        try:
            await self.sealer.announce_cosigned(this.with_lines())
        except FencedError:
            raise
        except UnavailableError as error:
            self._announced = before
            log.warning("checkpoint.not-announced", code=error.code)

    async def _alarm(self) -> None:
        """Say so in the log when no quorum has stood by a checkpoint for an hour, and every hour that it lasts."""
        now = self.clock()
        if self._confirmed is None:
            # Read before anything was gathered, and once: a log that is not empty has a first leaf.
            self._confirmed = since(
                self.sealer.trail, self.sealer.vkey, self.witnesses.cosigners, self.witnesses.quorum
            )
        if self._confirmed is None or now - self._confirmed < NO_QUORUM_MS:
            self._alarmed = None
        elif self._alarmed is None or gone_by(NO_QUORUM_MS, self._alarmed, now):
            self._alarmed = now
            known, at = self.witnesses.known, self._confirmed
            log.error("witnesses.no-quorum", since_ms=at, quorum=self.witnesses.quorum, of=len(known))


def _size(answer: Answer) -> int:
    """Read the size that a witness says it has (409, `text/x.tlog.size`)."""
    text = answer.body.decode("ascii", "replace").removesuffix("\n")
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        message = "it answers 409 without a size"
        raise _UselessError(message)
    return int(text)


async def check_seen(sealer: Sealer, witnesses: Witnesses) -> None:
    """Ask the witnesses that answer what they saw of this log, before anything is taken in (DESIGN §8).

    Raises TrailError if one holds a head with our signature that this disk does not have, or has otherwise. Nothing
    less than that signature counts: no witness can keep a broker from running. It is asked once in a process: taking
    the shard up again for a new directory waits for nobody.
    """
    if sealer.trail.origin in witnesses.heard:
        return
    for wrong in await asyncio.gather(*(_contradicted(sealer, each) for each in witnesses.known)):
        if wrong:
            raise TrailError(wrong)
    witnesses.heard.add(sealer.trail.origin)


async def _contradicted(sealer: Sealer, witness: Known) -> str:
    """Say what of ours contradicts what a witness holds; "" if nothing does, or it does not answer."""
    trail, name = sealer.trail, witness.cosigner.name
    try:
        head = await newest_of(sealer, witness)
    except (UnavailableError, ProofError) as error:
        log.warning("witness.not-heard", witness=name, code=error.code, why=str(error)[:200])
        return ""
    if head is None:
        return ""
    if head.size > trail.size:
        return f"the witness {name} saw {head.size} leaves of this log; record and disk end at {trail.size}"
    if trail.root_of(head.size) != head.root:
        return f"the witness {name} saw another head of {head.size} leaves of this log"
    return ""


async def newest_of(sealer: Sealer, witness: Known) -> Checkpoint | None:
    """Ask a witness for the newest head of this log that it holds; None if it holds none.

    Raises UnavailableError if it does not answer, ProofError if what it answers is not signed by the log.
    """
    note = await note_of(sealer, witness)
    return notes.open_checkpoint(note, sealer.vkey) if note is not None else None


async def note_of(sealer: Sealer, witness: Known) -> bytes | None:
    """Ask a witness for the newest checkpoint of this log, not yet checked; None if it holds none."""
    path = f"/{sha256(sealer.trail.origin.encode()).hexdigest()}/checkpoint"
    answer = await fetch.ask(witness.place, path, limit_s=START_S)
    return answer.body if answer.status == 200 else None
