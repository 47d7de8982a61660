"""Asks for TLS certificates, as attackers do: only the member that one names gets it, and a lost one can be stopped."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker import authorities, certificates
from broker.certificates import pki_of
from broker.errors import ConfigurationError
from broker.signing import Passphrase, SigningKey
from broker.streams import DAY_MS
from cli import composing, operator_streams, seed
from cli.auditor import enrolled
from cli.home import clock
from cli.seed import Special
from cli.stage import Stage, set_up
from cli.trust import issuing, signatories, vouched
from cli.trust.issuing import Answers
from tests.trust.test_commands import federation

BUREAUS = ("AT/ncb", "AT/organised-crime", "LV/ncb")
NOW = clock()
SECRET = b"correct horse battery staple"


@dataclass(frozen=True)
class Office:
    """The operator with its authorities, the members AT and LV, and a signed directory that names them."""

    stage: Stage

    def member(self, member: str) -> Path:
        return self.stage.home / "members" / member

    def ask(self, member: str, unit: str, now: int = NOW) -> Path:
        """Ask as the member does, with its own tool."""
        return vouched.write(self.member(member), member, unit, self.stage.federation.federation, now)

    def sign(
        self, *paths: Path, now: int = NOW, another_key: tuple[str, ...] = (), passphrase: Passphrase | None = None
    ) -> Answers:
        return issuing.issue(self.stage.operator, paths, now, another_key, passphrase)

    def issued(self) -> list[str]:
        return [each.principal for each in issuing.kept(self.stage.operator)]

    def refusal(self, *paths: Path, now: int = NOW) -> str:
        done = self.sign(*paths, now=now)
        assert done.issued == ()
        return "\n".join(done.refused)


@pytest.fixture
async def office(tmp_path: Path) -> Office:
    certified = {each: Special(certified=True) for each in ("AT/ncb", "LV/ncb")}
    named = federation(*BUREAUS).model_copy(update={"bureau": certified})
    stage = await set_up(tmp_path / "home", named, "sqlite", BUREAUS, lambda _: None)
    authorities.init_pki(stage.operator.folder, ["AT"], datetime.fromtimestamp(NOW / 1000, UTC))
    return Office(stage)


def forged(path: Path, key: SigningKey, **changed: str) -> Path:
    """Change a request and sign it with a key of ours."""
    wanted = json.loads(path.read_bytes()) | {"key_id": key.public.id.hex()} | changed
    del wanted["signature"]
    written = json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    path.write_text(json.dumps(wanted | {"signature": key.sign_payload(vouched.TYPE, written).hex()}), encoding="utf-8")
    return path


async def test_a_member_asks_for_a_neighbours_certificate(office: Office) -> None:
    """LV's parcel holds a request for AT's bureau, under LV's own TLS key, vouched for by every key that LV has, or by
    one that it calls AT's; and a bare request with AT's Subject, as once was enough. None is signed."""
    parcel = office.member("LV")
    own = SigningKey.load(parcel / "trust" / "member.pem")
    asked = certificates.request(pki_of(parcel), "AT", "ncb")
    (parcel / "at.ncb.csr").write_bytes(asked)
    for key in (own, SigningKey.load(parcel / "trust" / "root.pem"), SigningKey.new()):
        path = forged(office.ask("LV", "ncb"), key, member="AT", request=asked.decode())
        assert "is not signed by a key of AT" in office.refusal(*vouched.found_in([path, parcel]))
    named = json.loads(office.ask("AT", "ncb").read_bytes())["key_id"]
    path = forged(office.ask("LV", "ncb"), own, member="AT", request=asked.decode(), key_id=named)
    assert "is not signed by a key of AT" in office.refusal(path)
    # Under its own name LV gets nothing either that says AT.
    path = forged(office.ask("LV", "ncb"), own, request=asked.decode())
    assert "the request must be for CN=ncb,OU=members,O=Member LV,C=LV" in office.refusal(path)
    assert office.issued() == []


async def test_a_member_that_has_not_entered_asks_for_a_certificate(office: Office) -> None:
    """Its keys are in no directory that the members signed, whatever lies in the operator's folder."""
    folder = office.member("GE")
    signatories.make(folder, "GE", office.stage.federation.federation)
    assert "GE does not speak for itself in the directory in force" in office.refusal(office.ask("GE", "adapter"))


