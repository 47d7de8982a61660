"""`audit verify` against what others kept, with policies of the auditor's own, over all shards."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from broker import codec, members, notes
from broker.directory import NO_ANNEX
from broker.merkle import EMPTY_ROOT, leaf_hash
from broker.notice import DecisionRecord, Entry, Leaf
from broker.recheck import Grounds, Sent, recheck
from broker.recorded import key_in
from broker.records import Records
from broker.rejections import OF_SIGNED
from broker.rules import PolicySet, Rules
from broker.signing import decision_digest
from broker.tiles import Edge
from broker.trail import Trail
from broker.witness import TABLES
from tests import federation as world
from tests.attacks.scene import write_records, write_trail
from tests.audit.conftest import written_auditor
from tests.audit.homes import Homes, standing

POLICIES = Path(__file__).parent.parent.parent / "policies"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose broker has stopped: two notices of AT's, read by LV; AT has taken in its outcomes."""
    folder = tmp_path_factory.mktemp("verify") / "home"
    with standing(folder) as homes:
        for record in ("r-1", "r-2"):
            name, _ = homes.published(record)
            homes.read(name)
        assert homes.valise("trace", name, "--bureau", "AT/ncb").code == 0
    return folder


@pytest.fixture
def homes(ended: Path, tmp_path: Path) -> Homes:
    """A copy to do harm to."""
    shutil.copytree(ended, tmp_path / "home")
    return Homes(tmp_path / "home")


# What others kept.


def test_heads_deliveries_and_outcomes_of_all_members_are_compared(homes: Homes) -> None:
    value = homes.audit("verify", "--json").value
    assert (value["exit"], value["good"]) == (0, True)
    assert all(value["compared"][each] > 0 for each in ("heads", "deliveries", "outcomes"))


def test_an_outbox_alone_is_enough_to_compare_with(homes: Homes) -> None:
    outbox = homes.folder / "members" / "AT" / "outbox.db"
    value = homes.audit("verify", "--seen", str(outbox), "--json").value
    assert value["exit"] == 0
    assert value["compared"]["outcomes"] >= 2
    assert value["compared"]["deliveries"] == 0


def test_an_outcome_that_the_trail_tells_otherwise_is_called_by_its_leaf(homes: Homes) -> None:
    outbox = homes.folder / "members" / "AT" / "outbox.db"
    with closing(sqlite3.connect(outbox)) as database:
        (number,) = database.execute("SELECT min(leaf_number) FROM outcomes").fetchone()
        database.execute("UPDATE outcomes SET leaf = x'00' WHERE leaf_number = ?", (number,))
        database.execute(
            "INSERT INTO outcomes SELECT 9999, kind, code, detail, NULL, record_digest, original, missing,"
            " warnings, statement, decision_salt, decision, leaf, proof, now FROM outcomes LIMIT 1"
        )
        database.commit()
    value = homes.audit("verify", "--json").value
    assert value["exit"] == 4
    told = [f"{each['place']}: {each['what']}" for each in value["findings"]]
    assert f"leaf {number}: AT/outbox.db was told of another leaf of this number" in told
    assert "leaf 9999: AT/outbox.db was told of it, the trail has it not" in told


def test_a_proof_and_a_bundle_that_a_colleague_kept_are_compared_with(homes: Homes, tmp_path: Path) -> None:
    proof, bundle = tmp_path / "kept.tlog-proof", tmp_path / "kept.json"
    notice = homes.audit("search", "--outcome", "routed", "--json").value["leaves"][0]["notice"]
    assert homes.audit("prove", notice, "--to", str(proof)).code == 0
    assert homes.audit("export", notice, "--to", str(bundle), "--digests-only").code == 0
    value = homes.audit("verify", "--seen", str(proof), "--seen", str(bundle), "--json").value
    assert value["exit"] == 0
    assert value["compared"]["heads"] == 2
    assert value["compared"]["outcomes"] >= 2


