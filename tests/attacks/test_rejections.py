"""The operator rejects what is in order, for a reason of his own make; the auditor repeats what can be repeated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest
import pytest_asyncio

from broker import codec
from broker.notice import BEGUN, CLOCK_SKEW_MS, DecisionRecord, Envelope, Header, Statement
from broker.recheck import Sent
from broker.recorded import key_in
from broker.rejections import CODES, OF_SIGNED, OF_UNSIGNED, NoticeCopy
from broker.signing import header_digest
from tests import federation as world
from tests.attacks.bench import Bench, notice
from tests.attacks.test_holders import ended
from tests.attacks.test_review import GROUNDS, SECOND, Books, made_grounds, said
from tests.making import NOW, Draft, key_of, receipt, reference

pytestmark = pytest.mark.asyncio(loop_scope="module")
AT, LV = "AT/ncb", "LV/ncb"
OUTBOX, INBOX = "AT/outbox.db", "LV/inbox.ncb.db"


@dataclass
class Known:
    """What AT and LV sent, as their files have it, and what became of it."""

    copies: dict[int, NoticeCopy] = field(default_factory=dict)
    """By leaf."""
    sent: dict[bytes, Sent] = field(default_factory=dict)
    codes: list[str] = field(default_factory=list)
    """Under which it was rejected."""
    leaves: dict[str, int] = field(default_factory=dict)
    """The first of AT's by its code; "" for the lawful one."""
    receipts: dict[str, int] = field(default_factory=dict)

    @property
    def ours(self) -> NoticeCopy:
        """What AT kept of the lawful one."""
        return self.copies[self.leaves[""]]


def copy_of(draft: Draft, sent: Envelope) -> NoticeCopy:
    """What AT's outbox keeps of what it sent."""
    digest, routing = sha256(codec.encode(sent)).digest(), draft.routing
    return NoticeCopy(replace(sent, compartments=b""), routing.series, routing.number, digest, OUTBOX)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def known(shared: Bench) -> Known:
    """Have a lawful notice of AT's and a receipt of LV's on record, and what is rightly rejected, for each reason."""
    found = Known()

    async def publish(
        code: str, draft: Draft, envelope: Envelope | None = None, stream: str = "AT", family: str = "notices"
    ) -> None:
        envelope = envelope or draft.envelope()
        outcome = await shared.put(stream, codec.encode(envelope), family)
        assert outcome.code == (code or None)
        found.copies[outcome.leaf_number] = copy_of(draft, envelope)
        found.leaves.setdefault(code, outcome.leaf_number)
        found.codes.extend([code] if code else [])

    async def answer(code: str, data: bytes, number: int) -> None:
        await shared.federation.append("receipts.lv", data)
        found.sent[sha256(data).digest()] = Sent(LV, number, INBOX, statement=lambda _: data)
        await shared.federation.settled()
        leaves = await shared.federation.leaves()
        kinds = [number for number, leaf in enumerate(leaves) if leaf.kind == ("rejected" if code else "receipt")]
        assert leaves[kinds[-1]].code == (code or "received")
        found.receipts[code] = kinds[-1]
        found.codes.extend([code] if code else [])

    made, early, elsewhere = notice(AT), notice(AT), notice(AT).but(federation="elsewhere")
    await publish("", made)
    await publish("bad-signature", made, replace(made.envelope(), signature=bytes(64)))
    await publish("unknown-key", replace(made, key=key_of("nobody")))
    await publish("key-of-another", replace(made, key=key_of(LV)))
    await publish("stream-of-another", notice(AT), stream="LV")
    await publish("other-federation", elsewhere)
    await publish("issued-in-future", notice(AT).but(issued=NOW + 3_600_000))
    await publish("already-expired", notice(AT).but(expires=NOW - 1))
    await publish("unknown-purpose", notice(AT).but(purpose="none"))
    await publish("number-reused", notice(AT).numbered(made.routing.number, made.routing.series))
    used = codec.decode(Header, found.ours.envelope.header).notice_id
    await publish("id-reused", notice(AT).but(notice_id=used))
    envelope = early.envelope()
    assert (await shared.publish(ended(envelope))).kind == "routed"
    await publish("already-withdrawn", early, envelope)
    future = found.copies[found.leaves["issued-in-future"]]
    await publish("number-reused", notice(AT).numbered(future.number, future.series))
    other = notice(AT)
    early_id = replace(reference(other.envelope(), "withdraws"), header_digest=bytes(32))
    named = other.but(notice_id=early_id.notice_id)
    assert (await shared.publish(ended(envelope).but(references=(early_id,)))).kind == "routed"
    await publish("id-reused", named)
    await publish("unknown-kind", notice(AT), family="receipts")
    digest = (await shared.federation.leaves())[found.leaves[""]].header_digest or b""
    await answer("", receipt(LV, found.leaves[""], digest, "AT", number=1), 1)
    await answer("unknown-delivery", receipt(LV, found.leaves[""], bytes(32), "AT", number=2), 2)
    forged = replace(
        codec.decode(Statement, receipt(LV, found.leaves[""], digest, "AT", number=3)), signature=bytes(64)
    )
    await answer("bad-signature", codec.encode(forged), 3)
    await answer("invalid-field", receipt(LV, found.leaves[""], digest, "AT", "printed", number=4), 4)
    return found


