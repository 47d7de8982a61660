"""A thief: he has one private key of one bureau, or one of the keys that sign directories, and no more."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from adapters import doubts
from adapters.compose import Maker, Place, compose
from broker import codec, members, possession, streams
from broker.errors import ConfigurationError, ForbiddenStreamError, VersionRefusedError
from broker.notice import HEADER_TYPE, RECEIPT_TYPE, Envelope, Header, Outcome, Receipt, ReceiptItem, Revocation
from broker.possession import REQUEST_TYPE, Asked, canonical, check_request
from broker.signing import SigningKey, header_digest, key_id
from broker.trust import draft as drafts
from broker.trust.bundle import Opened
from tests import federation as world
from tests.attacks.bench import Bench, notice
from tests.attacks.scene import ALL, Scene, leaf_but
from tests.fake_bus import FakeBus
from tests.making import FEDERATION, NOW, key_of, reference, statement
from tests.member.conftest import draft
from tests.trust import signed_world
from tests.trust.signed_world import content, first_content, next_draft, opened

STOLEN, NEXT, SIBLING = key_of("AT/ncb"), key_of("AT/ncb", 1), key_of("AT/organised-crime")
HIS_OWN = key_of("a thief's own")
HOUR = 3_600_000


def revocation(signer: SigningKey = SIBLING, bureau: str = "AT/organised-crime", **changed: object) -> bytes:
    """AT ends the stolen key, or whatever a thief makes of it."""
    honest = Revocation(FEDERATION, bureau, STOLEN.public.id, "stolen", NOW)
    return statement(replace(honest, **changed), signer)  # type: ignore[arg-type] # by name


# With a bureau's key, against the broker.


async def test_a_thief_backdates_after_the_revocation(bench: Bench) -> None:
    """He signs today what says that it was issued last week, when the key was good. What counts is when it is
    recorded: `key-revoked`."""
    assert (await bench.put("AT", revocation())).kind == "revoked"
    late = notice("AT/ncb", key=STOLEN).but(issued=NOW - 7 * 24 * HOUR)
    assert (await bench.publish(late)).code == "key-revoked"
    assert (await bench.publish(notice("AT/ncb", key=NEXT))).kind == "routed"


async def test_a_thief_replays_what_the_owner_signed(bench: Bench) -> None:
    """He puts envelopes of the owner's on the stream again, before and after the revocation: `repeated`, then
    `key-revoked`. Nobody gets anything twice."""
    envelope = notice("AT/ncb").envelope()
    await bench.delivered(envelope)
    before = await bench.inboxes()
    assert (await bench.publish(envelope)).kind == "repeated"
    assert (await bench.put("AT", revocation())).kind == "revoked"
    assert (await bench.publish(envelope)).code == "key-revoked"
    assert await bench.federation.bus.end("inbox.lv.ncb") == before["LV/ncb"]


async def test_a_thief_revokes_the_owners_other_keys(bench: Bench) -> None:
    """He silences AT's other keys first. AT has the stolen key, too: it revokes itself, and he is out."""
    for key in (NEXT, SIBLING):
        assert (await bench.put("AT", revocation(STOLEN, "AT/ncb", key_id=key.public.id))).kind == "revoked"
    assert (await bench.put("AT", revocation(STOLEN, "AT/ncb"))).kind == "revoked"
    assert (await bench.publish(notice("AT/ncb", key=STOLEN))).code == "key-revoked"


async def test_a_thief_takes_the_owners_keys_with_him(bench: Bench) -> None:
    """Found out, he revokes AT's other keys with the revoked one: `key-revoked`. AT goes on with them."""
    assert (await bench.put("AT", revocation())).kind == "revoked"
    for key in (NEXT, SIBLING):
        false = revocation(STOLEN, "AT/ncb", key_id=key.public.id)
        assert (await bench.put("AT", false)).code == "key-revoked"
    assert (await bench.publish(notice("AT/ncb", key=NEXT))).kind == "routed"


async def test_a_thief_has_the_revoked_key_entered_again(bench: Bench) -> None:
    """With the operator's help the next directory lists the key once more. Revoked is revoked: `key-revoked`."""
    assert (await bench.put("AT", revocation())).kind == "revoked"
    await world.write_versions(bench.federation.bus, world.directory(2, (world.written_key("AT/ncb", 1),)))
    assert (await bench.publish(notice("AT/ncb", key=NEXT))).kind == "routed"
    assert (await bench.publish(notice("AT/ncb", key=STOLEN))).code == "key-revoked"


