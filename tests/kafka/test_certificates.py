"""What a certificate says, who may ask for which, and where its files lie."""

from __future__ import annotations

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker import authorities, certificates, durable, pem
from broker.certificates import RequestRefusedError
from broker.errors import ConfigurationError
from broker.signing import is_encrypted
from tests.kafka import impostors

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MEMBERS = ("AT", "LV", "EUROPOL")
AUTHORITIES = {"root", "nodes-ca", "services-ca", "people-ca", *(f"member-{each.lower()}-ca" for each in MEMBERS)}
SECRET = b"a long passphrase of the authorities"


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    return authorities.init_pki(tmp_path / "operator", MEMBERS, NOW)


def leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def spelled(path: Path) -> str:
    """The Subject in the order in which it is encoded."""
    names = {"countryName": "C", "organizationName": "O", "organizationalUnitName": "OU", "commonName": "CN"}
    return ", ".join(f"{names[part.oid._name]}={part.value!s}" for part in leaf(path).subject)


def usages(path: Path) -> set[x509.ObjectIdentifier]:
    return set(leaf(path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def openssl_accepts(anchor: Path, chain: Path, at: datetime = NOW) -> bool:
    moment = str(int(at.timestamp()))
    command = ["openssl", "verify", "-x509_strict", "-attime", moment, "-CAfile", str(anchor)]
    command += ["-untrusted", str(chain), str(chain)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("stem", "subject"),
    [
        ("node-1", "O=Valise, OU=nodes, CN=node-1"),
        ("node-3", "O=Valise, OU=nodes, CN=node-3"),
        ("router", "O=Valise, OU=services, CN=router"),
        ("operator", "O=Valise, OU=people, CN=operator"),
        ("auditor", "O=Valise, OU=people, CN=auditor"),
        ("setup", "O=Valise, OU=people, CN=setup"),
    ],
)
def test_our_own_certificates_name_their_unit(pki: Path, stem: str, subject: str) -> None:
    assert spelled(pki / f"{stem}.crt") == subject


def test_nodes_serve_and_connect_and_everyone_else_only_connects(pki: Path) -> None:
    assert usages(pki / "node-1.crt") == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    for stem in ("router", "operator", "auditor", "setup"):
        assert usages(pki / f"{stem}.crt") == {ExtendedKeyUsageOID.CLIENT_AUTH}
        with pytest.raises(x509.ExtensionNotFound):
            leaf(pki / f"{stem}.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_each_root_vouches_for_its_own_side_only(pki: Path) -> None:
    nodes, federation = pki / "nodes-ca.pem", pki / "root.pem"
    assert openssl_accepts(nodes, pki / "node-1.crt")
    assert not openssl_accepts(federation, pki / "node-1.crt")
    assert openssl_accepts(federation, pki / "router.crt")
    assert not openssl_accepts(nodes, pki / "router.crt")


@pytest.mark.parametrize(
    ("authority", "bound"),
    [
        ("nodes-ca", "OU=nodes,O=Valise"),
        ("services-ca", "OU=services,O=Valise"),
        ("people-ca", "OU=people,O=Valise"),
        ("member-at-ca", "C=AT"),
        ("member-europol-ca", "O=EUROPOL"),
    ],
)
def test_every_authority_has_a_critical_bound_of_its_own(pki: Path, authority: str, bound: str) -> None:
    extension = leaf(pki / f"{authority}.pem").extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    assert extension.value.excluded_subtrees is None
    assert [name.value.rfc4514_string() for name in extension.value.permitted_subtrees or ()] == [bound]
    limits = leaf(pki / f"{authority}.pem").extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (
        True,
        True,
        0,
    )  # it makes no other authority


def test_keys_are_for_their_owner_alone(pki: Path) -> None:
    certificates.request(pki.parent / "at", "AT", "ncb")
    secret = [*pki.glob("*.key"), *pki.glob("node-*.pem"), pki / "router.pem", *(pki.parent / "at").glob("*.key")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert stat.S_IMODE(pki.stat().st_mode) == 0o700


def test_what_stands_is_kept_when_the_same_is_asked_again(pki: Path) -> None:
    before = {path.name: path.read_bytes() for path in pki.iterdir()}
    authorities.init_pki(pki.parent, MEMBERS, NOW + timedelta(days=300))
    assert {path.name: path.read_bytes() for path in pki.iterdir()} == before


def encrypted(pki: Path) -> set[str]:
    return {each.stem for each in pki.glob("*.key") if is_encrypted(each.read_bytes())}


def test_the_authorities_keys_are_encrypted_where_a_passphrase_is_given_and_no_leafs_is(tmp_path: Path) -> None:
    """Also those that come later: of a member, and of a root that is made anew."""
    pki = authorities.init_pki(tmp_path / "operator", ["AT"], NOW, passphrase=SECRET)
    authorities.add_member(pki, "LV", NOW, passphrase=SECRET)
    authorities.init_pki(pki.parent, MEMBERS, NOW + timedelta(days=3640), passphrase=SECRET)
    assert encrypted(pki) == AUTHORITIES
    assert authorities.bare(pki) == []
    asked = certificates.request(tmp_path, "AT", "ncb")
    assert leaf(pki / "router.crt").issuer == leaf(pki / "services-ca.pem").subject
    assert authorities.sign_request(pki, "AT", "ncb", asked, NOW, SECRET)


def test_keys_of_before_are_encrypted_in_their_place(pki: Path) -> None:
    """After a kill between two of them the same again goes on; until then, and without one, all signs as before."""
    before = {path.name: path.read_bytes() for path in pki.iterdir()}
    authorities._encrypt(pki, SECRET)
    half = pki / "member-at-ca.key"
    half.write_bytes(before[half.name])
    assert authorities.bare(pki) == [half]
    authorities.init_pki(pki.parent, MEMBERS, NOW, passphrase=SECRET)
    assert encrypted(pki) == AUTHORITIES
    changed = {path.name for path in pki.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {f"{each}.key" for each in AUTHORITIES}
    assert stat.S_IMODE(half.stat().st_mode) == 0o600
    for stem in AUTHORITIES:
        assert authorities._load(pki, stem, SECRET).certificate.public_key() == leaf(pki / f"{stem}.pem").public_key()


@pytest.mark.parametrize("wrong", [b"another long passphrase", None])
def test_no_two_authorities_lie_under_two_passphrases(pki: Path, wrong: bytes | None) -> None:
    """Half of them are encrypted: neither the others nor a new one come under another passphrase, or none."""
    authorities._encrypt(pki, SECRET)
    durable.put(pki / "root.key", pem.key_pem(pem.load_key(pki / "root.key", SECRET)))
    before = {path.name: path.read_bytes() for path in pki.iterdir()}
    with pytest.raises(ConfigurationError, match="passphrase"):
        authorities.init_pki(pki.parent, [*MEMBERS, "EE"], NOW, passphrase=wrong)
    assert {path.name: path.read_bytes() for path in pki.iterdir()} == before


def test_a_short_passphrase_of_the_authorities_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="16 to 1,023 bytes"):
        authorities.init_pki(tmp_path / "operator", MEMBERS, NOW, passphrase=b"hunter2")
    assert not (tmp_path / "operator").exists()


@pytest.mark.parametrize("gone", [("key", "pem", "crt"), ("key", "pem"), ("key",)])
def test_setup_is_made_with_the_root_and_later_only_if_told(pki: Path, gone: tuple[str, ...]) -> None:
    """It lies in a safe: whoever starts `broker init` again is not to have another super user without noticing."""
    for suffix in gone:
        (pki / f"setup.{suffix}").unlink()
    left = {each: each.read_bytes() for each in pki.glob("setup.*")}
    for at in (NOW, NOW + timedelta(days=340)):
        authorities.init_pki(pki.parent, ["AT"], at)
        assert {each: each.read_bytes() for each in pki.glob("setup.*")} == left
    with pytest.raises(ConfigurationError, match="broker init --setup"):
        certificates.credentials(pki, "setup")
    authorities.init_pki(pki.parent, ["AT"], NOW, setup=True)
    assert certificates.credentials(pki, "setup")


def test_a_members_certificate_ends_after_ninety_days_and_ours_after_a_year(pki: Path, tmp_path: Path) -> None:
    chain = authorities.sign_request(pki, "AT", "ncb", certificates.request(tmp_path, "AT", "ncb"), NOW)
    assert certificates.leaf_of(chain).until == NOW + timedelta(days=90)
    assert certificates.expiry(pki / "router.crt") == NOW + timedelta(days=365)


def test_a_certificate_that_soon_ends_is_made_anew_by_the_same_authority(pki: Path) -> None:
    later, authority = NOW + timedelta(days=340), (pki / "services-ca.pem").read_bytes()
    before = certificates.expiry(pki / "router.crt")
    authorities.init_pki(pki.parent, ["AT"], later)
    assert certificates.expiry(pki / "router.crt") > before
    assert (pki / "services-ca.pem").read_bytes() == authority
    assert openssl_accepts(pki / "root.pem", pki / "router.crt", later)


# --- members ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "unit", "subject"),
    [
        ("AT", "ncb", "C=AT, O=Member AT, OU=members, CN=ncb"),
        ("AT", "adapter", "C=AT, O=Member AT, OU=members, CN=adapter"),
        ("EUROPOL", "adapter", "O=EUROPOL, OU=members, CN=adapter"),
    ],
)
def test_a_members_own_request_is_signed(pki: Path, tmp_path: Path, member: str, unit: str, subject: str) -> None:
    home = tmp_path / "home"
    asked = certificates.request(home, member, unit)
    chain = authorities.sign_request(pki, member, unit, asked, NOW)
    found = certificates.accept(home, member, unit, chain, (pki / "nodes-ca.pem").read_bytes(), NOW)
    assert spelled(found.chain) == subject
    assert found.chain.name == f"{member.lower()}.{unit}.crt"
    assert openssl_accepts(pki / "root.pem", found.chain)
    assert usages(found.chain) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    # The key stays where it was made, and its store is what Kafka wants: PKCS#8, then the chain.
    assert not list(pki.glob(f"{member.lower()}.*"))
    assert found.key.read_bytes() + chain == found.key.with_suffix(".pem").read_bytes()
    assert found.key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_a_second_request_keeps_the_key(tmp_path: Path) -> None:
    certificates.request(tmp_path, "AT", "ncb")
    before = (tmp_path / "at.ncb.key").read_bytes()
    certificates.request(tmp_path, "AT", "ncb")
    assert (tmp_path / "at.ncb.key").read_bytes() == before


def test_who_asks_beside_another_waits_and_asks_for_the_same_key(tmp_path: Path) -> None:
    certificates.request(tmp_path / "first", "AT", "ncb")
    home, key = tmp_path / "home", (tmp_path / "first" / "at.ncb.key").read_bytes()
    home.mkdir()
    with ThreadPoolExecutor(1) as other:
        with durable.alone(home):
            second = other.submit(certificates.request, home, "AT", "ncb")
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
            (home / "at.ncb.key").write_bytes(key)
        asked = second.result()
    assert (home / "at.ncb.key").read_bytes() == key
    assert certificates.key_of(asked) == certificates.key_of((tmp_path / "first" / "at.ncb.csr").read_bytes())


def test_a_certificate_that_is_accepted_beside_a_new_request_takes_no_new_key_away(pki: Path, tmp_path: Path) -> None:
    home, new = tmp_path / "home", tmp_path / "new"
    chain = authorities.sign_request(pki, "AT", "ncb", certificates.request(home, "AT", "ncb"), NOW)
    certificates.request(new, "AT", "ncb")
    with ThreadPoolExecutor(1) as other:
        with durable.alone(home):
            accepted = other.submit(
                certificates.accept, home, "AT", "ncb", chain, (pki / "nodes-ca.pem").read_bytes(), NOW
            )
            with pytest.raises(TimeoutError):
                accepted.result(timeout=0.3)
            for name in ("at.ncb.key", "at.ncb.csr"):
                (new / name).replace(home / name)
            key = (home / "at.ncb.key").read_bytes()
        with pytest.raises(ConfigurationError, match=r"not the one that at\.ncb asked for"):
            accepted.result()
    assert (home / "at.ncb.key").read_bytes() == key


@pytest.mark.parametrize(("member", "unit"), [("LV", "ncb"), ("AT", "adapter"), ("EUROPOL", "ncb")])
def test_a_request_for_another_member_or_unit_is_refused(pki: Path, tmp_path: Path, member: str, unit: str) -> None:
    asked = certificates.request(tmp_path / "home", "AT", "ncb")
    with pytest.raises(RequestRefusedError, match="the request must be for"):
        authorities.sign_request(pki, member, unit, asked, NOW)


def request_of(subject: x509.Name, extensions: tuple[x509.ExtensionType, ...] = ()) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    key = ec.generate_private_key(ec.SECP256R1())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_subject_in_another_order_or_with_more_parts_is_refused(pki: Path) -> None:
    right = list(certificates.member_subject("AT", "ncb"))
    more = x509.NameAttribute(NameOID.COMMON_NAME, "router")
    joined = [x509.RelativeDistinguishedName([part]) for part in right[:-2]]
    joined.append(x509.RelativeDistinguishedName(right[-2:]))
    for subject in (x509.Name(right[::-1]), x509.Name([*right, more]), x509.Name(right[:-1]), x509.Name(joined)):
        with pytest.raises(RequestRefusedError):
            authorities.sign_request(pki, "AT", "ncb", request_of(subject), NOW)


def test_nothing_that_a_request_asks_for_beside_its_subject_is_granted(pki: Path) -> None:
    wish = (
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("localhost")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    asked = request_of(certificates.member_subject("AT", "ncb"), wish)
    given = x509.load_pem_x509_certificate(authorities.sign_request(pki, "AT", "ncb", asked, NOW)).extensions
    assert not given.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(given.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        given.get_extension_for_class(x509.SubjectAlternativeName)


def test_only_p_256_keys_are_signed(pki: Path) -> None:
    subject = certificates.member_subject("AT", "ncb")
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    other = builder.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256())
    edwards = builder.sign(ed25519.Ed25519PrivateKey.generate(), None)
    for asked in (other, edwards):
        with pytest.raises(RequestRefusedError, match="P-256"):
            authorities.sign_request(pki, "AT", "ncb", asked.public_bytes(serialization.Encoding.PEM), NOW)


def test_a_damaged_request_is_refused(pki: Path, tmp_path: Path) -> None:
    asked = x509.load_pem_x509_csr(certificates.request(tmp_path, "AT", "ncb"))
    whole = asked.public_bytes(serialization.Encoding.PEM)
    forged = asked.public_bytes(serialization.Encoding.DER).replace(b"ncb", b"nca")
    resealed = x509.load_der_x509_csr(forged).public_bytes(serialization.Encoding.PEM)
    for bad in (b"", b"no request", whole[:100], whole * 100, resealed):
        with pytest.raises(RequestRefusedError):
            authorities.sign_request(pki, "AT", "nca" if bad == resealed else "ncb", bad, NOW)


def test_a_certificate_for_another_key_is_not_kept(pki: Path, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    certificates.request(mine, "AT", "ncb")
    chain = authorities.sign_request(pki, "AT", "ncb", certificates.request(other, "AT", "ncb"), NOW)
    with pytest.raises(ConfigurationError, match=r"not the one that at\.ncb asked for"):
        certificates.accept(mine, "AT", "ncb", chain, (pki / "nodes-ca.pem").read_bytes(), NOW)


def test_a_member_without_an_authority_is_told_how_to_get_one(pki: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="valise broker init"):
        authorities.sign_request(pki, "EE", "ncb", certificates.request(tmp_path, "EE", "ncb"), NOW)


@pytest.mark.parametrize("member", ["A", "A1", "at", "VALISE", "EUROPOL ", "EU-X", "", "ÖST", "AT\n"])
def test_names_that_could_pass_for_another_are_no_members(member: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a member"):
        certificates.member_subject(member, "ncb")


@pytest.mark.parametrize("unit", ["", "NCB", "n.cb", "ncb ", "ncb\n", "ncb,OU=people", "nçb"])
def test_units_are_lower_case_letters_digits_and_dashes(unit: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a bureau"):
        certificates.member_subject("AT", unit)


@pytest.mark.parametrize(
    ("authority", "subject"),
    [
        ("member-at-ca", certificates.member_subject("LV", "ncb")),
        ("member-at-ca", certificates.member_subject("EUROPOL", "adapter")),
        ("member-europol-ca", certificates.member_subject("AT", "ncb")),
        ("services-ca", authorities._ours("people", "setup")),
        ("people-ca", authorities._ours("services", "router")),
        ("people-ca", certificates.member_subject("AT", "ncb")),
    ],
)
def test_openssl_refuses_what_lies_outside_an_authoritys_bounds(
    tmp_path: Path, authority: str, subject: x509.Name
) -> None:
    now = datetime.now(UTC)
    authorities.init_pki(tmp_path / "today", ["AT", "EUROPOL"], now)
    today = tmp_path / "today" / "pki"
    within = {"member-at-ca": certificates.member_subject("AT", "ncb")}.get(authority)
    if within is not None:
        good = impostors.signed_by(today, authority, within, tmp_path / "good")
        assert openssl_accepts(today / "root.pem", good.chain, now)
    bad = impostors.signed_by(today, authority, subject, tmp_path / "bad")
    assert not openssl_accepts(today / "root.pem", bad.chain, now)
