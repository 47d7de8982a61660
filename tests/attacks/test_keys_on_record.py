"""The operator has somebody say what no key of his signed; the auditor reads from the trail alone which key did."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from broker import avro, codec
from broker.notice import HEADER_TYPE, DecisionRecord, Entry, Leaf, Receipt, ReceiptItem, Revocation
from broker.recorded import key_in
from broker.signers import NOT_TOLD
from broker.signing import SigningKey, decision_digest
from tests.attacks.bench import Bench, notice
from tests.attacks.test_review import Books, approval, held, said
from tests.making import FEDERATION, NOW, key_of, statement

pytestmark = pytest.mark.asyncio(loop_scope="module")
AT, LV = "AT/ncb", "LV/ncb"
STOLEN, OTHER = key_of(LV, 1), key_of("the operator's own")


@dataclass
class Said:
    """Leaves: AT's notice, LV's under the key that it revokes then, and what came under that key since."""

    notice: int
    before: int
    revoked: int
    since: int
    receipt: int


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def known(shared: Bench) -> Said:
    """Have all of it on record; of all that is rejected in it the key is known."""
    ordinary = (await shared.delivered(notice(AT))).delivery.leaf_number
    before = await shared.publish(replace(notice(LV, "GE/ncb"), key=STOLEN))
    revocation = Revocation(FEDERATION, LV, STOLEN.public.id, "stolen", NOW, NOW)
    revoked = (await shared.put("LV", statement(revocation, key_of(LV)))).leaf_number
    thiefs = replace(notice(LV, "GE/ncb"), key=STOLEN).envelope()
    since = await shared.publish(thiefs)
    answer = Receipt(FEDERATION, LV, "AT", "read", (ReceiptItem(ordinary, bytes(32)),), None, None, 1, NOW)
    refused = await shared.put("LV", statement(answer, STOLEN), "receipts")
    assert (before.kind, since.code, refused.code) == ("routed", "key-revoked", "key-revoked")
    bad = replace(notice(AT).envelope(), signature=bytes(64))
    unknown = replace(notice(AT), key=OTHER).envelope()
    reused = notice(AT)
    await shared.publish(reused)
    again = replace(reused, header=reused.header | {"record": "another"}).envelope()
    for sent, code in ((bad, "bad-signature"), (unknown, "unknown-key"), (again, "number-reused")):
        outcome = await shared.publish(sent)
        assert outcome.code == code
        assert codec.decode(DecisionRecord, outcome.decision).key_id == sent.key_id
    await shared.federation.settled()
    return Said(ordinary, before.leaf_number, revoked, since.leaf_number, refused.leaf_number)


async def test_what_was_signed_under_a_stolen_key_is_known_from_the_trail_alone(shared: Bench, known: Said) -> None:
    """What counted, and what came after it was revoked; and of an honest broker nothing is said."""
    books = Books.of(shared)
    under = [each for each in range(len(books.entries)) if key_in(books.find(each)[1]) == STOLEN.public.id]
    assert under[-3:] == [known.before, known.since, known.receipt]
    with books.checked() as (findings, found):
        assert (findings, found.findings, found.no_key) == ([], [], 0)


def signed_by(key: SigningKey, record: DecisionRecord) -> DecisionRecord:
    """The same record, signed by another."""
    return replace(record, key_id=key.public.id, signature=key.sign_payload(HEADER_TYPE, record.header))


async def test_the_operator_has_a_bureau_say_what_it_did_not_sign(shared: Bench, known: Said) -> None:
    """A key of his own, RU's, or AT's with a signature that is not of this header: exit 4, and nobody need say so."""
    books = Books.of(shared)
    leaf, record = books.find(known.notice)
    for false, finding in (
        (signed_by(OTHER, record), "was signed under a key that the directory of then does not name"),
        (signed_by(key_of("RU/ncb"), record), "was signed under a key that is RU/ncb's"),
        (replace(signed_by(OTHER, record), key_id=key_of(AT).public.id), "was not signed by AT/ncb"),
        (replace(record, signature=b""), "was not signed by AT/ncb"),
    ):
        books.put(known.notice, leaf, false)
        with books.checked() as (_, found):
            assert said(found, known.notice) == finding


async def test_a_thief_and_the_operator_have_the_auditor_believe_a_revoked_key(shared: Bench, known: Said) -> None:
    """The thief's notice is taken in after the revocation, or before the key was in force: exit 4, and no holder need
    bring what it was shown."""
    books = Books.of(shared)
    leaf, record = books.find(known.before)
    moved, (later, _) = replace(leaf, now=books.find(known.since)[0].now), books.find(known.since)
    books.put(known.since, moved, replace(record, rows=()))
    books.put(known.before, replace(later, now=leaf.now), books.find(known.since)[1])
    with books.checked() as (_, found):
        assert "was signed under a key that had been revoked" in said(found, known.since)
    books = Books.of(shared)
    del books.entries[known.before + 1 :]
    books.put(known.before, replace(leaf, now=1 << 50), record)
    with books.checked() as (_, found):
        assert "was signed under a key that was not in force then" in said(found, known.before)


async def test_the_operator_passes_a_notice_off_as_one_of_before(shared: Bench, known: Said) -> None:
    """He leaves out who signed it, as brokers of before did, where others of it tell already: exit 4."""
    books = Books.of(shared)
    for number in (known.before, known.since):
        leaf, record = books.find(number)
        books.put(number, leaf, replace(record, key_id=None, signature=None))
        with books.checked() as (_, found):
            assert said(found, number) == NOT_TOLD


async def test_the_operator_rejects_what_a_good_key_signed(shared: Bench, known: Said) -> None:
    """He calls AT's key revoked, or not in force, and AT is heard no more; or names a key of nobody's: exit 4."""
    books = Books.of(shared)
    leaf, record = books.find(known.since)
    for code, key, finding in (
        ("key-revoked", key_of(AT), "is key-revoked, and nobody had revoked its key"),
        ("key-not-in-force", key_of(AT), "is key-not-in-force, and its key was in force"),
        ("key-not-in-force", OTHER, "is key-not-in-force, and its key is not in the directory of then"),
    ):
        books.put(known.since, replace(leaf, code=code), replace(record, key_id=key.public.id))
        with books.checked() as (_, found):
            assert said(found, known.since) == finding
    signed = replace(leaf, code="number-reused", header_digest=bytes(32))
    books.put(known.since, signed, record)
    with books.checked() as (_, found):
        assert said(found, known.since) == "is called signed by its issuer, under a key that had been revoked"


@pytest.mark.parametrize("verdict", ["release", "refuse"])
async def test_the_operator_names_another_key_where_a_review_ends(shared: Bench, verdict: str) -> None:
    """What follows AT's held notice tells of LV's key, so that LV's thief is said to have signed it: exit 4."""
    envelope, _ = await held(shared)
    end = (await shared.publish(approval(envelope, verdict=verdict))).leaf_number + 1
    await shared.federation.settled()
    books = Books.of(shared)
    leaf, record = books.find(end)
    assert (record.key_id, record.signature) == (envelope.key_id, envelope.signature)
    books.put(end, leaf, signed_by(STOLEN, record))
    with books.checked() as (_, found):
        assert said(found, end) == "names another key or signature than the notice that it follows"


