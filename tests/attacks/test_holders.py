"""The operator forges what nobody but he signs of leaves and decisions, to keep an end from who holds what it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import pytest

from broker import codec
from broker.bundle import Bundle, Manifest, check, decision_part, leaf_parts
from broker.holders import LOOKS_A_LEAF, Holders
from broker.notice import DecisionRecord, Entry, Envelope, Header, Recipient
from broker.recheck import NOT_LAID, recheck
from broker.recorded import Recorded
from broker.records import Records
from broker.signing import decision_digest, header_digest
from broker.trail import Trail
from tests import federation as world
from tests.attacks.bench import AUTHORITY, REVIEWER, Bench, notice
from tests.attacks.test_order import order
from tests.attacks.test_review import Books, approval, said, signed_as, wanted
from tests.audit.test_holders import told
from tests.making import Draft, reference

pytestmark = pytest.mark.asyncio(loop_scope="module")
LV, GE = "LV/ncb", "GE/ncb"
ENDLESS_S = 60


@dataclass
class Record:
    """A notice of AT's that LV holds, and its correction, which only GE was given; each with its leaf."""

    first: Envelope
    at: int
    second: Envelope
    then: int

    @property
    def name(self) -> str:
        """The record that both are of."""
        return codec.decode(Header, self.first.header).record


async def routed(shared: Bench, sent: Draft | Envelope) -> int:
    """Publish what is in order; give its leaf."""
    outcome = await shared.publish(sent)
    assert (outcome.kind, outcome.code) == ("routed", None)
    return outcome.leaf_number


async def recorded(shared: Bench) -> Record:
    """Have the two on record."""
    first = notice("AT/ncb", LV).envelope()
    second = corrected(first)
    return Record(first, await routed(shared, first), second, await routed(shared, second))


def corrected(of: Envelope) -> Envelope:
    """The next version of a notice of AT's, for GE."""
    record = codec.decode(Header, of.header).record
    made = notice("AT/ncb", GE).but(record=record, version=2)
    return made.but(references=(reference(of, "corrects"),)).envelope()


def ended(of: Envelope, kind: str = "withdrawal") -> Draft:
    """The end of a notice of AT's, by AT itself."""
    record, relation = codec.decode(Header, of.header).record, "withdraws" if kind == "withdrawal" else "restricts"
    made = notice("AT/ncb", kind=kind, parts=("reason",)).but(record=record, version=9)
    return made.but(references=(reference(of, relation),))


async def books_up_to(shared: Bench, number: int) -> Books:
    """The books up to this leaf."""
    await shared.federation.settled()
    books = Books.of(shared)
    del books.entries[number + 1 :]
    return books


def name(books: Books, number: int, about: int | None) -> None:
    """Have a leaf speak of another one."""
    leaf, record = books.find(number)
    books.put(number, replace(leaf, about=about), record)


def tell(books: Books, number: int, rows: tuple[Recipient, ...]) -> None:
    """Have a decision say that these got it."""
    leaf, record = books.find(number)
    mask = sum(1 << each.index for each in rows)
    terms = replace(record.terms, allowed=mask, audience=mask, reached=mask)
    books.put(number, leaf, replace(record, rows=rows, terms=terms))


def strike(books: Books, number: int, bureau: str = LV) -> None:
    """Have a decision say that all got it but one."""
    rows = books.find(number)[1].rows
    left = tuple(each for each in rows if each.bureau != bureau)
    assert len(left) == len(rows) - 1
    tell(books, number, left)


def swap(books: Books, first: int, second: int, **changes: object) -> None:
    """Have two notices recorded in the other order; `changes` are fields of the leaf that now comes first."""
    (one, before), (other, after) = books.find(first), books.find(second)
    books.put(first, replace(other, now=one.now, **changes), after)  # type: ignore[arg-type] # fields of Leaf
    books.put(second, replace(one, now=other.now), before)