async def test_a_thief_signs_with_a_key_that_is_not_yet_in_force(bench: Bench) -> None:
    """He stole the key that AT keeps for next month, and writes next month's date: `key-not-in-force`, whatever he
    writes."""
    later = world.written_key("AT/ncb", 2, NOW + HOUR)
    await world.write_versions(bench.federation.bus, world.directory(2, (later,)))
    early = notice("AT/ncb", key=key_of("AT/ncb", 2))
    assert (await bench.publish(early)).code == "key-not-in-force"
    assert (await bench.publish(early.but(issued=NOW + 2 * HOUR))).code == "key-not-in-force"


async def test_a_thief_passes_a_signature_of_one_kind_off_as_another(bench: Bench) -> None:
    """He has a machine of AT's sign a header's bytes as a receipt. The kind is part of what is signed:
    `bad-signature`."""
    envelope = notice("AT/ncb").envelope()
    assert STOLEN.sign_payload(HEADER_TYPE, envelope.header) == envelope.signature
    false = replace(envelope, signature=STOLEN.sign_payload(RECEIPT_TYPE, envelope.header))
    assert (await bench.publish(false)).code == "bad-signature"
    elsewhere = notice("AT/ncb").but(federation="another federation")
    assert (await bench.publish(elsewhere)).code == "other-federation"


# With a bureau's key, against its owner: what he did shows.


async def forged(scene: Scene, **changes: object) -> Header:
    """Let the thief publish in AT's name from a machine of his own; the broker cannot tell."""
    maker = Maker(scene.home("AT/ncb").versions.newest(), lambda _: STOLEN, lambda: NOW, os.urandom)
    made = compose(draft("R-forged", **changes), Place("AT/ncb", 1, (), b"thief-01", 1), maker)
    await scene.operator.route(codec.encode(made.envelope), {"LV/ncb": ALL})
    return made.header


async def test_a_thief_publishes_in_the_owners_name(scene: Scene) -> None:
    """Until the key is revoked he is AT to everybody but AT: its outbox never held this, alarm
    `not-from-this-outbox` with the leaf."""
    await forged(scene)
    assert (await scene.collect()).records == ["R-forged"]
    assert await scene.learn() == ["not-from-this-outbox"]


async def test_a_thief_published_before_the_theft_was_noticed(scene: Scene) -> None:
    """AT revokes the key as compromised since an hour ago. Its holder finds the forged notice among its own
    deliveries, AT finds it in its outcomes, and withdraws it although it never was in its outbox."""
    header = await forged(scene)
    await scene.collect()
    await scene.revoke(revocation(STOLEN, "AT/ncb", compromised_since=NOW - HOUR), "AT", "LV")
    assert await scene.learn() == ["not-from-this-outbox", "key-revoked"]
    assert await scene.learn("LV/ncb") == ["key-revoked"]
    at, lv = scene.home("AT/ncb"), scene.home("LV/ncb")
    outbox, theirs, inbox = at.outbox(), lv.outbox(), lv.inbox()
    (ours,) = doubts.revocations(outbox.database, at.versions.directory)
    (known,) = doubts.revocations(theirs.database, lv.versions.directory)
    assert [(each.record, each.ours) for each in doubts.issued(outbox.database, ours)] == [("R-forged", False)]
    assert [each.record for each in doubts.held(inbox.database, known)] == ["R-forged"]
    outbox.disown(header.notice_id, {"code": "mistaken"})
    for each in (outbox, theirs, inbox):
        each.close()