async def test_what_an_honest_broker_rejects_is_called_honest(shared: Bench, known: Known) -> None:
    """The stories below would mean nothing if this did not hold, with what members kept and without."""
    for copies in (known.copies.values(), ()):
        with Books.of(shared).checked(sent=known.sent if copies else {}, copies=copies) as (findings, found):
            assert (findings, found.findings) == ([], [])
    told = {"unknown-key", "already-withdrawn"}
    assert found.on_word == Counter(each for each in known.codes if each not in told)
    assert found.rejections == len(known.codes)
    with Books.of(shared).checked(sent=known.sent, copies=known.copies.values()) as (_, found):
        assert found.on_word == {"unknown-purpose": 1, "unknown-kind": 1, "invalid-field": 1, "stream-of-another": 1}


def rejected(books: Books, number: int, code: str | None, *, signed: bool) -> Books:
    """Have the operator reject what he took in."""
    leaf, record = books.find(number)
    digest = leaf.header_digest if signed else None
    books.put(
        number, replace(leaf, kind="rejected", code=code, header_digest=digest, about=None, rows=None), bare(record)
    )
    return books


def bare(record: DecisionRecord) -> DecisionRecord:
    """The record of what was rejected."""
    return DecisionRecord(
        record.stream, record.partition, record.offset, record.at, record.record_digest, key_id=key_in(record)
    )


async def test_the_operator_rejects_for_a_reason_that_there_is_not(shared: Bench, known: Known) -> None:
    """He writes a code that no broker has, or one that fits the leaf in nothing: exit 4, and nobody need bring
    anything."""
    number = known.leaves[""]
    for code, signed, finding in (
        ("expired", True, "is rejected as expired, which no broker says"),
        ("not-addressed", True, "is rejected as not-addressed, which no broker says"),
        (None, False, "is rejected as nothing, which no broker says"),
        ("already-withdrawn", True, "is already-withdrawn, and no withdrawal of it is on record"),
        ("unknown-member", False, "is unknown-member, and AT took part"),
        ("batch-refused", False, "is batch-refused, and its bytes could be read"),
        ("number-reused", False, "is number-reused, and names no notice that its issuer had signed"),
        ("bad-signature", True, "is bad-signature, and names a notice that its issuer had signed"),
    ):
        with rejected(Books.of(shared), number, code, signed=signed).checked() as (_, found):
            assert finding in said(found, number)