@pytest.mark.parametrize("names", ["first", "second"])
async def test_the_operator_hides_what_a_correction_replaced(shared: Bench, names: str) -> None:
    """LV has the first version, GE its correction, and an authority orders either withdrawn. The operator records the
    correction as if it corrected nothing, and keeps the order from LV. What it corrects AT signed: exit 4."""
    record = await recorded(shared)
    end = await routed(shared, order(record.first if names == "first" else record.second, record.name))
    books = await books_up_to(shared, end + 1)
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
    name(books, record.then, None)
    strike(books, end)
    with books.checked() as (_, found):
        assert said(found, record.then) == f"does not say that it corrects the notice of leaf {record.at}"


@pytest.mark.parametrize("other", ["notice", "repetition"])
async def test_the_operator_says_that_a_correction_corrects_another_notice(shared: Bench, other: str) -> None:
    """So nobody holds what it corrects, and he keeps the withdrawal of it from LV; the other is a notice that LV was
    never given, or the repetition of the very same, which nobody holds: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    at = await routed(shared, first)
    about = (await shared.publish(first if other == "repetition" else notice("AT/ncb", GE))).leaf_number
    second = corrected(first)
    then = await routed(shared, second)
    end = await routed(shared, ended(second))
    books = await books_up_to(shared, end)
    name(books, then, about)
    leaf, record = books.find(then)
    (lv,) = books.find(at)[1].rows
    terms = replace(record.terms, reached=record.terms.reached & ~(1 << lv.index))
    books.put(then, leaf, replace(record, holders=0, terms=terms))
    strike(books, end)
    with books.checked() as (_, found):
        assert said(found, then) == f"does not say that it corrects the notice of leaf {at}"


async def test_the_operator_has_a_withdrawal_end_a_repetition(shared: Bench) -> None:
    """AT's notice came twice. He records its withdrawal as that of the second copy, which nobody got: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    at, again = await routed(shared, first), await shared.publish(first)
    assert again.kind == "repeated"
    end = await routed(shared, ended(first))
    books = await books_up_to(shared, end)
    name(books, end, again.leaf_number)
    strike(books, end)
    with books.checked() as (_, found):
        assert said(found, end) == f"does not say that it ends the notice of leaf {at}"


async def test_the_operator_has_a_restriction_end_the_one_before(shared: Bench) -> None:
    """AT restricts a notice twice. He records the second as if the first had come before the notice: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    at = await routed(shared, first)
    before, end = [await routed(shared, ended(first, "restriction")) for _ in range(2)]
    books = await books_up_to(shared, end)
    name(books, end, before)
    strike(books, end)
    with books.checked() as (_, found):
        assert said(found, end) == f"does not say that it ends the notice of leaf {at}"


async def test_the_operator_has_an_order_end_an_older_version(shared: Bench) -> None:
    """An authority names the version that it knows. He ends that one only, and GE keeps what replaced it: exit 4."""
    record = await recorded(shared)
    end = await routed(shared, order(record.first, record.name))
    books = await books_up_to(shared, end + 1)
    (first, known), (told, notified) = books.find(record.at), books.find(end + 1)
    name(books, end, record.at)
    strike(books, end, GE)
    notified = replace(notified, header=known.header, routing=known.routing)
    books.put(end + 1, replace(told, about=record.at, header_digest=first.header_digest), notified)
    with books.checked() as (findings, found):
        assert findings == []
        assert f"does not say that it ends the notice of leaf {record.then}" in said(found, end)


NOBODY: tuple[Recipient, ...] = ()
UNREAD = "its decision record cannot be read (invalid-field)"


@pytest.mark.parametrize(
    ("false", "finding"),
    [
        (lambda lv: replace(lv, bureau="ZZ/ncb", delivery_number=1), "does not tell LV/ncb"),
        (lambda lv: replace(lv, bureau="ZZ/ncb", delivery_number=1), "ZZ/ncb is not the bureau of index 2"),
        (lambda lv: replace(lv, delivery_number=lv.delivery_number - 1), "of LV/ncb comes after its"),
    ],
)
async def test_the_operator_says_that_a_holder_was_told_who_was_not(
    shared: Bench, false: Callable[[Recipient], Recipient], finding: str
) -> None:
    """The row at LV's place is another's, and LV sees no gap; or it is LV's, under a number that it had: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    await routed(shared, first)
    end = await routed(shared, ended(first))
    books = await books_up_to(shared, end)
    (lv,) = books.find(end)[1].rows
    assert lv.index == 2
    tell(books, end, (false(lv),))
    with books.checked() as (_, found):
        assert finding in said(found, end)


