"""Private keys and certificates as files: PEM, EC P-256."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker import durable
from broker.errors import ConfigurationError
from broker.signing import encryption, is_encrypted

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

_LOCKED = (
    "{}: the passphrase does not open this key of an authority: name the file that holds theirs with "
    "--passphrase-file; if `valise certificate passphrase` was cut off, call it again with the same two; "
    "if it is lost, only new authorities help (README, Deploy)"
)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key from the system's randomness."""
    return ec.generate_private_key(ec.SECP256R1())


def load_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a private key; `passphrase` counts only where it is encrypted. Raises ConfigurationError."""
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


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """Write a private key as PKCS#8, encrypted where a passphrase is given. Raises ConfigurationError for its size."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption(passphrase))


def cert_pem(certificate: x509.Certificate) -> bytes:
    """Write a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def digest(key: CertificatePublicKeyTypes) -> str:
    """Give SHA-256 of a SubjectPublicKeyInfo, in lower-case hex."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(encoded).hexdigest()


def write_leaf(pki: Path, stem: str, key: ec.EllipticCurvePrivateKey, chain: bytes) -> None:
    """Put the three files of a leaf in their places, `.crt` last: it is what makes them count."""
    durable.put_private(pki / f"{stem}.key", key_pem(key))
    durable.put_private(pki / f"{stem}.pem", key_pem(key) + chain)
    durable.put(pki / f"{stem}.crt", chain)
