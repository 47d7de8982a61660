"""The X.509 certificates of nodes, services, people and members, and the authorities that sign them.

Two roots, and the difference matters. `nodes-ca` vouches for the nodes and is every client's only anchor; `root`, the
federation root, vouches for whoever connects, through one authority for services, one for people and one for each
member, each with a critical name constraint (RFC 5280 §4.2.1.10). A client that trusted the federation root would take
a server certificate from any member's authority: a constraint on C says nothing about host names.

A member makes its own key and request; its key never leaves its machine. Files of a leaf: NAME.key (PKCS#8, 0600),
NAME.crt (leaf, then its authority), NAME.pem (both, 0600: Kafka's key store); of an authority: NAME.key and NAME.pem,
the certificate alone. What exists and is in force is kept, so that every function here may be called again.

The authorities' keys are encrypted under one passphrase, where one is given: nothing that runs by itself signs. A
leaf's key is not: nodes, services and collectors start unattended.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker import durable
from broker.errors import ConfigurationError
from broker.signing import Passphrase, encryption, is_encrypted
from broker.streams import PEOPLE, SERVICES, SETUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

FEDERATION = "Valise"
NODES_CA, ROOT, SERVICES_CA, PEOPLE_CA = "nodes-ca", "root", "services-ca", "people-ca"
MAX_NODES = 3
LOOPBACK = ("localhost", "127.0.0.1")
MAX_REQUEST_BYTES = 16_384

AUTHORITY_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
MEMBER_LIFE = timedelta(days=90)
"""Nothing at the nodes tells a stolen key from its owner's: it is let in for so long at most."""
RENEW_BEFORE = timedelta(days=30)
CLOCKS_APART = timedelta(minutes=5)
"""How far behind ours the clock of whoever checks may be when the certificate is new."""

STATE = re.compile(r"[A-Z]{2}")
ORGANISATION = re.compile(r"[A-Z][A-Z0-9]{2,}")
UNIT = re.compile(r"[a-z0-9-]{1,50}")
"""Such a name and a time after it are no more than a CN may have (RFC 5280, ub-common-name: 64)."""
RESUMED = re.compile(r"\.([1-9][0-9]{0,12})")


_WITHOUT = " has no certificate in this home yet"
_WITHOUT_SETUP = (
    "bring setup's files back from their safe for this, or make another super user with `valise broker init --setup`"
)
_LOCKED = (
    "{}: the passphrase does not open this key of an authority: name the file that holds theirs with "
    "--passphrase-file; if `valise certificate passphrase` was cut off, call it again with the same two; "
    "if it is lost, only new authorities help (README, Deploy)"
)


_ANEW = "ask with `valise certificate request`, and have the operator `valise certificate sign` it"


class RequestRefusedError(ConfigurationError):
    """A certificate request is not what this member may ask for."""

    code = "request-refused"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The PEM files with which one principal connects: its only anchor, its chain, its key."""

    ca: Path
    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Leaf:
    """What tells one certificate from another; `serial` and `key` in lower-case hex."""

    serial: str
    key: str
    """SHA-256 of its SubjectPublicKeyInfo: the same for every certificate of this key."""
    until: datetime
    resumed: int
    """When its principal had last been resumed, ms since the epoch; 0: never stopped before."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A key that signs certificates, and the certificate that says for whom."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def pki_of(home: Path) -> Path:
    """Tell where a party's home keeps its certificates."""
    return home / "pki"


def credentials(pki: Path, principal: str) -> Credentials:
    """Name the files of one principal. Raises ConfigurationError if one is not there."""
    return present(Credentials(pki / f"{NODES_CA}.pem", pki / f"{principal}.crt", pki / f"{principal}.key"), principal)


def present(found: Credentials, principal: str) -> Credentials:
    """Give a principal's files back. Raises ConfigurationError if one is not there."""
    for path in (found.ca, found.chain, found.key):
        if not path.is_file():
            raise ConfigurationError(
                f"{path} is missing: {_WITHOUT_SETUP if principal == SETUP else principal + _WITHOUT}"
            )
    return found


def leaf_of(chain: bytes) -> Leaf:
    """Say what tells the first certificate of a chain from others. Raises ConfigurationError."""
    found = _parse_chain(chain)[0]
    return Leaf(f"{found.serial_number:x}", _digest(found.public_key()), found.not_valid_after_utc, _resumed(found))


