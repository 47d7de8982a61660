"""The broker as a process of its own, killed or stopped where told: `python -m tests.faults.broker_process …`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from broker import crash, streams, up
from broker.errors import FencedError
from broker.kafka import LIMIT_S, KafkaBus
from broker.signing import SigningKey
from broker.sqlite import SqliteBus
from cli import exits
from tests import federation as world

if TYPE_CHECKING:
    from broker.bus import Bus


def clock() -> int:
    """Milliseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1_000_000


def open_bus(address: str, principal: str, tls: list[str], limit: float = LIMIT_S) -> SqliteBus | KafkaBus:
    """Open `sqlite:PATH` or `kafka:HOST:PORT`."""
    kind, _, rest = address.partition(":")
    if kind == "sqlite":
        return SqliteBus(Path(rest), principal, world.world(), clock)
    ca, chain, key = tls
    return KafkaBus(rest, principal, (ca, chain, key), world.world(), limit=limit)


def keeping(key: SigningKey, file: Path) -> SigningKey:
    """The same key, which writes down all that it signs before it signs."""

    def sign(data: bytes) -> bytes:
        with file.open("ab") as kept:
            kept.write(data)
        return key.sign(data)

    return SigningKey(key.public, sign)


async def _run(folder: Path, bus: Bus, signed: Path | None) -> None:
    owner = world.owner(folder, clock)
    if signed:
        owner = replace(owner, key=keeping(owner.key, signed))
    working = asyncio.create_task(up.run(owner, bus, lambda: print("ready", flush=True)))  # noqa: T201
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await working


async def _main(given: argparse.Namespace) -> None:
    async with open_bus(given.bus, streams.ROUTER, given.tls, given.limit) as bus:
        await _run(given.folder, bus, given.signed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("bus")
    parser.add_argument("--crash", default="")
    parser.add_argument("--stop", default="", help="where it stops, as by SIGSTOP")
    parser.add_argument("--signed", type=Path, help="file that gets all that is signed")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="s that Kafka may take")
    parser.add_argument("--tls", nargs=3, default=[])
    given = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30), logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
    crash.arm(given.crash)
    crash.arm(given.stop, signal.SIGSTOP)
    try:
        asyncio.run(_main(given))
    except FencedError:
        traceback.print_exc()  # which of two owners gave way where
        sys.exit(exits.UNAVAILABLE)