async def test_a_suspended_member_is_rightly_told_that_it_is_unknown(shared: Bench, known: Known) -> None:
    """The same leaf, by a directory in which AT is suspended: nothing is said. Of a key that is not there, it is."""
    number = known.leaves[""]
    listed = world.directory(1, SECOND)
    status = {each.id: "suspended" if each.id == "AT" else "active" for each in listed.members}
    members = tuple(each.model_copy(update={"status": status[each.id]}) for each in listed.members)
    suspended = made_grounds(world.directory(1, SECOND, members=members))
    books = rejected(Books.of(shared), number, "unknown-member", signed=False)
    with books.checked(lambda leaf: suspended if leaf.kind == "rejected" else GROUNDS) as (_, found):
        assert (said(found, number), "unknown-member" in found.on_word) == ("", False)
    leaf, record = books.find(number)
    books.put(number, leaf, replace(record, key_id=key_of("nobody").public.id))
    with books.checked() as (_, found):
        assert said(found, number) == "is unknown-member, and its key is not in the directory of then"


ON_WORD = {
    False: {"too-large", "could-not-be-judged"},
    True: {
        "unknown-kind", "unknown-purpose", "unknown-handling", "unknown-schema", "unreadable", "leftover-bytes",
        "invalid-field", "invalid-reference", "compartment-mismatch", "empty-audience",
    },
}  # fmt: skip
"""Codes of a notice that its issuer's copy does not refute, by whether its issuer is called to have signed it."""


@pytest.mark.parametrize("code", sorted(CODES))
async def test_the_operator_rejects_a_lawful_notice_of_which_its_issuer_has_a_copy(
    shared: Bench, known: Known, code: str
) -> None:
    """What its issuer's outbox kept of it bears no such code out: exit 4. What depends on compartments or on the
    allow-lists of then is called the broker's word, and counted."""
    number = known.leaves[""]
    for signed, never in ((False, OF_SIGNED), (True, OF_UNSIGNED)):
        books = rejected(Books.of(shared), number, code, signed=signed)
        with books.checked(copies=[known.ours]) as (_, found):
            told = said(found, number)
        assert bool(told) == (code not in ON_WORD[signed])
        if told and code not in never:
            assert told.startswith(f"is {code}, and ")


@pytest.mark.parametrize("code", ["issued-in-future", "already-expired"])
async def test_the_operator_rejects_a_notice_for_a_time_that_is_none(shared: Bench, code: str) -> None:
    """AT's clock is some minutes ahead, as it may be; or its withdrawal comes late, as it may, too: exit 4."""
    first, soon = notice(AT), notice(AT).but(issued=NOW + CLOCK_SKEW_MS)
    if code == "already-expired":
        sent = first.envelope()
        assert (await shared.publish(sent)).kind == "routed"
        soon = ended(sent).but(expires=NOW - 1)
    sent = soon.envelope()
    outcome = await shared.publish(sent)
    assert outcome.kind == "routed"
    number = outcome.leaf_number
    await shared.federation.settled()
    books = rejected(Books.of(shared), number, code, signed=True)
    with books.checked(copies=[copy_of(soon, sent)]) as (_, found):
        assert said(found, number) == f"is {code}, and what {OUTBOX} kept of it is not"


async def test_the_operator_rejects_as_badly_signed_what_was_anothers(shared: Bench, known: Known) -> None:
    """He would hide that LV's key signed it. What AT kept of it is called by its right name: exit 4."""
    number = known.leaves["key-of-another"]
    with rejected(Books.of(shared), number, "bad-signature", signed=False).checked(copies=known.copies.values()) as (
        _,
        found,
    ):
        assert said(found, number) == f"is bad-signature, and what {OUTBOX} kept of it is key-of-another"


async def test_the_operator_rejects_what_he_had_taken_in(shared: Bench, known: Known) -> None:
    """AT's notice comes once more, and he says that it was rejected: AT would take it for undelivered. Exit 4."""
    again = (await shared.publish(await lawful(shared, known))).leaf_number
    await shared.federation.settled()
    with rejected(Books.of(shared), again, "unknown-purpose", signed=True).checked() as (_, found):
        assert said(found, again).startswith("is called rejected, and it is the notice that leaf ")


