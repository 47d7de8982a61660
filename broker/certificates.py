"""What a certificate says, where a party's files lie, and how a member asks for its own.

A member makes its own key and request; its key never leaves its machine. Files of a leaf: NAME.key (PKCS#8, 0600),
NAME.crt (leaf, then its authority), NAME.pem (both, 0600: Kafka's key store); `nodes-ca.pem` is every client's only
anchor. Who signs them is in authorities.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from broker import durable, pem
from broker.errors import ConfigurationError
from broker.streams import SETUP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

FEDERATION, NODES_CA = "Valise", "nodes-ca"
MAX_REQUEST_BYTES = 16_384
CLOCKS_APART = timedelta(minutes=5)
"""How far behind ours the clock of whoever checks may be when the certificate is new."""

RENEW_BEFORE = timedelta(days=30)

STATE = re.compile(r"[A-Z]{2}")
ORGANISATION = re.compile(r"[A-Z][A-Z0-9]{2,}")
UNIT = re.compile(r"[a-z0-9-]{1,50}")
"""Such a name and a time after it are no more than a CN may have (RFC 5280, ub-common-name: 64)."""
RESUMED = re.compile(r"\.([1-9][0-9]{0,12})")

_WITHOUT = " has no certificate in this home yet"
_WITHOUT_SETUP = (
    "bring setup's files back from their safe for this, or make another super user with `valise broker init --setup`"
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
    return Leaf(f"{found.serial_number:x}", pem.digest(found.public_key()), found.not_valid_after_utc, _resumed(found))


def key_of(request_pem: bytes) -> str:
    """Give the digest of the key that a request is for, as `Leaf.key`. Raises RequestRefusedError."""
    return pem.digest(parse_request(request_pem).public_key())


def expiry(path: Path) -> datetime:
    """Tell until when the first certificate in a PEM file is in force. Raises ConfigurationError: damaged."""
    return _first(path).not_valid_after_utc


def hosts_of(path: Path) -> set[str]:
    """Tell which names and addresses the first certificate in a PEM file is for. Raises ConfigurationError likewise."""
    found = _first(path)
    try:
        named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(each.value) for each in named}


def _first(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise ConfigurationError(f"{path} is damaged: put that of a backup in its place") from error


def request(pki: Path, member: str, unit: str, organisation: str = "") -> bytes:
    """Make a unit's key, where there is none yet, and the request for its certificate; return the request as PEM."""
    durable.make_lasting(pki, 0o700)
    stem = principal(member, unit)
    path = pki / f"{stem}.key"
    builder = x509.CertificateSigningRequestBuilder().subject_name(member_subject(member, unit, organisation))
    with durable.alone(pki):  # over key and request: another would make a second key, and one request be for none
        if not path.is_file():
            durable.put_private(path, pem.key_pem(pem.new_key()))
        asked = builder.sign(pem.load_key(path), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        durable.put(pki / f"{stem}.csr", asked)
    return asked


def accept(pki: Path, member: str, unit: str, chain: bytes, nodes_ca: bytes, now: datetime) -> Credentials:
    """Keep the certificate that the operator gave back, and the nodes' root, the only one to trust.

    Raises ConfigurationError if it does not fit the key and unit that asked for it, is not in force, is not signed by
    the authority beside it, or names another nodes' root than the one that is trusted here: whoever sends that would
    pose as the nodes. Whether the federation's root vouches for that authority only the nodes can say: it is not here.
    """
    stem, trusted = principal(member, unit), pki / f"{NODES_CA}.pem"
    found, root = _parse_chain(chain), b"".join(map(pem.cert_pem, _parse_chain(nodes_ca)))
    durable.make_lasting(pki, 0o700)
    with durable.alone(pki):  # over the key: one that is made meanwhile would be replaced by that of before
        key, asked = pem.load_key(pki / f"{stem}.key"), _asked(pki / f"{stem}.csr")
        subject = renamed(asked.subject, on_bus(unit, _resumed(found[0])))
        if found[0].public_key() != key.public_key() or found[0].subject != subject:
            raise ConfigurationError(f"this certificate is not the one that {stem} asked for: {_ANEW}")
        if not found[0].not_valid_before_utc - CLOCKS_APART <= now < found[0].not_valid_after_utc:
            raise ConfigurationError(f"this certificate of {stem} is not in force: {_ANEW}")
        _check_signed(found, stem)
        if trusted.is_file() and trusted.read_bytes() != root:
            raise ConfigurationError(
                f"this names another root of the nodes than {trusted}: ask the operator by another way"
            )
        durable.put(trusted, root)
        pem.write_leaf(pki, stem, key, chain)
    return credentials(pki, stem)


def principal(member: str, unit: str) -> str:
    """Name the principal that Kafka reads from a member's certificate."""
    return f"{member.lower()}.{checked_unit(unit)}"


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
    common = (NameOID.COMMON_NAME, checked_unit(unit))
    members = (NameOID.ORGANIZATIONAL_UNIT_NAME, "members")
    if STATE.fullmatch(member):
        name = organisation or f"Member {member}"
        return name_of((NameOID.COUNTRY_NAME, member), (NameOID.ORGANIZATION_NAME, name), members, common)
    if ORGANISATION.fullmatch(member) and member.casefold() != FEDERATION.casefold():
        return name_of((NameOID.ORGANIZATION_NAME, member), members, common)
    raise ConfigurationError(
        f"{member!r} cannot be a member: a state has two letters, an organisation three or more letters or digits"
    )


def checked_unit(unit: str) -> str:
    """Give a unit's name back. Raises ConfigurationError where a certificate cannot bear it."""
    if not UNIT.fullmatch(unit):
        raise ConfigurationError(f"{unit!r} cannot be a bureau: write up to 50 lower-case letters, digits and dashes")
    return unit


def name_of(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """Make a Subject of its parts, in this order."""
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def renamed(subject: x509.Name, common: str) -> x509.Name:
    """Give a Subject another common name, its last part."""
    return x509.Name([*list(subject)[:-1], x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _resumed(certificate: x509.Certificate) -> int:
    """Read the time in a member's name (`on_bus`); 0 where there is none."""
    named = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    unit, dot, time = str(named[-1].value).partition(".") if named else ("", "", "")
    return int(time) if UNIT.fullmatch(unit) and RESUMED.fullmatch(dot + time) else 0


def parse_request(request_pem: bytes) -> x509.CertificateSigningRequest:
    """Read a request that the key which it names has signed. Raises RequestRefusedError."""
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
        return parse_request(path.read_bytes())
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
