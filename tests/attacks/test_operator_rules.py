"""The operator bends what is decided by: policies, directory, annex. He holds snapshot and timestamp keys, no other."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from adapters import subscriptions
from adapters.versions import Versions
from broker import codec, members, streams
from broker.members import WrittenAnnex, WrittenKey
from broker.notice import (
    SUBSCRIPTION_TYPE,
    DecisionRecord,
    Entry,
    Leaf,
    Recipient,
    Statement,
    Subscription,
    Version,
)
from broker.records import Records
from broker.route import Lines, lay
from broker.rules import PolicySet
from broker.signing import decision_digest
from broker.sqlite import SqliteBus
from broker.trail import Trail
from broker.trust import draft
from broker.trust.bundle import Opened
from cli.home import clock
from tests import federation
from tests.attacks.scene import ALL, Scene, verified, write_records, write_trail
from tests.audit.homes import person, standing
from tests.exchange.test_policy_versions import NOTHING
from tests.fake_bus import Clock, FakeBus, Memory
from tests.making import FEDERATION, NOW, key_of
from tests.member.conftest import draft as draft_of
from tests.trust import signed_world as world
from tests.trust.signed_world import changed_name, content, first_content, next_draft, opened
from tests.trust.test_bundle import _with_file

PACKAGED = PolicySet.packaged()
POLICIES = str(Path(__file__).parent.parent.parent / "policies")
THIEVING = key_of("the operator's own")
Change = Callable[[Leaf, DecisionRecord], tuple[Leaf, DecisionRecord]]


@dataclass
class Member:
    """A member's machine that has pinned the root."""

    bus: FakeBus
    clock: Clock
    versions: Versions

    async def shown(self, *values: bytes, kind: str = "directory") -> str:
        """Show it versions, one after the other; give why it refused the last one, "" if it did not."""
        for each in values:
            await self.bus.append(streams.VERSIONS, [(b"", codec.encode(Version(kind, each)))])
        await self.versions.follow(self.bus)
        return self.versions.refused()


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """A member that has seen nothing but the fingerprint of the root."""
    clock = Clock(NOW)
    versions = Versions(tmp_path / "versions", lambda: clock.now)
    versions.pin(world.root())
    return Member(FakeBus(Memory(clock=clock)), clock, versions)


@pytest.fixture(scope="module")
def first() -> Opened:
    """The first directory that was signed."""
    return opened(first_content())


def false_key() -> WrittenKey:
    """A key of the operator's, entered as AT's."""
    public = THIEVING.public
    return WrittenKey(
        key_id=public.id.hex(), bureau="AT/ncb", public=public.raw.hex(), valid_from=0, valid_until=federation.FOR_EVER
    )


# The directory.


async def test_the_operator_names_a_false_key_in_a_directory_of_his_own(member: Member) -> None:
    """He publishes a directory in which his key is AT's. It is not signed: the member goes on without it."""
    forged = members.canonical(federation.directory(version=2, extra_keys=(false_key(),)))
    assert "it is not signed" in await member.shown(first_content(), forged)
    assert member.versions.newest().key(THIEVING.public.id) is None


async def test_the_operator_names_a_false_key_in_a_signed_directory(member: Member) -> None:
    """He puts his key into AT's file and signs it, and all that lists it, with the keys he has. AT's role is AT's
    alone: `AT: signed by nobody`."""

    def add(said: dict[str, list[dict[str, object]]]) -> None:
        said["keys"].append(json.loads(false_key().model_dump_json()) | {"algorithm": "ed25519"})

    forged = _with_file(first_content(), "AT", "snapshot", add)
    assert "AT: signed by nobody" in await member.shown(first_content(), forged)
    assert member.versions.newest().key(THIEVING.public.id) is None


async def test_the_operator_rolls_the_directory_back(member: Member, first: Opened) -> None:
    """He shows the directory of before a change again, in which a lost key was still good: `older than version 2`."""
    after = content(next_draft(first, changed_name(first, "AT", "Vienna")), first, ["AT"])
    assert "version 1 is older than version 2" in await member.shown(first_content(), after, first_content())
    assert member.versions.newest().version == 2