async def test_the_operator_releases_what_a_stolen_key_signed(shared: Bench, known: Said) -> None:
    """GE's notice is held, its key called compromised, and he takes in the release all the same: exit 4."""
    made = notice("GE/ncb").but(topics=("wanted.red",)).envelope()
    at = await shared.publish(made)
    assert at.kind == "held"
    end = (await shared.publish(approval(made))).leaf_number + 1
    await shared.federation.settled()
    books = Books.of(shared)
    leaf, record = books.find(known.revoked)
    false = Revocation(FEDERATION, LV, made.key_id, "stolen", NOW, NOW)
    books.put(known.revoked, leaf, replace(record, statement=statement(false, key_of(LV))))
    with books.checked() as (_, found):
        assert "is released, and its key had been called compromised" in said(found, end)


def of_before(entry: Entry) -> Entry:
    """The same entry as a broker of before wrote it: its decision says nothing of keys."""
    record = replace(codec.decode(DecisionRecord, entry.decision), key_id=None, signature=None)
    head = avro._schema("decision", "1.1")[0]
    decision = head + codec.encode(record)[len(head) : -2]  # without what is null
    leaf = replace(codec.decode(Leaf, entry.leaf), decision=decision_digest(entry.decision_salt, decision))
    return Entry(entry.leaf_number, codec.encode(leaf), entry.decision_salt, decision)


async def test_a_trail_that_began_before_keys_were_recorded_is_called_honest(shared: Bench) -> None:
    """Nothing is said of what the broker of before decided, but how much that is; releases of what it held, too."""
    envelope, waits = await held(shared)
    end = (await shared.publish(approval(envelope))).leaf_number + 1
    await shared.federation.settled()
    books = Books.of(shared)
    books.entries[: waits.leaf_number + 1] = [of_before(each) for each in books.entries[: waits.leaf_number + 1]]
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
        kinds = [codec.decode(Leaf, each.leaf).kind for each in books.entries[: waits.leaf_number + 1]]
        assert found.no_key == sum(each in ("routed", "held") for each in kinds)
    assert books.find(end)[1].key_id == envelope.key_id


@pytest.mark.parametrize("verdict", ["release", "refuse"])
async def test_the_operator_names_a_key_for_what_an_older_broker_held(shared: Bench, verdict: str) -> None:
    """The decision of before names none, so that the end of the review could name any: LV's, which a thief has; one of
    nobody's; AT's, which signed other bytes. Or he goes on without, as if no broker of his told it yet: exit 4."""
    envelope, waits = await held(shared)
    end = (await shared.publish(approval(envelope, verdict=verdict))).leaf_number + 1
    await shared.federation.settled()
    books = Books.of(shared)
    books.entries[: waits.leaf_number + 1] = [of_before(each) for each in books.entries[: waits.leaf_number + 1]]
    with books.checked() as (findings, found):
        assert (findings, found.findings) == ([], [])
    leaf, record = books.find(end)
    for false, finding in (
        (signed_by(STOLEN, record), "was signed under a key that is LV/ncb's"),
        (signed_by(OTHER, record), "was signed under a key that the directory of then does not name"),
        (replace(record, signature=key_of(AT).sign_payload(HEADER_TYPE, b"other bytes")), "was not signed by AT/ncb"),
        (replace(record, key_id=None, signature=None), NOT_TOLD),
    ):
        books.put(end, leaf, false)
        with books.checked() as (_, found):
            assert said(found, end) == finding