def test_what_is_nothing_of_the_kind_is_refused_with_a_reason(homes: Homes, tmp_path: Path) -> None:
    for name, data in (("x.json", b"{}"), ("checkpoint", b"hello"), ("y.tlog-proof", b"c2sp.org/tlog-proof@v1\n"),
                       ("inbox.x.db", b"no database"), ("outbox.db", b"no database")):  # fmt: skip
        file = tmp_path / name
        file.write_bytes(data)
        said = homes.audit("verify", "--seen", str(file))
        assert said.code == 1, name
        assert "configuration" in said.err


def test_compared_with_nothing_it_says_so_and_is_not_good(homes: Homes) -> None:
    shutil.rmtree(homes.folder / "members")
    said = homes.audit("verify", "--policy", str(POLICIES))
    assert said.code == 6
    assert "compared with nothing" in said.out.splitlines()[0]


def test_a_folder_without_a_trail_is_none_unless_others_kept_something_of_it(homes: Homes, tmp_path: Path) -> None:
    """A mistyped folder is no log of no leaves; one that was emptied is, and what others kept of it says so."""
    key, empty = tmp_path / "vkey", homes.folder / "operator" / "trail"
    key.write_bytes((empty / "vkey").read_bytes())
    shutil.rmtree(empty)
    empty.mkdir()
    burnt = homes.audit("verify", "--vkey", str(key), "--json")
    assert (burnt.code, burnt.value["exit"]) == (4, 4)
    shutil.rmtree(homes.folder / "members")
    for more in ((), ("--vkey", str(key))):
        said = homes.audit("verify", *more)
        assert (said.code, "there is no trail in" in said.err) == (1, True), more


def test_a_head_of_no_leaves_compares_nothing(homes: Homes, tmp_path: Path) -> None:
    head = notes.Checkpoint(world.LOG.name, 0, EMPTY_ROOT)
    (tmp_path / "checkpoint").write_text(notes.sign_checkpoint(head, world.LOG_KEY), encoding="utf-8")
    said = homes.audit("verify", "--seen", str(tmp_path / "checkpoint"))
    assert said.code == 6
    assert "compared with nothing" in said.out.splitlines()[0]


def test_what_no_head_of_others_covers_is_named(homes: Homes, tmp_path: Path) -> None:
    leaves = list(homes.trail.entries())
    edge = Edge()
    for each in leaves[:5]:
        edge.add(leaf_hash(each))
    head = notes.Checkpoint(world.LOG.name, 5, edge.root())
    (tmp_path / "checkpoint").write_text(notes.sign_checkpoint(head, world.LOG_KEY), encoding="utf-8")
    said = homes.audit("verify", "--seen", str(tmp_path / "checkpoint"))
    assert said.code == 0
    assert f"leaves 5 to {len(leaves) - 1}: in no head that others kept" in said.out
    assert homes.audit("verify", "--seen", str(tmp_path / "checkpoint"), "--json").value["compared"]["up_to"] == 5


# Receipts


def test_receipts_in_the_files_that_the_auditor_brings_are_looked_for(homes: Homes) -> None:
    inbox = homes.folder / "members" / "LV" / "inbox.ncb.db"
    assert homes.audit("verify", "--seen", str(inbox), "--json").value["decisions"]["receipts"] >= 4
    with closing(sqlite3.connect(inbox)) as database:
        (statement,) = database.execute("SELECT statement FROM receipts WHERE number = 1").fetchone()
        database.execute("UPDATE receipts SET statement = ? WHERE number = 1", (statement[:-1] + b"?",))
        database.commit()
    assert homes.audit("verify", "--seen", str(inbox)).code == 4


def test_receipts_that_bureaus_sent_are_found_on_record(homes: Homes) -> None:
    value = homes.audit("verify", "--records", "--json").value
    assert value["exit"] == 0
    assert value["decisions"]["receipts"] >= 4
    assert value["decisions"]["receipts_waiting"] == 0


