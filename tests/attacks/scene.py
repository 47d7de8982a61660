"""The scene of the operator's attacks: he holds log key, bus and disk, and no bureau's key; members keep their tools.

AT publishes, LV and GE receive. The operator does what each story says; what is asserted is what a member's collector,
its outcomes and trace, or `valise audit verify` says about it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from adapters.adapter import Draft
from adapters.inbox import Inbox
from adapters.outbox import Published
from adapters.trace import Story, trace
from broker import codec, merkle, notes, streams
from broker.notice import (
    Compartment,
    DecisionRecord,
    Delivery,
    Entry,
    Envelope,
    Header,
    Leaf,
    Outcome,
    Receipt,
    Shared,
    Statement,
)
from broker.records import Records
from broker.signing import decision_digest
from broker.trail import Trail
from cli.audit import audit
from tests.fake_bus import FakeBus
from tests.honest_broker import LOG, HonestBroker
from tests.making import NOW
from tests.member.conftest import Machine, draft

ALL = ("identity", "warnings", "narrative")
Change = Callable[[Delivery, Shared], tuple[Delivery, Shared]]


@dataclass
class Home(Machine):
    """A member's machine, its files named as in a member's home."""

    now: int = NOW

    def clock(self) -> int:
        """The member's own time."""
        return self.now

    def inbox(self) -> Inbox:
        """Open the inbox."""
        return Inbox(self.folder / f"inbox.{self.bureau.partition('/')[2]}.db")


@dataclass(frozen=True)
class Seen:
    """What a bureau's collector came to."""

    records: list[str]
    """Records that were shown to it, in this round."""
    alarms: list[str]
    """Codes of all alarms so far."""
    missing: int
    """Delivery numbers that never came."""


@dataclass(frozen=True)
class Verdict:
    """What `audit verify` said."""

    exit: int
    findings: list[str]
    """As PLACE: WHAT."""
    value: Any
    """Everything, as --json gives it."""

    def says(self, words: str) -> bool:
        """Whether a finding holds these words."""
        return any(words in each for each in self.findings)


