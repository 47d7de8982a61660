"""Raises an alarm about notices that wait too long for their reviewer: silence is an alarm, and changes nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from broker.moments import gone_by
from broker.register import Register, notice_key

log = structlog.get_logger()
PREFIX = "held/"
ROUND_S = 60.0
AGAIN_MS = 3_600_000
"""An alarm is repeated every hour until somebody decides."""
_FORM = struct.Struct(">QQ")


@dataclass(frozen=True, slots=True)
class Held:
    """A notice that waits, by its entry in the register; `expires` 0: it does not. Times in ms."""

    key: str
    since: int
    expires: int


def held_key(issuer: str, notice_id: bytes) -> str:
    """Name the entry that says that a notice waits."""
    return PREFIX + notice_key(issuer, notice_id)


def held_since(now: int, expires: int | None) -> bytes:
    """Write such an entry."""
    return _FORM.pack(now, expires or 0)


class Overdue:
    """Looks after one shard's held notices."""

    def __init__(self, register: Register, clock: Callable[[], int], limit_ms: int) -> None:
        self._register, self._clock, self._limit_ms = register, clock, limit_ms
        self._told: dict[str, int] = {}

    async def run(self) -> None:
        """Look every minute, for ever."""
        while True:
            self.look()
            await asyncio.sleep(ROUND_S)

    def look(self) -> list[Held]:
        """Raise the alarms that are due; give what they are about. Raises FencedError, UnavailableError."""
        now, due = self._clock(), list[Held]()
        keys = self._register.keys(PREFIX)
        waiting = [Held(key, *_FORM.unpack(self._register.get(key) or bytes(_FORM.size))) for key in keys]
        self._register.check_ours()  # on a cache that was emptied nobody waits: it would be silent for ever
        for held in waiting:
            key = held.key
            if held.expires and held.expires <= now:
                continue
            if now - held.since >= self._limit_ms and gone_by(AGAIN_MS, self._told.get(key, 0), now):
                self._told[key] = now
                due.append(held)
                hours = (now - held.since) // AGAIN_MS
                log.error("review.silent", alarm=True, notice=key.rpartition("/")[2], hours=hours)
        return due
