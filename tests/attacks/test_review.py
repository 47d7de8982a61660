"""Somebody gets round the review: a member releases what is held, or the operator holds and releases as he likes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.outbox import Published
from adapters.trace import trace
from broker import codec, members
from broker.directory import NO_ANNEX
from broker.errors import VersionRefusedError
from broker.examine import examine
from broker.members import WrittenDirectory
from broker.notice import Audience, DecisionRecord, Entry, Envelope, Header, Leaf, Outcome, Reference
from broker.recheck import Grounds, Rechecked, Sent, recheck
from broker.records import Records
from broker.rejections import NoticeCopy
from broker.route import Lines, lay
from broker.rules import PolicySet, Rules
from broker.signing import decision_digest
from broker.trail import Trail
from tests import federation as world
from tests.attacks.bench import AUTHORITY, REVIEWER, Bench, notice
from tests.attacks.scene import Home, write_records, write_trail
from tests.fake_bus import FakeBus
from tests.making import Draft, reference
from tests.member.conftest import draft
from tests.trust import signed_world
from tests.trust.signed_world import content, first_content, next_draft, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")


def wanted(*to: str) -> Draft:
    """A notice that is held."""
    return notice("AT/ncb", *to).but(topics=("wanted.red",))


def approval(of: Envelope, issuer: str = REVIEWER, verdict: str = "release") -> Draft:
    """What a reviewer says of a held notice."""
    made = notice(issuer, kind="approval", parts=("terms",))
    return made.but(action_sought=verdict, references=(reference(of, "approves"),))


async def held(shared: Bench) -> tuple[Envelope, Outcome]:
    """A notice of AT's that waits for its review."""
    envelope = wanted().envelope()
    outcome = await shared.publish(envelope)
    assert outcome.kind == "held"
    return envelope, outcome


async def test_a_held_notice_is_released_by_who_was_given_it(shared: Bench) -> None:
    """The stories below would mean nothing if this did not hold."""
    envelope, _ = await held(shared)
    before = await shared.inboxes()
    assert (await shared.publish(approval(envelope))).kind == "routed"
    assert (await shared.inboxes())["LV/ncb"] == before["LV/ncb"] + 1


@pytest.mark.parametrize("verdict", ["release", "refuse"])
async def test_who_has_the_version_before_releases_its_correction(shared: Bench, verdict: str) -> None:
    """LV got AT's notice; AT's correction of it is held, and LV was not asked: neither release nor refusal counts."""
    first = notice("AT/ncb", "LV/ncb").envelope()
    await shared.delivered(first)
    record = codec.decode(Header, first.header).record
    corrects = (reference(first, "corrects"),)
    second = wanted("LV/ncb", "GE/ncb").but(record=record, version=2, references=corrects).envelope()
    assert (await shared.publish(second)).kind == "held"
    before = await shared.inboxes()
    outcome = await shared.publish(approval(second, "LV/ncb", verdict))
    assert (outcome.kind, outcome.code) == ("rejected", "invalid-reference")
    assert await shared.inboxes() == before
    assert (await shared.publish(approval(second))).kind == "routed"