@dataclass
class Scene:
    """Operator and members."""

    folder: Path
    bus: FakeBus
    operator: HonestBroker
    homes: dict[str, Home]
    events: dict[int, Entry] = field(default_factory=dict)

    @property
    def trail(self) -> Path:
        """Where the operator's trail lies."""
        return self.folder / "operator" / "trail"

    def home(self, bureau: str) -> Home:
        """A bureau's machine."""
        folder = self.folder / "members" / bureau.partition("/")[0]
        return self.homes.setdefault(bureau, Home(folder, self.bus, bureau))

    def pass_time(self, ms: int) -> None:
        """Let time pass for everybody."""
        self.operator.now += ms
        for each in self.homes.values():
            each.now += ms

    # Members

    async def publish(self, *drafts: Draft) -> list[bytes]:
        """Publish for AT/ncb; give what came on the bus."""
        before = len(await self.bus.read("notices.at", 0))
        outbox = self.home("AT/ncb").outbox()
        assert all(isinstance(each, Published) for each in outbox.publish(drafts))
        await outbox.flush(self.bus)
        outbox.close()
        return [each.value or b"" for each in await self.bus.read("notices.at", before)]

    async def withdraw(self, record: str) -> bytes:
        """Let AT/ncb withdraw a record; give what came on the bus."""
        outbox = self.home("AT/ncb").outbox()
        outbox.withdraw(record, {"code": "arrested"})
        await outbox.flush(self.bus)
        outbox.close()
        return (await self.bus.read("notices.at", 0))[-1].value or b""

    async def collect(self, bureau: str = "LV/ncb") -> Seen:
        """Let a bureau take in what is there."""
        home = self.home(bureau)
        inbox = home.inbox()
        taken = await home.collector(inbox).drain()
        seen = Seen(
            [each.record for each in taken.new], [each.code for each in inbox.journal.alarms()], inbox.missing()
        )
        inbox.close()
        return seen

    def body(self, number: int, bureau: str = "LV/ncb") -> dict[str, Any] | None:
        """What a bureau reads of a delivery; None if it has it not, or no longer."""
        inbox = self.home(bureau).inbox()
        opened = inbox.open(number)
        inbox.close()
        return opened.body if opened else None

    async def receipts(self, member: str = "LV") -> list[bytes]:
        """What a member's bureaus have signed."""
        return [each.value or b"" for each in await self.bus.read(streams.receipts(member), 0)]

    async def learn(self, bureau: str = "AT/ncb") -> list[str]:
        """Let a member follow its outcomes; give the codes of all alarms so far."""
        home = self.home(bureau)
        outbox = home.outbox()
        outcomes = home.outcomes(outbox)
        await outcomes.drain()
        found = [each.code for each in outcomes.journal.alarms()]
        outbox.close()
        return found

    async def story(self, data: bytes) -> Story:
        """What AT's trace says of a notice that it sent."""
        await self.learn()
        outbox = self.home("AT/ncb").outbox()
        found = trace(outbox.database, header_of(data).notice_id)
        outbox.close()
        assert found is not None
        return found

    # The operator

    async def hand(self, number: int, change: Change, bureau: str = "LV/ncb", to: str = "") -> None:
        """Put the delivery of a leaf to `bureau` into an inbox, changed."""
        delivery = self.delivery(number, bureau)
        delivery, shared = change(delivery, codec.decode(Shared, delivery.shared))
        await self.put(to or bureau, replace(delivery, shared=codec.encode(shared)))

    async def put(self, bureau: str, delivery: Delivery) -> None:
        """Put anything into an inbox."""
        await self.bus.append(streams.inbox(bureau), [(b"", codec.encode(delivery))])

    def delivery(self, number: int, bureau: str = "LV/ncb", *, expired: bool = False) -> Delivery:
        """The honest delivery of a leaf."""
        stream = streams.inbox(bureau)
        copies = self.operator.copies(number, expired=expired)
        return next(
            codec.decode(Delivery, own + each.shared) for each in copies for name, own in each.own if name == stream
        )

    async def announce(self, head: notes.Checkpoint, old: int = 0, proof: Sequence[bytes] = ()) -> None:
        """Sign a head with the log key and write it to `checkpoints`."""
        body = notes.format_advance(old, list(proof), notes.sign_checkpoint(head, self.operator.key))
        await self.bus.append(streams.CHECKPOINTS, [(b"", body.encode())])

    async def confirm(self, data: bytes) -> int:
        """Record a receipt as the broker does, and tell AT; return its leaf number."""
        receipt = codec.decode(Receipt, codec.decode(Statement, data).payload)
        record = DecisionRecord("receipts.lv", 0, 0, self.operator.now, sha256(data).digest(), statement=data)
        decision, salt = codec.encode(record), bytes(32)
        told = self.operator.confirm(data)
        number = told.leaf_number
        leaf = leaf_but(told.leaf, decision=decision_digest(salt, decision), code=receipt.act)
        self.operator.leaves[number], self.events[number] = leaf, Entry(number, leaf, salt, decision)
        await self.operator.seal()
        await self.operator.tell("AT", replace(told, leaf=leaf))
        return number

    async def revoke(self, data: bytes, *members: str) -> None:
        """Record a revocation as the broker does, and tell these members."""
        await self.state("revoked", data, *members)

    async def state(self, kind: str, data: bytes, *members: str) -> None:
        """Record a statement as the broker does, in a leaf of this kind, and tell these members."""
        record = DecisionRecord("notices.lv", 0, 0, self.operator.now, sha256(data).digest(), statement=data)
        decision, salt = codec.encode(record), bytes(32)
        digest = self.operator.directory.digest
        leaf = codec.encode(
            Leaf(
                kind,
                self.operator.now,
                None,
                None,
                None,
                0,
                digest,
                bytes(32),
                decision_digest(salt, decision),
                None,
            )
        )
        self.operator.leaves.append(leaf)
        number = len(self.operator.leaves) - 1
        self.events[number] = Entry(number, leaf, salt, decision)
        await self.operator.seal()
        told = Outcome(
            kind, None, "", None, "LV/ncb", record.record_digest, None, (), (), data, salt, decision, number,
            leaf, "",
        )  # fmt: skip
        for member in members:
            await self.operator.tell(member, told)

    def entries(self) -> list[Entry]:
        """All leaves with their decision records."""
        routes = self.operator.routes
        return [
            self.events.get(number) or Entry(number, leaf, routes[number].decision_salt, routes[number].decision)
            for number, leaf in enumerate(self.operator.leaves)
        ]

    # The auditor

    def lay_out(self, leaves: Sequence[bytes] | None = None, key: Any = None) -> None:
        """Write a trail of these leaves to disk, hashed and signed throughout."""
        write_trail(self.trail, self.operator.leaves if leaves is None else leaves, key or self.operator.key)

    def lay_out_records(self, entries: Sequence[Entry] | None = None) -> None:
        """Write decision records to disk."""
        write_records(self.folder / "operator" / "records.db", self.entries() if entries is None else entries)

    def verify(self, *more: str) -> Verdict:
        """Run `valise audit verify` on the operator's disk, against what the members' homes kept."""
        vkey = self.folder / "vkey"
        vkey.write_text(f"{LOG}\n", encoding="utf-8")
        return verified(self.folder, "--vkey", str(vkey), *more)