@pytest.mark.parametrize("kind", ["withdrawal", "restriction"])
async def test_the_operator_tells_of_an_end_who_never_had_what_it_ends(shared: Bench, kind: str) -> None:
    """So RU learns that there was such a notice, whose and why it ends: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    await routed(shared, first)
    end = await routed(shared, ended(first, kind))
    books = await books_up_to(shared, end)
    (lv,) = books.find(end)[1].rows
    tell(books, end, (lv, replace(lv, index=5, bureau="RU/ncb", delivery_number=1)))
    with books.checked() as (_, found):
        assert said(found, end) == "ends a notice and tells RU/ncb, who did not hold it"


async def test_the_operator_records_a_withdrawal_and_decides_nothing(shared: Bench) -> None:
    """He calls it routed, and commits to no rows at all: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    await routed(shared, first)
    end = await routed(shared, ended(first))
    books = await books_up_to(shared, end)
    leaf, record = books.find(end)
    books.put(end, replace(leaf, rows=None), replace(record, rows=NOBODY))
    with books.checked() as (_, found):
        assert said(found, end) == "is routed, and nothing is on record of who gets it"


@pytest.mark.parametrize(("kind", "of"), [("repeated", "person"), ("held", "withdrawal")])
async def test_the_operator_gives_a_notice_out_under_another_name(shared: Bench, kind: str, of: str) -> None:
    """What is repeated reaches nobody, and nothing holds a withdrawal: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    at = await routed(shared, first)
    end = await routed(shared, ended(first))
    books, number = await books_up_to(shared, end), at if of == "person" else end
    leaf, record = books.find(number)
    books.put(number, replace(leaf, kind=kind), record)
    with books.checked() as (_, found):
        assert said(found, number) == f"is {kind}, and says who gets a {of}"


async def test_the_operator_has_a_withdrawal_end_a_release(shared: Bench) -> None:
    """So that it were none of those who reviewed the notice, and have it: exit 4."""
    first = wanted(LV).envelope()
    held = await shared.publish(first)
    released = await routed(shared, approval(first)) + 1
    end = await routed(shared, ended(first))
    books = await books_up_to(shared, end)
    name(books, end, released)
    strike(books, end, REVIEWER)
    with books.checked() as (_, found):
        assert said(found, end) == f"does not say that it ends the notice of leaf {held.leaf_number}"


async def test_the_operator_releases_a_notice_twice(shared: Bench) -> None:
    """The second time, on the same word, to nobody, as if LV had not got it by the first: exit 4. Told of the end or
    not, LV stays among the holders."""
    first = wanted(LV).envelope()
    held = await shared.publish(first)
    assert held.kind == "held"
    word = await routed(shared, approval(first))
    end = await routed(shared, ended(first))
    books = await books_up_to(shared, end)
    withdrawn = books.entries.pop()
    for number in (word, word + 1):
        leaf, record = books.find(number)
        books.entries.append(replace(books.entries[number], leaf_number=len(books.entries)))
        books.put(len(books.entries) - 1, leaf, replace(record, rows=NOBODY))
    books.entries.append(replace(withdrawn, leaf_number=len(books.entries)))
    last = len(books.entries) - 1
    strike(books, last)
    with books.checked() as (_, found):
        assert f"releases the notice of leaf {held.leaf_number} once more" in said(found, last - 1)
        assert f"ends the notice of leaf {held.leaf_number} and does not tell LV/ncb" in said(found, last)


async def test_the_operator_records_a_withdrawal_before_its_notice(shared: Bench) -> None:
    """As if AT had withdrawn what was still to come, and nobody were to be told; and lets it out after: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    at = await routed(shared, first)
    end = await routed(shared, ended(first))
    books = await books_up_to(shared, end)
    strike(books, end)
    swap(books, at, end, about=None)
    with books.checked() as (_, found):
        assert said(found, end) == f"is taken in although leaf {at} had withdrawn it"


