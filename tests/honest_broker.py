"""An honest broker in a few lines: it decides as it is told, and records, seals and delivers as the real one does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from broker import avro, codec, members, merkle, notes, streams
from broker.bus import Bus, Copies
from broker.directory import Directory
from broker.members import WrittenBureau, WrittenDirectory, WrittenKey, WrittenLog, WrittenMember
from broker.notice import (
    BODY_SCHEMAS,
    PURPOSES,
    DecisionRecord,
    Envelope,
    Header,
    Leaf,
    Outcome,
    Receipt,
    Recipient,
    RuleHit,
    Statement,
    Version,
)
from broker.route import Lines, Route, deliveries, lay
from broker.signing import SigningKey, decision_digest, header_digest
from tests.making import FEDERATION, key_of

BUREAUS = ("AT/ncb", "AT/border", "LV/ncb", "GE/ncb")
LOG_KEY = SigningKey.from_seed(sha256(b"honest log").digest())
LOG = notes.vkey(f"{FEDERATION}/trail", LOG_KEY.public.raw)
FOR_EVER = 4_000_000_000_000
DEPTH = 6


def directory(generations: Mapping[str, int] | None = None, version: int = 1) -> WrittenDirectory:
    """A small directory; `generations` tells which keys of a bureau are in it (0 up to that one)."""
    keys = [(bureau, each) for bureau in BUREAUS for each in range((generations or {}).get(bureau, 0) + 1)]
    return WrittenDirectory(
        federation=FEDERATION,
        version=version,
        members=tuple(WrittenMember(id=each, name=each, kind="state") for each in ("AT", "LV", "GE")),
        bureaus=tuple(
            WrittenBureau(id=each, index=index, name=each, mandates=PURPOSES) for index, each in enumerate(BUREAUS)
        ),
        keys=tuple(_key(*each) for each in keys),
        compartment_schemas=tuple(sorted(avro.fingerprint(name).hex() for name in BODY_SCHEMAS)),
        logs=(WrittenLog(shard=0, vkey=str(LOG)),),
    )


def _key(bureau: str, generation: int) -> WrittenKey:
    public = key_of(bureau, generation).public
    return WrittenKey(
        key_id=public.id.hex(), bureau=bureau, public=public.raw.hex(), valid_from=0, valid_until=FOR_EVER
    )


@dataclass
class HonestBroker:
    """Writes to the bus what an honest broker would."""

    bus: Bus
    now: int
    written: WrittenDirectory = field(default_factory=directory)
    key: SigningKey = LOG_KEY
    leaves: list[bytes] = field(default_factory=list)
    sealed: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    routes: dict[int, Route] = field(default_factory=dict)

    @property
    def directory(self) -> Directory:
        """The directory in force."""
        return members.parse(members.canonical(self.written))

    async def publish_directory(self) -> None:
        """Write the directory to the `versions` stream."""
        await self.bus.append(
            streams.VERSIONS, [(b"", codec.encode(Version("directory", members.canonical(self.written))))]
        )

    def subtree(self, level: int, index: int) -> bytes:
        """Root of a complete subtree."""
        return merkle.root(list(map(merkle.leaf_hash, self.leaves[index << level : (index + 1) << level])))

    def add(self, leaf: Leaf) -> int:
        """Append a leaf."""
        self.leaves.append(codec.encode(leaf))
        return len(self.leaves) - 1

    def head(self) -> notes.Checkpoint:
        """The head of all leaves."""
        return notes.Checkpoint(LOG.name, len(self.leaves), merkle.root(list(map(merkle.leaf_hash, self.leaves))))

    async def seal(self) -> None:
        """Sign the head and announce it."""
        size = len(self.leaves)
        proof = merkle.consistency_proof(self.sealed, size, self.subtree) if self.sealed else []
        note = notes.sign_checkpoint(self.head(), self.key)
        body = notes.format_advance(self.sealed, proof, note)
        await self.bus.append(streams.CHECKPOINTS, [(b"", body.encode())])
        self.sealed = size

    def prove(self, number: int) -> str:
        """Prove a leaf against the head of all leaves."""
        proof = merkle.inclusion_proof(number, len(self.leaves), self.subtree)
        return notes.format_proof(number, proof, notes.sign_checkpoint(self.head(), self.key))

    def record(
        self,
        data: bytes,
        shows: Mapping[str, tuple[str, ...]],
        ends: Mapping[str, tuple[str, int]] | None = None,
        kind: str = "routed",
    ) -> int:
        """Take in a notice as it came on the bus and decide who is shown what; `ends` orders replaces or erases."""
        envelope = codec.decode(Envelope, data)
        header = codec.decode(Header, envelope.header)
        names = [slot.name for slot in header.compartments]
        compartments = codec.decode_compartments(envelope.compartments)
        present = sum(1 << place for place, each in enumerate(compartments) if each.opened)
        rows = []
        for bureau, shown in shows.items():
            self.numbers[bureau] = self.numbers.get(bureau, 0) + 1
            mask = sum(1 << names.index(name) for name in shown) & present
            recipient = Recipient(BUREAUS.index(bureau), bureau, mask, delivery_number=self.numbers[bureau])
            act, number = (ends or {}).get(bureau, ("", 0))
            replaces, erases = (number,) if act == "replaces" else (), (number,) if act == "erases" else ()
            rows.append(replace(recipient, replaces=replaces, erases=erases))
        seed = os.urandom(32)
        lines = Lines.numbered(tuple(rows))
        laid = lay(lines, seed, DEPTH)
        opened = compartments[0].opened
        routing = opened.salt + opened.data if opened else b""
        record = replace(self._decision(data, envelope.header, tuple(rows)), seed=seed, routing=routing)
        decision, salt = codec.encode(record), os.urandom(32)
        digest = header_digest(envelope.header)
        leaf = self._leaf(kind, None, decision_digest(salt, decision), digest, laid.root)
        number = self.add(leaf)
        outcome = Outcome(
            kind, None, "", header.notice_id, header.issuer, sha256(data).digest(), None, (), (), b"",
            salt, decision, number, codec.encode(leaf), "",
        )  # fmt: skip
        self.routes[number] = Route(
            number, codec.encode(leaf), salt, decision, lines, laid, envelope, compartments,
            header.shown_until, (header.member,), outcome, header.notice_id,
        )  # fmt: skip
        return number

    def reject(self, data: bytes, code: str, *, signed: bool = True) -> Outcome:
        """Reject a notice; `signed` False: not even its signature counts."""
        envelope = codec.decode(Envelope, data)
        header = codec.decode(Header, envelope.header)
        record = replace(self._decision(data, b"", ()), detail=code)
        decision, salt = codec.encode(record), os.urandom(32)
        digest = header_digest(envelope.header) if signed else None
        leaf = self._leaf("rejected", code, decision_digest(salt, decision), digest, None)
        return Outcome(
            "rejected", code, code, header.notice_id if signed else None, header.issuer if signed else None,
            sha256(data).digest(), None, (), (), b"", salt, decision, self.add(leaf), codec.encode(leaf), "",
        )  # fmt: skip

    def refuse(self, data: bytes, code: str) -> Outcome:
        """Reject a record of which nothing else is known."""
        record = replace(self._decision(data, b"", ()), detail=code)
        decision, salt = codec.encode(record), os.urandom(32)
        leaf = self._leaf("rejected", code, decision_digest(salt, decision), None, None)
        return Outcome(
            "rejected", code, code, None, None, sha256(data).digest(), None, (), (), b"", salt, decision,
            self.add(leaf), codec.encode(leaf), "",
        )  # fmt: skip

    def confirm(self, data: bytes) -> Outcome:
        """Take in a receipt."""
        receipt = codec.decode(Receipt, codec.decode(Statement, data).payload)
        about = receipt.items[0].leaf_number if len(receipt.items) == 1 else None
        leaf = replace(self._leaf("receipt", receipt.act, os.urandom(32), None, None), about=about)
        return Outcome(
            "receipt", receipt.act, "", None, receipt.bureau, sha256(data).digest(), None, (), (), data,
            b"", b"", self.add(leaf), codec.encode(leaf), "",
        )  # fmt: skip

    def _leaf(self, kind: str, code: str | None, decision: bytes, digest: bytes | None, rows: bytes | None) -> Leaf:
        return Leaf(kind, self.now, code, digest, None, 0, self.directory.digest, bytes(32), decision, rows)

    def _decision(self, data: bytes, header: bytes, rows: tuple[Recipient, ...]) -> DecisionRecord:
        return DecisionRecord(
            "notices.at", 0, 0, self.now, sha256(data).digest(), header=header, depth=DEPTH, rows=rows,
            rules=(RuleHit("mandate", 1),),
        )  # fmt: skip

    def copies(self, number: int, *, expired: bool = False) -> list[Copies]:
        """The deliveries of a leaf, with their proof."""
        return deliveries(self.routes[number], self.prove(number), 0, expired=expired)

    async def deliver(self, number: int, *, expired: bool = False) -> None:
        """Copy a leaf to its inboxes and tell its issuer."""
        await self.bus.fan_out(self.copies(number, expired=expired))
        outcome = self.routes[number].outcome
        assert outcome is not None
        await self.tell("AT" if outcome.issuer is None else outcome.issuer.partition("/")[0], outcome)

    async def tell(self, member: str, outcome: Outcome) -> None:
        """Send an outcome with its proof."""
        value = codec.encode(replace(outcome, proof=self.prove(outcome.leaf_number)))
        await self.bus.append(streams.outcomes(member), [(b"", value)])

    async def route(
        self,
        data: bytes,
        shows: Mapping[str, tuple[str, ...]],
        ends: Mapping[str, tuple[str, int]] | None = None,
        kind: str = "routed",
    ) -> int:
        """The whole way of one notice."""
        number = self.record(data, shows, ends, kind)
        await self.seal()
        await self.deliver(number)
        return number
