"""The authorities that sign certificates: made, kept and used by the operator.

Two roots, and the difference matters. `nodes-ca` vouches for the nodes and is every client's only anchor; `root`, the
federation root, vouches for whoever connects, through one authority for services, one for people and one for each
member, each with a critical name constraint (RFC 5280 §4.2.1.10). A client that trusted the federation root would take
a server certificate from any member's authority: a constraint on C says nothing about host names.

Files of an authority: NAME.key (PKCS#8, 0600) and NAME.pem, the certificate alone. What exists and is in force is kept,
so that every function here may be called again. The keys are encrypted under one passphrase, where one is given:
nothing that runs by itself signs. A leaf's key is not: nodes, services and collectors start unattended.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker import certificates, durable, pem
from broker.certificates import CLOCKS_APART, FEDERATION, NODES_CA, RENEW_BEFORE, RequestRefusedError, pki_of
from broker.errors import ConfigurationError
from broker.signing import Passphrase, encryption, is_encrypted
from broker.streams import PEOPLE, SERVICES, SETUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

ROOT, SERVICES_CA, PEOPLE_CA = "root", "services-ca", "people-ca"
MAX_NODES = 3
LOOPBACK = ("localhost", "127.0.0.1")

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
MEMBER_LIFE = timedelta(days=90)
"""Nothing at the nodes tells a stolen key from its owner's: it is let in for so long at most."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A key that signs certificates, and the certificate that says for whom."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def init_pki(
    operator_home: Path,
    members: Iterable[str],
    now: datetime,
    *,
    nodes: int = MAX_NODES,
    hosts: Sequence[str] = LOOPBACK,
    setup: bool = False,
    passphrase: bytes | None = None,
) -> Path:
    """Make the roots, all authorities and the certificates of nodes, services and people; return their folder.

    `hosts` are the names and addresses under which every node is reached. `setup`, which may do everything, is made
    together with the root; once a file with its private key was taken away another is made only where `setup` says so.
    Under `passphrase` the authorities' keys are encrypted, also those that are here already. No member's key is made
    here. Raises ConfigurationError, before anything is made, if it is short or not the one that opens them.
    """
    encryption(passphrase)  # refuses a short one
    pki = pki_of(operator_home)
    durable.make_lasting(pki, 0o700)
    with durable.alone(pki):
        check_opens(pki, passphrase)  # no two of them lie under two passphrases, and none beside those without one
        if passphrase is not None:
            _encrypt(pki, passphrase)
        # By its private key: its public certificate may have stayed when that went into the safe.
        whole = all((pki / f"{SETUP}.{each}").is_file() for each in ("key", "pem"))
        setup = setup or whole or not (pki / f"{ROOT}.pem").is_file()
        _make_root(pki, NODES_CA, _ours("nodes", NODES_CA), now, passphrase, permits=_ours("nodes"))
        whole_federation = certificates.name_of(
            (NameOID.ORGANIZATION_NAME, FEDERATION), (NameOID.COMMON_NAME, "federation root")
        )
        _make_root(pki, ROOT, whole_federation, now, passphrase)
        for unit, authority in (("services", SERVICES_CA), ("people", PEOPLE_CA)):
            _make_authority(pki, authority, _ours(unit, authority), now, passphrase, permits=_ours(unit))
        for number in range(1, nodes + 1):
            make_node(pki, number, hosts, now, passphrase)
        for service in SERVICES:
            make_service(pki, service, now, passphrase)
        for person in PEOPLE:
            if setup or person != SETUP:
                make_person(pki, person, now, passphrase)
        for member in members:
            add_member(pki, member, now, passphrase=passphrase)
    return pki


def passphrase_of(pki: Path, ask: Passphrase, known: bytes | None = None) -> bytes | None:
    """Ask for the passphrase of the authorities' keys, once for all; None where `known` opens all that are encrypted.

    Whoever uses it checks it (`check_opens`), once nobody else can change these keys.
    """
    locked = (path for path in _authority_keys(pki) if is_encrypted(path.read_bytes()))
    return next((ask(path) for path in locked if known is None or not _is_under(path, known)), None)