async def lawful(shared: Bench, known: Known) -> Envelope:
    """The lawful notice as AT sent it, whole."""
    digest = known.ours.record_digest
    sent = [each.value or b"" for each in await shared.federation.bus.read("notices.at", 0)]
    return codec.decode(Envelope, next(each for each in sent if sha256(each).digest() == digest))


@pytest.mark.parametrize("code", ["id-reused", "number-reused"])
async def test_what_was_rejected_unseen_may_have_used_an_id_or_a_number(shared: Bench, known: Known, code: str) -> None:
    """AT may have lost its outbox, and a thief have its key: nobody accuses the broker where something of AT's was
    rejected before that nobody brought. Brought, it is no excuse: exit 4."""
    draft = notice(AT)
    sent = draft.envelope()
    number = (await shared.publish(sent)).leaf_number
    await shared.federation.settled()
    books = rejected(Books.of(shared), number, code, signed=True)
    ours = copy_of(draft, sent)
    with books.checked(copies=[ours]) as (_, found):
        assert (said(found, number), found.on_word[code]) == ("", 3)
    with books.checked(lambda _: None, copies=[ours]) as (_, found):
        assert (said(found, number), found.on_word[code]) == ("", 3)
    with books.checked(copies=[ours, *known.copies.values()]) as (_, found):
        assert said(found, number) == f"is {code}, and what {OUTBOX} kept of it is not"


async def test_the_operator_rejects_a_receipt(shared: Bench, known: Known) -> None:
    """AT is never told that LV got its notice. LV's copy bears no such code out, exit 4, but for what the allow-lists
    of then may have said; without it the code is the broker's word."""
    number = known.receipts[""]
    for code in ("unknown-delivery", "stale-statement", "bad-signature", "issued-in-future", "unknown-key"):
        books = rejected(Books.of(shared), number, code, signed=False)
        with books.checked(sent=known.sent) as (_, found):
            assert said(found, number) == f"is {code}, and what {INBOX} kept of it is not"
        with books.checked() as (_, found):
            assert (said(found, number), found.on_word[code] > 0) == ("", True)
    with rejected(Books.of(shared), number, "invalid-field", signed=False).checked(sent=known.sent) as (_, found):
        assert (said(found, number), found.on_word["invalid-field"]) == ("", 2)
    number = known.receipts["invalid-field"]
    with rejected(Books.of(shared), number, "unknown-delivery", signed=False).checked(sent=known.sent) as (_, found):
        assert (said(found, number), found.on_word["unknown-delivery"]) == ("", 1)


async def test_the_operator_names_another_key_of_which_his_code_is_true(shared: Bench, known: Known) -> None:
    """AT's notice, and LV's receipt, are rejected for a key that signed neither: exit 4 where their files say so."""
    for number, source in ((known.leaves[""], OUTBOX), (known.receipts[""], INBOX)):
        books = rejected(Books.of(shared), number, "unknown-key", signed=False)
        leaf, record = books.find(number)
        books.put(number, leaf, replace(record, key_id=key_of("nobody").public.id))
        with books.checked() as (_, found):
            assert said(found, number) == ""
        with books.checked(sent=known.sent, copies=known.copies.values()) as (_, found):
            assert said(found, number) == f"names another key than what {source} kept of it"


async def test_the_operator_says_that_it_came_on_another_stream(shared: Bench, known: Known) -> None:
    """On which stream something came is his word, whatever its sender kept: he is counted by it, and not borne out."""
    for number, stream in ((known.leaves[""], "notices.lv"), (known.receipts[""], "receipts.at")):
        books = rejected(Books.of(shared), number, "stream-of-another", signed=False)
        leaf, record = books.find(number)
        books.put(number, leaf, replace(record, stream=stream))
        with books.checked(sent=known.sent, copies=known.copies.values()) as (_, found):
            assert (said(found, number), found.on_word["stream-of-another"]) == ("", 2)