async def test_the_operator_swaps_two_directories_of_one_number(member: Member, first: Opened) -> None:
    """AT signed two drafts with one number; he shows the one, then the other: `two different versions 2`."""
    one, other = (content(next_draft(first, changed_name(first, "AT", each)), first, ["AT"]) for each in ("A", "B"))
    assert "two different versions 2" in await member.shown(first_content(), one, other)


async def test_the_operator_puts_up_a_root_of_his_own(member: Member) -> None:
    """He founds a federation of the same name with two straw men. The member has pinned another root."""
    straw = [world.signatory(each) for each in ("RU", "EUROPOL")]
    root = draft.found(straw, (world.SNAPSHOT.public, world.TIMESTAMP.public), NOW, None)
    made = draft.propose(draft.Wanted(world.plain(keys=()), straw), None, root, NOW, "a coup", "operator")
    forged = content(made, signers=("RU", "EUROPOL"))
    assert "pinned here is not in the chain" in await member.shown(forged)
    assert member.versions.newest_digest("directory") is None


async def test_the_operator_freezes_the_directory(member: Member) -> None:
    """He keeps a new directory back. When his own timestamp runs out the member shows it in red; traffic goes on."""
    assert await member.shown(first_content()) == ""
    member.clock.now += draft.TIMESTAMP_LIFE_MS + 1
    assert member.versions.overdue() == ["timestamp"]
    assert member.versions.newest() is not None


async def test_the_operator_swaps_the_annex(tmp_path: Path) -> None:
    """He writes an annex that clears RU for what is secret, beside the one that the directory commits to. A broker
    looks an annex up by its digest: nothing follows from his, and a directory that names none that is there is
    refused (leaf `version-refused`)."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    genuine = members.canonical(WrittenAnnex(clearances={"AT/ncb": "secret"}))
    forged = members.canonical(WrittenAnnex(clearances={"RU/ncb": "secret"}))
    await bus.append(streams.ANNEXES, [(b"", codec.encode(Version("annex", forged)))])
    committed = federation.directory(annex=sha256(genuine).hexdigest())
    await federation.write_versions(bus, committed)
    made = federation.Federation(tmp_path, bus, clock)
    async with federation.running(tmp_path, bus, lambda: clock.now):
        while len(leaves := await made.leaves()) < 2:
            await bus.read(streams.TRAIL, await bus.end(streams.TRAIL), wait=0.05)
    assert [each.kind for each in leaves] == ["resumed", "version-refused"]


# Policies.


def allowed(base: Opened, number: int, *signers: str) -> bytes:
    """A policy set that these members signed."""
    made = draft.propose_policies(PACKAGED.content, number, "AT", NOW)
    return draft.allowed(world.signed_by(made, base, *signers), base)


async def test_the_operator_publishes_a_policy_set_of_his_own(member: Member) -> None:
    """He publishes a set that nobody signed. The member does not take it for the rules: `it is not signed`."""
    await member.shown(first_content())
    assert "it is not signed" in await member.shown(PACKAGED.content, kind="policies")
    assert member.versions.newest_digest("policies") is None


async def test_the_operator_changes_what_two_members_signed(member: Member, first: Opened) -> None:
    """He takes a rule out of a signed set and leaves the signatures. The digest that was signed is another's."""
    await member.shown(first_content())
    swapped = json.loads(allowed(first, 1, "AT", "LV"))
    swapped["policies"] = swapped["policies"].replace("forbid", "permit", 1)
    said = await member.shown(json.dumps(swapped, sort_keys=True, separators=(",", ":")).encode(), kind="policies")
    assert said
    assert member.versions.newest_digest("policies") is None


async def test_the_operator_swaps_signed_policies_and_swaps_them_back(member: Member, first: Opened) -> None:
    """Members replaced a set; he shows the old one again for an hour: `version 1 is older than version 2`."""
    await member.shown(first_content())
    sets = [allowed(first, number, "AT", "LV") for number in (1, 2, 1)]
    assert "version 1 is older than version 2" in await member.shown(*sets, kind="policies")


