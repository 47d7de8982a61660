"""The directory is parsed once, checked as a whole, and answers by look-up."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from broker.directory import NO_ANNEX, Directory
from broker.errors import VersionRefusedError
from broker.members import WrittenAnnex, WrittenDirectory, canonical, parse, parse_annex
from broker.signing import SigningKey

SIGNER = SigningKey.from_seed(bytes(32))


def written() -> dict[str, Any]:
    annex = sha256(canonical(annex_of({"GE/ncb": "secret"}))).hexdigest()
    return {
        "federation": "eurasia",
        "version": 3,
        "members": [
            {"id": "AT", "name": "Austria", "kind": "state"},
            {"id": "GE", "name": "Georgia", "kind": "state", "status": "active"},
            {"id": "RU", "name": "Russia", "kind": "state", "status": "suspended"},
            {"id": "INTERPOL", "name": "Interpol", "kind": "organisation"},
        ],
        "bureaus": [
            {"id": "AT/ncb", "index": 0, "name": "NCB", "mandates": ["extradition"], "languages": ["de"]},
            {"id": "AT/organised-crime", "index": 4, "name": "OC", "mandates": ["criminal-analysis"]},
            {"id": "GE/ncb", "index": 2, "name": "NCB", "certified": True},
            {"id": "RU/ncb", "index": 1, "name": "NCB"},
        ],
        "keys": [
            {
                "key_id": SIGNER.public.id.hex(),
                "bureau": "AT/ncb",
                "algorithm": "ed25519",
                "public": SIGNER.public.raw.hex(),
                "valid_from": 10,
                "valid_until": 20,
            }
        ],
        "agreements": [
            {"id": "project-millennium", "title": "t", "basis": "b", "members": ["AT", "GE", "RU"], "own_terms": True},
            {"id": "old-treaty", "title": "t", "basis": "b", "members": ["AT", "GE"], "status": "suspended"},
        ],
        "transfers": [
            {"source": "AT", "target": "GE", "basis": "agreement", "reference": "r", "agreement": "project-millennium"},
            {"source": "GE", "target": "AT", "basis": "agreement", "reference": "r", "agreement": "old-treaty"},
            {"source": "AT", "target": "RU", "basis": "derogation", "reference": "r", "agreement": None},
        ],
        "compartment_schemas": ["00112233445566ff"],
        "annex": annex,
        "logs": [{"shard": 0, "vkey": "valise+00+key"}],
    }


def annex_of(clearances: dict[str, Any], supervision: tuple[str, ...] = ()) -> WrittenAnnex:
    return WrittenAnnex(clearances=clearances, supervision=supervision)


def content(change: Callable[[dict[str, Any]], object] = lambda _: None) -> bytes:
    given = written()
    change(given)
    return json.dumps(given).encode()


@pytest.fixture
def directory() -> Directory:
    return parse(content())


def test_the_digest_is_that_of_the_bytes_as_they_arrived(directory: Directory) -> None:
    assert directory.digest == sha256(content()).digest()


def test_members_bureaus_keys_and_agreements_are_found_by_name(directory: Directory) -> None:
    assert directory.members["INTERPOL"].kind == "organisation"
    assert directory.bureaus["AT/organised-crime"].mandates == {"criminal-analysis"}
    assert [each.id if each else None for each in directory.by_index] == [
        "AT/ncb", "RU/ncb", "GE/ncb", None, "AT/organised-crime",
    ]  # fmt: skip
    assert directory.ids == ("AT/ncb", "RU/ncb", "GE/ncb", "", "AT/organised-crime")
    assert [each.id for each in directory.bureaus_of("AT")] == ["AT/ncb", "AT/organised-crime"]
    assert directory.names("AT")
    assert directory.names("RU/ncb")
    assert not directory.names("AT/border")
    assert directory.has_agreement("old-treaty")
    assert not directory.has_agreement("older-treaty")
    assert bytes.fromhex("00112233445566ff") in directory.compartment_schemas
    assert directory.logs[0] == "valise+00+key"


def test_a_key_is_in_force_from_its_first_millisecond_until_before_its_last(directory: Directory) -> None:
    key = directory.key(SIGNER.public.id)
    assert key is not None
    assert [key.in_force(now) for now in (9, 10, 19, 20)] == [False, True, True, False]
    assert key.public.raw == SIGNER.public.raw
    assert directory.key(bytes(32)) is None


def test_a_member_is_all_its_bureaus_and_an_unknown_name_is_nobody(directory: Directory) -> None:
    assert directory.mask(["AT"]) == 0b10001
    assert directory.mask(["AT/ncb", "GE", "XX"]) == 0b101
    assert directory.mask([]) == 0
    assert directory.bureau_mask(["AT", "GE/ncb"]) == 0b100
    assert directory.bureaus_in(0b10101) == ("AT/ncb", "GE/ncb", "AT/organised-crime")


def test_a_suspended_member_is_in_no_mask(directory: Directory) -> None:
    assert not directory.is_active("RU")
    assert directory.is_active("AT")
    assert not directory.is_active("XX")
    assert directory.everyone == 0b10101
    assert directory.mask(["RU", "RU/ncb"]) == 0
    assert directory.agreement_mask("project-millennium") == 0b10101
    assert directory.circle_mask("project-millennium") == 0b10101


def test_a_suspended_agreement_has_no_mask_and_carries_no_transfer(directory: Directory) -> None:
    assert directory.agreement_mask("old-treaty") == 0
    assert directory.agreement_mask("unheard-of") == 0
    assert directory.circle_mask("old-treaty") == 0b10101
    assert not directory.transfer_ok("GE", "AT")


def test_a_transfer_basis_is_a_fact_about_an_ordered_pair(directory: Directory) -> None:
    assert directory.transfer_ok("AT", "GE", ["project-millennium"])
    assert directory.transfer_ok("AT", "AT")
    assert directory.transfer_ok("AT", "RU")
    assert not directory.transfer_ok("RU", "AT")
    assert not directory.transfer_ok("INTERPOL", "AT")


def test_a_basis_that_rests_on_an_agreement_counts_only_under_that_agreement(directory: Directory) -> None:
    assert not directory.transfer_ok("AT", "GE")
    assert not directory.transfer_ok("AT", "GE", ["old-circle"])
    of_at = directory.mask(["AT"])
    assert directory.lawful_mask(["AT"], ["project-millennium"]) & ~directory.lawful_mask(["AT"], []) == directory.mask(
        ["GE"]
    )
    assert directory.lawful_mask(["AT", "GE"], []) & of_at == 0


def test_what_is_written_canonically_reads_the_same_and_has_one_form() -> None:
    model = WrittenDirectory.model_validate_json(content())
    again = WrittenDirectory.model_validate_json(canonical(model))
    assert canonical(again) == canonical(model)
    assert b" " not in canonical(model)


def test_a_bureau_that_the_annex_does_not_list_is_cleared_up_to_restricted(directory: Directory) -> None:
    annex = parse_annex(canonical(annex_of({"GE/ncb": "secret"})), directory)
    assert annex.cleared_for("GE/ncb") == {"open", "restricted", "confidential", "secret"}
    assert annex.cleared_for("AT/ncb") == {"open", "restricted"}
    assert NO_ANNEX.clearance("GE/ncb") == "restricted"


def test_only_the_annex_that_the_directory_commits_to_is_read(directory: Directory) -> None:
    with pytest.raises(VersionRefusedError, match="commits to"):
        parse_annex(canonical(annex_of({"GE/ncb": "open"})), directory)


@pytest.mark.parametrize(
    ("annex", "place"),
    [
        (annex_of({"GE/border": "open"}), r"clearances\.GE/border"),
        (annex_of({}, ("XX",)), r"supervision\.0: no such member XX"),
    ],
)
def test_an_annex_speaks_of_nobody_that_the_directory_does_not_know(annex: WrittenAnnex, place: str) -> None:
    given = canonical(annex)
    directory = parse(content(lambda d: d.update(annex=sha256(given).hexdigest())))
    with pytest.raises(VersionRefusedError, match=place):
        parse_annex(given, directory)


def _set(column: str, place: int, **fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda given: given[column][place].update(fields)


def _add(column: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda given: given[column].append(value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(colour="red"), r"colour: Extra"),
        (lambda d: d.pop("federation"), r"federation: Field required"),
        (_set("members", 0, id="at"), r"members\.0\.id"),
        (_set("members", 0, id="AT\n"), r"members\.0\.id"),
        (_set("members", 0, status="asleep"), r"members\.0\.status"),
        (_set("members", 1, id="AT"), r"members\.1: id AT is given twice"),
        (_set("bureaus", 0, id="AT/NCB"), r"bureaus\.0\.id"),
        (_set("bureaus", 0, id="XX/ncb"), r"bureaus\.0: XX/ncb belongs to no member"),
        (_set("bureaus", 0, id="AT/adapter"), r"bureaus\.0: no bureau can be called adapter"),
        (_set("bureaus", 1, index=0), r"bureaus\.1: index 0 is given twice"),
        (_set("bureaus", 1, id="AT/ncb"), r"bureaus\.1: id AT/ncb is given twice"),
        (_set("bureaus", 0, index=-1), r"bureaus\.0\.index"),
        (_set("bureaus", 0, index=1 << 16), r"bureaus\.0\.index"),
        (_set("bureaus", 0, index="0"), r"bureaus\.0\.index"),
        (_set("bureaus", 0, mandates=["gossip"]), r"bureaus\.0: no such purpose: gossip"),
        (_set("keys", 0, key_id="00" * 32), r"keys\.0: key_id does not fit"),
        (_set("keys", 0, public="00" * 31), r"keys\.0\.public"),
        (_set("keys", 0, algorithm="rsa"), r"keys\.0\.algorithm"),
        (_set("keys", 0, bureau="AT/border"), r"keys\.0: no such bureau"),
        (_set("keys", 0, valid_until=10), r"keys\.0: valid_until"),
        (lambda d: d["keys"].append(d["keys"][0]), r"keys\.1: key_id [0-9a-f]+ is given twice"),
        (_set("agreements", 0, members=["AT", "XX"]), r"agreements\.0: no such member: XX"),
        (_set("agreements", 0, members=["AT", "AT"]), r"agreements\.0: a member is given twice"),
        (_set("agreements", 1, id="project-millennium"), r"agreements\.1: id project-millennium is given twice"),
        (_set("transfers", 0, target="XX"), r"transfers\.0: no such member: XX"),
        (_set("transfers", 2, target="AT"), r"transfers\.2: source and target are the same"),
        (_set("transfers", 2, agreement="unheard-of"), r"transfers\.2: no such agreement"),
        (_set("transfers", 2, agreement="old-treaty"), r"transfers\.2: not both are members of old-treaty"),
        (_set("transfers", 2, basis="goodwill"), r"transfers\.2\.basis"),
        (lambda d: d["transfers"].append(d["transfers"][0]), r"transfers\.3: transfers \(.*\) is given twice"),
        (_add("compartment_schemas", "00112233445566ff"), r"compartment_schemas\.1"),
        (_add("compartment_schemas", "0011"), r"compartment_schemas\.1"),
        (_add("logs", {"shard": 0, "vkey": "k"}), r"logs\.1: shard 0 is given twice"),
        (lambda d: d.update(annex="00"), r"annex"),
        (lambda d: d.update(version=0), r"version"),
    ],
)
def test_a_directory_that_does_not_hold_together_is_refused_naming_the_place(
    change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    with pytest.raises(VersionRefusedError, match=reason):
        parse(content(change))


@pytest.mark.parametrize("given", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"version": 1, "version": 2}', b"nul"])
def test_whatever_is_no_directory_is_refused(given: bytes) -> None:
    with pytest.raises(VersionRefusedError):
        parse(given)


def test_a_name_given_twice_is_refused_for_readers_differ_on_what_it_means() -> None:
    given = content().replace(b'"status": "suspended"', b'"status": "suspended", "status": "active"', 1)
    with pytest.raises(VersionRefusedError, match="status is given twice"):
        parse(given)