async def test_the_operator_and_a_member_record_a_withdrawal_before_its_notice(shared: Bench) -> None:
    """The same; and GE has withdrawn before a notice of its own that never comes, by the digest of AT's: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    at = await routed(shared, first)
    never = replace(reference(first, "withdraws"), issuer=GE, notice_id=os.urandom(16))
    helper = notice(GE, kind="withdrawal", parts=("reason",)).but(version=9, references=(never,))
    helped, end = await routed(shared, helper), await routed(shared, ended(first))
    books = await books_up_to(shared, end)
    strike(books, end)
    swap(books, at, helped)
    swap(books, helped, end, about=None)
    with books.checked() as (_, found):
        assert said(found, end) == f"is taken in although leaf {helped} had withdrawn it"


@pytest.mark.parametrize("by", ["correction", "restriction", "order"])
async def test_the_operator_records_before_its_notice_what_changes_it(shared: Bench, by: str) -> None:
    """AT's correction or restriction, or an authority's order: none is taken in before what it names: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    record = codec.decode(Header, first.header).record
    at = await routed(shared, first)
    made: dict[str, Draft | Envelope] = {"correction": corrected(first), "order": order(first, record)}
    then = await routed(shared, made.get(by) or ended(first, by))
    books = await books_up_to(shared, then)
    swap(books, at, then, about=None)
    with books.checked() as (_, found):
        if by == "order":
            assert "ends a notice that is not on record" in said(found, at)
        else:
            done = "corrected" if by == "correction" else "ended"
            assert f"is taken in although leaf {at} had {done} it" in said(found, then)


async def test_the_operator_takes_in_two_corrections_of_one_version(shared: Bench) -> None:
    """AT has lost its outbox and corrects once more what it had corrected. He takes both in, and an order ends but the
    last one: exit 4."""
    record = await recorded(shared)
    again = corrected(record.first)
    other = await shared.publish(again)
    assert other.code == "invalid-reference"
    books, number = await books_up_to(shared, other.leaf_number), other.leaf_number
    (leaf, decision), (refused, _) = books.find(record.then), books.find(number)
    rows = tuple(replace(each, delivery_number=each.delivery_number + 1) for each in decision.rows)
    false = replace(signed_as(decision, again), rows=rows)
    books.put(number, replace(leaf, header_digest=refused.header_digest, now=refused.now), false)
    with books.checked() as (_, found):
        assert said(found, number) == f"corrects what leaf {record.then} had corrected"


async def test_the_operator_leads_the_auditor_round_for_ever(shared: Bench) -> None:
    """He has a correction correct itself, and the two versions of another record each other: exit 4, and it ends."""
    record = await recorded(shared)
    end = await routed(shared, ended(record.second))
    books = await books_up_to(shared, end)
    name(books, record.then, record.then)
    with limited(), books.checked() as (findings, _):
        assert f"speaks of leaf {record.then}, which is no record leaf before it" in findings


@pytest.mark.parametrize(
    ("false", "finding"),
    [
        (lambda record: replace(record, depth=0), NOT_LAID),
        (lambda record: replace(record, depth=60), NOT_LAID),
        (
            lambda record: replace(record, rows=(replace(record.rows[0], bureau="XX/never-given"), *record.rows)),
            NOT_LAID,
        ),
        (lambda record: replace(record, rows=(replace(record.rows[0], index=-1),)), UNREAD),
        (lambda record: replace(record, rows=(replace(record.rows[0], index=1 << 50),)), UNREAD),
    ],
)
async def test_the_operator_has_the_auditor_fail_on_rows(
    shared: Bench, false: Callable[[DecisionRecord], DecisionRecord], finding: str
) -> None:
    """He names a bureau beyond the tree of rows, two in one place of it, or a tree that fits no memory: exit 4."""
    record = await recorded(shared)
    end = await routed(shared, ended(record.second))
    books = await books_up_to(shared, end)
    strike(books, end)
    leaf, decision = books.find(record.at)
    salt, encoded = books.entries[record.at].decision_salt, codec.encode(false(decision))
    entry = codec.encode(replace(leaf, decision=decision_digest(salt, encoded)))
    books.entries[record.at] = Entry(record.at, entry, salt, encoded)
    with books.checked() as (_, found):
        assert finding in said(found, record.at)