# What the auditor finds when he did it all the same, on a broker of his own making.


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three notices of AT's to LV. While the second came, a set that forbids everything was in force; nobody but the
    operator has a copy of anything."""
    folder = tmp_path_factory.mktemp("rules") / "home"
    with standing(folder) as homes:
        for number, before in ((1, None), (2, NOTHING), (3, PACKAGED)):
            if before:
                write_policies(folder, before)
            given = json.loads(person(f"r-{number}")) | {"topics": ["vehicles.stolen"]}
            sent = homes.valise("publish", "-", "--bureau", "AT/ncb", "--json", "--wait", "60", given=json.dumps(given))
            assert sent.value["notices"][0]["state"] == "routed", sent
    shutil.rmtree(folder / "members")
    return folder


def write_policies(folder: Path, policies: PolicySet) -> None:
    """Put a set in force, as the operator of a home without a pinned root can."""

    async def write() -> None:
        async with SqliteBus(folder / "bus.db", "operator", federation.world(), clock) as bus:
            await federation.write_versions(bus, policies=policies)

    asyncio.run(write())


@dataclass
class Books:
    """The operator's log and decision records, to be changed and signed again."""

    home: Path
    entries: list[Entry]

    @property
    def routed(self) -> list[int]:
        """Numbers of the leaves of the three notices."""
        kinds = [codec.decode(Leaf, each.leaf).kind for each in self.entries]
        return [number for number, kind in enumerate(kinds) if kind == "routed"]

    def change(self, number: int, change: Change) -> None:
        """Change a leaf and its decision record so that they fit."""
        self.entries[number] = changed(self.entries[number], number, change)

    def write(self) -> None:
        """Write all of it again, hashed and signed throughout."""
        write_trail(self.home / "operator" / "trail", [each.leaf for each in self.entries], federation.LOG_KEY)
        write_records(self.home / "operator" / "records.db", self.entries)


def changed(entry: Entry, number: int, change: Callable[[Leaf, DecisionRecord], tuple[Leaf, DecisionRecord]]) -> Entry:
    """A leaf and its decision record, changed so that they fit."""
    leaf, record = change(codec.decode(Leaf, entry.leaf), codec.decode(DecisionRecord, entry.decision))
    decision = codec.encode(record)
    rows = lay(Lines.numbered(record.rows), record.seed, record.depth).root if leaf.rows else None
    leaf = replace(leaf, decision=decision_digest(entry.decision_salt, decision), rows=rows)
    return Entry(number, codec.encode(leaf), entry.decision_salt, decision)


@pytest.fixture
def books(ended: Path, tmp_path: Path) -> Books:
    """A copy of the operator's books."""
    shutil.copytree(ended, tmp_path / "home")
    operator = tmp_path / "home" / "operator"
    records = Records(operator / "records.db")
    leaves = list(Trail.open(operator / "trail").entries())
    kept = [records.get(number) for number in range(len(leaves))]
    records.close()
    entries = [Entry(number, leaf, *each) for number, (leaf, each) in enumerate(zip(leaves, kept, strict=True)) if each]
    return Books(tmp_path / "home", entries)


def test_the_operator_swaps_a_policy_and_swaps_it_back(books: Books) -> None:
    """For one notice a set is in force that forbids everything. Its leaf names that set: with the true policies
    `audit verify --policy` repeats all decisions but this, which it counts by its digest. Never "good": exit 6."""
    verdict = verified(books.home, "--policy", POLICIES)
    assert (verdict.exit, verdict.findings) == (6, [])
    assert verdict.value["decisions"]["not_repeated"] == {NOTHING.digest.hex(): 1}


def test_the_operator_swaps_a_policy_and_denies_it(books: Books) -> None:
    """He writes the digest of the true set into that leaf. Repeated with it, LV should have received: exit 4."""
    books.change(books.routed[1], lambda leaf, record: (replace(leaf, policies=PACKAGED.digest), record))
    books.write()
    verdict = verified(books.home, "--policy", POLICIES)
    assert verdict.exit == 4
    assert verdict.says(f"leaf {books.routed[1]}: receives: LV/ncb: not on record")