def test_a_receipt_that_the_broker_dropped_is_called_by_its_number(homes: Homes) -> None:
    inbox = homes.folder / "members" / "LV" / "inbox.ncb.db"
    with closing(sqlite3.connect(inbox)) as database:
        ((first, one), (second, other)) = database.execute(
            "SELECT number, statement FROM receipts ORDER BY number LIMIT 2"
        ).fetchall()
        assert one != other
        database.execute("UPDATE receipts SET statement = ? WHERE number = ?", (one[:-1] + b"?", first))
        database.commit()
    value = homes.audit("verify", "--records", "--json").value
    assert value["exit"] == 4
    (found,) = value["findings"]
    assert found["place"] == f"receipt {first} of LV/ncb"
    assert "no leaf records it" in found["what"]
    assert second


# Decision records and policies


def test_decisions_are_repeated_with_the_auditors_own_policies(homes: Homes) -> None:
    value = homes.audit("verify", "--policy", str(POLICIES), "--json").value
    assert value["exit"] == 0, value
    assert value["decisions"]["repeated"] == 2
    assert value["decisions"]["not_repeated"] == {}
    published = homes.operator / "versions" / PolicySet.packaged().digest.hex()
    assert homes.audit("verify", "--policy", str(published), "--json").value["decisions"]["repeated"] == 2


def test_a_home_is_verified_whole_without_its_bus_and_its_settings(homes: Homes) -> None:
    for file in (*homes.folder.glob("bus.db*"), homes.operator / "settings.toml"):
        file.unlink()
    value = homes.audit("verify", "--policy", str(POLICIES), "--json").value
    assert (value["exit"], value["decisions"]["repeated"]) == (0, 2)


def test_a_version_that_decisions_were_made_by_and_the_home_lacks_is_named(homes: Homes) -> None:
    """With the bus beside it the home is the operator's own, and no more is opened."""
    directory = codec.decode(Leaf, homes.trail.entry(homes.trail.size - 1)).directory.hex()
    (homes.operator / "versions" / directory).unlink()
    said = homes.audit("verify", "--policy", str(POLICIES))
    assert said.code == 1
    assert f"the directory {directory[:16]} is not in `versions` of this home" in said.err


def test_decisions_under_a_policy_set_that_was_not_named_are_counted_and_not_called_good(
    homes: Homes, tmp_path: Path
) -> None:
    other = tmp_path / "policies"
    shutil.copytree(POLICIES, other)
    rules = next(other.glob("*.cedar"))
    rules.write_text(rules.read_text(encoding="utf-8") + "\n// mine\n", encoding="utf-8")
    said = homes.audit("verify", "--policy", str(other))
    assert said.code == 6
    assert "but not every decision was checked" in said.out.splitlines()[0]
    packaged = f"under the policy set {PolicySet.packaged().digest.hex()[:16]}"
    assert f"2 decisions {packaged}" in said.out
    assert f"receipts, withdrawals and the like {packaged}, which was not named" in said.out
    assert homes.audit("verify", "--policy", str(other), "--policy", str(POLICIES)).code == 0


def test_what_is_no_policy_set_is_refused(homes: Homes, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        assert homes.audit("verify", "--policy", str(path)).code == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE decision SET record = record || x'00' WHERE leaf_number = 4", "not the one that it commits to"),
        ("UPDATE decision SET salt = zeroblob(32) WHERE leaf_number = 4", "not the one that it commits to"),
        ("UPDATE decision SET salt = 7, record = 'text' WHERE leaf_number = 4", "not the one that it commits to"),
        ("DELETE FROM decision WHERE leaf_number = 4", "is missing"),
        ("DELETE FROM decision WHERE leaf_number >= 4", "is missing"),
    ],
)
def test_a_decision_record_that_was_touched_is_called_by_its_leaf(homes: Homes, change: str, what: str) -> None:
    with closing(sqlite3.connect(homes.operator / "records.db")) as database:
        database.execute(change)
        database.commit()
    value = homes.audit("verify", "--records", "--json").value
    assert value["exit"] == 4
    assert value["findings"][0]["place"] == "leaf 4"
    assert what in value["findings"][0]["what"]


