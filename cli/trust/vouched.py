"""A member's request for a certificate of TLS, vouched for by the key with which the member speaks in the directory.

A request alone (PKCS#10) proves that whoever made it has the private key, and nothing of who that is: its Subject is
written by anybody. So the member signs what it asks for, and the operator holds that against the directory in force,
which the members have signed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from broker import certificates, durable, reading
from broker.certificates import pki_of
from broker.errors import ConfigurationError, SignatureError
from broker.notice import CLOCK_SKEW_MS
from broker.signing import PublicKey, pae
from broker.streams import DAY_MS
from cli.trust import signatories

TYPE = "application/vnd.valise.certificate-request.v1+json"
"""DSSE payload type; the payload is the request without its signature, as canonical JSON."""
SUFFIX = ".certificate.json"
LIMIT = 2 * certificates.MAX_REQUEST_BYTES
LIFE_MS = 30 * DAY_MS
"""A request that is older is answered no more: whoever signed it may have thought better of it since."""
_FIELDS = frozenset({"federation", "member", "unit", "request", "made", "key_id", "signature"})


@dataclass(frozen=True, slots=True)
class Vouched:
    """A request as it was read; whose signature it bears is not yet known."""

    federation: str
    member: str
    unit: str
    request: bytes
    """PKCS#10 in PEM."""
    made: int
    """When the member signed it, ms since the epoch."""
    key_id: str
    signature: bytes
    statement: bytes

    @property
    def principal(self) -> str:
        """Whom the certificate would be for, as Kafka calls it."""
        return certificates.principal(self.member, self.unit)

    @property
    def digest(self) -> str:
        """SHA-256 of what was signed, lower-case hex."""
        return sha256(self.statement).hexdigest()

    def check(self, federation: str, keys: Mapping[str, PublicKey], now: int) -> None:
        """Check that this is of today and signed by the member that it speaks of.

        `keys`: those with which the member speaks now, by id, none if it has not entered. Raises ConfigurationError.
        """
        if self.federation != federation:
            raise ConfigurationError(f"asks for another federation: {self.federation!r}, not {federation}")
        if not keys:
            raise ConfigurationError(
                f"{self.member} does not speak for itself in the directory in force: have it enter first "
                "(`valise directory draft`), then sign its certificates"
            )
        try:
            signer = keys[self.key_id]
            signer.check(self.signature, pae(TYPE, self.statement))
        except (KeyError, SignatureError) as error:
            message = (
                f"is not signed by a key of {self.member} that the directory names: refused. If it has others there "
                "since, it moves those of before out of trust/ and asks anew"
            )
            raise ConfigurationError(message) from error
        if not now - LIFE_MS <= self.made <= now + CLOCK_SKEW_MS:
            message = "is dated ahead or older than 30 days: have it made again with `valise certificate request`"
            raise ConfigurationError(message)


def write(folder: Path, member: str, unit: str, federation: str, now: int) -> Path:
    """Ask for the certificate of a member's unit, in the member's home; give the request, which may leave it.

    The unit's private key is made if there is none yet, and kept if there is. Raises ConfigurationError where the
    member's own key is not here.
    """
    key, asked = signatories.speaking(folder, member), certificates.request(pki_of(folder), member, unit)
    wanted = {
        "federation": federation,
        "member": member,
        "unit": unit,
        "request": asked.decode(),
        "made": str(now),
        "key_id": key.public.id.hex(),
    }
    signature = key.sign_payload(TYPE, _canonical(wanted)).hex()
    made = pki_of(folder) / f"{certificates.principal(member, unit)}{SUFFIX}"
    durable.put(made, json.dumps(wanted | {"signature": signature}, indent=2).encode() + b"\n")
    return made


def read(path: Path) -> Vouched:
    """Read a request from a file that anybody may have put there. Raises ConfigurationError."""
    try:
        found = json.loads(reading.read(path, LIMIT))
        if (
            not isinstance(found, dict)
            or set(found) != _FIELDS
            or not all(isinstance(each, str) for each in found.values())
        ):
            raise ConfigurationError(_NONE)
        signature, made = bytes.fromhex(found.pop("signature")), int(found["made"])
        asked = Vouched(
            found["federation"],
            found["member"],
            found["unit"],
            found["request"].encode(),
            made,
            found["key_id"],
            signature,
            _canonical(found),
        )
        certificates.member_subject(asked.member, asked.unit)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(_NONE) from error
    return asked


_NONE = "is no request for a certificate: have it made with `valise certificate request`"


def found_in(folders: list[Path]) -> list[Path]:
    """Find the requests in files and folders, however deep."""
    return sorted({path for each in folders for path in ([each] if each.is_file() else each.rglob(f"*{SUFFIX}"))})


def _canonical(wanted: Mapping[str, str]) -> bytes:
    return json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
