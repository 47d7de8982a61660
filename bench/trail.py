"""Leaves/s appended to the trail with fsync and signed checkpoint per batch of 500; then verify, search, prove, memory.

Goals: 50,000 leaves/s; 1,000,000 leaves verified offline in 60 s and 300 MB; a search over 10 million leaves in 200 ms;
an inclusion proof from tiles in 1 ms; 200 MB at 10 million leaves. `--quick` appends, verifies and searches fewer and
says so. Seconds of work are given beside seconds on the clock: on a shared machine only the first are the program's.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench import scene
from broker import codec, notes
from broker.examine import examine
from broker.index import BLOCK, Index, leaf_at
from broker.notes import Checkpoint
from broker.notice import (
    RECEIPT_TYPE,
    DecisionRecord,
    Header,
    Leaf,
    Receipt,
    ReceiptItem,
    Recipient,
    RuleHit,
    Statement,
)
from broker.signing import SigningKey
from broker.trail import Trail
from tests.making import Draft, key_of

GOAL = 50_000
BATCH = 500
BUREAUS = tuple(f"M{number:03}/ncb" for number in range(196))
RECIPIENTS = 27
TEMPLATES = 512
RECEIPTS = 4
"""One leaf in so many is a receipt's."""
BEGAN = 1_795_000_000_000
FIRST = 64 * BLOCK
"""Leaves whose index is made of their decision records; see `spread`."""
ORIGIN = "bench/trail"
KEY = SigningKey.from_seed(sha256(b"bench trail").digest())
LOG = notes.vkey(ORIGIN, KEY.public.raw)
DIGEST = sha256(b"bench").digest()


@dataclass(frozen=True)
class Sizes:
    """How many leaves each part works on."""

    append: int
    verify: int
    search: int


FULL, QUICK = Sizes(200_000, 1_000_000, 10_000_000), Sizes(50_000, 60_000, 60_000)


class Made:
    """Leaves and decision records of an invented federation: 196 bureaus, 27 recipients, each fourth leaf a receipt."""

    def __init__(self, size: int) -> None:
        self._size, self._draw = size, random.Random(7)
        self._notices = [self._notice(each) for each in range(TEMPLATES)]
        self._receipts = [self._receipt(each) for each in range(TEMPLATES)]

    def _notice(self, number: int) -> tuple[bytes, bytes]:
        """Give a decision record in two parts, between which the notice id stands."""
        issuer, mark = BUREAUS[number % len(BUREAUS)], b"NOTICE-ID-0-MARK"
        header = Draft("AT/ncb").but(issuer=issuer, notice_id=mark).envelope().header
        assert codec.decode(Header, header).issuer == issuer
        rows = tuple(
            Recipient(each, BUREAUS[each], 6, (), (), number + 1)
            for each in sorted(self._draw.sample(range(len(BUREAUS)), RECIPIENTS))
        )
        rules = tuple(RuleHit(f"rule-{self._draw.randrange(40)}", (1 << len(BUREAUS)) - 1) for _ in range(6))
        record = DecisionRecord("notices.at", 0, number, BEGAN, DIGEST, header, bytes(120), b"", DIGEST, 8, rows, rules)
        before, _, after = codec.encode(record).partition(mark)
        return before, after

    def _receipt(self, number: int) -> bytes:
        bureau = BUREAUS[number % len(BUREAUS)]
        act, result = self._draw.choice([("received", None), ("read", None), ("outcome", "hit")])
        receipt = Receipt("f", bureau, "AT", act, (ReceiptItem(number, DIGEST),), result, None, number + 1, BEGAN)
        signed = Statement(RECEIPT_TYPE, codec.encode(receipt), key_of(bureau).public.id, bytes(64))
        return codec.encode(DecisionRecord("receipts.at", 0, 0, BEGAN, DIGEST, statement=codec.encode(signed)))

    def leaves(self, begin: int, end: int) -> list[bytes]:
        """Give leaves; one in a thousand was rejected."""
        return [codec.encode(self._leaf(number)) for number in range(begin, end)]

    def _leaf(self, number: int) -> Leaf:
        noise = os.urandom(32)
        if number % RECEIPTS == RECEIPTS - 1:
            return Leaf("receipt", BEGAN + number, "read", None, number - 1, 0, DIGEST, DIGEST, noise, None)
        if number % 1000 == 0:
            return Leaf("rejected", BEGAN + number, "bad-signature", None, None, 0, DIGEST, DIGEST, noise, None)
        return Leaf("routed", BEGAN + number, None, noise, None, 0, DIGEST, DIGEST, noise, noise)

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream decision records, as `Records` does."""
        for number in range(begin, self._size):
            if number % RECEIPTS == RECEIPTS - 1:
                yield number, b"", self._receipts[number % TEMPLATES]
            else:
                before, after = self._notices[number % TEMPLATES]
                yield number, b"", before + (BEGAN + number).to_bytes(6, "big") + os.urandom(10) + after


def extend(trail: Trail, leaves: Sequence[bytes]) -> None:
    """Append one batch as the broker does: entries and tiles, signature, checkpoint, each durable before the next."""
    staged = trail.stage(leaves)
    trail.write(staged)
    note = notes.sign_checkpoint(Checkpoint(ORIGIN, staged.size, staged.root), KEY)
    trail.publish(staged, note)
    trail.adopt(staged, note)


def appended(folder: Path, count: int) -> tuple[float, float]:
    """Append in batches of 500; return leaves/s on the clock, and by the program's own work."""
    leaves = Made(0).leaves(0, count)
    trail = Trail.open(folder, ORIGIN)
    started, worked = time.perf_counter(), time.process_time()
    for begin in range(0, count, BATCH):
        extend(trail, leaves[begin : begin + BATCH])
    return count / (time.perf_counter() - started), count / (time.process_time() - worked)