async def test_a_member_asks_for_units_that_the_directory_does_not_name(office: Office) -> None:
    """A bureau without a certificate of its own, and one that there is not: the table of streams knows neither."""
    for unit in ("organised-crime", "navy"):
        assert f"names no bureau AT/{unit}" in office.refusal(office.ask("AT", unit))


async def test_a_thief_hands_in_an_old_request_again(office: Office) -> None:
    """A request that lies about is answered once: later with the same certificate, never with a longer one; not after
    the next was asked for, and not after 30 days."""
    unused = office.stage.home / "unused"
    unused.write_bytes(office.ask("AT", "ncb", NOW - 2 * DAY_MS).read_bytes())
    old = office.ask("AT", "ncb", NOW - DAY_MS)
    first = office.sign(old).issued
    assert office.sign(old, now=NOW + 20 * DAY_MS).issued == first
    assert office.sign(office.ask("AT", "ncb")).issued != first
    assert "has asked anew since" in office.refusal(unused)
    waiting = office.ask("LV", "ncb")
    assert "older than 30 days" in office.refusal(waiting, now=NOW + 31 * DAY_MS)
    assert "dated ahead" in office.refusal(office.ask("LV", "ncb", NOW + DAY_MS))
    assert office.issued() == ["at.ncb", "at.ncb"]


async def test_a_second_key_for_a_principal_is_signed_only_if_the_operator_was_told(office: Office) -> None:
    """Who has the member's key adds a TLS key of his own beside the bureau's: the operator asks the member first."""
    office.sign(office.ask("AT", "ncb", NOW - 2))
    pki = pki_of(office.member("AT"))
    (pki / "at.ncb.key").unlink()
    second = office.ask("AT", "ncb")
    assert "another key, in force until" in office.refusal(second)
    assert len(office.sign(second, another_key=("at.ncb",)).issued) == 1
    assert len({each.key for each in issuing.kept(office.stage.operator)}) == 2


async def test_a_member_lays_pipes_and_links_among_its_requests(office: Office) -> None:
    """One bad file stops nobody, is called by its name, and nothing is written where the member could point it."""
    parcel, target = office.member("LV"), office.stage.home / "target"
    target.write_text("whole", encoding="utf-8")
    for name in ("nodes-ca.pem", "at.ncb.signed.pem"):
        (parcel / name).symlink_to(target)
    os.mkfifo(parcel / "a.certificate.json")
    (parcel / "b.certificate.json").symlink_to("/dev/zero")
    (parcel / "c.certificate.json").write_text("[" * 20_000, encoding="utf-8")
    (parcel / "d.certificate.json").write_bytes(bytes(1 << 20))
    office.ask("AT", "ncb")
    before = {each: each.lstat().st_mtime_ns for each in parcel.rglob("*")}
    done = office.sign(*vouched.found_in([office.stage.home / "members"]))
    assert office.issued() == ["at.ncb"]
    assert [each.partition(":")[0] for each in done.refused] == [str(parcel / f"{x}.certificate.json") for x in "abcd"]
    assert {each: each.lstat().st_mtime_ns for each in parcel.rglob("*")} == before
    assert target.read_text(encoding="utf-8") == "whole"


def test_a_member_lays_pipes_and_links_among_its_requests_for_keys(tmp_path: Path) -> None:
    """Of a bureau's key, of those for directories and policies, of an auditor's: refused by its name, whoever reads."""
    pipe, link, deep, long = (tmp_path / name for name in ("pipe", "link", "deep", "long"))
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    deep.write_text("[" * 16_000, encoding="utf-8")
    long.write_bytes(bytes(1 << 20))
    unread = "no regular file"
    for bad, said in ((pipe, unread), (link, unread), (deep, "have it made again"), (long, "it has more than")):
        told = f"{bad.name}.*{said}"
        with pytest.raises(ConfigurationError, match=told):
            composing.read_request(bad, seed.seed(), NOW)
        with pytest.raises(ConfigurationError, match=told):
            signatories.read(bad, "test")
        with pytest.raises(ConfigurationError, match=told):
            enrolled._read(bad, "test", NOW)