def smuggled(leaf: Leaf, record: DecisionRecord) -> tuple[Leaf, DecisionRecord]:
    """Let RU/ncb receive, and say that every term allowed it."""
    bureau = 1 << 5
    row = replace(record.rows[0], index=5, bureau="RU/ncb", delivery_number=1)
    terms = replace(
        record.terms,
        allowed=record.terms.allowed | bureau,
        audience=record.terms.audience | bureau,
        reached=record.terms.reached | bureau,
    )
    return leaf, replace(record, rows=(*record.rows, row), terms=terms)


def test_the_operator_lets_in_whom_the_issuer_did_not_address(books: Books) -> None:
    """He gives AT's notice to RU, with a row, and doctors the terms of the decision. The audience is computed again
    from what AT signed: exit 4."""
    books.change(books.routed[0], smuggled)
    books.write()
    verdict = verified(books.home, "--policy", POLICIES)
    assert verdict.exit == 4
    assert verdict.says("in the audience: RU/ncb: on record, not by these policies")
    assert verdict.says("receives: RU/ncb: on record, not by these policies")


def test_the_operator_routes_a_notice_a_second_time_in_secret(books: Books) -> None:
    """He records AT's notice once more, for RU alone, and tells AT nothing of this leaf. Every leaf is checked, also
    this one: exit 4."""

    def for_another(leaf: Leaf, record: DecisionRecord) -> tuple[Leaf, DecisionRecord]:
        leaf, record = smuggled(leaf, record)
        return leaf, replace(record, rows=record.rows[1:])

    last = codec.decode(Leaf, books.entries[-1].leaf).now
    second = changed(books.entries[books.routed[0]], len(books.entries), for_another)
    books.entries.append(changed(second, len(books.entries), lambda leaf, record: (replace(leaf, now=last), record)))
    books.write()
    verdict = verified(books.home, "--policy", POLICIES)
    assert verdict.exit == 4
    assert verdict.says(f"leaf {len(books.entries) - 1}: receives: RU/ncb: on record, not by these policies")


def test_the_operator_puts_rows_on_record_that_his_decision_does_not_name(books: Books) -> None:
    """The leaf commits to a row of RU's that the decision record leaves out. The rows are laid again: exit 4."""
    number = books.routed[0]
    entry = books.entries[number]
    record = codec.decode(DecisionRecord, entry.decision)
    secret = Recipient(5, "RU/ncb", 6, delivery_number=1)
    root = lay(Lines.numbered((*record.rows, secret)), record.seed, record.depth).root
    leaf = replace(codec.decode(Leaf, entry.leaf), rows=root)
    books.entries[number] = replace(entry, leaf=codec.encode(leaf))
    books.write()
    verdict = verified(books.home, "--records")
    assert verdict.exit == 4
    assert verdict.says(f"leaf {number}: the recipients in its decision record are not those whose rows it commits to")


def test_the_operator_subscribes_or_unsubscribes_a_bureau(books: Books) -> None:
    """He records that GE/ncb wants nothing any more, to keep notices from it. GE's key did not sign it: exit 4."""
    number = len(books.entries)
    payload = codec.encode(Subscription(FEDERATION, "GE/ncb", 9, (), NOW))
    theirs = key_of("GE/ncb").public.id
    false = codec.encode(
        Statement(SUBSCRIPTION_TYPE, payload, theirs, federation.LOG_KEY.sign_payload(SUBSCRIPTION_TYPE, payload))
    )
    last = books.entries[-1]
    decision = codec.encode(DecisionRecord("notices.ge", 0, 0, NOW, sha256(false).digest(), statement=false))
    leaf = replace(
        codec.decode(Leaf, last.leaf), kind="subscribed", code=None, header_digest=None, about=None, rows=None,
        decision=decision_digest(last.decision_salt, decision),
    )  # fmt: skip
    books.entries.append(Entry(number, codec.encode(leaf), last.decision_salt, decision))
    books.write()
    verdict = verified(books.home, "--policy", POLICIES)
    assert verdict.exit == 4
    assert verdict.says(f"leaf {number}: the subscription of GE/ncb was not signed by it")