async def two_logs(kept: Scene) -> HonestBroker:
    """From the ninth leaf on LV is shown one history and GE another; neither sees the other's bus.

    On disk lies what LV was shown; the broker that GE was shown is given back.
    """
    shown = {}
    for bureau in ("LV/ncb", "GE/ncb"):
        bus = FakeBus()
        bus.memory.partitions = {
            place: replace(part, records=list(part.records)) for place, part in kept.bus.memory.partitions.items()
        }
        operator = kept.operator
        fork = HonestBroker(
            bus, operator.now, leaves=list(operator.leaves), sealed=operator.sealed, numbers=dict(operator.numbers)
        )
        old = kept.home(bureau)
        kept.homes[bureau] = Home(old.folder, bus, bureau, now=old.now)
        shown[bureau] = fork
    one, other = await kept.publish(draft("for Riga"), draft("for Tbilisi"))
    await shown["LV/ncb"].route(one, {"LV/ncb": ALL})
    await shown["GE/ncb"].route(other, {"GE/ncb": ALL})
    assert (await kept.collect()).records == ["for Riga"]
    assert (await kept.collect("GE/ncb")).records == ["for Tbilisi"]
    kept.operator = shown["LV/ncb"]
    kept.lay_out()
    return shown["GE/ncb"]


def verified(home: Path, *more: str) -> Verdict:
    """Run `valise audit verify` on a home."""
    result = CliRunner().invoke(audit, ["verify", "--home", str(home), "--json", *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    value = json.loads(result.stdout)
    assert value["exit"] == result.exit_code
    return Verdict(result.exit_code, [f"{each['place']}: {each['what']}" for each in value["findings"]], value)


def write_trail(folder: Path, leaves: Sequence[bytes], key: Any) -> None:
    """Write a whole log in the place of what lies there, under one signed head."""
    shutil.rmtree(folder, ignore_errors=True)
    log = Trail.open(folder, LOG.name)
    staged = log.stage(leaves)
    log.write(staged)
    log.publish(staged, notes.sign_checkpoint(notes.Checkpoint(LOG.name, staged.size, staged.root), key))
    (folder / "vkey").write_text(f"{notes.vkey(LOG.name, key.public.raw)}\n", encoding="utf-8")


def write_records(file: Path, entries: Sequence[Entry]) -> None:
    """Write decision records in the place of what lies there."""
    for each in file.parent.glob(f"{file.stem}*"):
        each.unlink()
    records = Records(file)
    records.add(entries)
    records.close()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of a log."""
    return merkle.root(list(map(merkle.leaf_hash, leaves)))


def header_of(data: bytes) -> Header:
    """The header of an envelope as it came on the bus."""
    return codec.decode(Header, codec.decode(Envelope, data).header)


def leaf_but(data: bytes, **changes: Any) -> bytes:
    """A leaf with other fields."""
    return codec.encode(replace(codec.decode(Leaf, data), **changes))


def same(delivery: Delivery, shared: Shared) -> tuple[Delivery, Shared]:
    """Change nothing."""
    return delivery, shared


def own_part(**changes: Any) -> Change:
    """Change fields of the own part of a delivery."""
    return lambda delivery, shared: (replace(delivery, **changes), shared)


def shared_part(**changes: Any) -> Change:
    """Change fields of the shared part of a delivery."""
    return lambda delivery, shared: (delivery, replace(shared, **changes))


def sealed_part(change: Callable[[Envelope], Envelope]) -> Change:
    """Change the envelope of a delivery."""
    return lambda delivery, shared: (
        delivery,
        replace(shared, envelope=codec.encode(change(codec.decode(Envelope, shared.envelope)))),
    )


def compartments(opened: Mapping[str, Any]) -> Change:
    """Put these in the place of what is open (or not) of the compartments named."""

    def within(envelope: Envelope) -> Envelope:
        kept = codec.decode_compartments(envelope.compartments)
        changed = tuple(Compartment(each.name, opened.get(each.name, each.opened)) for each in kept)
        return replace(envelope, compartments=codec.encode_compartments(changed))

    return sealed_part(within)