async def test_issuer_and_holder_follow_a_release_and_a_refusal(shared: Bench, tmp_path: Path) -> None:
    """AT's trace and LV's inbox say the same of what was held as of anything else."""
    bus = shared.federation.bus
    assert isinstance(bus, FakeBus)
    at, lv = (Home(tmp_path / each[:2], bus, each) for each in ("AT/ncb", "LV/ncb"))
    await at.versions.follow(bus)
    outbox, inbox = at.outbox(), lv.inbox()
    outcomes = at.outcomes(outbox)
    await outcomes.drain()
    await lv.collector(inbox).drain()
    await shared.federation.settled()
    told = len(await shared.federation.outcomes("AT"))
    to_lv = Audience(everyone=False, to=("LV/ncb",))
    released, refused = (
        draft(each, audience=to_lv, subject_categories=("suspect",), topics=("wanted.red",)) for each in ("R-1", "R-2")
    )
    ids = [each.notice_id for each in outbox.publish([released, refused]) if isinstance(each, Published)]
    await outbox.flush(bus)
    await shared.federation.outcomes("AT", told + 2)
    await outcomes.drain()
    assert [trace(outbox.database, each).outcome for each in ids] == ["held", "held"]  # type: ignore[union-attr] # there

    sent = [each.value or b"" for each in await bus.read("notices.at", await bus.end("notices.at") - 2)]
    for data, verdict in zip(sent, ("release", "refuse"), strict=True):
        await shared.publish(approval(codec.decode(Envelope, data), verdict=verdict))
    await shared.federation.outcomes("AT", told + 4)
    await outcomes.drain()
    stories = [trace(outbox.database, each) for each in ids]
    assert [each.outcome for each in stories if each] == ["routed", "refused"]
    assert [each.bureau for each in stories[0].reached] == ["LV/ncb"]  # type: ignore[union-attr] # there
    await outbox.flush(bus)
    taken = await lv.collector(inbox).drain()
    assert ([each.record for each in taken.new], taken.refused) == (["R-1"], 0)
    await shared.federation.settled()
    outbox.close()
    inbox.close()


@pytest.mark.parametrize("issuer", ["AT/ncb", "AT/organised-crime", "LV/ncb", "RU/ncb"])
async def test_a_member_releases_what_it_was_not_given_to_review(shared: Bench, issuer: str) -> None:
    """AT releases its own notice, or a friend does. Only a bureau that was given it to review may:
    `invalid-reference`, and LV gets nothing."""
    envelope, _ = await held(shared)
    before = await shared.inboxes()
    assert (await shared.publish(approval(envelope, issuer))).code == "invalid-reference"
    assert (await shared.inboxes())["LV/ncb"] == before["LV/ncb"]


async def test_a_member_refuses_anothers_notice(shared: Bench) -> None:
    """RU ends AT's notice as a reviewer would: `invalid-reference`. The reviewer can still release it."""
    envelope, _ = await held(shared)
    assert (await shared.publish(approval(envelope, "RU/ncb", "refuse"))).code == "invalid-reference"
    assert (await shared.publish(approval(envelope))).kind == "routed"


async def test_a_member_has_another_notice_released_than_was_reviewed(shared: Bench) -> None:
    """AT takes a released notice's approval for the next one, which nobody has read. It names the header's digest:
    `repeated` as it was sent, `invalid-reference` for any other notice."""
    first, _ = await held(shared)
    second, _ = await held(shared)
    said = approval(first).envelope()
    assert (await shared.publish(said)).kind == "routed"
    assert (await shared.publish(said)).kind == "repeated"
    other = replace(reference(second, "approves"), header_digest=reference(first, "approves").header_digest)
    assert (await shared.publish(approval(second).but(references=(other,)))).code == "invalid-reference"
    before = await shared.inboxes()
    assert (await shared.publish(approval(first))).code == "invalid-reference"
    assert (await shared.inboxes())["LV/ncb"] == before["LV/ncb"]


@pytest.mark.parametrize("verdict", ["release", "refuse"])
async def test_who_reviews_no_longer_decides_on_what_it_was_given(shared: Bench, verdict: str) -> None:
    """EUROPOL is given AT's notice to review; then all members together take the office from it. Its word on what it
    still has counts for nothing: `invalid-reference`. Named again, it decides."""
    envelope, _ = await held(shared)
    await adopted(shared, reviewers=("GE/ncb",))
    before = await shared.inboxes()
    outcome = await shared.publish(approval(envelope, verdict=verdict))
    assert (outcome.kind, outcome.code) == ("rejected", "invalid-reference")
    assert await shared.inboxes() == before
    await adopted(shared, reviewers=(REVIEWER,))
    assert (await shared.publish(approval(envelope, verdict=verdict))).kind == "routed"