async def test_a_thief_withdraws_what_the_owner_published(scene: Scene) -> None:
    """He signs the withdrawal of AT's notice, and LV erases it. AT is told of an end that it never sent:
    `not-from-this-outbox`."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    maker = Maker(scene.home("AT/ncb").versions.newest(), lambda _: STOLEN, lambda: NOW, os.urandom)
    subject = reference(codec.decode(Envelope, data), "withdraws")
    end = replace(draft(), kind="withdrawal", compartments={"reason": {"code": "arrested"}})
    made = compose(end, Place("AT/ncb", 2, (subject,), b"thief-01", 1), maker)
    await scene.operator.route(codec.encode(made.envelope), {"LV/ncb": ("reason",)}, {"LV/ncb": ("erases", 1)})
    assert (await scene.collect()).alarms == []
    assert await scene.learn() == ["not-from-this-outbox"]


async def test_a_thief_has_the_owner_recall_its_own_notice(scene: Scene) -> None:
    """He publishes a later version of AT's record to nobody, which AT disowns. That the withdrawal of it reaches nobody
    is no reason to withdraw AT's own, which stands with LV and is AT's to withdraw."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    fake = notice("AT/ncb", key=STOLEN).but(record="R-1", version=2).envelope()
    await scene.operator.route(codec.encode(fake), {})
    await scene.learn()
    at = scene.home("AT/ncb")
    outbox = at.outbox()
    outbox.disown(codec.decode(Header, fake.header).notice_id, {"code": "mistaken"})
    await outbox.flush(scene.bus)
    (*_, end) = await scene.bus.read("notices.at", 0)
    await scene.operator.route(end.value or b"", {})
    assert "holders-not-told" not in await scene.learn()  # who holds AT's own is not to hear of this
    assert (await scene.story(end.value or b"")).silent == ()
    assert await outbox.flush(scene.bus) == 0
    assert outbox.withdraw("R-1")
    outbox.close()


async def test_a_thief_corrects_a_record_for_its_owner_to_correct_in_vain(scene: Scene) -> None:
    """He corrects AT's notice. Whatever AT says of that record names what his has replaced, and is rejected, until AT
    disowns his, which ends both: what AT says next is a notice of its own."""
    (data,) = await scene.publish(draft())
    await scene.operator.route(data, {"LV/ncb": ALL})
    subject = reference(codec.decode(Envelope, data), "corrects")
    fake = notice("AT/ncb", key=STOLEN).but(record="R-1", version=2, references=(subject,)).envelope()
    await scene.operator.route(codec.encode(fake), {"LV/ncb": ALL}, {"LV/ncb": ("replaces", 1)})
    for tried in ("one", "two"):
        (data,) = await scene.publish(draft(action_sought=tried))
        outcome = scene.operator.reject(data, "invalid-reference")
        await scene.operator.seal()
        await scene.operator.tell("AT", outcome)
        await scene.learn()
    outbox = scene.home("AT/ncb").outbox()
    outbox.disown(codec.decode(Header, fake.header).notice_id, {"code": "mistaken"})
    outbox.close()
    _, anew = await scene.publish(draft())
    assert codec.decode(Header, codec.decode(Envelope, anew).header).references == ()


async def test_a_thief_and_the_operator_hide_whose_notice_it_is(scene: Scene) -> None:
    """The operator leaves the notice's id out of what he tells AT, so that no alarm rings. Outcome and decision must
    name one notice: `wrong-leaf`, an alarm all the same."""
    operator = scene.operator
    maker = Maker(scene.home("AT/ncb").versions.newest(), lambda _: STOLEN, lambda: NOW, os.urandom)
    made = compose(draft("R-forged"), Place("AT/ncb", 1, (), b"thief-01", 1), maker)
    number = operator.record(codec.encode(made.envelope), {"LV/ncb": ALL})
    outcome = operator.routes[number].outcome
    assert isinstance(outcome, Outcome)
    await operator.seal()
    await operator.tell("AT", replace(outcome, notice_id=None, issuer="AT/ncb"))
    assert await scene.learn() == ["wrong-leaf"]


async def test_a_thief_and_the_operator_call_it_a_reused_id(scene: Scene) -> None:
    """The thief takes the id of a notice of AT's, and the operator writes `id-reused` on a leaf that routes it. Only
    what is rejected may say so: AT is alarmed, `altered`."""
    (data,) = await scene.publish(draft("R-1"))
    await scene.operator.route(data, {"LV/ncb": ALL})
    name = codec.decode(Header, codec.decode(Envelope, data).header).notice_id
    operator = scene.operator
    number = operator.record(codec.encode(notice("AT/ncb", key=STOLEN).but(notice_id=name).envelope()), {"GE/ncb": ALL})
    outcome = operator.routes[number].outcome
    assert isinstance(outcome, Outcome)
    leaf = operator.leaves[number] = leaf_but(operator.leaves[number], code="id-reused")
    await operator.seal()
    await operator.tell("AT", replace(outcome, code="id-reused", leaf=leaf))
    assert await scene.learn() == ["altered"]


