"""kill -9 of a member's outbox and collector at every crash point: nothing is lost, numbered or answered twice."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from broker import codec, settings, streams
from broker.members import WrittenDirectory
from broker.notice import DecisionRecord, Entry, Leaf, Receipt, ReceiptItem, Statement
from broker.rules import PolicySet
from broker.settings import Settings, Tls
from broker.sqlite import SqliteBus
from tests import federation as world
from tests.faults.broker_process import clock
from tests.faults.test_broker_killed import Site
from tests.kafka_world import KafkaWorld, running_kafka
from tests.making import FEDERATION, key_of

AT, GE = "AT/ncb", "GE/ncb"
OUTBOX_POINTS = ("outbox.stored", "outbox.appended", "outbox.marked")
COLLECTOR_POINTS = ("collect.stored", "collect.receipt-appended")
BATCH = 4
WORLD = replace(world.world(), certified=frozenset({GE}))
"""One bureau collects under a certificate of its own; the other leaves the bus to its member's adapter."""
Answer = tuple[int, bytes, str]
"""Leaf number, header digest, act."""


class Machines:
    """The homes of two bureaus, and what their national system holds: records `first` to `last`."""

    def __init__(self, site: Site, kafka: KafkaWorld | None, limit_s: float) -> None:
        self.site, self._limit_s = site, limit_s
        self.first, self.last = 1, 0
        for bureau in (AT, GE):
            self._make(bureau, kafka)

    def _make(self, bureau: str, kafka: KafkaWorld | None) -> None:
        member, _, unit = bureau.partition("/")
        principals = {streams.adapter(member), *WORLD.readers(streams.inbox(bureau))}
        tls = {each: _tls(kafka, each) for each in principals} if kafka else {}
        home = self.home(bureau)
        made = Settings(role="member", federation=FEDERATION, bus=self.site.address, member=member, tls=tls)
        settings.save(home, made)
        key_of(bureau).save(home / "keys" / f"{unit}.pem")

    def home(self, bureau: str) -> Path:
        """The folder of a bureau's member."""
        return self.site.folder / "members" / bureau.partition("/")[0]

    @property
    def published(self) -> int:
        """How many notices there are: each record's, and each withdrawal."""
        return self.last + self.first - 1

    async def _run(self, bureau: str, how: str, *more: object) -> int:
        command = [sys.executable, "-m", "tests.faults.member_process", str(self.home(bureau)), bureau, how]
        process = await asyncio.create_subprocess_exec(*command, *map(str, more))
        try:
            async with asyncio.timeout(self._limit_s):
                return await process.wait()
        finally:
            await ended(process, signal.SIGKILL)

    async def publish(self, how: str, point: str = "", answers: int = 0) -> int:
        """Run the outbox on what the source holds; give how the process ended."""
        source = ("--first", self.first, "--last", self.last)
        return await self._run(AT, how, *source, "--crash", point, "--answers", answers)

    async def collect(self, point: str = "") -> int:
        """Run the collector; give how the process ended."""
        return await self._run(GE, "collect", "--last", self.published, "--crash", point)

    @contextmanager
    def outbox(self) -> Iterator[sqlite3.Connection]:
        """Read the outbox file."""
        with closing(sqlite3.connect(self.home(AT) / "outbox.db")) as database:
            yield database

    @contextmanager
    def inbox(self) -> Iterator[sqlite3.Connection]:
        """Read the inbox file."""
        with closing(sqlite3.connect(self.home(GE) / "inbox.ncb.db")) as database:
            yield database

    def receipts(self) -> dict[bytes, Receipt]:
        """What the collector signed, by the digest of the statement."""
        with self.inbox() as inbox:
            statements = [bytes(row[0]) for row in inbox.execute("SELECT statement FROM receipts ORDER BY number")]
        return {
            sha256(each).digest(): codec.decode(Receipt, codec.decode(Statement, each).payload) for each in statements
        }

    def answered(self) -> list[Answer]:
        """What the collector's receipts say."""
        return [(*_item(item), each.act) for each in self.receipts().values() for item in each.items]