async def test_somebody_sends_a_member_a_certificate_with_nodes_of_his_own(office: Office) -> None:
    """He knows AT's public key and lays it under an authority of his own, with a nodes' root of his own: the member
    that trusts one already takes no other."""
    home = office.member("AT")
    (path,) = office.sign(office.ask("AT", "ncb")).issued
    issuing.accept(home, "AT", path, NOW)
    other = office.stage.home / "other"
    authorities.init_pki(other, ["AT"], datetime.now(UTC))
    root = (pki_of(other) / "nodes-ca.pem").read_text(encoding="utf-8")
    false = office.stage.home / "false.json"
    false.write_text(json.dumps(json.loads(path.read_bytes()) | {"nodes_ca": root}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="another root of the nodes"):
        issuing.accept(home, "AT", false, NOW)
    with pytest.raises(ConfigurationError, match="not for LV"):
        issuing.accept(office.member("LV"), "LV", path, NOW)


async def test_somebody_sends_a_member_a_file_that_is_no_certificate(office: Office) -> None:
    """Wrong types, what the file says of its certificate, one that has ended, one that its authority has not signed:
    each is refused in one sentence, and the good one that is there stays."""
    home = office.member("AT")
    (path,) = office.sign(office.ask("AT", "ncb")).issued
    issuing.accept(home, "AT", path, NOW)
    whole, false, pki = json.loads(path.read_bytes()), office.stage.home / "false.json", pki_of(home)
    before = {each: each.read_bytes() for each in pki.iterdir()}
    other = authorities.init_pki(office.stage.home / "other", ["AT"], datetime.now(UTC))
    leaf, authority = whole["chain"].split("-----END CERTIFICATE-----\n")[:2]
    end, stranger = "-----END CERTIFICATE-----\n", (other / "member-at-ca.pem").read_text(encoding="utf-8")
    types: list[dict[str, object]] = [{name: 7 if isinstance(value, str) else "7"} for name, value in whole.items()]
    changes: list[dict[str, object]] = [
        *types,
        {"more": "x"}, {"until": whole["until"] + 1}, {"until": 10**30}, {"chain": ""}, {"nodes_ca": "x"},
        {"serial": "00"}, {"principal": "at./../ncb"}, {"principal": "at.adapter"}, {"chain": leaf + end},
        {"chain": leaf + end + stranger}, {"chain": authority + end},
    ]  # fmt: skip
    for change in changes:
        false.write_text(json.dumps(whole | change), encoding="utf-8")
        with pytest.raises(ConfigurationError):
            issuing.accept(home, "AT", false, NOW)
    for content in ("[]", "[" * 20_000, "{", "null"):
        false.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="holds no certificate"):
            issuing.accept(home, "AT", false, NOW)
    with pytest.raises(ConfigurationError, match="is not in force"):
        issuing.accept(home, "AT", path, NOW + 91 * DAY_MS)
    assert {each: each.read_bytes() for each in pki.iterdir()} == before
    (pki / "at.ncb.csr").unlink()
    with pytest.raises(ConfigurationError, match=r"at\.ncb\.csr is missing or damaged: ask with `valise certificate"):
        issuing.accept(home, "AT", path, NOW)


@dataclass
class Told:
    """Somebody at the terminal."""

    secret: bytes
    times: int = 0

    def __call__(self, _: Path) -> bytes:
        self.times += 1
        return self.secret