def key_of(request_pem: bytes) -> str:
    """Give the digest of the key that a request is for, as `Leaf.key`. Raises RequestRefusedError."""
    return _digest(_parse_request(request_pem).public_key())


def expiry(path: Path) -> datetime:
    """Tell until when the first certificate in a PEM file is in force."""
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc


# --- the operator's side ----------------------------------------------------------------------------------------------


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
    pki.mkdir(mode=0o700, parents=True, exist_ok=True)
    with durable.alone(pki):
        check_opens(pki, passphrase)  # no two of them lie under two passphrases, and none beside those without one
        if passphrase is not None:
            _encrypt(pki, passphrase)
        # By its private key: its public certificate may have stayed when that went into the safe.
        whole = all((pki / f"{SETUP}.{each}").is_file() for each in ("key", "pem"))
        setup = setup or whole or not (pki / f"{ROOT}.pem").is_file()
        _make_root(pki, NODES_CA, _ours("nodes", NODES_CA), now, passphrase, permits=_ours("nodes"))
        whole_federation = _name((NameOID.ORGANIZATION_NAME, FEDERATION), (NameOID.COMMON_NAME, "federation root"))
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


def passphrase_of(pki: Path, ask: Passphrase) -> bytes | None:
    """Ask for the passphrase of the authorities' keys, once for all; None where none of them is encrypted.

    Whoever uses it checks it (`check_opens`), once nobody else can change these keys.
    """
    return next((ask(path) for path in _authority_keys(pki) if is_encrypted(path.read_bytes())), None)


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
    whole = member_subject(member, "ncb", organisation)
    permits = x509.Name(list(whole)[:1])
    subject = _renamed(whole, f"{member} authority")
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
    that the principal has on the bus since it was `resumed` (`on_bus`).
    Raises RequestRefusedError, or ConfigurationError if this member has no authority here.
    """
    authority = _load(pki, _authority_of(member), passphrase)
    asked = _parse_request(request_pem)
    wanted = _renamed(authority.certificate.subject, _checked_unit(unit))
    if asked.subject != wanted:
        raise RequestRefusedError(
            f"the request must be for {wanted.rfc4514_string()}, it is for {asked.subject.rfc4514_string()}"
        )
    key = asked.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestRefusedError("the request's key must be EC P-256")
    subject = _renamed(wanted, on_bus(unit, resumed))
    return _pem(_sign_leaf(authority, subject, key, now, life=MEMBER_LIFE)) + _pem(authority.certificate)


# --- the member's side ------------------------------------------------------------------------------------------------


def request(pki: Path, member: str, unit: str, organisation: str = "") -> bytes:
    """Make a unit's key, where there is none yet, and the request for its certificate; return the request as PEM."""
    pki.mkdir(mode=0o700, parents=True, exist_ok=True)
    stem = principal(member, unit)
    path = pki / f"{stem}.key"
    builder = x509.CertificateSigningRequestBuilder().subject_name(member_subject(member, unit, organisation))
    with durable.alone(pki):  # over key and request: another would make a second key, and one request be for none
        if not path.is_file():
            _write(path, _key_pem(_new_key()), private=True)
        asked = builder.sign(_load_key(path), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        _write(pki / f"{stem}.csr", asked)
    return asked


def accept(pki: Path, member: str, unit: str, chain: bytes, nodes_ca: bytes, now: datetime) -> Credentials:
    """Keep the certificate that the operator gave back, and the nodes' root, the only one to trust.

    Raises ConfigurationError if it does not fit the key and unit that asked for it, is not in force, is not signed by
    the authority beside it, or names another nodes' root than the one that is trusted here: whoever sends that would
    pose as the nodes. Whether the federation's root vouches for that authority only the nodes can say: it is not here.
    """
    stem, trusted = principal(member, unit), pki / f"{NODES_CA}.pem"
    found, root = _parse_chain(chain), b"".join(map(_pem, _parse_chain(nodes_ca)))
    pki.mkdir(mode=0o700, parents=True, exist_ok=True)
    with durable.alone(pki):  # over the key: one that is made meanwhile would be replaced by that of before
        key, asked = _load_key(pki / f"{stem}.key"), _asked(pki / f"{stem}.csr")
        subject = _renamed(asked.subject, on_bus(unit, _resumed(found[0])))
        if found[0].public_key() != key.public_key() or found[0].subject != subject:
            raise ConfigurationError(f"this certificate is not the one that {stem} asked for: {_ANEW}")
        if not found[0].not_valid_before_utc - CLOCKS_APART <= now < found[0].not_valid_after_utc:
            raise ConfigurationError(f"this certificate of {stem} is not in force: {_ANEW}")
        _check_signed(found, stem)
        if trusted.is_file() and trusted.read_bytes() != root:
            raise ConfigurationError(
                f"this names another root of the nodes than {trusted}: ask the operator by another way"
            )
        _write(trusted, root)
        _write_leaf(pki, stem, key, chain)
    return credentials(pki, stem)


def principal(member: str, unit: str) -> str:
    """Name the principal that Kafka reads from a member's certificate."""
    return f"{member.lower()}.{_checked_unit(unit)}"


def on_bus(name: str, resumed: int) -> str:
    """Name a principal, or its unit, as the nodes know it since it was resumed: another one than its thief has.

    `resumed`: ms since the epoch; 0 where nothing was lost. No unit's name holds a dot.
    """
    return f"{name}.{resumed}" if resumed else name


def member_subject(member: str, unit: str, organisation: str = "") -> x509.Name:
    """Spell the Subject of a member's unit: `C=AT, O=…, OU=members, CN=ncb` or `O=EUROPOL, OU=members, CN=adapter`.

    A state has two letters and an organisation three or more, so that none passes for the other. A name that differs
    from ours in case only is refused: name constraints ignore case (RFC 5280 §7.1), so its authority could sign a
    router.
    """
    common = (NameOID.COMMON_NAME, _checked_unit(unit))
    members = (NameOID.ORGANIZATIONAL_UNIT_NAME, "members")
    if STATE.fullmatch(member):
        name = organisation or f"Member {member}"
        return _name((NameOID.COUNTRY_NAME, member), (NameOID.ORGANIZATION_NAME, name), members, common)
    if ORGANISATION.fullmatch(member) and member.casefold() != FEDERATION.casefold():
        return _name((NameOID.ORGANIZATION_NAME, member), members, common)
    raise ConfigurationError(
        f"{member!r} cannot be a member: a state has two letters, an organisation three or more letters or digits"
    )


# --- making and keeping -----------------------------------------------------------------------------------------------


def _checked_unit(unit: str) -> str:
    if not UNIT.fullmatch(unit):
        raise ConfigurationError(f"{unit!r} cannot be a bureau: write up to 50 lower-case letters, digits and dashes")
    return unit


def _authority_of(member: str) -> str:
    return f"member-{member.lower()}-ca"


def _name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _ours(unit: str, common: str = "") -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, FEDERATION), (NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]
    return _name(*parts, *([(NameOID.COMMON_NAME, common)] if common else []))