async def test_the_operator_says_who_was_given_what_he_rejected(shared: Bench) -> None:
    """No row is below its leaf, and the decision record names LV: exit 4, of the trail and of a bundle out of it."""
    number = (await shared.publish(corrected(notice("AT/ncb", LV).envelope()))).leaf_number
    books = await books_up_to(shared, number)
    leaf, record = books.find(number)
    assert (leaf.kind, leaf.rows, record.rows) == ("rejected", None, NOBODY)
    with books.checked() as (_, found):
        assert (said(found, number), shown(books, number)) == ("", [])
    books.put(number, leaf, replace(record, rows=(Recipient(2, LV, 1, delivery_number=9),)))
    with books.checked() as (findings, found):
        assert findings == []
        assert said(found, number) == NOT_LAID
    assert shown(books, number) == [f"leaf {number}: the recipients are not those whose rows the leaf commits to"]


def shown(books: Books, number: int) -> list[str]:
    """What is wrong with a bundle of this leaf out of the trail that was checked."""
    trail, entry = Trail.open(books.folder / "changed" / "trail"), books.entries[number]
    note = (books.folder / "changed" / "trail" / "checkpoint").read_text()
    (proof,) = trail.proofs([number], trail.size, note)
    parts = {"checkpoint": note.encode(), **leaf_parts(number, entry.leaf, proof)}
    parts |= decision_part(number, entry.decision_salt, entry.decision)
    manifest = Manifest(origin=trail.origin, data="clear", notices=(number,), size=trail.size)
    return check(Bundle(manifest, parts), world.LOG).wrong


async def test_the_operator_has_the_auditor_fail_on_a_leaf_to_come(shared: Bench) -> None:
    """He ends a review of a notice whose record is there, and whose leaf is not yet in the trail: exit 4."""
    end = await routed(shared, notice("AT/ncb", LV))
    books = await books_up_to(shared, end)
    leaf, record = books.find(end)
    books.put(end, replace(leaf, kind="not-released", about=end + 1, rows=None), replace(record, rows=NOBODY))
    with books.checked() as (_, _), closing(Records(books.folder / "changed" / "records.db")) as records:
        records.add([replace(books.entries[end], leaf_number=end + 1)])
        found = recheck(Trail.open(books.folder / "changed" / "trail"), records, lambda _: None, {})
        assert said(found, end) == "is the end of a review that is not on record"