def build(folder: Path, size: int) -> None:
    """Make a trail of `size` leaves with few checkpoints."""
    made, trail = Made(size), Trail.open(folder, ORIGIN)
    while trail.size < size:
        extend(trail, made.leaves(trail.size, min(trail.size + 50_000, size)))


# What runs in a process of its own, so that its memory is its own.


def verify_part(folder: Path) -> dict[str, float]:
    """Examine the trail."""
    started, worked = time.perf_counter(), time.process_time()
    report = examine(folder, LOG)
    assert report.wrong == 0, report.findings
    return {
        "leaves": report.size,
        "seconds": round(time.perf_counter() - started, 2),
        "work_seconds": round(time.process_time() - worked, 2),
        "rss_mb": _rss(),
    }


def index_part(folder: Path) -> dict[str, float]:
    """Make the index."""
    trail = Trail.open(folder / "trail")
    index = Index(folder / "index.db")
    worked = time.process_time()
    index.update(trail, Made(trail.size), lambda _done, _all: None)
    assert index.size == trail.size
    work = time.process_time() - worked
    index.close()
    return {"leaves_per_work_second": round(trail.size / work), "rss_mb": _rss()}


def spread(folder: Path) -> None:
    """Let the index cover the whole trail: its blocks again and again, which a search cannot tell from others.

    Making it of ten million decision records takes twenty minutes; the speed of that is measured on the first part.
    """
    trail, first = Trail.open(folder / "trail"), FIRST // BLOCK
    with closing(sqlite3.connect(folder / "index.db")) as database:
        database.execute("CREATE TEMP TABLE made AS SELECT word, block, mask FROM posting")
        for begin in range(first, -(-trail.size // BLOCK), first):
            database.execute(
                "INSERT INTO posting SELECT word, block + ?, mask FROM made WHERE block + ? <= ?",
                (begin, begin, trail.size // BLOCK),
            )
        numbers = range(FIRST, trail.size)
        notices = ((BEGAN + each).to_bytes(6, "big") + os.urandom(10) for each in numbers)
        database.executemany("INSERT INTO notice VALUES (?, ?)", zip(notices, numbers, strict=True))
        database.executemany("INSERT INTO event VALUES (?, ?)", ((each - 1, each) for each in numbers[::RECEIPTS]))
        database.execute("UPDATE done SET size = ?, root = ?", (trail.size, trail.root))
        database.commit()


def use_part(folder: Path) -> dict[str, float]:
    """Search, prove and append at this size, as the broker and an auditor do."""
    trail = Trail.open(folder / "trail")
    index = Index(folder / "index.db")
    asked = _questions(index, trail)
    proofs, draw = list[float](), random.Random(11)
    for _ in range(500):
        number = draw.randrange(trail.size)
        started = time.perf_counter()
        trail.prove(number, trail.size, trail.checkpoint)
        proofs.append((time.perf_counter() - started) * 1000)
    made = Made(0)
    for _ in range(10):
        extend(trail, made.leaves(trail.size, trail.size + BATCH))
    index.close()
    return {
        "leaves": trail.size,
        "search_ms": round(max(asked), 1),
        "search_median_ms": round(statistics.median(asked), 1),
        "prove_ms": round(statistics.median(proofs), 3),
        "prove_p99_ms": round(scene.percentile(proofs, 0.99), 3),
        "rss_mb": _rss(),
    }


def _questions(index: Index, trail: Trail) -> list[float]:
    """Ask what an auditor asks; return milliseconds for each, the first time it is asked."""
    taken: list[float] = []
    questions: tuple[list[list[str]], ...] = (
        [["outcome:rejected"]],
        [["outcome:receipt"]],
        [["member:M007"]],
        [["issuer:M007/ncb", "to:M007/ncb", "by:M007/ncb"]],
        [["rule:rule-7"], ["to:M100/ncb"]],
        [
            ["rule:rule-7"],
            ["issuer:M001/ncb", "to:M001/ncb", "by:M001/ncb"],
            ["outcome:routed"],
            ["purpose:criminal-investigation"],
        ],
        [],
    )
    for wanted in questions:
        started = time.perf_counter()
        begin = leaf_at(trail, BEGAN + trail.size // 10)
        found = index.search(wanted, begin, trail.size, 50)
        assert found.total
        taken.append((time.perf_counter() - started) * 1000)
    started = time.perf_counter()
    index.leaves_about(trail.size // 2)
    index.leaves_of(bytes(16))
    taken.append((time.perf_counter() - started) * 1000)
    return taken


def _rss() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


PARTS = {"verify": verify_part, "index": index_part, "use": use_part}


def apart(part: str, folder: Path) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, "-m", "bench.trail", part, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(sizes: Sizes, runs: int) -> dict[str, Any]:
    """Measure all parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates = sorted(appended(folder / f"append-{run}", sizes.append) for run in range(runs))
        value, by_work = rates[len(rates) // 2]
        build(folder / "verify", sizes.verify)
        verified = apart("verify", folder / "verify")
        (folder / "search").mkdir()
        build(folder / "search" / "trail", min(FIRST, sizes.search))
        indexed = apart("index", folder / "search")
        if sizes.search > FIRST:
            build(folder / "search" / "trail", sizes.search)
            spread(folder / "search")
        used = apart("use", folder / "search")
    return {
        "bench": "trail",
        "goal": GOAL,
        "value": round(value),
        "unit": "leaves/s",
        "leaves_per_work_second": round(by_work),
        "verify": verified,
        "verify_1m_work_seconds": round(verified["work_seconds"] * 1_000_000 / verified["leaves"], 1),
        "index": indexed,
        "use": used,
        "quick": sizes is QUICK,
    }


def main() -> None:
    """Measure and print."""
    if len(sys.argv) == 3 and sys.argv[1] in PARTS:
        print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
        return
    as_json, quick = scene.flags(__doc__)
    result = measured(QUICK if quick else FULL, 3)
    verified, used = result["verify"], result["use"]
    rows: list[tuple[str, object]] = [
        ("leaves per second of work", f"{result['leaves_per_work_second']:,}"),
        (f"verify {verified['leaves']:,} leaves, s (goal 60 for 1,000,000)", verified["seconds"]),
        ("  of work, s for 1,000,000", result["verify_1m_work_seconds"]),
        ("  memory, MB (goal 300)", verified["rss_mb"]),
        (f"slowest search over {used['leaves']:,} leaves, ms (goal 200 at 10,000,000)", used["search_ms"]),
        ("inclusion proof from tiles, ms (goal 1); p99", f"{used['prove_ms']}; {used['prove_p99_ms']}"),
        ("memory at that size, MB (goal 200)", used["rss_mb"]),
        ("index made, leaves per second of work", f"{result['index']['leaves_per_work_second']:,}"),
    ]
    scene.say(result, rows, as_json)


if __name__ == "__main__":
    main()