def encrypt(pki: Path, passphrase: bytes, before: bytes | None = None) -> list[Path]:
    """Encrypt the authorities' keys under one passphrase, each where it lies; return those that were not under it yet.

    `before` opens those that lie under another. After a kill some lie under the one and some under the other: the same
    call goes on. Raises ConfigurationError, before any is changed, if the new one is short or one of them opens with
    neither.
    """
    encryption(passphrase)  # refuses a short one
    if not _authority_keys(pki):
        raise ConfigurationError(f"there are no authorities in {pki}: make them with `valise broker init`")
    with durable.alone(pki):
        return _encrypt(pki, passphrase, before)


def bare(pki: Path) -> list[Path]:
    """Name the authorities' keys that lie here without a passphrase."""
    return [each for each in _authority_keys(pki) if not is_encrypted(each.read_bytes())]


def check_opens(pki: Path, passphrase: bytes | None) -> None:
    """Check that one passphrase opens every authority's key that is encrypted. Raises ConfigurationError."""
    for path in _authority_keys(pki):
        if is_encrypted(path.read_bytes()):
            pem.load_key(path, passphrase)


def make_node(pki: Path, number: int, hosts: Sequence[str], now: datetime, passphrase: bytes | None = None) -> None:
    """Make the certificate of one node, for both directions: a node also connects to the others."""
    both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    subject = _ours("nodes", f"node-{number}")
    _make_leaf(pki, NODES_CA, f"node-{number}", subject, now, passphrase, usages=both, hosts=hosts)


def make_service(pki: Path, name: str, now: datetime, passphrase: bytes | None = None) -> None:
    """Make the certificate of one of the broker's services."""
    _make_leaf(pki, SERVICES_CA, name, _ours("services", name), now, passphrase)


def make_person(pki: Path, name: str, now: datetime, passphrase: bytes | None = None) -> None:
    """Make the certificate of a person's role: `setup` belongs in a safe once the streams stand."""
    _make_leaf(pki, PEOPLE_CA, name, _ours("people", name), now, passphrase)


def add_member(
    pki: Path, member: str, now: datetime, organisation: str = "", *, passphrase: bytes | None = None
) -> None:
    """Make the authority that can vouch for this member's units and for nobody else."""
    whole = certificates.member_subject(member, "ncb", organisation)
    permits = x509.Name(list(whole)[:1])
    subject = certificates.renamed(whole, f"{member} authority")
    _make_authority(pki, _authority_of(member), subject, now, passphrase, permits=permits)


def sign_request(
    pki: Path,
    member: str,
    unit: str,
    request_pem: bytes,
    now: datetime,
    passphrase: bytes | None = None,
    resumed: int = 0,
) -> bytes:
    """Sign a member's own request and return the chain (leaf, then its authority), all of it public.

    That the request comes from this member the caller must know: anybody can write its Subject. That must be exactly
    this member's and this unit's; nothing else that the request asks for is taken over. The certificate is for the name
    that the principal has on the bus since it was `resumed` (`certificates.on_bus`).
    Raises RequestRefusedError, or ConfigurationError if this member has no authority here.
    """
    authority = _load(pki, _authority_of(member), passphrase)
    asked = certificates.parse_request(request_pem)
    wanted = certificates.renamed(authority.certificate.subject, certificates.checked_unit(unit))
    if asked.subject != wanted:
        raise RequestRefusedError(
            f"the request must be for {wanted.rfc4514_string()}, it is for {asked.subject.rfc4514_string()}"
        )
    key = asked.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestRefusedError("the request's key must be EC P-256")
    subject = certificates.renamed(wanted, certificates.on_bus(unit, resumed))
    return pem.cert_pem(_sign_leaf(authority, subject, key, now, life=MEMBER_LIFE)) + pem.cert_pem(
        authority.certificate
    )


# --- making and keeping -----------------------------------------------------------------------------------------------


def _authority_of(member: str) -> str:
    return f"member-{member.lower()}-ca"


def _ours(unit: str, common: str = "") -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, FEDERATION), (NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]
    return certificates.name_of(*parts, *([(NameOID.COMMON_NAME, common)] if common else []))


def _make_root(
    pki: Path,
    stem: str,
    subject: x509.Name,
    now: datetime,
    passphrase: bytes | None,
    *,
    permits: x509.Name | None = None,
) -> None:
    if _stands(pki / f"{stem}.pem", now):
        return
    key = pem.new_key()
    builder = _authority_builder(subject, key.public_key(), now, permits, path_length=0 if permits else 1)
    certificate = builder.issuer_name(subject).sign(key, hashes.SHA256())
    _write_authority(pki, stem, Authority(key, certificate), passphrase)