async def adopted(shared: Bench, **offices: tuple[str, ...]) -> None:
    """Put a directory in force that names other offices."""
    leaves = await shared.federation.leaves()
    before = sum(each.kind == "adopted" for each in leaves)
    made = world.directory(1 + before, SECOND, **{"authorities": (AUTHORITY,), **offices})
    await world.write_versions(shared.federation.bus, made)
    while sum(each.kind == "adopted" for each in await shared.federation.leaves()) == before:
        await shared.federation.bus.read("trail", len(leaves), wait=0.05)


@pytest.mark.parametrize("office", ["reviewers", "authorities"])
async def test_a_member_makes_itself_a_reviewer(office: str) -> None:
    """RU's friend AT signs a directory in which AT reviews. Who reviews is decided jointly: `more must sign`."""
    first = opened(first_content())
    wants = json.loads(first.plain) | {office: ["AT/ncb"]}
    with pytest.raises(VersionRefusedError, match="federation: 1 more must sign"):
        content(next_draft(first, wants), first, ["AT"])
    assert signed_world.ENTERED == ("AT", "LV", "GE")


# The operator.


class Books:
    """What a broker recorded, to be changed and signed again."""

    def __init__(self, shared: Bench, entries: list[Entry]) -> None:
        self.folder, self.entries = shared.federation.folder, entries

    @classmethod
    def of(cls, shared: Bench) -> Books:
        """Read the books of a broker that goes on working."""
        folder = shared.federation.folder
        with closing(Records(folder / "records.db")) as records:
            leaves = list(Trail.open(folder / "trail").entries())
            kept = [records.get(number) or (b"", b"") for number in range(len(leaves))]
        return cls(shared, [Entry(number, leaf, *kept[number]) for number, leaf in enumerate(leaves)])

    def find(self, number: int) -> tuple[Leaf, DecisionRecord]:
        """A leaf and its decision record."""
        entry = self.entries[number]
        return codec.decode(Leaf, entry.leaf), codec.decode(DecisionRecord, entry.decision)

    def put(self, number: int, leaf: Leaf, record: DecisionRecord) -> None:
        """Put a leaf and its decision record, made to fit, in a place or at the end."""
        salt, decision = self.entries[min(number, len(self.entries) - 1)].decision_salt, codec.encode(record)
        rows = lay(Lines.numbered(record.rows), record.seed, record.depth).root if leaf.rows else None
        leaf = replace(leaf, decision=decision_digest(salt, decision), rows=rows)
        self.entries[number : number + 1] = [Entry(number, codec.encode(leaf), salt, decision)]

    @contextmanager
    def checked(
        self,
        grounds: Callable[[Leaf], Grounds | None] = lambda _: GROUNDS,
        sent: Mapping[bytes, Sent] | None = None,
        copies: Iterable[NoticeCopy] = (),
    ) -> Iterator[tuple[list[str], Rechecked]]:
        """Examine the trail as `audit verify --policy` does; give its findings, and those of the decisions.

        `sent` and `copies` are what members kept.
        """
        made = self.folder / "changed"
        made.mkdir(exist_ok=True)
        write_trail(made / "trail", [each.leaf for each in self.entries], world.LOG_KEY)
        write_records(made / "records.db", self.entries)
        report = examine(made / "trail", world.LOG)
        with closing(Records(made / "records.db")) as records:
            trail = Trail.open(made / "trail")
            found = recheck(trail, records, grounds, sent or {}, copies=copies)
            yield [each.what for each in report.findings], found


def signed_as(record: DecisionRecord, sent: Envelope) -> DecisionRecord:
    """The same record, but of another notice, which its issuer has signed."""
    routing = codec.decode_compartments(sent.compartments)[0].opened
    assert routing
    opened = routing.salt + routing.data
    return replace(record, header=sent.header, routing=opened, key_id=sent.key_id, signature=sent.signature)