def test_a_decision_that_other_rules_made_than_those_it_names_is_called_by_its_leaf(homes: Homes) -> None:
    """The operator put other rules in force than the set whose digest stands in the leaves."""
    files = dict(PolicySet.packaged().files)
    directory = members.parse(members.canonical(world.directory(auditors=(written_auditor(),))))
    rules = Rules.load(PolicySet.of(files), directory, NO_ANNEX)
    suspended = members.parse(
        members.canonical(
            world.directory(
                members=tuple(
                    each.model_copy(update={"status": "suspended" if each.id == "LV" else "active"})
                    for each in world.directory().members
                )
            )
        )
    )
    honest, other = (
        Grounds(directory, rules),
        Grounds(suspended, Rules.load(PolicySet.of(files), suspended, NO_ANNEX)),
    )
    with closing(Records(homes.operator / "records.db")) as records:
        assert recheck(homes.trail, records, lambda _: honest, {}).findings == []
        found = recheck(homes.trail, records, lambda _: other, {})
    assert found.wrong > 0
    assert any("receives: " in each.what and "on record, not by these policies" in each.what for each in found.findings)


def test_a_record_that_was_made_unreadable_stops_no_search(homes: Homes) -> None:
    with closing(sqlite3.connect(homes.operator / "records.db")) as database:
        database.execute("UPDATE decision SET record = x'00' WHERE leaf_number IN (0, 4)")
        database.commit()
    value = homes.audit("search", "--rebuild", "--json").value
    assert value["total"] == homes.trail.size
    (line,) = [each for each in value["leaves"] if each["leaf"] == 4]
    assert "unreadable" in line["decision"]


def test_the_newest_receipts_may_be_on_their_way(homes: Homes) -> None:
    with closing(Records(homes.operator / "records.db")) as records:
        found = recheck(homes.trail, records, lambda _: None, {b"x": Sent("LV/ncb", 10_000, "LV/inbox.ncb.db")})
    assert (found.wrong, found.waiting) == (0, 1)


# Rejections


def rejected(homes: Homes, kind: str, code: str) -> int:
    """Have the operator reject the last notice or receipt, and AT be told so of its notice; give the leaf."""
    with closing(Records(homes.operator / "records.db")) as records:
        kept = list(records.since(0))
    entries = [Entry(number, homes.trail.entry(number), salt, record) for number, salt, record in kept]
    number = [each.leaf_number for each in entries if codec.decode(Leaf, each.leaf).kind == kind][-1]
    leaf, record = codec.decode(Leaf, entries[number].leaf), codec.decode(DecisionRecord, entries[number].decision)
    said = DecisionRecord(record.stream, 0, 0, record.at, record.record_digest, key_id=key_in(record))
    decision, salt = codec.encode(said), entries[number].decision_salt
    digest = leaf.header_digest if code in OF_SIGNED else None
    leaf = replace(leaf, kind="rejected", code=code, header_digest=digest, about=None, rows=None)
    false = codec.encode(replace(leaf, decision=decision_digest(salt, decision)))
    entries[number : number + 1] = [Entry(number, false, salt, decision)]
    write_trail(homes.operator / "trail", [each.leaf for each in entries], world.LOG_KEY)
    write_records(homes.operator / "records.db", entries)
    with closing(sqlite3.connect(homes.folder / "members" / "AT" / "outbox.db")) as database:
        database.execute("UPDATE envelopes SET outcome = 'rejected' WHERE leaf_number = ?", (number,))
        database.commit()
    return number