async def test_a_thief_says_erased_for_a_bureau_that_kept_it(scene: Scene) -> None:
    """With LV's key he answers AT's withdrawal. When LV revokes the key, AT finds that answer among those in doubt."""
    (data,) = await scene.publish(draft())
    number = await scene.operator.route(data, {"LV/ncb": ALL})
    item = (ReceiptItem(number, header_digest(codec.decode(Envelope, data).header)),)
    key = key_of("LV/ncb")
    said = Receipt(FEDERATION, "LV/ncb", "AT", "erased", item, "erased", None, 1, NOW)
    await scene.confirm(statement(said, key))
    lost = Revocation(FEDERATION, "LV/ncb", key.public.id, "stolen", NOW, NOW)
    await scene.revoke(statement(lost, key), "AT")
    await scene.learn()
    outbox = scene.home("AT/ncb").outbox()
    (found,) = doubts.revocations(outbox.database, scene.home("AT/ncb").versions.directory)
    (doubted,) = doubts.answered(outbox.database, found)
    outbox.close()
    assert (doubted.bureau, doubted.act, doubted.about) == ("LV/ncb", "erased", (number,))


async def test_a_thief_and_the_operator_go_on_after_the_revocation(scene: Scene) -> None:
    """The operator takes in what the revoked key signs. LV was told of the revocation: it finds what is recorded
    after it, which no honest broker does."""
    await scene.revoke(revocation(STOLEN, "AT/ncb"), "AT", "LV")
    await forged(scene)
    await scene.collect()
    await scene.learn("LV/ncb")
    lv = scene.home("LV/ncb")
    outbox, inbox = lv.outbox(), lv.inbox()
    (known,) = doubts.revocations(outbox.database, lv.versions.directory)
    assert [each.after for each in doubts.held(inbox.database, known)] == [True]
    outbox.close()
    inbox.close()


# With a bureau's key, against the directory.


@pytest.fixture(scope="module")
def first() -> Opened:
    """The first directory that was signed."""
    return opened(first_content())


def test_a_thief_rotates_the_key_to_his_own(first: Opened) -> None:
    """He has the stolen key endorse a key of his, as an owner does. The request is in order; the directory that
    enters it needs AT's own role, whose key he has not: `AT: 1 more must sign: AT`."""
    asked = check_request(
        json.dumps(possession.request(Asked(FEDERATION, "AT/ncb"), HIS_OWN, STOLEN)).encode(), FEDERATION
    )
    asked.check_entry(None, {STOLEN.public.id: STOLEN.public})
    wanted = json.loads(first.plain)
    wanted["keys"].append(
        {
            "key_id": HIS_OWN.public.id.hex(), "bureau": "AT/ncb", "algorithm": "ed25519",
            "public": HIS_OWN.public.raw.hex(), "valid_from": 0, "valid_until": world.FOR_EVER,
        }
    )  # fmt: skip
    with pytest.raises(VersionRefusedError, match="AT: 1 more must sign: AT"):
        content(next_draft(first, wanted), first, ["LV", "GE"])


def test_a_thief_asks_for_a_key_of_a_neighbours_bureau() -> None:
    """AT's stolen key endorses a key for LV/ncb. Only a key in force of that bureau asks for its next one."""
    asked = possession.request(Asked(FEDERATION, "LV/ncb"), HIS_OWN, STOLEN)
    found = check_request(json.dumps(asked).encode(), FEDERATION)
    theirs = key_of("LV/ncb").public
    with pytest.raises(ConfigurationError, match="no key in force of LV/ncb asks for this one"):
        found.check_entry(None, {theirs.id: theirs})


def test_a_thief_extends_anothers_endorsement_to_his_key() -> None:
    """He puts the endorsement that AT's key gave its successor under a request for a key of his own. It was given to
    that key alone: refused, `did not sign that this one follows it`."""
    genuine = possession.request(Asked(FEDERATION, "AT/ncb"), NEXT, STOLEN)
    false = possession.request(Asked(FEDERATION, "AT/ncb"), HIS_OWN) | {"follows": genuine["follows"]}
    false["proof"] = HIS_OWN.sign_payload(REQUEST_TYPE, canonical(false)).hex()
    found = check_request(json.dumps(false | {"endorsement": genuine["endorsement"]}).encode(), FEDERATION)
    with pytest.raises(ConfigurationError, match="did not sign that this one follows it"):
        found.check_entry(None, {STOLEN.public.id: STOLEN.public})