def made_grounds(written: WrittenDirectory) -> Grounds:
    """What is decided on under a directory, with the packaged policies."""
    directory = members.parse(members.canonical(written))
    return Grounds(directory, Rules.load(PolicySet.packaged(), directory, NO_ANNEX))


SECOND = (world.written_key("AT/ncb", 1), world.written_key("LV/ncb", 1))
GROUNDS: Grounds = made_grounds(world.directory(1, SECOND, reviewers=(REVIEWER,), authorities=(AUTHORITY,)))


def said(found: Rechecked, number: int) -> str:
    """All that is said of a leaf."""
    return "; ".join(each.what for each in found.findings if each.place == f"leaf {number}")


async def test_an_operator_who_reviewed_nothing_away_is_called_honest(shared: Bench) -> None:
    """Of what the honest broker held, released and refused above, and of a refusal, nothing is said; nor of the release
    of a correction whose reviewer has the version before it."""
    envelope, _ = await held(shared)
    assert (await shared.publish(approval(envelope, verdict="refuse"))).kind == "routed"
    got = await shared.delivered(notice("AT/ncb", "LV/ncb", REVIEWER))
    corrects = (reference(got.envelope, "corrects"),)
    second = wanted("LV/ncb", "GE/ncb").but(record=got.header.record, version=2, references=corrects).envelope()
    assert (await shared.publish(second)).kind == "held"
    assert (await shared.publish(approval(second))).kind == "routed"
    await shared.federation.settled()
    with Books.of(shared).checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
    assert {"held", "released", "not-released"} <= {each.kind for each in await shared.federation.leaves()}


async def test_the_operator_holds_what_no_rule_holds(shared: Bench) -> None:
    """He calls AT's ordinary notice held, and hands it whole to whom he likes. Repeated with the auditor's policies
    it is not held, and its recipients are no reviewers: exit 4."""
    got = await shared.delivered(notice("AT/ncb"))
    await shared.federation.settled()
    books, number = Books.of(shared), got.delivery.leaf_number
    leaf, record = books.find(number)
    row = replace(record.rows[0], index=5, bureau="RU/ncb", delivery_number=1)
    books.put(number, replace(leaf, kind="held"), replace(record, rows=(*record.rows, row)))
    with books.checked() as (_, found):
        assert "is held, but by these policies not held" in said(found, number)
        assert "receives: RU/ncb: on record, not by these policies" in said(found, number)


async def test_the_operator_shows_a_held_notice_to_somebody_else(shared: Bench) -> None:
    """He adds RU to the reviewers of a notice that is rightly held: exit 4."""
    _, outcome = await held(shared)
    await shared.federation.settled()
    books, number = Books.of(shared), outcome.leaf_number
    leaf, record = books.find(number)
    row = replace(record.rows[0], index=5, bureau="RU/ncb", delivery_number=1)
    books.put(number, leaf, replace(record, rows=(*record.rows, row)))
    with books.checked() as (_, found):
        assert "receives: RU/ncb: on record, not by these policies" in said(found, number)


async def test_the_operator_routes_what_the_rules_hold(shared: Bench) -> None:
    """He lets AT's wanted notice out without any review, as if it were an ordinary one: exit 4."""
    _, outcome = await held(shared)
    await shared.federation.settled()
    books, number = Books.of(shared), outcome.leaf_number
    leaf, record = books.find(number)
    books.put(number, replace(leaf, kind="routed"), record)
    with books.checked() as (_, found):
        assert "is routed, but by these policies held" in said(found, number)