async def test_a_thief_reads_the_files_of_the_operators_authorities(office: Office) -> None:
    """All of them, from a disk or a backup: without their passphrase he signs no member's key and no other `setup`."""
    pki, path = pki_of(office.stage.operator.folder), office.ask("AT", "ncb")
    authorities.init_pki(pki.parent, ["AT"], datetime.fromtimestamp(NOW / 1000, UTC), passphrase=SECRET)
    for guess in (b"correct horse battery stable", b""):
        with pytest.raises(ConfigurationError, match="does not open this key of an authority: name the file"):
            office.sign(path, passphrase=Told(guess))
        for stem in (each.stem for each in pki.glob("*-ca.key")):
            with pytest.raises(ConfigurationError, match="does not open"):
                authorities._load(pki, stem, guess)
    assert office.issued() == []
    more, told = office.ask("LV", "ncb"), Told(SECRET)  # LV has no authority yet: the root signs that
    assert (len(office.sign(path, more, passphrase=told).issued), told.times) == (2, 1)
    assert authorities.bare(pki) == []


async def test_a_thief_of_a_stopped_principal_gets_no_certificate(office: Office) -> None:
    """What was stopped stays so until the operator resumes it; who it is stands in his home."""
    office.sign(office.ask("AT", "ncb", NOW - 2))
    issuing.stop(office.stage.operator, "at.ncb")
    assert "at.ncb was stopped" in office.refusal(office.ask("AT", "ncb"))
    assert len(office.sign(office.ask("AT", "adapter")).issued) == 1
    assert issuing.resume(office.stage.operator, "at.ncb", NOW, old_keys=True)
    assert len(office.sign(office.ask("AT", "ncb", NOW + 1)).issued) == 1


async def test_a_thief_of_a_lost_key_waits_for_its_principal_to_be_resumed(office: Office) -> None:
    """What it had before is none of its name any more. No request of before and none for that key is answered, though
    the member signed it; the next key needs nobody's word, and its certificate is for the name that it has now."""
    operator, home = office.stage.operator, office.member("AT")
    (old,) = office.sign(office.ask("AT", "ncb", NOW - 3)).issued
    unused = office.stage.home / "unused"
    unused.write_bytes(office.ask("AT", "ncb", NOW - 2).read_bytes())
    issuing.stop(operator, "at.ncb")
    assert (issuing.resume(operator, "at.ncb", NOW), issuing.resume(operator, "at.ncb", NOW + 1)) == (True, False)
    assert operator_streams.names(operator) == {"at.ncb": f"at.ncb.{NOW}"}
    assert list(issuing.in_force(operator, "at.ncb", NOW)) == []
    for path in (unused, old):
        assert office.sign(path).issued == ()
    assert "was stopped and resumed since" in office.refusal(unused)
    assert "was stopped with this key" in office.refusal(office.ask("AT", "ncb", NOW + 1))
    (pki_of(home) / "at.ncb.key").unlink()
    (new,) = office.sign(office.ask("AT", "ncb", NOW + 2)).issued
    assert [each.serial for each in issuing.in_force(operator, "at.ncb", NOW)] == [issuing.read(new).serial]
    assert issuing.accept(home, "AT", new, NOW).resumed == NOW
    # It is stopped again, by a clock that was set back: no name comes twice.
    issuing.stop(operator, "at.ncb")
    assert operator_streams.names(operator) == {"at.ncb": None}
    issuing.resume(operator, "at.ncb", NOW - 1000)
    assert operator_streams.names(operator) == {"at.ncb": f"at.ncb.{NOW + 1}"}
    # By a clock that was far ahead: once that is mended its owner need not wait until then.
    issuing.stop(operator, "at.ncb")
    issuing.resume(operator, "at.ncb", NOW + DAY_MS)
    (pki_of(home) / "at.ncb.key").unlink()
    assert "by a clock that was ahead: stop and resume it again" in office.refusal(office.ask("AT", "ncb", NOW + 3))
    issuing.stop(operator, "at.ncb")
    issuing.resume(operator, "at.ncb", NOW + 3)
    (last,) = office.sign(office.ask("AT", "ncb", NOW + 4)).issued
    assert issuing.read(last).resumed == NOW + 3
