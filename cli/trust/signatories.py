"""A member's keys for the federation's metadata: made at the member; what leaves is a request with their public halves.

`trust/root.pem` signs root and targets only and can be kept off this machine; `trust/member.pem` signs all else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from broker import durable
from broker.errors import ConfigurationError, SignatureError
from broker.signing import PublicKey, SigningKey, is_encrypted, key_id, no_passphrase, pae
from broker.trust.draft import Signatory
from cli import passphrases

TYPE = "application/vnd.valise.signatory.v1+json"
"""DSSE payload type of the proof of possession; the payload is the request without its proofs, as canonical JSON."""
KEYS = ("root", "member")


def make(folder: Path, member: str, federation: str, passphrase: bytes | None = None) -> Path:
    """Make a member's two keys and their request, if it has none yet; give the request.

    Without `passphrase` they are encrypted where VALISE_PASSPHRASE_FILE names one, or as what a kill has left is.
    """
    trust = folder / "trust"
    request = trust / f"{member}.signatory.json"
    if request.is_file():
        return request
    passphrase = passphrase or passphrases.for_new(None, ask=False) or _passphrase_of_left(folder)
    trust.mkdir(parents=True, exist_ok=True)
    # Two people make the keys of two bureaus: whoever comes second sends the request of the first.
    with durable.alone(trust):
        if not request.is_file():
            durable.put(request, _asked(trust, member, federation, passphrase))
    return request


def _passphrase_of_left(folder: Path) -> bytes | None:
    """Ask for the passphrase of a key that a kill has left without a request, while nobody has to wait for it."""
    locked = [each for each in _paths(folder) if each.is_file() and is_encrypted(each.read_bytes())]
    return passphrases.for_old()(locked[0]) if locked else None


def _asked(trust: Path, member: str, federation: str, passphrase: bytes | None) -> bytes:
    made = {name: _made(trust / f"{name}.pem", passphrase) for name in KEYS}
    keys = {f"{name}_key": key.public.raw.hex() for name, key in made.items()}
    wanted = {"federation": federation, "member": member} | keys
    proofs = {f"{name}_proof": key.sign_payload(TYPE, _canonical(wanted)).hex() for name, key in made.items()}
    return json.dumps(wanted | proofs, indent=2).encode() + b"\n"


def _made(path: Path, passphrase: bytes | None) -> SigningKey:
    """Make a key; what a kill has left without a request is taken up, an empty file of a version before made anew."""
    durable.remove_left(path)
    if path.is_file() and path.stat().st_size:
        return SigningKey.load(path, no_passphrase if passphrase is None else lambda _: passphrase)
    path.unlink(missing_ok=True)
    key = SigningKey.new()
    key.save(path, passphrase)
    return key


def bare(folder: Path) -> list[Path]:
    """Name those of a member's keys that lie here without a passphrase."""
    named = [one for each in _paths(folder) for one in (each, *durable.left(each))]
    return [each for each in named if each.is_file() and not is_encrypted(each.read_bytes())]


def _paths(folder: Path) -> list[Path]:
    return [folder / "trust" / f"{name}.pem" for name in KEYS]


def load(folder: Path) -> list[SigningKey]:
    """Load those of a member's keys that lie here. Raises ConfigurationError where none does."""
    here = [SigningKey.load(each, passphrases.for_old()) for each in _paths(folder) if each.is_file()]
    if not here:
        message = f"{folder / 'trust'} holds no key to sign with: `valise key new` makes a member's keys"
        raise ConfigurationError(message)
    return here


def own(folder: Path, member: str) -> frozenset[str]:
    """Give the ids of a member's two keys by its request: either may be kept off this machine. Empty: it made none."""
    path = folder / "trust" / f"{member}.signatory.json"
    if not path.is_file():
        return frozenset()
    asked = json.loads(path.read_bytes())
    return frozenset(key_id(bytes.fromhex(asked[f"{name}_key"])).hex() for name in KEYS)


def read(path: Path, federation: str) -> Signatory:
    """Read a request, and check that whoever made it has both private keys. Raises ConfigurationError."""
    try:
        asked: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        proofs = [bytes.fromhex(asked.pop(f"{name}_proof")) for name in KEYS]
        keys = [PublicKey.of(bytes.fromhex(asked[f"{name}_key"])) for name in KEYS]
        for key, proof in zip(keys, proofs, strict=True):
            key.check(proof, pae(TYPE, _canonical(asked)))
        found = Signatory(asked["member"], *keys)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        message = f"{path} is no signatory's request: have it made again with `valise key new`"
        raise ConfigurationError(message) from error
    except SignatureError as error:
        message = f"{path}: whoever made this request does not have the private keys: refused"
        raise ConfigurationError(message) from error
    if asked["federation"] != federation or keys[0].id == keys[1].id:
        message = f"{path} asks for {asked['federation']!r}, not {federation}, or gives one key twice"
        raise ConfigurationError(message)
    return found


def found_in(folders: Iterable[Path]) -> list[Path]:
    """Find the requests in folders, however deep."""
    return sorted({path for folder in folders for path in folder.rglob("*.signatory.json")})


def _canonical(wanted: dict[str, str]) -> bytes:
    return json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