def test_a_rejection_that_its_issuer_s_outbox_refutes_is_called_by_its_leaf(homes: Homes) -> None:
    """What is left of the other homes says so, too; without the outbox the code is the broker's word, which is said."""
    number, outbox = rejected(homes, "routed", "bad-signature"), homes.folder / "members" / "AT" / "outbox.db"
    said = homes.audit("verify", "--policy", str(POLICIES), "--seen", str(outbox), "--json").value
    what = "is bad-signature, and what AT/outbox.db kept of it is not"
    assert {"place": f"leaf {number}", "what": what} in said["findings"]
    assert (said["decisions"]["rejections"], said["decisions"]["rejections_on_word"]) == (1, {})
    inbox = homes.folder / "members" / "LV" / "inbox.ncb.db"
    told = homes.audit("verify", "--policy", str(POLICIES), "--seen", str(inbox))
    assert "rejections     0 of 1 repeated" in told.out
    assert "broker's word  is all that says why 1 were rejected: 1 bad-signature" in told.out
    assert what not in told.out


def test_what_was_rejected_is_held_against_an_outbox_that_is_brought_for_itself(homes: Homes) -> None:
    """AT was told of all that it sent, and names no policies: its number was free all the same."""
    number, outbox = rejected(homes, "routed", "number-reused"), homes.folder / "members" / "AT" / "outbox.db"
    with closing(sqlite3.connect(outbox)) as database:
        assert not database.execute("SELECT 1 FROM envelopes WHERE outcome IS NULL").fetchall()
    said = homes.audit("verify", "--seen", str(outbox), "--json").value
    what = "is number-reused, and what AT/outbox.db kept of it is not"
    assert {"place": f"leaf {number}", "what": what} in said["findings"]


@pytest.mark.parametrize(
    "change", ["header = 'text'", "header = NULL", "key_id = 7", "signature = x''", "number = 'x'"]
)
def test_an_outbox_of_another_make_ends_no_audit(homes: Homes, tmp_path: Path, change: str) -> None:
    """What a member has put there refutes nothing, or is a lie of its own; no decision record is blamed for it."""
    rejected(homes, "routed", "bad-signature")
    outbox = tmp_path / "outbox.db"
    with closing(sqlite3.connect(outbox)) as database:
        database.execute("ATTACH ? AS ours", (str(homes.folder / "members" / "AT" / "outbox.db"),))
        for table in ("heads", "outcomes", "envelopes"):
            database.execute(f"CREATE TABLE {table} AS SELECT * FROM ours.{table}")
        database.execute(f"UPDATE envelopes SET {change}")
        database.commit()
    said = homes.audit("verify", "--policy", str(POLICIES), "--seen", str(outbox), "--json").value
    assert said["decisions"]["rejections"] == 1
    assert not any("decision record" in each["what"] for each in said["findings"])


@pytest.mark.parametrize(
    ("who", "file", "change"),
    [
        ("LV", "inbox.ncb.db", "UPDATE deliveries SET leaf_number = 'text'"),
        ("LV", "inbox.ncb.db", "UPDATE deliveries SET row = NULL"),
        ("LV", "inbox.ncb.db", "UPDATE deliveries SET salt = 7"),
        ("LV", "inbox.ncb.db", "UPDATE deliveries SET row_index = x''"),
        ("LV", "inbox.ncb.db", "UPDATE receipts SET statement = 'text'"),
        ("LV", "inbox.ncb.db", "UPDATE heads SET size = 'text'"),
        ("AT", "outbox.db", "UPDATE heads SET note = NULL"),
        ("AT", "outbox.db", "UPDATE heads SET note = 'text'"),
        ("AT", "outbox.db", "UPDATE outcomes SET leaf_number = 1.5"),
        ("AT", "outbox.db", "ALTER TABLE outcomes RENAME TO kept; CREATE VIEW outcomes AS SELECT * FROM kept"),
        ("AT", "outbox.db", "ALTER TABLE outcomes RENAME TO kept; CREATE VIEW Outcomes AS SELECT * FROM kept"),
        ("AT", "outbox.db", "ALTER TABLE envelopes ADD COLUMN more AS (zeroblob(1000000))"),
    ],
)
def test_a_file_of_another_make_is_refused_by_its_name(
    homes: Homes, tmp_path: Path, who: str, file: str, change: str
) -> None:
    """It is no ground to say anything of the trail, nor to end without a word; a few bytes give no rows without end."""
    with closing(sqlite3.connect(tmp_path / file)) as database:
        database.execute("ATTACH ? AS ours", (str(homes.folder / "members" / who / file),))
        for table in ("heads", *(("outcomes", "envelopes") if who == "AT" else ("deliveries", "receipts"))):
            database.execute(f"CREATE TABLE {table} AS SELECT * FROM ours.{table}")
        database.executescript(change)
    said = homes.audit("verify", "--records", "--seen", str(tmp_path / file))
    assert (said.code, f"{tmp_path / file} cannot be read as a member's file: " in said.err) == (1, True)


