"""Plays a story through the real check, judge, step and route, as ingest and distribute do, on a register in memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import cast

from broker import avro, cases, codec, members, streams
from broker.bus import Record
from broker.decide import Subscriptions, View
from broker.directory import Annex
from broker.errors import NoticeRejectedError
from broker.given import Givens
from broker.holders import Holders
from broker.judge import Judge, Ruling
from broker.members import WrittenAuditor, WrittenDirectory, WrittenKey
from broker.merkle import Frontier
from broker.notice import (
    BODY_SCHEMAS,
    RELEASED,
    ROUTING,
    Delivery,
    Entry,
    Envelope,
    Routing,
    Row,
    Shared,
)
from broker.notice import Leaf as WrittenLeaf
from broker.recheck import Grounds, Sent, recheck
from broker.recorded import Recorded, remember
from broker.records import Records
from broker.register import Register
from broker.rejections import NoticeCopy
from broker.route import Route, deliveries, kept, restored
from broker.rules import PolicySet, Rules, read_rules
from broker.step import Done, InForce, Step
from broker.verify import Keys, check
from tests import making
from tests.fake_bus import still_owned
from tests.model.story import (
    AUDITOR,
    GENERATIONS,
    Act,
    Ask,
    Change,
    Confirm,
    Federation,
    Line,
    Outcome,
    Publish,
    Restart,
    Revoke,
    Story,
    Subscribe,
    key_of,
)
from tests.policy.oracle import member

POLICIES = PolicySet.packaged()
RULES = read_rules(POLICIES)
SCHEMAS = tuple(sorted(avro.fingerprint(name).hex() for name in BODY_SCHEMAS))
ALWAYS = 4_000_000_000_000


@contextmanager
def opened() -> Iterator[Register]:
    """Open a register for the stories that are played one after another: to make its file takes longer than a story."""
    with (
        tempfile.TemporaryDirectory(prefix="valise-model-") as folder,
        closing(Register(Path(folder) / "register.db")) as register,
    ):
        asyncio.run(register.take_over(still_owned))
        yield register


def played(story: Story, register: Register) -> list[tuple[Outcome, ...] | Exception]:
    """Give what came of each act; where the broker broke, or its record contradicts itself, the error ends the list."""
    broker, came = Played(story.federation, register), list[tuple[Outcome, ...] | Exception]()
    try:
        for at, act in story.acts:
            came.append(broker.take(act, at))
        broker.audited()
    except Exception as error:  # noqa: BLE001 - whatever breaks is what the story is to tell
        came[len(story.acts) - 1 :] = [error]  # what the auditor finds in the end is told of the last act
    finally:
        emptied(register)
    return came


def emptied(register: Register) -> None:
    """Leave nothing in the register, of a step that broke off neither."""
    register.end_step()
    register._recent.clear()
    register.forget()


class Played:
    """One broker without bus, disk and seal, and an auditor who follows it."""

    def __init__(self, federation: Federation, register: Register) -> None:
        self.register, self.frontier = register, Frontier()
        self.now, self.offset, self.version = 0, 0, 0
        self.revoked: set[bytes] = set()
        self.patterns: dict[str, tuple[str, ...]] = {}
        self.entries: list[Entry] = []
        self.stream: dict[str, bytes | None] = {}
        self.unsettled: dict[str, bytes | None] = {}
        self.settled = register.place
        self.auditor = Auditor()
        self.copies: list[NoticeCopy] = []
        self.sent: dict[bytes, Sent] = {}
        """What all that sent anything kept of it, as an auditor may be brought it."""
        self.grounds: dict[bytes, Grounds] = {}
        self.adopt(federation)
        self.books = Books(self.entries)
        self.givens = Givens(cast("Records", self.books))
        self.judge = Judge(self.register, self.view, self.givens.find)

    def take(self, act: Act, at: int) -> tuple[Outcome, ...]:
        """Let one act happen; give the leaves that come of it."""
        match act:
            case Change():
                self.adopt(act.federation)
                self.judge.view = self.view
                return ()
            case Restart():
                self.restart()
                return ()
            case Publish():
                return self.step(notices(act.notice.issuer), codec.encode(act.notice.envelope), at)
            case Confirm():
                return self.step(streams.receipts(member(act.bureau)), act.statement(at), at)
            case Ask():
                return self.step(streams.ASKS, act.statement(at), at)
        outcomes = self.step(notices(act.bureau), act.statement(at), at)
        if outcomes[0].kind == "subscribed" and isinstance(act, Subscribe):
            self.patterns[act.bureau] = act.patterns
        elif outcomes[0].kind == "revoked" and isinstance(act, Revoke):
            self.revoked.add(key_of(act.bureau, act.generation).public.id)
        return outcomes

    def adopt(self, federation: Federation) -> None:
        """Take a version of the directory into force."""
        self.version += 1
        made = grounds_of(members.canonical(written(federation, self.version)), federation)
        directory = made.directory
        self.view = View(directory, made.rules, Subscriptions.of(directory, self.patterns))
        self.grounds[directory.digest] = made
        self.in_force = InForce(directory.digest, POLICIES.digest, len(directory.by_index) - 1)
        self.keys = Keys(directory, self.revoked)

    def audited(self) -> None:
        """Check all that is on record as `audit verify --policy` does, and find nothing wrong."""
        found = recheck(
            self.books, self.books, lambda leaf: self.grounds.get(leaf.directory), self.sent, copies=self.copies  # type: ignore[arg-type] # enough of a trail
        )  # fmt: skip
        assert not found.findings, f"the auditor finds {found.findings}"
        assert not found.others, "the auditor repeats not every decision"

    def restart(self) -> None:
        """Restore the register from its compacted stream, and what was given from the decision records."""
        before = standing(self.register)
        emptied(self.register)
        self.settled, self.unsettled = len(self.stream), {}
        self.register.restore([(key.encode(), value) for key, value in self.stream.items()], self.settled)
        assert standing(self.register) == before, "what is restored is not what the steps left"
        self.books = Books(self.entries)
        self.givens = Givens(cast("Records", self.books))
        self.judge = Judge(self.register, self.judge.view, self.givens.find)

    def step(self, stream: str, value: bytes, at: int) -> tuple[Outcome, ...]:
        """Take in one record in a step of its own."""
        record = Record(stream, 0, self.offset, at, b"", value)
        self.offset += 1
        self.keep(stream, value)
        try:
            ruling = self.judge.rule(record, check(record, at, self.keys), at)
        except NoticeRejectedError as error:
            ruling = self.judge.rule(record, error, at)
        step = Step(self.register, self.frontier, self._random, self.in_force, self.now)
        step.apply(record, ruling, at)
        if ruling.then:
            step.apply(None, ruling.then, at)
        self.judge.view = ruling.view or self.judge.view
        return self._done(step.done(), [ruling, *([ruling.then] if ruling.then else [])])

    def keep(self, stream: str, value: bytes) -> None:
        """Keep what is sent as its sender's file does: notices and receipts."""
        digest = sha256(value).digest()
        if avro.name_of(value) == "envelope":
            sent = codec.decode(Envelope, value)
            opened = codec.decode_compartments(sent.compartments)[0].opened
            if opened:
                routing = codec.decode(Routing, opened.data)
                self.copies.append(NoticeCopy(sent, routing.series, routing.number, digest, "its issuer"))
        elif streams.family_of(stream) == streams.family_of(streams.receipts("AT")):
            self.sent[digest] = Sent("its bureau", 1, "its bureau", statement=lambda _: value)

    def _random(self, count: int) -> bytes:
        return sha256(str(self.offset).encode()).digest() * (count // 32)

    def _done(self, done: Done, rulings: list[Ruling]) -> tuple[Outcome, ...]:
        self.now = done.head.now
        self.givens.keep(done.given)
        self.entries += done.entries
        # As in ingest: the step before is settled only when this one has been applied to what it left.
        self.settled += len(self.unsettled)
        self.register.settle(self.unsettled, self.settled)
        self.unsettled = done.changes
        self.stream |= done.changes
        routes = {route.leaf_number: route for route in done.routes}
        for route in done.routes:
            _check_told(route, done.taken[0].value)
        for each in done.entries:
            self.auditor.follow(each, self.view.directory.everyone)
        return tuple(
            _outcome(entry, ruling, _lines(routes.get(entry.leaf_number), self.now))
            for entry, ruling in zip(done.entries, rulings, strict=True)
        )


def grounds_of(written: bytes, federation: Federation) -> Grounds:
    """Compile the packaged policies for a version of the directory."""
    directory, scope = members.parse(written), federation.world
    annex = Annex(None, MappingProxyType(dict(scope.clearances)), frozenset(scope.supervision))
    return Grounds(directory, Rules(RULES, directory, annex))


def standing(register: Register) -> dict[str, bytes]:
    """Give all entries, as the steps so far left them."""
    settled = dict(register._db.execute("SELECT key, value FROM entry"))
    return {key: value for key, value in {**settled, **register._recent}.items() if value is not None}


class Books:
    """Leaves and decision records in memory, growing with the trail."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self.entries)

    def entry(self, number: int) -> bytes:
        """Give one leaf."""
        return self.entries[number].leaf

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Give the records from a leaf on."""
        return ((each.leaf_number, each.decision_salt, each.decision) for each in self.entries[begin:])

    def get(self, leaf_number: int) -> tuple[bytes, bytes] | None:
        """Give the record of a leaf."""
        there = 0 <= leaf_number < self.size
        return (self.entries[leaf_number].decision_salt, self.entries[leaf_number].decision) if there else None


class Auditor:
    """Counts holders from the decisions alone, as `audit verify --records` does, and finds nothing wrong."""

    def __init__(self) -> None:
        self.leaves: list[WrittenLeaf] = []
        self.found: dict[int, Recorded] = {}
        self.holders = Holders(lambda number: self.leaves[number], self.found.get, looks=0)

    def follow(self, entry: Entry, everyone: int) -> None:
        """Take in the next leaf."""
        self.leaves.append(codec.decode(WrittenLeaf, entry.leaf))
        recorded = remember(entry.leaf_number, entry.leaf, entry.decision_salt, entry.decision)
        if recorded is None:
            return
        assert self.holders.goes_on(), "an honest log uses up the looks of its leaves"
        counted = self.holders.holding(recorded)
        if counted is not None and recorded.leaf.kind in ("routed", "held", RELEASED):
            assert recorded.record.holders == counted & everyone, "the auditor counts other holders"
        self.found[entry.leaf_number] = recorded
        wrong = self.holders.take(recorded)
        assert not wrong, f"the auditor finds that leaf {entry.leaf_number} {wrong}"


def written(federation: Federation, version: int) -> WrittenDirectory:
    """Write the directory of a federation, with the keys of all bureaus."""
    world = federation.world
    ends = {(bureau, generation): end for bureau, generation, end in federation.ends}
    keys = [
        WrittenKey(key_id=key.id.hex(), bureau=bureau, public=key.raw.hex(), valid_from=0, valid_until=until)
        for bureau in world.bureaus
        for each in range(GENERATIONS)
        for key, until in [(key_of(bureau, each).public, ends.get((bureau, each), ALWAYS))]
    ]
    looks = key_of(AUDITOR).public
    auditor = WrittenAuditor(
        id=AUDITOR, key_id=looks.id.hex(), public=looks.raw.hex(), valid_from=0, valid_until=ALWAYS
    )
    more = {
        "keys": tuple(keys),
        "auditors": (auditor,),
        "authorities": federation.authorities,
        "compartment_schemas": SCHEMAS,
    }
    return cases._directory(world).model_copy(update={"federation": making.FEDERATION, "version": version, **more})


def notices(bureau: str) -> str:
    return streams.notices(member(bureau))


def _check_told(route: Route, record: bytes | None) -> None:
    """Check what members learn: of a receipt just the signed bytes, of nothing else than their own its decision."""
    outcome = route.outcome
    assert outcome == restored(kept(route)).outcome, "an outcome that is read back says something else"
    if outcome is None or outcome.kind != "receipt":
        return
    assert outcome.statement == record, "the issuer is told another receipt"
    assert (outcome.decision, outcome.decision_salt) == (b"", b""), "the issuer is told how a receipt was recorded"


def _outcome(entry: Entry, ruling: Ruling, lines: Mapping[str, Line]) -> Outcome:
    leaf = codec.decode(WrittenLeaf, entry.leaf)
    codes = frozenset([leaf.code] if leaf.code else [])
    return Outcome(leaf.kind, ruling.tell, codes, leaf.about, frozenset(ruling.warnings), lines, ruling.detail)


def _lines(route: Route | None, now: int) -> dict[str, Line]:
    if route is None:
        return {}
    lines = _opened(route, now)
    assert lines == _opened(restored(kept(route)), now), "a route that is read back delivers otherwise"
    assert lines.keys() == {each.bureau for each in route.lines.recipients}, "not every line is delivered"
    return lines


def _opened(route: Route, now: int) -> dict[str, Line]:
    """Read the bytes that leave, as bureaus do."""
    found = {}
    expired = route.expires is not None and route.expires <= now
    for copies in deliveries(route, "proof", 0, expired=expired):
        for stream, own in copies.own:
            delivery = codec.decode(Delivery, own + copies.shared)
            envelope = codec.decode(Envelope, codec.decode(Shared, delivery.shared).envelope)
            parts = codec.decode_compartments(envelope.compartments)
            shown = frozenset(each.name for each in parts if each.opened is not None)
            row = codec.decode(Row, delivery.row)
            assert ROUTING not in shown, "routing is delivered"
            assert row.bureau == delivery.bureau, "a row of another"
            assert stream == f"inbox.{row.bureau.replace('/', '.').lower()}", "the inbox of another"
            said = {each.name for place, each in enumerate(parts) if row.shown >> place & 1}
            assert shown == (set() if expired else said), "row and bytes"
            replaces, erases = sorted(delivery.replaces), sorted(delivery.erases)
            found[row.bureau] = Line(row.delivery_number, shown, tuple(replaces), tuple(erases))
    return found