async def test_the_operator_releases_what_nobody_approved(shared: Bench) -> None:
    """He records a release with no approval before it; one on the word of a bureau that reviews no longer; then one
    whose approval is another notice: exit 4."""
    assert (await shared.publish(notice("AT/ncb"))).kind == "routed"
    envelope, outcome = await held(shared)
    assert (await shared.publish(approval(envelope))).kind == "routed"
    await shared.federation.settled()
    books = Books.of(shared)
    kinds = [codec.decode(Leaf, each.leaf) for each in books.entries]
    number = max(place for place, leaf in enumerate(kinds) if leaf.kind == "released")
    assert kinds[number].about == outcome.leaf_number
    released = books.entries[number]
    books.entries.append(replace(released, leaf_number=len(books.entries)))
    with books.checked() as (findings, _):
        assert "is released without the word that says so before it" in findings
    books.entries.pop()
    others = made_grounds(world.directory(1, SECOND, reviewers=("GE/ncb",)))
    with books.checked(lambda leaf: others if leaf.about == outcome.leaf_number else GROUNDS) as (_, found):
        assert f"is released, and {REVIEWER} was no reviewing bureau then" in said(found, number)
    leaf, record = books.find(number - 1)
    ordinary, other = books.find(next(place for place, each in enumerate(kinds) if each.kind == "routed"))
    books.put(number - 1, replace(ordinary, about=leaf.about, now=leaf.now), other)
    with books.checked() as (_, found):
        assert "is released, and no bureau that was given it to review said so" in said(found, number)
    assert record.rows


async def approved(shared: Bench) -> tuple[Books, int, int, int]:
    """Two notices are held, and the second is released: the books, the leaves of both and of the word."""
    await held(shared)
    second, other = await held(shared)
    assert (await shared.publish(approval(second))).kind == "routed"
    await shared.federation.settled()
    books = Books.of(shared)
    kinds = [codec.decode(Leaf, each.leaf).kind for each in books.entries]
    word = max(place for place, kind in enumerate(kinds) if kind == "released") - 1
    return books, other.leaf_number - 1, other.leaf_number, word


async def test_the_operator_releases_another_notice_than_was_approved(shared: Bench) -> None:
    """The same reviewer was given both, and has read the second. He records its word as one on the first: exit 4."""
    books, first, _, word = await approved(shared)
    (leaf, record), (unread, kept) = books.find(word + 1), books.find(first)
    books.put(word, replace(books.find(word)[0], about=first), books.find(word)[1])
    signed = {each: getattr(kept, each) for each in ("header", "routing", "key_id", "signature")}
    false = replace(record, **signed)
    books.put(word + 1, replace(leaf, about=first, header_digest=unread.header_digest), false)
    with books.checked() as (findings, found):
        assert findings == []
        assert said(found, word + 1) == "is released, and no bureau that was given it to review said so"


async def test_the_operator_keeps_back_what_a_reviewer_has_released(shared: Bench) -> None:
    """The word is on record and nothing follows; or something else does: exit 4."""
    books, _, _, word = await approved(shared)
    leaf, _ = books.find(word + 1)
    started = replace(leaf, kind="resumed", header_digest=None, about=None, rows=None)
    books.put(word + 1, started, DecisionRecord("", 0, 0, leaf.now, b""))
    for end in (word + 2, word + 1):
        del books.entries[end:]
        with books.checked() as (_, found):
            assert said(found, word) == "is the word on which a notice is released, and none is"


async def test_the_operator_shows_one_less_than_another_who_may_see_the_same(shared: Bench) -> None:
    """Withheld and absent look the same to LV. GE was shown it, so that it was there: exit 4."""
    got = await shared.delivered(notice("AT/ncb", "LV/ncb", "GE/ncb"))
    await shared.federation.settled()
    books, number = Books.of(shared), got.delivery.leaf_number
    leaf, record = books.find(number)
    less = tuple(replace(each, shown=each.shown & 0b10) if each.bureau == "LV/ncb" else each for each in record.rows)
    books.put(number, leaf, replace(record, rows=less))
    with books.checked() as (_, found):
        assert said(found, number) == "sees warnings: LV/ncb: not on record"