def test_a_thief_has_anothers_public_key_entered_as_his(first: Opened) -> None:
    """He asks for LV's public key as RU's, to claim what LV signed. He lacks the private half: refused."""
    theirs = key_of("LV/ncb").public
    false = possession.request(Asked(FEDERATION, "RU/ncb"), HIS_OWN)
    false |= {"public": theirs.raw.hex(), "key_id": theirs.id.hex()}
    with pytest.raises(ConfigurationError, match="does not have the private key"):
        check_request(json.dumps(false).encode(), FEDERATION)
    assert first.directory.key(theirs.id) is not None


@pytest.mark.parametrize("raw", ["01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32])
def test_a_thief_enters_a_key_under_which_anything_is_signed(raw: str) -> None:
    """He asks for a point of small order, under which one signature fits every message, to deny it later: refused in
    the request, and as a directory by whoever reads one."""
    asked = possession.request(Asked(FEDERATION, "AT/ncb"), HIS_OWN)
    asked |= {"public": raw, "key_id": key_id(bytes.fromhex(raw)).hex()}
    with pytest.raises(ConfigurationError, match="nobody could be held to"):
        check_request(json.dumps(asked).encode(), FEDERATION)
    listed = json.loads(members.canonical(world.directory()))
    listed["keys"][0] |= {"public": raw, "key_id": key_id(bytes.fromhex(raw)).hex()}
    with pytest.raises(VersionRefusedError, match="no Ed25519 public key"):
        members.parse(json.dumps(listed).encode())


# With a key that signs directories.


def test_a_thief_of_a_members_directory_key_speaks_for_a_neighbour(first: Opened) -> None:
    """With AT's directory key he renames LV's bureau, and a whole agreement. LV's file is LV's, the agreement needs
    two: refused."""
    with pytest.raises(VersionRefusedError, match="LV: 1 more must sign: LV"):
        content(next_draft(first, signed_world.changed_name(first, "LV", "Mine")), first, ["AT"])
    wanted = json.loads(first.plain)
    wanted["agreements"][0]["status"] = "suspended"
    with pytest.raises(VersionRefusedError, match="agreement-circle: 1 more must sign"):
        content(next_draft(first, wanted), first, ["AT"])


def test_a_thief_of_a_members_directory_key_changes_the_rules(first: Opened) -> None:
    """He signs a policy set twice with it. Two different members must: refused."""
    made = drafts.propose_policies(b"{}", 1, "AT", NOW)
    with pytest.raises(VersionRefusedError, match="policies: 1 more must sign: GE, LV"):
        drafts.allowed(signed_world.signed_by(made, first, "AT", "AT"), first)


def test_a_thief_of_one_root_key_puts_up_another_root(first: Opened) -> None:
    """He has one of three root keys. More than half of the old and of the new holders must sign: refused."""
    holders = [signed_world.signatory(each) for each in ("AT", "RU")]
    keys = (signed_world.SNAPSHOT.public, signed_world.TIMESTAMP.public)
    made = drafts.propose_root(holders, first, keys, NOW)
    with pytest.raises(VersionRefusedError, match="root"):
        content(made, first, ["AT", "RU"])


# With files.


def test_a_thief_copies_a_key_file(tmp_path: Path) -> None:
    """He has the file of an encrypted key and not its passphrase: no key. A key file that others may read is not even
    used by its owner."""
    path = tmp_path / "ncb.pem"
    STOLEN.save(path, b"a passphrase of more than sixteen bytes")
    with pytest.raises(ConfigurationError, match="passphrase does not open"):
        SigningKey.load(path, lambda _: b"a guess of more than sixteen bytes")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        SigningKey.load(path, lambda _: b"a passphrase of more than sixteen bytes")


async def test_a_thief_of_the_log_key_has_no_way_to_show_a_head() -> None:
    """He can sign heads, and may write to no stream as LV's adapter: the bus denies it. With the bus in his hand he
    is the operator of test_operator_rewrites.py."""
    bus = FakeBus(principal=streams.adapter("LV"), world=world.world())
    with pytest.raises(ForbiddenStreamError):
        await bus.append(streams.CHECKPOINTS, [(b"", b"a head")])