@contextmanager
def limited() -> Iterator[None]:
    """Fail where nothing else would end."""

    def stop(*_: object) -> None:
        pytest.fail("it goes on for ever")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(ENDLESS_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


async def test_a_member_has_the_auditor_call_the_broker_a_liar(shared: Bench) -> None:
    """AT withdraws a notice that is to come by an id of its own choice and the digest of one that LV holds: the broker
    rightly finds nothing under that id, and nothing is said of it."""
    first = notice("AT/ncb", LV).envelope()
    await routed(shared, first)
    names = replace(reference(first, "withdraws"), notice_id=os.urandom(16))
    end = await routed(shared, ended(first).but(references=(names,)))
    with (await books_up_to(shared, end)).checked() as (findings, found):
        assert (findings, found.findings) == ([], [])


@pytest.mark.parametrize("lie", ["corrects", "releases", "withdraws"])
async def test_the_operator_lies_at_every_leaf_to_have_each_looked_up_through_all_that_came_before(lie: str) -> None:
    """Every one is a finding, and would lead through all versions of a record once more: the cost would grow with the
    square of the log. The auditor looks at so many decisions and says from which leaf on he has not followed it."""
    log, looks, versions = list[Recorded](), list[int](), 300

    def find(number: int) -> Recorded | None:
        looks.append(number)
        return log[number] if 0 <= number < len(log) else None

    holders = Holders(lambda number: log[number].leaf, find, 1_000)
    first = last = notice("AT/ncb", LV).envelope()
    told(log, first, None, LV)
    for number in range(versions):
        last = corrected(last)
        told(log, last, number, LV)
    other, order = notice("AT/ncb", LV).envelope(), replace(ended(first), issuer=AUTHORITY).envelope()
    told(log, other, None, LV)
    told(log, corrected(other), len(log) - 1, LV)
    for _ in range(3 * versions):
        if lie == "corrects":
            log.append(replace(log[1], leaf_number=len(log)))
            told(log, order, versions, LV, "AT/ncb")
        elif lie == "releases":
            log.append(_released(log[0], len(log)))
            told(log, corrected(last), versions, LV)
        else:
            told(log, ended(other).envelope(), versions + 1, LV)
            told(log, corrected(last), versions, LV)
    whole, followed = Holders(lambda number: log[number].leaf, find, 1 << 62), 0
    for recorded in log:
        whole.take(recorded)
    assert len(looks) > len(log) * versions / 3
    looks.clear()
    for recorded in log:
        if not holders.goes_on():
            break
        holders.holding(recorded)
        holders.take(recorded)
        followed += 1
    assert followed >= versions
    assert len(looks) <= 1_000 + (LOOKS_A_LEAF + 10) * len(log)


def _released(held: Recorded, number: int) -> Recorded:
    return replace(held, leaf_number=number, leaf=replace(held.leaf, kind="released", about=held.leaf_number))


@pytest.mark.parametrize("name", ["id", "number"])
async def test_the_operator_takes_in_two_notices_of_one_name(shared: Bench, name: str) -> None:
    """AT says one thing to LV and another to GE under one id, or one number, and he takes both in: exit 4."""
    draft = notice("AT/ncb", LV)
    same = {"notice_id": os.urandom(16)} if name == "id" else {}
    first = draft.but(**same)
    at = await routed(shared, first)
    other = replace(first.to(GE), header=first.header | {"record": "another"})
    second = other if name == "number" else other.numbered(1, os.urandom(8))
    outcome = await shared.publish(second.envelope())
    assert outcome.code == f"{name}-reused"
    then = await routed(shared, notice("AT/ncb", GE))
    books = await books_up_to(shared, then)
    leaf, record = books.find(then)
    false = second.envelope()
    books.put(then, replace(leaf, header_digest=header_digest(false.header)), signed_as(record, false))
    with books.checked() as (_, found):
        assert said(found, then) == f"takes in a notice under the {name} of the one of leaf {at}"


@pytest.mark.parametrize(
    ("false", "finding"),
    [
        ({"issuer": GE}, "which is AT/ncb's"),
        ({"record": "another"}, "which is of another record"),
        ({"version": 1}, "which is no older version"),
    ],
)
async def test_the_operator_takes_in_a_correction_that_corrects_nothing_of_its_own(
    shared: Bench, false: dict[str, str | int], finding: str
) -> None:
    """GE corrects AT's notice; or AT one of another record, or a version that is no older. He takes it in: exit 4."""
    first = notice("AT/ncb", LV).envelope()
    at = await routed(shared, first)
    record = codec.decode(Header, first.header).record
    made = notice("AT/ncb", GE).but(references=(reference(first, "corrects"),), record=record, version=2)
    wrong = replace(made, issuer=str(false.get("issuer", made.issuer)))
    wrong = wrong.but(**{name: value for name, value in false.items() if name != "issuer"})
    second = wrong.envelope()
    assert (await shared.publish(second)).code == "invalid-reference"
    then = await routed(shared, made.numbered(1, os.urandom(8)))
    books = await books_up_to(shared, then)
    leaf, decision = books.find(then)
    books.put(then, replace(leaf, header_digest=header_digest(second.header)), signed_as(decision, second))
    with books.checked() as (_, found):
        assert f"corrects the notice of leaf {at}, {finding}" in said(found, then)