async def test_the_operator_keeps_a_derogation_from_who_looks_for_them(shared: Bench) -> None:
    """He strikes the warning by which an auditor finds whoever breaks the glass: exit 4."""
    made = notice("AT/ncb").but(urgency="flash").routed(derogation="threat-to-life")
    outcome = await shared.publish(made)
    assert "glass-broken" in outcome.warnings
    await shared.federation.settled()
    books, number = Books.of(shared), outcome.leaf_number
    leaf, record = books.find(number)
    with books.checked() as (_, found):
        assert said(found, number) == ""
    books.put(number, leaf, replace(record, warnings=()))
    with books.checked() as (_, found):
        assert said(found, number) == "glass-broken: its warnings and its routing do not say the same of it"


async def test_the_operator_releases_what_was_withdrawn_meanwhile(shared: Bench) -> None:
    """The reviewer's word comes after AT has taken the notice back: an honest broker rejects it. Exit 4."""
    books, _, number, word = await approved(shared)
    end = (await shared.publish(withdrawal_of(books, number))).leaf_number
    await shared.federation.settled()
    books = Books.of(shared)
    (said_so, verdict), (withdrawn, ended) = books.find(word), books.find(end)
    (released, record) = books.find(word + 1)
    del books.entries[end + 1 :]
    books.put(word, replace(withdrawn, now=said_so.now), replace(ended, rows=books.find(number)[1].rows))
    books.put(word + 1, replace(said_so, now=withdrawn.now), verdict)
    books.put(end, replace(released, now=withdrawn.now), record)
    with books.checked() as (_, found):
        assert f"approves the notice of leaf {number}, which was withdrawn" in said(found, word + 1)


def withdrawal_of(books: Books, number: int) -> Draft:
    """AT's own withdrawal of a notice on record."""
    leaf, record = books.find(number)
    header = codec.decode(Header, record.header)
    named = Reference("AT/ncb", header.notice_id, leaf.header_digest or b"", "withdraws")
    made = notice("AT/ncb", kind="withdrawal", parts=("reason",))
    return made.but(record=header.record, version=9, references=(named,))


HOUR = 3_600_000


@pytest.mark.parametrize(
    ("after", "finding"),
    [
        (-HOUR, "is older than the notice that it takes in"),
        (HOUR, "takes in a notice that had expired"),
    ],
)
async def test_the_operator_takes_in_a_notice_before_it_was_made_or_after_its_end(
    shared: Bench, after: int, finding: str
) -> None:
    """He backdates a leaf as far as the one before lets him, or takes in what has expired: exit 4."""
    made = notice("AT/ncb")
    got = await shared.delivered(made.but(expires=made.make_header(()).issued + HOUR))
    books, number = Books.of(shared), got.delivery.leaf_number
    del books.entries[number + 1 :]
    leaf, record = books.find(number)
    books.put(number, replace(leaf, now=got.header.issued + after), record)
    with books.checked() as (_, found):
        assert said(found, number) == finding


async def test_the_operator_goes_on_taking_in_what_a_suspended_member_publishes(shared: Bench) -> None:
    """All members together have suspended AT. Who receives its notices may; who sends them may not: exit 4."""
    number = (await shared.publish(notice("AT/ncb"))).leaf_number
    await shared.federation.settled()
    written = world.directory(1, SECOND, reviewers=(REVIEWER,), authorities=(AUTHORITY,))
    out = tuple(
        each.model_copy(update={"status": "suspended"}) if each.id == "AT" else each for each in written.members
    )
    suspended = made_grounds(written.model_copy(update={"members": out}))
    books = Books.of(shared)
    taken_in, _ = books.find(number)
    with books.checked(lambda leaf: suspended if leaf == taken_in else GROUNDS) as (_, found):
        assert said(found, number).startswith("takes in a notice of AT, which was suspended then; ")