def test_a_receipt_that_its_bureau_s_inbox_shows_to_be_in_order_was_not_to_be_rejected(homes: Homes) -> None:
    number, inbox = rejected(homes, "receipt", "unknown-delivery"), homes.folder / "members" / "LV" / "inbox.ncb.db"
    said = homes.audit("verify", "--policy", str(POLICIES), "--seen", str(inbox), "--json").value
    what = "is unknown-delivery, and what LV/inbox.ncb.db kept of it is not"
    assert {"place": f"leaf {number}", "what": what} in said["findings"]


# Shards


def second_shard(homes: Homes) -> None:
    """Put a log of another shard beside the first."""
    folder, origin = homes.operator / "trail-1", f"{world.ORIGIN}-1"
    trail = Trail.open(folder, origin)
    staged = trail.stage([homes.trail.entry(0)])
    trail.write(staged)
    head = notes.Checkpoint(origin, staged.size, staged.root)
    trail.publish(staged, notes.sign_checkpoint(head, world.LOG_KEY))
    vkey = notes.vkey(origin, world.LOG_KEY.public.raw)
    (folder / "vkey").write_text(f"{vkey}\n", encoding="utf-8")


def test_all_shards_are_checked_each_against_what_was_kept_of_it(homes: Homes) -> None:
    second_shard(homes)
    said = homes.audit("verify", "--json")
    first, second = said.value["shards"]
    assert (first["origin"], first["exit"]) == (world.ORIGIN, 0)
    assert (second["origin"], second["exit"]) == (f"{world.ORIGIN}-1", 6)
    assert said.code == 6


def test_one_of_several_shards_is_compared_with_what_was_kept_of_it_alone(homes: Homes) -> None:
    """What members kept of shard 0 is nothing against shard 1, and it is said that nothing was compared."""
    second_shard(homes)
    second = homes.audit("verify", str(homes.operator / "trail-1"), "--json")
    assert (second.code, second.value["findings"]) == (6, [])
    assert second.value["compared"]["left_out"]
    said = homes.audit("verify", str(homes.operator / "trail-1")).out
    assert said.splitlines()[0].endswith("compared with nothing: all that is here of others is of other shards")
    assert "AT/outbox.db" in said
    first = homes.audit("verify", str(homes.operator / "trail"), "--json")
    assert (first.code, first.value["compared"]["left_out"]) == (0, [])


def test_what_was_kept_of_a_second_shard_is_held_against_it(homes: Homes, tmp_path: Path) -> None:
    second_shard(homes)
    folder, kept = homes.operator / "trail-1", tmp_path / "checkpoint.kept"
    kept.write_text((folder / "checkpoint").read_text(encoding="utf-8"), encoding="utf-8")
    seen = ("--seen", str(kept), "--seen", str(homes.folder / "members"))
    assert homes.audit("verify", str(folder), *seen).code == 0
    assert homes.audit("verify", str(homes.operator / "trail"), *seen).code == 0
    head = notes.Checkpoint(f"{world.ORIGIN}-1", 1, bytes(32))
    kept.write_text(notes.sign_checkpoint(head, world.LOG_KEY), encoding="utf-8")
    said = homes.audit("verify", str(folder), *seen)
    assert said.code == 4
    assert "split view" in said.out