async def test_the_operator_records_a_statement_of_what_he_rejects(shared: Bench, known: Known) -> None:
    """Of what holds one the statement is checked, and no key: AT's notice, or LV's receipt, would be rejected for a key
    that is good. Exit 4."""
    (stated,) = [each.statement(each.number) for each in known.sent.values() if each.number == 1 and each.statement]
    for number in (known.leaves[""], known.receipts[""]):
        books = rejected(Books.of(shared), number, "key-revoked", signed=False)
        leaf, record = books.find(number)
        books.put(number, leaf, replace(record, statement=stated))
        with books.checked() as (_, found):
            assert said(found, number).startswith("is rejected, and holds a statement")


async def test_a_receipt_that_changes_under_the_auditor_accuses_nobody(shared: Bench, known: Known) -> None:
    """LV dates it anew under its number, or its inbox is lost, between two looks at it: the code is on word."""
    number, good = known.receipts["bad-signature"], receipt(LV, known.leaves[""], bytes(32), "AT", number=3)
    for data in (good, b""):
        with Books.of(shared).checked(sent=_read_as(data, known.sent)) as (_, found):
            assert said(found, number) == ""


def _read_as(data: bytes, sent: dict[bytes, Sent]) -> dict[bytes, Sent]:
    return {digest: replace(each, statement=lambda _: data) for digest, each in sent.items()}


async def test_a_receipt_for_a_leaf_to_come_is_no_lie_once_the_leaf_is_there(shared: Bench) -> None:
    """LV guesses the number of AT's next notice: `unknown-delivery`, also when that has been given to it since."""
    await shared.federation.settled()
    size, sent = len(await shared.federation.leaves()), notice(AT).envelope()
    data = receipt(LV, size + 1, header_digest(sent.header), "AT", number=99)
    assert (await shared.put("LV", data, "receipts")).code == "unknown-delivery"
    assert (await shared.delivered(sent)).delivery.leaf_number == size + 1
    await shared.federation.settled()
    kept = {sha256(data).digest(): Sent(LV, 99, INBOX, statement=lambda _: data)}
    with Books.of(shared).checked(sent=kept) as (_, found):
        assert found.findings == []


async def test_what_came_broken_under_an_id_that_was_withdrawn_first_may_come_again_whole(shared: Bench) -> None:
    """AT's withdrawal names other header bytes of this id, and its notice comes without its number, then whole: the
    broker calls it withdrawn, of which nothing on record tells but that it was rejected before."""
    other = notice(AT)
    named = replace(reference(other.envelope(), "withdraws"), header_digest=bytes(32))
    assert (await shared.publish(ended(other.envelope()).but(references=(named,)))).kind == "routed"
    whole = other.but(notice_id=named.notice_id).envelope()
    broken = replace(whole, compartments=whole.compartments[:-1])
    told = [(await shared.publish(each)).code for each in (broken, whole)]
    assert told == ["unreadable", "already-withdrawn"]
    await shared.federation.settled()
    with Books.of(shared).checked() as (_, found):
        assert (found.findings, found.on_word["already-withdrawn"]) == ([], 1)


async def test_where_leaves_were_lost_why_something_was_rejected_may_be_lost_with_them(
    shared: Bench, known: Known
) -> None:
    """Neither withdrawal nor first use of a number need be among what is left: nobody is accused."""
    number = known.leaves[""]
    for code in ("already-withdrawn", "number-reused"):
        books = rejected(Books.of(shared), number, code, signed=True)
        leaf, record = books.find(number - 1)
        books.put(number - 1, replace(leaf, kind=BEGUN), record)
        with books.checked(copies=[known.ours]) as (_, found):
            assert (said(found, number), found.on_word[code] > 0) == ("", True)