def _tls(kafka: KafkaWorld, principal: str) -> Tls:
    ca, certificate, key = (Path(each) for each in kafka.pki(principal))
    return Tls(ca=ca, certificate=certificate, key=key)


def directory() -> WrittenDirectory:
    """The directory of `WORLD`."""
    plain = world.directory()
    bureaus = [each.model_copy(update={"certified": each.id in WORLD.certified}) for each in plain.bureaus]
    return plain.model_copy(update={"bureaus": tuple(bureaus)})


def _item(item: ReceiptItem) -> tuple[int, bytes]:
    return item.leaf_number, item.header_digest


async def every_outbox_point(machines: Machines) -> None:
    """Kill the outbox at each point, in each way to publish, with something new to do each time and twice in a row."""
    for point in OUTBOX_POINTS:
        for how in ("publish", "apply"):
            machines.last += BATCH
            assert await machines.publish(how, point) == -signal.SIGKILL, (how, point)
    assert await machines.publish("apply") == 0


async def every_collector_point(machines: Machines) -> None:
    """Kill the collector at each point; what went out twice before goes out a third time."""
    for point in COLLECTOR_POINTS:
        assert await machines.collect(point) == -signal.SIGKILL, point
    assert await machines.collect("collect.receipt-appended") == -signal.SIGKILL
    assert await machines.collect() == 0


async def withdrawal(machines: Machines) -> None:
    """Withdraw two records, killed at each point of both machines."""
    machines.first += 2
    # The source is read again after each kill: the second record is withdrawn by the second run.
    for _ in range(2):
        assert await machines.publish("withdraw", "outbox.stored") == -signal.SIGKILL
    for point in OUTBOX_POINTS[1:]:
        machines.last += 1
        assert await machines.publish("apply", point) == -signal.SIGKILL, point
    assert await machines.publish("apply") == 0
    await every_collector_point(machines)


def check_outbox(machines: Machines) -> None:
    """Every draft was numbered once, without a gap, and routed; nothing was rejected and nothing raised an alarm."""
    with machines.outbox() as outbox:
        sent = outbox.execute("SELECT series, number, outcome, leaf_number FROM envelopes ORDER BY place").fetchall()
        outcomes = Counter(row[0] for row in outbox.execute("SELECT kind FROM outcomes"))
        missing = {row[0] for row in outbox.execute("SELECT missing FROM outcomes")}
        live = {row[0] for row in outbox.execute("SELECT record FROM records WHERE state = 'live'")}
        assert outbox.execute("SELECT code FROM alarms").fetchall() == []
        assert outbox.execute("SELECT code FROM refused").fetchall() == []
        assert outbox.execute("SELECT cursor FROM cursors").fetchall() == [(str(machines.last),)]
    assert len({row[0] for row in sent}) == 1
    assert [row[1] for row in sent] == list(range(1, machines.published + 1))
    assert {row[2] for row in sent} == {"routed"}
    assert len({row[3] for row in sent}) == machines.published
    assert outcomes["routed"] == machines.published
    # The kill after appending made it go out again: had nothing come twice, this test would show nothing.
    assert outcomes["repeated"] >= BATCH
    assert outcomes.keys() == {"routed", "repeated", "receipt"}
    assert missing == {"[]"}
    assert live == {f"R-{number}" for number in range(machines.first, machines.last + 1)}


