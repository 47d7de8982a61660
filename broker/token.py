"""Signing keys that live in a PKCS#11 token and never leave it (the one door to python-pkcs11).

Ed25519 as PKCS#11 3.0 has it: CKM_EC_EDWARDS_KEY_PAIR_GEN and CKM_EDDSA without parameters (§2.3.14). A token that
calls the mechanism otherwise is refused with a reason, never approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

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
_PIN_REFUSED = (
    failures.PinExpired,
    failures.PinIncorrect,
    failures.PinInvalid,
    failures.PinLenRange,
    failures.PinLocked,
)
_ANSWERED = (*_PIN_REFUSED, failures.NoSuchKey, failures.MultipleObjectsReturned)
"""What a session that is open answers."""
_AWAY = (
    failures.DeviceError,
    failures.DeviceRemoved,
    failures.FunctionFailed,
    failures.GeneralError,
    failures.KeyHandleInvalid,
    failures.ObjectHandleInvalid,
    failures.SessionClosed,
    failures.SessionHandleInvalid,
    failures.SlotIDInvalid,
    failures.TokenNotPresent,
    failures.TokenNotRecognised,
    failures.UserNotLoggedIn,
)
"""What time can mend: the token is out, or was."""
T = TypeVar("T")


def find_module() -> Path:
    """Find SoftHSM in the usual places. Raises ConfigurationError that says what to do."""
    for folder in map(Path, FOLDERS):
        for pattern in MODULES:
            if found := sorted(folder.glob(pattern)):
                return found[0]
    message = "no PKCS#11 module in the usual places: install softhsm2, or name your token's module with --module"
    raise ConfigurationError(message)


class Token:
    """One token; `module` is the PKCS#11 library, `label` the token's own name.

    `pin` is asked for where a login needs one, once in a process as long as what it gave is taken. One that was refused
    is not tried again in this process: the token locks after a few.
    """

    def __init__(self, module: Path, label: str, pin: Callable[[], str]) -> None:
        self.module, self.label, self._pin, self._door = module, label, pin, _door(module, label)

    def key(self, label: str) -> SigningKey:
        """Give the key of this label, which signs again once the token is back where that was unplugged.

        Raises ConfigurationError if it is not there or does not fit its public key, CannotSignError for a token that is
        not there or does not answer.
        """
        with _explained(self.label, label):
            public = PublicKey.of(self._door.tried(lambda: self._door.public(label, self._pin)))
        key = SigningKey(public, partial(self._sign, label, public))
        key.sign(_TRIED)
        return key

    def has(self, label: str, mark: bytes = b"") -> bool:
        """Say whether the token holds a private key of this label and, if one is given, this id. Raises as `key`."""
        with _explained(self.label, label):
            return self._door.tried(lambda: self._door.has(label, mark, self._pin))

    def new_key(self, label: str, mark: bytes = b"") -> SigningKey:
        """Make a key inside the token that can never be read out; `mark`: its id there (CKA_ID).

        Raises as `key`, also if the label is taken.
        """
        if self.has(label):
            message = (
                f"the token {self.label} holds a key {label} already, which this home did not make: it is never "
                "overwritten; name another token, or remove it if nothing needs it (`pkcs11-tool --delete-object`)"
            )
            raise ConfigurationError(message)
        with _explained(self.label, label):
            session = self._door.session(self._pin, rw=True)
            curve = session.create_domain_parameters(
                KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _EDWARDS25519}, local=True
            )
            curve.generate_keypair(
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                store=True,
                label=label,
                id=mark or None,
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.SIGN: True},
            )
        return self.key(label)

    def _sign(self, label: str, public: PublicKey, message: bytes) -> bytes:
        """Sign, and check it: what a token calls a pair need not be one, and another may have been plugged in since."""
        with _explained(self.label, label):
            signature = self._door.tried(lambda: self._door.sign(label, message, self._pin))
        try:
            public.check(signature, message)
        except SignatureError as error:
            wrong = f"the token {self.label} signs with another key than the public one beside it"
            raise ConfigurationError(wrong) from error
        return signature


class _Door:
    """The sessions of this process with one token, and the PIN that it took. Raises what PKCS#11 does."""

    def __init__(self, module: Path, label: str) -> None:
        self._module, self._label = module, label
        self._open: dict[bool, pkcs11.Session] = {}
        self._private: dict[str, SignMixin] = {}
        self._taken: str | None = None
        self._refused: set[str] = set()

    def tried(self, act: Callable[[], T]) -> T:
        """Do it; once more in a new session where one was open, which ended if the token was out meanwhile."""
        if self._open:
            try:
                return act()
            except _ANSWERED:
                raise
            except failures.PKCS11Error:
                self._close()
        return act()

    def session(self, ask: Callable[[], str], *, rw: bool = False) -> pkcs11.Session:
        """Give a session, opened once: a second login of the same process is refused by every token."""
        if rw not in self._open:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self._label)
            if not {Mechanism.EDDSA, Mechanism.EC_EDWARDS_KEY_PAIR_GEN} <= set(token.slot.get_mechanisms()):
                message = f"the token {self._label} does not do Ed25519 (CKM_EDDSA): use another, or a key file"
                raise ConfigurationError(message)
            self._open[rw] = self._logged_in(token, self._taken or ask(), rw=rw)
        return self._open[rw]

    def _logged_in(self, token: pkcs11.Token, pin: str, *, rw: bool) -> pkcs11.Session:
        if pin in self._refused:
            raise failures.PinIncorrect
        try:
            session = token.open(rw=rw, user_pin=pin)
        except failures.UserAlreadyLoggedIn:
            return token.open(rw=rw)
        except _PIN_REFUSED:
            self._refused.add(pin)
            self._taken = None
            raise
        self._taken = pin
        return session

    def has(self, label: str, mark: bytes, ask: Callable[[], str]) -> bool:
        """Say whether there is a private key of this label and, unless that is empty, of this id."""
        wanted = {Attribute.LABEL: label, Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        if mark:
            wanted[Attribute.ID] = mark
        return any(_asked(self.session(ask)).get_objects(wanted))

    def public(self, label: str, ask: Callable[[], str]) -> bytes:
        """Give the 32 bytes of the public key beside a private one."""
        self._private[label] = _private(self.session(ask), label)
        public = self.session(ask).get_key(ObjectClass.PUBLIC_KEY, KeyType.EC_EDWARDS, label)
        return _raw(bytes(public[Attribute.EC_POINT]))

    def sign(self, label: str, message: bytes, ask: Callable[[], str]) -> bytes:
        """Sign with the private key of this label."""
        if label not in self._private:
            self._private[label] = _private(self.session(ask), label)
        return bytes(self._private[label].sign(message, mechanism=Mechanism.EDDSA))

    def _close(self) -> None:
        for session in self._open.values():
            with suppress(failures.PKCS11Error):
                session.close()
        self._open.clear()
        self._private.clear()


@lru_cache
def _door(module: Path, label: str) -> _Door:
    """Give what this process has open of a token."""
    return _Door(module, label)


def _asked(session: pkcs11.Session) -> pkcs11.Session:
    """Have a session that has ended say so: a search in it would fail once more, on stderr, when it is forgotten."""
    with suppress(failures.RandomNoRNG, failures.FunctionNotSupported):
        session.generate_random(8)
    return session


def _private(session: pkcs11.Session, label: str) -> SignMixin:
    found = _asked(session).get_key(ObjectClass.PRIVATE_KEY, KeyType.EC_EDWARDS, label)
    assert isinstance(found, SignMixin)
    return found


def _raw(point: bytes) -> bytes:
    """Give the 32 bytes of CKA_EC_POINT: a DER OCTET STRING by PKCS#11, bare in some tokens."""
    if len(point) == 34 and point[:2] == b"\x04\x20":
        return point[2:]
    return point


@contextmanager
def _explained(token: str, label: str) -> Iterator[None]:
    """Turn what a token answers into words that say what to do."""
    try:
        yield
    except failures.NoSuchToken as error:
        message = f"no token {token} is plugged in: look with `pkcs11-tool -L`, for SoftHSM with `softhsm2-util -s`"
        raise CannotSignError(message) from error
    except _AWAY as error:
        message = f"the token {token} does not sign ({type(error).__name__}): is it still plugged in?"
        raise CannotSignError(message) from error
    except failures.NoSuchKey as error:
        message = f"the token {token} holds no Ed25519 key {label}: make one with `valise key new --pkcs11`"
        raise ConfigurationError(message) from error
    except failures.MultipleObjectsReturned as error:
        message = f"the token {token} holds several keys {label}: give each a label of its own"
        raise ConfigurationError(message) from error
    except failures.PinLocked as error:
        message = f"the token {token} is locked after wrong PINs: its security officer unlocks it"
        raise ConfigurationError(message) from error
    except _PIN_REFUSED as error:
        message = (
            f"the PIN does not open the token {token}; it locks after a few wrong ones, so that this one is not tried "
            "again before the command is started anew"
        )
        raise ConfigurationError(message) from error
    except (failures.PKCS11Error, ValueError) as error:
        message = f"the token {token} cannot be used: {type(error).__name__} {error}".strip()
        raise ConfigurationError(message) from error
