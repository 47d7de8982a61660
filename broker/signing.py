"""Which bytes are signed; sign and check (the one door to the libraries for keys that sign).

DSSE pre-authentication encoding (DSSE v1.0.2, "SIGNATURE DEFINITION"), Ed25519 (RFC 8032), salted digests of DESIGN §5.
Keys are kept by `cryptography`; signatures are checked by libsodium, in half the time that OpenSSL takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError

from broker import durable, points
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
    """An Ed25519 public key that is known to be a good point."""

    raw: bytes
    id: bytes

    @classmethod
    def of(cls, raw: bytes) -> PublicKey:
        """Parse 32 raw bytes. Raises ValueError for no point, one of small order, or another encoding of one."""
        points.check(raw)
        return cls(raw, key_id(raw))

    def check(self, signature: bytes, message: bytes) -> None:
        """Check a signature over `message`. Raises SignatureError."""
        # What is opened is cut by length: a short signature would borrow the message's first bytes.
        if len(signature) != crypto_sign_BYTES:
            raise SignatureError
        try:
            crypto_sign_open(signature + message, self.raw)
        except BadSignatureError as error:
            raise SignatureError from error


Passphrase = Callable[[Path], bytes]
"""Asks for the passphrase of a key file; called only where the file is encrypted. May raise ConfigurationError."""
PASSPHRASE_LEAST, PASSPHRASE_MOST = 16, 1023
"""Bytes of a passphrase: the file's key derivation (PBKDF2, 2,048 rounds) does not slow a guesser down enough, and
OpenSSL takes no more."""


def no_passphrase(path: Path) -> bytes:
    """Have no passphrase for any file. Raises ConfigurationError."""
    message = f"{path} is encrypted: name the file with its passphrase in VALISE_PASSPHRASE_FILE"
    raise ConfigurationError(message)


class SigningKey:
    """An Ed25519 private key, in memory or in a token (token.py); `sign` is all it does."""

    def __init__(self, public: PublicKey, sign: Callable[[bytes], bytes], key: Ed25519PrivateKey | None = None) -> None:
        self.public = public
        self.sign = sign
        """Signs raw bytes (a signed note's text)."""
        self._key = key

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> SigningKey:
        """Wrap a key that is in memory."""
        return cls(PublicKey.of(key.public_key().public_bytes_raw()), key.sign, key)

    @classmethod
    def new(cls) -> SigningKey:
        """Make a key from the system's randomness."""
        return cls.of(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Make the key of a known 32-byte seed (known-answer vectors)."""
        return cls.of(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path, passphrase: Passphrase = no_passphrase) -> SigningKey:
        """Read a PKCS#8 PEM file. Raises ConfigurationError, also where others may read the file."""
        check_private(path, "make a key with `valise key new`")
        if not path.stat().st_size:
            message = f"{path} is empty: put a copy of the key in its place; if making it was cut off, remove the file"
            raise ConfigurationError(message)
        try:
            pem = path.read_bytes()
            key = load_pem_private_key(pem, passphrase(path) if is_encrypted(pem) else None)
        except (OSError, ValueError, TypeError) as error:
            wrong = isinstance(error, ValueError) and is_encrypted(pem)
            message = f"{path}: the passphrase does not open this key" if wrong else f"{path} holds no key in PEM form"
            raise ConfigurationError(message) from error
        if not isinstance(key, Ed25519PrivateKey):
            message = f"{path} is no Ed25519 key"
            raise ConfigurationError(message)
        return cls.of(key)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write a PKCS#8 PEM file that only its owner may read, encrypted where a passphrase is given.

        Raises FileExistsError rather than overwrite, ConfigurationError for a short passphrase or a key in a token.
        """
        encrypted = encryption(passphrase)
        if self._key is None:
            message = "a key in a token never leaves it"
            raise ConfigurationError(message)
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted)
        durable.make_lasting(path.parent)
        try:
            durable.put_new(path, pem)  # whole from the first moment: whoever signs may read it in any
        except FileExistsError as error:
            message = "a key is there already, and none is overwritten: see who made it, or move it away"
            raise FileExistsError(error.errno, message, str(path)) from error

    def sign_payload(self, payload_type: str, payload: bytes) -> bytes:
        """Sign a payload under its DSSE type."""
        return self.sign(pae(payload_type, payload))


def encryption(passphrase: bytes | None) -> KeySerializationEncryption:
    """Say how a key file is written: encrypted where a passphrase is given. Raises ConfigurationError for its size."""
    if passphrase is None:
        return NoEncryption()
    if not PASSPHRASE_LEAST <= len(passphrase) <= PASSPHRASE_MOST:
        message = (
            f"a passphrase has {PASSPHRASE_LEAST} to {PASSPHRASE_MOST:,} bytes; `openssl rand -base64 33` makes one"
        )
        raise ConfigurationError(message)
    return BestAvailableEncryption(passphrase)


def is_encrypted(pem: bytes) -> bool:
    """Tell whether a PEM file needs a passphrase."""
    return b"ENCRYPTED" in pem


def check_private(path: Path, otherwise: str = "name another file") -> None:
    """Check that a file with a secret is there and nobody else may read or change it. Raises ConfigurationError."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        message = f"cannot read {path}: {otherwise}"
        raise ConfigurationError(message) from error
    if mode & 0o077:
        message = f"{path} may be read or changed by others (mode {mode & 0o777:o}): chmod 600 {path}"
        raise ConfigurationError(message)