def test_a_home_without_the_trail_of_a_shard_that_others_saw_is_not_called_good(homes: Homes, tmp_path: Path) -> None:
    """All of the home is asked for: a second shard's log may be put away, and nothing of it would be missed."""
    second_shard(homes)
    kept = tmp_path / "checkpoint.kept"
    (homes.operator / "trail-1" / "checkpoint").rename(kept)
    shutil.rmtree(homes.operator / "trail-1")
    seen = ("--seen", str(kept), "--seen", str(homes.folder / "members"))
    said = homes.audit("verify", *seen, "--json")
    assert (said.code, said.value["findings"], said.value["compared"]["left_out"]) == (6, [], [str(kept)])
    assert said.value["answer"].endswith("but others kept 1 file of shards of which no trail is here")
    assert homes.audit("verify", str(homes.operator / "trail"), *seen).code == 0


def test_a_home_without_the_trail_of_a_shard_that_a_witness_saw_is_not_called_good(
    homes: Homes, tmp_path: Path
) -> None:
    """A witness keeps the heads of all shards in one file, which is no single log's."""
    second_shard(homes)
    note = (homes.operator / "trail-1" / "checkpoint").read_text(encoding="utf-8")
    head = notes.parse_checkpoint(notes.parse(note).text)
    state = tmp_path / "witness.db"
    with closing(sqlite3.connect(state)) as kept:
        kept.executescript(TABLES)
        kept.execute("INSERT INTO heads VALUES (?, ?, ?, ?, NULL)", (head.origin, head.size, head.root, note))
        kept.commit()
    seen = ("--seen", str(state), "--seen", str(homes.folder / "members"))
    there = homes.audit("verify", *seen, "--json").value["shards"]
    assert [each["exit"] for each in there] == [0, 0]
    shutil.rmtree(homes.operator / "trail-1")
    assert homes.audit("verify", *seen).code == 6


def test_a_log_that_takes_another_shards_name_is_compared_with_all(homes: Homes) -> None:
    """Its operator names it after a shard of which nobody kept anything, to be compared with nothing."""
    second_shard(homes)
    shutil.rmtree(homes.operator / "trail")
    (homes.operator / "trail-1").rename(homes.operator / "trail")
    assert homes.audit("verify", str(homes.operator / "trail")).code == 4


def test_a_notice_is_told_from_the_shard_that_has_it(homes: Homes) -> None:
    notice = homes.audit("search", "--outcome", "routed", "--json").value["leaves"][0]["notice"]
    told = homes.audit("show", notice, "--json").value
    (homes.operator / "trail").rename(homes.operator / "trail-1")
    shutil.copy(homes.operator / "records.db", homes.operator / "records-1.db")
    (homes.operator / "records.index.db").unlink()
    first = Trail.open(homes.operator / "trail", world.ORIGIN)
    first.write(first.stage([Trail.open(homes.operator / "trail-1").entry(0)]))

    assert homes.audit("show", notice, "--json").value == told
    assert homes.audit("show", str(told[0]["leaf"]), "--shard", "1", "--json").value == told
    assert homes.audit("show", notice, "--shard", "0").code == 1
    assert homes.valise("policy", "explain", notice, "--json").code == 0


def test_one_bad_shard_is_enough(homes: Homes) -> None:
    second_shard(homes)
    file = homes.operator / "trail-1" / "tile" / "entries" / "000.p" / "1"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    said = homes.audit("verify")
    assert said.code == 4
    assert "trail-1" in said.out.splitlines()[-1]


def test_the_report_is_one_json_value(homes: Homes) -> None:
    assert isinstance(json.loads(homes.audit("verify", "--records", "--json").out), dict)