async def test_the_operator_tells_a_member_that_it_subscribes_to_what_it_never_signed(scene: Scene) -> None:
    """He records that AT/ncb wants nothing any more, under his own key or a sister bureau's, and tells AT so: its
    machine takes no such word, and `subscribe --list` goes on with what AT signed."""
    payload = codec.encode(Subscription(FEDERATION, "AT/ncb", 9, ("sought.*",), NOW))
    mine = key_of("AT/ncb")
    await scene.state(
        "subscribed",
        codec.encode(
            Statement(SUBSCRIPTION_TYPE, payload, mine.public.id, mine.sign_payload(SUBSCRIPTION_TYPE, payload))
        ),
        "AT",
    )
    assert await scene.learn() == []
    nothing = codec.encode(Subscription(FEDERATION, "AT/ncb", 10, (), NOW))
    alarms: list[str] = []
    for thief, named in ((THIEVING, mine), (key_of("AT/organised-crime"), key_of("AT/organised-crime"))):
        signature = thief.sign_payload(SUBSCRIPTION_TYPE, nothing)
        false = codec.encode(Statement(SUBSCRIPTION_TYPE, nothing, named.public.id, signature))
        await scene.state("subscribed", false, "AT")
        alarms.append("issuer-key")
        assert await scene.learn() == alarms
    outbox = scene.home("AT/ncb").outbox()
    found = subscriptions.of(outbox.database, "AT/ncb")
    outbox.close()
    assert found.adopted is not None
    assert found.adopted.patterns == ("sought.*",)


async def test_the_operator_judges_by_last_years_directory(scene: Scene) -> None:
    """A leaf names the directory of before, in which a key that AT gave up is in force. LV has had a delivery under
    the new one: `wrong-leaf`."""
    first, second = await scene.publish(draft_of("R-1"), draft_of("R-2"))
    old = scene.operator.written
    scene.operator.written = old.model_copy(update={"version": 2})
    await scene.operator.publish_directory()
    await scene.operator.route(first, {"LV/ncb": ALL})
    scene.operator.written = old
    await scene.operator.route(second, {"LV/ncb": ALL})
    seen = await scene.collect()
    assert (seen.records, seen.alarms) == (["R-1"], ["wrong-leaf"])


def with_directory(leaf: Leaf, record: DecisionRecord) -> tuple[Leaf, DecisionRecord]:
    return replace(leaf, directory=bytes(32)), record


def with_policies(leaf: Leaf, record: DecisionRecord) -> tuple[Leaf, DecisionRecord]:
    return replace(leaf, policies=bytes(32)), record


@pytest.mark.parametrize(("what", "change"), [("directory", with_directory), ("policies", with_policies)])
def test_the_operator_names_versions_that_he_never_adopted(books: Books, what: str, change: Change) -> None:
    """One leaf names another directory, or another set, than the leaves around it. Versions change only where an
    `adopted` leaf says so: exit 4, without policies or records."""
    number = books.routed[0]
    books.change(number, change)
    books.write()
    verdict = verified(books.home)
    assert verdict.exit == 4
    assert verdict.says(f"leaf {number}: names other {what} than those that were adopted")


def test_the_operator_adopts_a_directory_that_was_replaced(books: Books) -> None:
    """He adopts another directory, and the old one again, each with a leaf of its own. A directory never comes back:
    exit 4."""
    for directory in (bytes(32), codec.decode(Leaf, books.entries[-1].leaf).directory):
        last = books.entries[-1]
        leaf = replace(
            codec.decode(Leaf, last.leaf), kind="adopted", code="directory", header_digest=None, about=None,
            rows=None, directory=directory,
        )  # fmt: skip
        books.entries.append(replace(last, leaf_number=len(books.entries), leaf=codec.encode(leaf)))
    books.write()
    verdict = verified(books.home)
    assert verdict.exit == 4
    assert verdict.says(f"leaf {len(books.entries) - 1}: adopts a directory that was replaced before")
