"""Which bytes are signed; sign and check (the one door to `cryptography` for keys that sign).

DSSE pre-authentication encoding (DSSE v1.0.2, "SIGNATURE DEFINITION"), Ed25519 (RFC 8032), salted digests of DESIGN §5.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker.errors import ConfigurationError, SignatureError

ED25519 = 1
"""Algorithm byte of Ed25519 in a key id."""
_HEADER_TAG = b"valise/header/v1\0"
_COMPARTMENT_TAG = b"valise/compartment/v1\0"
_DECISION_TAG = b"valise/decision/v1\0"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Encode what a DSSE signature covers: `DSSEv1 SP len(type) SP type SP len(payload) SP payload`."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def header_digest(header: bytes) -> bytes:
    """Digest of the exact header bytes, `C3 01` and fingerprint included (DESIGN §5)."""
    return sha256(_HEADER_TAG + header).digest()


def compartment_digest(name: str, salt: bytes, data: bytes) -> bytes:
    """Salted digest of one compartment: tag ‖ u16 len(name) ‖ name ‖ salt ‖ bytes (DESIGN §5)."""
    raw = name.encode()
    return sha256(_COMPARTMENT_TAG + len(raw).to_bytes(2, "big") + raw + salt + data).digest()


def decision_digest(salt: bytes, record: bytes) -> bytes:
    """Salted digest of a decision record, as its leaf carries it."""
    return sha256(_DECISION_TAG + salt + record).digest()


def key_id(public: bytes) -> bytes:
    """Id of an Ed25519 key: SHA-256(algorithm byte ‖ raw public key)."""
    return sha256(bytes([ED25519]) + public).digest()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key, parsed once."""

    raw: bytes
    id: bytes
    _key: Ed25519PublicKey

    @classmethod
    def of(cls, raw: bytes) -> PublicKey:
        """Parse 32 raw bytes. Raises ValueError if they are no point, or one of small order."""
        _check_point(raw)
        return cls(raw, key_id(raw), Ed25519PublicKey.from_public_bytes(raw))

    def check(self, signature: bytes, message: bytes) -> None:
        """Check a signature over `message`. Raises SignatureError."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature as error:
            raise SignatureError from error


_PRIME = 2**255 - 19
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
_SMALL_ORDER = (
    0,
    1,
    _PRIME - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)
"""y of the eight points of small order: under such a key one signature fits any message."""


def _check_point(raw: bytes) -> None:
    """Check that 32 bytes are a point of large order on edwards25519 (RFC 8032 §5.1.3). Raises ValueError."""
    if len(raw) != 32:
        message = "a public key has 32 bytes"
        raise ValueError(message)
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _PRIME or y in _SMALL_ORDER:
        message = "no Ed25519 public key, or one of small order"
        raise ValueError(message)
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _PRIME) % _PRIME
    if pow(square, (_PRIME - 1) // 2, _PRIME) != 1:
        message = "no point of the curve"
        raise ValueError(message)


class SigningKey:
    """An Ed25519 private key; `sign` is all it does."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey.of(key.public_key().public_bytes_raw())

    @classmethod
    def new(cls) -> SigningKey:
        """Make a key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Make the key of a known 32-byte seed (known-answer vectors)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a PKCS#8 PEM file. Raises ConfigurationError, also where others may read the file."""
        try:
            if path.stat().st_mode & 0o077:
                message = f"{path} may be read by others: chmod 600 it"
                raise ConfigurationError(message)
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            message = f"cannot read the key {path}: make one with `valise key new`"
            raise ConfigurationError(message) from error
        if not isinstance(key, Ed25519PrivateKey):
            message = f"{path} is no Ed25519 key"
            raise ConfigurationError(message)
        return cls(key)

    def save(self, path: Path) -> None:
        """Write a PKCS#8 PEM file that only its owner may read. Raises FileExistsError rather than overwrite."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(pem)

    def sign(self, message: bytes) -> bytes:
        """Sign raw bytes (a signed note's text)."""
        return self._key.sign(message)

    def sign_payload(self, payload_type: str, payload: bytes) -> bytes:
        """Sign a payload under its DSSE type."""
        return self._key.sign(pae(payload_type, payload))
