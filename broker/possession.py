"""A key request: what a member asks to have entered into the directory, signed with the new key itself.

The statement binds the key to federation, bureau and the moment: to a challenge of whoever enters keys, where one was
given, and to the directory that the member knew. A key that follows another is endorsed by that one, too. Whoever
enters a key calls `check_request`, then `check_entry`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker import points
from broker.errors import ConfigurationError, SignatureError
from broker.signing import PublicKey, key_id, pae

if TYPE_CHECKING:
    from broker.signing import SigningKey

REQUEST_TYPE = "application/vnd.valise.key-request.v1+json"
"""DSSE payload type of the proof of possession; the payload is the statement as canonical JSON."""
ENDORSEMENT_TYPE = "application/vnd.valise.key-endorsement.v1+json"
"""DSSE payload type under which the key before signs the same statement."""
SIGNATURES = ("proof", "endorsement")
REQUEST_LIMIT = 16 * 1024
_STATEMENT = frozenset(
    {"federation", "bureau", "algorithm", "key_id", "public", "challenge", "knows", "follows", "made"}
)
_BUREAU = re.compile(r"[A-Z][A-Z0-9]*/[a-z0-9-]+")
_HEX_32 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a new key is asked for. Digests and ids in lower-case hex; "" where there is none."""

    federation: str
    bureau: str
    challenge: str = ""
    """What whoever enters keys gave the member to sign."""
    knows: str = ""
    """SHA-256 of the newest directory that the member knew: the request is not older than that."""
    follows: str = ""
    """Id of the key that this one is to take over from."""
    made: str = ""
    """When, as the member says; for people."""


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A request of which everything was checked that it says about itself."""

    asked: Asked
    public: PublicKey
    endorsed: bytes
    """Signature of the key before, not yet checked; empty where there is none."""
    statement: bytes

    def check_entry(self, challenge: str | None, in_force: Mapping[bytes, PublicKey] | None) -> None:
        """Check that the bureau wants this key: it answers a challenge, or a key in force of that bureau asks for it.

        `challenge`: what the bureau was given, None for nothing; `in_force`: its keys now, without revoked ones, None
        if it never had a key: the first one needs neither. Raises ConfigurationError that says what to do.
        """
        asked = self.asked
        if challenge is not None:
            if asked.challenge != challenge:
                message = f"does not answer the challenge of {asked.bureau}: `valise key new --challenge {challenge}`"
                raise ConfigurationError(message)
        elif in_force is not None:
            self._check_endorsement(in_force)

    def _check_endorsement(self, in_force: Mapping[bytes, PublicKey]) -> None:
        before = in_force.get(bytes.fromhex(self.asked.follows))
        if before is None:
            bureau = self.asked.bureau
            message = (
                f"no key in force of {bureau} asks for this one: have it made with `valise key rotate` or, if the old "
                f"key is lost or revoked, with an answer to a challenge (`valise key challenge {bureau}`)"
            )
            raise ConfigurationError(message)
        try:
            before.check(self.endorsed, pae(ENDORSEMENT_TYPE, self.statement))
        except SignatureError as error:
            message = f"key {self.asked.follows[:16]} did not sign that this one follows it: refused"
            raise ConfigurationError(message) from error


def request(asked: Asked, key: SigningKey, before: SigningKey | None = None) -> dict[str, str]:
    """Write a request, signed with the new key and, where there is one, with the one before."""
    wanted = {
        "federation": asked.federation,
        "bureau": asked.bureau,
        "algorithm": "ed25519",
        "key_id": key.public.id.hex(),
        "public": key.public.raw.hex(),
        "challenge": asked.challenge,
        "knows": asked.knows,
        "follows": before.public.id.hex() if before else "",
        "made": asked.made,
    }
    signed = wanted | {"proof": key.sign_payload(REQUEST_TYPE, canonical(wanted)).hex()}
    if before:
        signed["endorsement"] = before.sign_payload(ENDORSEMENT_TYPE, canonical(wanted)).hex()
    return signed


def canonical(wanted: Mapping[str, str]) -> bytes:
    """Write the bytes that both signatures cover: the statement without the signatures."""
    statement = {name: value for name, value in wanted.items() if name not in SIGNATURES}
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def check_request(content: bytes, federation: str) -> KeyRequest:
    """Check a request: form, key, for which federation, and that whoever made it has the private key.

    Whether the bureau wants the key is `KeyRequest.check_entry`'s to say. Raises ConfigurationError with the reason.
    """
    found = _read(content)
    if found.asked.federation != federation:
        message = f"asks for another federation: {found.asked.federation!r}, not {federation}"
        raise ConfigurationError(message)
    return found


def _read(content: bytes) -> KeyRequest:
    fields = _fields(content)
    try:
        public, proof = bytes.fromhex(fields["public"]), bytes.fromhex(fields["proof"])
        endorsed = bytes.fromhex(fields.get("endorsement", ""))
        points.check_new(public)
        key = PublicKey.of(public)
    except ValueError as error:
        message = f"asks for a key that nobody could be held to: {error}"
        raise ConfigurationError(message) from error
    if fields["algorithm"] != "ed25519" or fields["key_id"] != key_id(public).hex():
        message = "algorithm or key id do not fit the key"
        raise ConfigurationError(message)
    statement = canonical(fields)
    try:
        key.check(proof, pae(REQUEST_TYPE, statement))
    except SignatureError as error:
        message = "whoever made this request does not have the private key: refused"
        raise ConfigurationError(message) from error
    asked = Asked(*(fields[name] for name in ("federation", "bureau", "challenge", "knows", "follows", "made")))
    return KeyRequest(asked, key, endorsed, statement)


def _fields(content: bytes) -> dict[str, str]:
    """Read the form of a request; a field that nobody knows would be signed and never looked at."""
    try:
        found = json.loads(content[: REQUEST_LIMIT + 1])
    except (ValueError, RecursionError) as error:
        message = "is no key request: have it made again with `valise key new`"
        raise ConfigurationError(message) from error
    wrong = (
        not isinstance(found, dict)
        or not _STATEMENT | {"proof"} <= set(found) <= _STATEMENT | set(SIGNATURES)
        or not all(isinstance(each, str) for each in found.values())
        or not _BUREAU.fullmatch(found["bureau"])
        or any(found[name] and not _HEX_32.fullmatch(found[name]) for name in ("challenge", "knows", "follows"))
    )
    if wrong:
        message = "is no key request: have it made again with `valise key new`"
        raise ConfigurationError(message)
    fields: dict[str, str] = found
    return fields