def _renamed(subject: x509.Name, common: str) -> x509.Name:
    return x509.Name([*list(subject)[:-1], x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _resumed(certificate: x509.Certificate) -> int:
    """Read the time in a member's name (`on_bus`); 0 where there is none."""
    named = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    unit, dot, time = str(named[-1].value).partition(".") if named else ("", "", "")
    return int(time) if UNIT.fullmatch(unit) and RESUMED.fullmatch(dot + time) else 0


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


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
    key = _new_key()
    builder = _authority_builder(subject, key.public_key(), now, permits, path_length=0 if permits else 1)
    certificate = builder.issuer_name(subject).sign(key, hashes.SHA256())
    _write_authority(pki, stem, Authority(key, certificate), passphrase)


def _make_authority(
    pki: Path, stem: str, subject: x509.Name, now: datetime, passphrase: bytes | None, *, permits: x509.Name
) -> None:
    if _stands(pki / f"{stem}.pem", now):
        return
    root, key = _load(pki, ROOT, passphrase), _new_key()
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
    if _stands(pki / f"{stem}.crt", now) and all((pki / f"{stem}.{each}").is_file() for each in ("key", "pem")):
        return
    signer, key = _load(pki, authority, passphrase), _new_key()
    leaf = _sign_leaf(signer, subject, key.public_key(), now, usages=usages, hosts=hosts)
    _write_leaf(pki, stem, key, _pem(leaf) + _pem(signer.certificate))


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


def _parse_request(request_pem: bytes) -> x509.CertificateSigningRequest:
    if len(request_pem) > MAX_REQUEST_BYTES:
        raise RequestRefusedError(f"{len(request_pem)} bytes are over the limit of {MAX_REQUEST_BYTES}")
    try:
        asked = x509.load_pem_x509_csr(request_pem)
        sound = asked.is_signature_valid and bool(asked.subject)  # read only now
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise RequestRefusedError("this is no certificate request in PEM") from error
    if not sound:
        raise RequestRefusedError("the request is not signed by the key that it names")
    return asked


def _parse_chain(chain: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(chain)
        for each in found:
            each.public_key(), each.subject
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("this is no certificate chain in PEM") from error
    return found


def _asked(path: Path) -> x509.CertificateSigningRequest:
    """Read what was asked for, at the member."""
    try:
        return _parse_request(path.read_bytes())
    except (OSError, RequestRefusedError) as error:
        raise ConfigurationError(f"{path} is missing or damaged: {_ANEW}") from error


def _check_signed(chain: Sequence[x509.Certificate], stem: str) -> None:
    """Check that each certificate is signed by the next. Raises ConfigurationError."""
    try:
        for signed, signer in pairwise(chain):
            signed.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"this certificate of {stem} is not signed by the authority beside it") from error
    if len(chain) < len(("leaf", "authority")):
        raise ConfigurationError(f"this certificate of {stem} has no authority beside it: have it sent again")


def _stands(path: Path, now: datetime) -> bool:
    return path.is_file() and now + RENEW_BEFORE < expiry(path)


def _authority_keys(pki: Path) -> list[Path]:
    return sorted([*pki.glob(f"{ROOT}.key"), *pki.glob("*-ca.key")])


def check_opens(pki: Path, passphrase: bytes | None) -> None:
    """Check that one passphrase opens every authority's key that is encrypted. Raises ConfigurationError."""
    for path in _authority_keys(pki):
        if is_encrypted(path.read_bytes()):
            _load_key(path, passphrase)


def _encrypt(pki: Path, passphrase: bytes, before: bytes | None = None) -> list[Path]:
    # All are opened before the first is written.
    keys = {path: _load_key(path, before) for path in _authority_keys(pki) if not _is_under(path, passphrase)}
    for path, key in keys.items():
        # Where a link leads, too: beside it the key would stay as it was.
        _write(path.resolve(), _key_pem(key, passphrase), private=True)
    return list(keys)


def _is_under(path: Path, passphrase: bytes) -> bool:
    """Say whether a key is encrypted under this passphrase already."""
    try:
        return is_encrypted(path.read_bytes()) and bool(_load_key(path, passphrase))
    except ConfigurationError:
        return False


def _load(pki: Path, stem: str, passphrase: bytes | None = None) -> Authority:
    certificate = pki / f"{stem}.pem"
    if not certificate.is_file():
        raise ConfigurationError(f"{certificate} is missing: make the authorities first with `valise broker init`")
    key = _load_key(pki / f"{stem}.key", passphrase)
    return Authority(key, x509.load_pem_x509_certificate(certificate.read_bytes()))


def _load_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    wrong = f"{path} is no readable private key in PEM without a passphrase"
    try:
        pem = path.read_bytes()
        if passphrase is not None and is_encrypted(pem):
            wrong = _LOCKED.format(path)
        key = serialization.load_pem_private_key(pem, passphrase if is_encrypted(pem) else None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(wrong) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path} is not an EC P-256 key")
    return key


def _digest(key: CertificatePublicKeyTypes) -> str:
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(encoded).hexdigest()


def _key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption(passphrase))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_authority(pki: Path, stem: str, authority: Authority, passphrase: bytes | None) -> None:
    # The certificate last: it is what `_stands` looks for, so a crash between the two makes both anew.
    _write(pki / f"{stem}.key", _key_pem(authority.key, passphrase), private=True)
    _write(pki / f"{stem}.pem", _pem(authority.certificate))


def _write_leaf(pki: Path, stem: str, key: ec.EllipticCurvePrivateKey, chain: bytes) -> None:
    _write(pki / f"{stem}.key", _key_pem(key), private=True)
    _write(pki / f"{stem}.pem", _key_pem(key) + chain, private=True)
    _write(pki / f"{stem}.crt", chain)


def _write(path: Path, data: bytes, *, private: bool = False) -> None:
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    durable.sync(path.parent)
