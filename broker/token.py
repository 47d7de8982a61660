"""Signing keys that live in a PKCS#11 token and never leave it (the one door to python-pkcs11).

Ed25519 as PKCS#11 3.0 has it: CKM_EC_EDWARDS_KEY_PAIR_GEN and CKM_EDDSA without parameters (§2.3.14). A token that
calls the mechanism otherwise is refused with a reason, never approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11 import exceptions as failures
from pkcs11.types import SignMixin

from broker.errors import CannotSignError, ConfigurationError, SignatureError
from broker.signing import PublicKey, SigningKey

FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")
MODULES = ("softhsm/libsofthsm2.so", "*/softhsm/libsofthsm2.so", "pkcs11/libsofthsm2.so", "libsofthsm2.so")
"""Where distributions keep SoftHSM; any other module is named in the settings."""
_EDWARDS25519 = bytes.fromhex("06032b6570")
"""OID 1.3.101.112 (RFC 8410) as DER, for CKA_EC_PARAMS."""
_TRIED = b"valise/token/v1\0"


def find_module() -> Path:
    """Find SoftHSM in the usual places. Raises ConfigurationError that says what to do."""
    for folder in map(Path, FOLDERS):
        for pattern in MODULES:
            if found := sorted(folder.glob(pattern)):
                return found[0]
    message = "no PKCS#11 module in the usual places: install softhsm2, or name your token's module with --module"
    raise ConfigurationError(message)


class Token:
    """One token, logged in to; `module` is the PKCS#11 library, `label` the token's own name."""

    def __init__(self, module: Path, label: str, pin: str) -> None:
        self.module, self.label, self._pin = module, label, pin

    def key(self, label: str) -> SigningKey:
        """Give the key of this label. Raises ConfigurationError if it is not there or does not fit its public key."""
        with _explained(self.label, label):
            session = _session(self.module, self.label, self._pin)
            private = session.get_key(ObjectClass.PRIVATE_KEY, KeyType.EC_EDWARDS, label)
            public = session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC_EDWARDS, label)
            raw = _raw(bytes(public[Attribute.EC_POINT]))
        assert isinstance(private, SignMixin)
        return _tried(SigningKey(PublicKey.of(raw), _signer(private, self.label)), self.label)

    def new_key(self, label: str) -> SigningKey:
        """Make a key inside the token that can never be read out. Raises ConfigurationError if the label is taken."""
        with _explained(self.label, label):
            session = _session(self.module, self.label, self._pin, rw=True)
            if any(session.get_objects({Attribute.LABEL: label, Attribute.CLASS: ObjectClass.PRIVATE_KEY})):
                message = f"the token {self.label} holds a key {label} already: it is never overwritten"
                raise ConfigurationError(message)
            curve = session.create_domain_parameters(
                KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _EDWARDS25519}, local=True
            )
            curve.generate_keypair(
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                store=True,
                label=label,
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.SIGN: True},
            )
        return self.key(label)


@lru_cache(maxsize=8)
def _session(module: Path, label: str, pin: str, *, rw: bool = False) -> pkcs11.Session:
    """Open a session, once in a process: a second login of the same process is refused by every token."""
    token = pkcs11.lib(str(module)).get_token(token_label=label)
    if not {Mechanism.EDDSA, Mechanism.EC_EDWARDS_KEY_PAIR_GEN} <= set(token.slot.get_mechanisms()):
        message = f"the token {label} does not do Ed25519 (CKM_EDDSA): use another, or a key file"
        raise ConfigurationError(message)
    try:
        return token.open(rw=rw, user_pin=pin)
    except failures.UserAlreadyLoggedIn:
        return token.open(rw=rw)


def _raw(point: bytes) -> bytes:
    """Give the 32 bytes of CKA_EC_POINT: a DER OCTET STRING by PKCS#11, bare in some tokens."""
    if len(point) == 34 and point[:2] == b"\x04\x20":
        return point[2:]
    return point


def _signer(private: SignMixin, label: str) -> Callable[[bytes], bytes]:
    def sign(message: bytes) -> bytes:
        try:
            return bytes(private.sign(message, mechanism=Mechanism.EDDSA))
        except failures.PKCS11Error as error:
            failed = f"the token {label} does not sign ({type(error).__name__}): is it still plugged in?"
            raise CannotSignError(failed) from error

    return sign


def _tried(key: SigningKey, label: str) -> SigningKey:
    """Let it sign once: what a token calls a pair need not be one, and another EdDSA would fit no verifier."""
    try:
        key.public.check(key.sign(_TRIED), _TRIED)
    except SignatureError as error:
        message = f"the token {label} signs with another key than the public one beside it"
        raise ConfigurationError(message) from error
    return key


@contextmanager
def _explained(token: str, label: str) -> Iterator[None]:
    """Turn what a token answers into words that say what to do."""
    try:
        yield
    except failures.NoSuchToken as error:
        message = f"no token {token} is plugged in: look with `pkcs11-tool -L`, for SoftHSM with `softhsm2-util -s`"
        raise ConfigurationError(message) from error
    except failures.NoSuchKey as error:
        message = f"the token {token} holds no Ed25519 key {label}: make one with `valise key new --pkcs11`"
        raise ConfigurationError(message) from error
    except failures.MultipleObjectsReturned as error:
        message = f"the token {token} holds several keys {label}: give each a label of its own"
        raise ConfigurationError(message) from error
    except (failures.PinIncorrect, failures.PinInvalid, failures.PinLenRange) as error:
        message = f"the PIN does not open the token {token}; it locks after a few wrong ones"
        raise ConfigurationError(message) from error
    except failures.PinLocked as error:
        message = f"the token {token} is locked after wrong PINs: its security officer unlocks it"
        raise ConfigurationError(message) from error
    except (failures.PKCS11Error, ValueError) as error:
        message = f"the token {token} cannot be used: {type(error).__name__} {error}".strip()
        raise ConfigurationError(message) from error