def check_inbox(machines: Machines) -> None:
    """The collector has every delivery once, in the order in which it was published."""
    with machines.outbox() as outbox:
        published = outbox.execute("SELECT notice_id, leaf_number FROM envelopes ORDER BY number").fetchall()
    with machines.inbox() as inbox:
        kept = inbox.execute(
            "SELECT delivery_number, notice_id, leaf_number, state FROM deliveries ORDER BY delivery_number"
        ).fetchall()
        assert inbox.execute("SELECT code FROM alarms").fetchall() == []
        assert inbox.execute("SELECT code FROM refused").fetchall() == []
        assert inbox.execute("SELECT count(*) FROM receipts WHERE sent = 0").fetchone() == (0,)
    assert [row[0] for row in kept] == list(range(1, machines.published + 1))
    assert [row[1:3] for row in kept] == published
    # What was withdrawn, and what withdrew it.
    assert Counter(row[3] for row in kept)["erased"] == machines.first - 1


def check_answers(machines: Machines) -> None:
    """The issuer has every receipt once, and each says once what it says of a delivery."""
    answered = machines.answered()
    assert Counter(act for *_, act in answered)["received"] == machines.published
    assert len(answered) == len(set(answered))
    assert [each.number for each in machines.receipts().values()] == list(range(1, len(machines.receipts()) + 1))
    with machines.outbox() as outbox:
        told = outbox.execute("SELECT leaf_number, header_digest, act FROM answers").fetchall()
    assert sorted(told) == sorted(answered)


async def check_trail(machines: Machines) -> None:
    """Whatever was sent has one record leaf that counts; what came twice has `repeated` ones beside it."""
    await machines.site.shown()
    records = await machines.site.records(streams.ROUTER, streams.TRAIL)
    entries = [codec.decode(Entry, value) for key, value in records if key == b"entry"]
    assert [each.leaf_number for each in entries] == list(range(len(entries)))
    kinds = dict[bytes, Counter[str]]()
    for each in entries:
        origin, kind = codec.decode(DecisionRecord, each.decision), codec.decode(Leaf, each.leaf).kind
        if origin.stream in (streams.notices("AT"), streams.receipts("GE")):
            kinds.setdefault(origin.record_digest, Counter())[kind] += 1
    receipts = machines.receipts().keys()
    assert len(kinds) == machines.published + len(receipts)
    for digest, found in kinds.items():
        first = "receipt" if digest in receipts else "routed"
        assert found[first] == 1
        assert found.keys() <= {first, "repeated"}
    assert sum(found["repeated"] for digest, found in kinds.items() if digest in receipts) >= 1


async def ended(process: asyncio.subprocess.Process, how: signal.Signals) -> None:
    """End a process that may have ended already."""
    with suppress(ProcessLookupError):
        process.send_signal(how)
    await process.wait()


@asynccontextmanager
async def working(site: Site) -> AsyncIterator[None]:
    """Run the broker, as a process, while the block runs."""
    async with site.bus(streams.OPERATOR) as operator:
        await world.write_versions(operator, directory(), PolicySet.packaged())
    process = await site.start()
    try:
        yield
        assert process.returncode is None
    finally:
        await ended(process, signal.SIGTERM)


async def every_point(machines: Machines) -> None:
    """Kill both machines at each of their points; then let them finish, and look at what each of the parties has."""
    async with working(machines.site):
        await every_outbox_point(machines)
        await every_collector_point(machines)
        await withdrawal(machines)
        assert await machines.publish("apply", answers=len(machines.answered())) == 0
        check_outbox(machines)
        check_inbox(machines)
        check_answers(machines)
    await check_trail(machines)


@pytest.mark.slow
async def test_on_the_embedded_bus(tmp_path: Path) -> None:
    async with SqliteBus(tmp_path / "bus.db", streams.ROUTER, WORLD, clock) as bus:
        await bus.create(list(WORLD.streams()))
    site = Site(tmp_path, f"sqlite:{tmp_path / 'bus.db'}", None)
    await every_point(Machines(site, None, 60))


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_on_kafka(tmp_path: Path) -> None:
    with running_kafka(WORLD) as kafka:
        site = Site(tmp_path, f"kafka:{kafka.bootstrap}", kafka)
        await every_point(Machines(site, kafka, 60))