def _make_authority(
    pki: Path, stem: str, subject: x509.Name, now: datetime, passphrase: bytes | None, *, permits: x509.Name
) -> None:
    if _stands(pki / f"{stem}.pem", now):
        return
    root, key = _load(pki, ROOT, passphrase), pem.new_key()
    builder = _authority_builder(subject, key.public_key(), now, permits, path_length=0)
    certificate = _issued_by(builder, root).sign(root.key, hashes.SHA256())
    _write_authority(pki, stem, Authority(key, certificate), passphrase)


def _make_leaf(
    pki: Path,
    authority: str,
    stem: str,
    subject: x509.Name,
    now: datetime,
    passphrase: bytes | None,
    *,
    usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    hosts: Sequence[str] = (),
) -> None:
    whole = all((pki / f"{stem}.{each}").is_file() for each in ("key", "pem"))
    if whole and _stands(pki / f"{stem}.crt", now) and certificates.hosts_of(pki / f"{stem}.crt") >= set(hosts):
        return
    signer, key = _load(pki, authority, passphrase), pem.new_key()
    leaf = _sign_leaf(signer, subject, key.public_key(), now, usages=usages, hosts=hosts)
    pem.write_leaf(pki, stem, key, pem.cert_pem(leaf) + pem.cert_pem(signer.certificate))


def _sign_leaf(
    signer: Authority,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    *,
    usages: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    hosts: Sequence[str] = (),
    life: timedelta = LEAF_LIFE,
) -> x509.Certificate:
    builder = (
        _builder(subject, key, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
    return _issued_by(builder, signer).sign(signer.key, hashes.SHA256())


def _authority_builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, permits: x509.Name | None, path_length: int
) -> x509.CertificateBuilder:
    builder = (
        _builder(subject, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
    )
    if permits is None:
        return builder
    # Excluding all DNS names as well would stop a member's authority from posing as a host, but Java 17 fails on it.
    constraint = x509.NameConstraints(permitted_subtrees=[x509.DirectoryName(permits)], excluded_subtrees=None)
    return builder.add_extension(constraint, critical=True)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _issued_by(builder: x509.CertificateBuilder, signer: Authority) -> x509.CertificateBuilder:
    known = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
    return builder.issuer_name(signer.certificate.subject).add_extension(identifier, critical=False)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _stands(path: Path, now: datetime) -> bool:
    return path.is_file() and now + RENEW_BEFORE < certificates.expiry(path)


def _authority_keys(pki: Path) -> list[Path]:
    return sorted([*pki.glob(f"{ROOT}.key"), *pki.glob("*-ca.key")])


def _encrypt(pki: Path, passphrase: bytes, before: bytes | None = None) -> list[Path]:
    # All are opened before the first is written.
    keys = {path: pem.load_key(path, before) for path in _authority_keys(pki) if not _is_under(path, passphrase)}
    for path, key in keys.items():
        # Where a link leads, too: beside it the key would stay as it was.
        durable.put_private(path.resolve(), pem.key_pem(key, passphrase))
    return list(keys)


def _is_under(path: Path, passphrase: bytes) -> bool:
    """Say whether a key is encrypted under this passphrase already."""
    try:
        return is_encrypted(path.read_bytes()) and bool(pem.load_key(path, passphrase))
    except ConfigurationError:
        return False


def _load(pki: Path, stem: str, passphrase: bytes | None = None) -> Authority:
    certificate = pki / f"{stem}.pem"
    if not certificate.is_file():
        raise ConfigurationError(f"{certificate} is missing: make the authorities first with `valise broker init`")
    key = pem.load_key(pki / f"{stem}.key", passphrase)
    return Authority(key, x509.load_pem_x509_certificate(certificate.read_bytes()))


def _write_authority(pki: Path, stem: str, authority: Authority, passphrase: bytes | None) -> None:
    # The certificate last: it is what `_stands` looks for, so a crash between the two makes both anew.
    durable.put_private(pki / f"{stem}.key", pem.key_pem(authority.key, passphrase))
    durable.put(pki / f"{stem}.pem", pem.cert_pem(authority.certificate))
