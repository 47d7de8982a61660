"""The scene that the benches share: one issuer, 27 inboxes in 27 members, signed notices of 2 KiB, a broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog

from broker import avro, codec, members, notes, streams, up
from broker.bus import Bus
from broker.members import (
    WrittenBureau,
    WrittenDirectory,
    WrittenKey,
    WrittenLog,
    WrittenMember,
    WrittenTransfer,
)
from broker.notice import BODY_SCHEMAS, PURPOSES, Version
from broker.owner import Owner, Pace
from broker.rules import PolicySet
from broker.settings import Settings
from broker.signing import SigningKey
from broker.streams import World
from tests.making import FEDERATION, Draft, key_of

ISSUER = "AT/ncb"
RECIPIENTS = tuple(f"M{number:02}/ncb" for number in range(1, 28))
MEMBERS = ("AT", *(each.partition("/")[0] for each in RECIPIENTS))
WORLD = World(MEMBERS, (ISSUER, *RECIPIENTS))
LOG_KEY = SigningKey.from_seed(sha256(b"bench log").digest())
LOG = notes.vkey(f"{FEDERATION}/trail", LOG_KEY.public.raw)
BODY = 1024
STEP = Settings.model_fields["step_limit"].default
PAGE = 200
"""Notices that an adapter sends at once, and records that a bare loop copies at once."""
PAUSE_S = 0.02


def clock() -> int:
    """Milliseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1_000_000


def directory() -> WrittenDirectory:
    """Make the directory of the scene."""
    keys = [key_of(each).public for each in (ISSUER, *RECIPIENTS)]
    return WrittenDirectory(
        federation=FEDERATION,
        version=1,
        members=tuple(WrittenMember(id=each, name=each, kind="state") for each in MEMBERS),
        bureaus=tuple(
            WrittenBureau(id=each, index=index, name=each, mandates=PURPOSES, languages=("en",))
            for index, each in enumerate((ISSUER, *RECIPIENTS))
        ),
        keys=tuple(
            WrittenKey(key_id=key.id.hex(), bureau=bureau, public=key.raw.hex(), valid_from=0, valid_until=1 << 42)
            for bureau, key in zip((ISSUER, *RECIPIENTS), keys, strict=True)
        ),
        transfers=tuple(
            WrittenTransfer(source="AT", target=each, basis="agreement", reference="bench") for each in MEMBERS[1:]
        ),
        compartment_schemas=tuple(sorted(avro.fingerprint(name).hex() for name in BODY_SCHEMAS)),
        logs=(WrittenLog(shard=0, vkey=str(LOG)),),
    )


def notices(count: int, first: int = 1, series: bytes = b"bench!!!") -> list[bytes]:
    """Sign `count` notices of about 2 KiB, addressed to all 27."""
    draft = Draft(ISSUER, parts=("identity", "warnings")).to(*RECIPIENTS).but(issued=clock())
    filled = _Filled(**vars(draft))
    return [codec.encode(filled.numbered(number, series).envelope()) for number in range(first, first + count)]


class _Filled(Draft):
    """A draft whose compartments hold so much that the record is 2 KiB."""

    def opened(self) -> dict[str, Any]:
        made = super().opened()
        identity = made["identity"]
        made["identity"] = type(identity)(identity.salt, identity.data + os.urandom(BODY - len(identity.data)))
        return made


async def write_versions(operator: Bus) -> None:
    """Write directory and policies, as the operator does."""
    kinds = (("directory", members.canonical(directory())), ("policies", PolicySet.packaged().content))
    await operator.append(streams.VERSIONS, [(b"", codec.encode(Version(kind, data))) for kind, data in kinds])


@asynccontextmanager
async def broker(folder: Path, bus: Bus) -> AsyncIterator[None]:
    """Run the broker in this process while the block runs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    (folder / "trail").mkdir(exist_ok=True)
    ready = asyncio.Event()
    owner = Owner(folder, FEDERATION, 0, LOG_KEY, Pace(STEP, PAUSE_S, 30.0), clock, os.urandom)
    running = asyncio.create_task(up.run(owner, bus, ready.set))
    await ready.wait()
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def copied(bus: Bus, place: int, limit_s: float = 300.0) -> int:
    """Return once `distribute` stands at `place` in `routed` or behind it: where it then stands."""
    async with asyncio.timeout(limit_s):
        while (reached := await bus.place("distribute", streams.ROUTED)) < place:
            await asyncio.sleep(0.05)  # more often would be work of the loop that is measured
    return reached


def say(result: dict[str, Any], rows: Sequence[tuple[str, object]], as_json: bool) -> None:
    """Print the result: one JSON object, or a table with the answer first."""
    if as_json:
        print(json.dumps(result))
        return
    print(f"{result['bench']}: {result['value']} {result['unit']} (goal {result['goal']})")
    for name, value in rows:
        print(f"  {name:44} {value}")


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value below which `share` of the values lie."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def flags(doc: str | None) -> tuple[bool, bool]:
    """Read `--json` and `--quick`; `--help` prints the bench's own words."""
    if "--help" in sys.argv:
        print(doc)
        sys.exit(0)
    unknown = set(sys.argv[1:]) - {"--json", "--quick"}
    if unknown:
        print(f"unknown: {' '.join(sorted(unknown))}; there are --json and --quick", file=sys.stderr)
        sys.exit(2)
    return "--json" in sys.argv, "--quick" in sys.argv
