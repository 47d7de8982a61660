"""A member's keys for the federation's metadata: made at the member; what leaves is a request with their public halves.

`trust/root.pem` signs root and targets only and can be kept off this machine; `trust/member.pem` signs all else. The
next ones are `root.2.pem` and `member.2.pem`, asked for by `AT.2.signatory.json`: until the directory has them those
before sign, too, where they count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from adapters.versions import Versions
from broker import durable, reading
from broker.errors import ConfigurationError, SignatureError
from broker.possession import REQUEST_LIMIT
from broker.signing import PublicKey, SigningKey, is_encrypted, key_id, no_passphrase, pae
from broker.trust import roles
from broker.trust.draft import Signatory
from cli import passphrases

TYPE = "application/vnd.valise.signatory.v1+json"
"""DSSE payload type of the proof of possession; the payload is the request without its proofs, as canonical JSON."""
KEYS = ("root", "member")
ASIDE = ".before"
"""Ends the name of a request for keys that others have followed."""
_FILE = re.compile(r"(?:root|member)(?:\.([1-9][0-9]*))?\.pem")
_REQUEST = re.compile(r"(?P<member>[A-Z0-9]+)(?:\.(?P<generation>[1-9][0-9]*))?\.signatory\.json")


def make(folder: Path, member: str, federation: str, passphrase: bytes | None = None) -> Path:
    """Make a member's two keys and their request, if it has none yet; give the request.

    Without `passphrase` they are encrypted where VALISE_PASSPHRASE_FILE names one, or as what a kill has left is.
    """
    if requested := request_of(folder, member):
        return requested
    return _make(folder, member, federation, max(_generation(folder), 1), passphrase)


def rotate(folder: Path, member: str, federation: str, passphrase: bytes | None = None) -> Path:
    """Make a member's next two keys and their request; give the request. What a kill has left of them is gone on with.

    Encrypted as by `make`. The request before is put aside: nobody is to enter those keys again.
    """
    newest = _generation(folder)
    requested = request_of(folder, member)
    done = requested is not None and _number(_REQUEST, requested) == newest
    request = _make(folder, member, federation, newest + 1 if done else max(newest, 1), passphrase)
    for each in _requests(folder, member):
        if each != request:
            with suppress(FileNotFoundError):  # of two who do the same the second
                each.replace(each.with_name(f"{each.name}{ASIDE}"))
    return request


def _make(folder: Path, member: str, federation: str, generation: int, passphrase: bytes | None) -> Path:
    trust, number = folder / "trust", f".{generation}" if generation > 1 else ""
    request, files = trust / f"{member}{number}.signatory.json", {name: trust / f"{name}{number}.pem" for name in KEYS}
    passphrase = passphrase or passphrases.for_new(None, ask=False) or _passphrase_of_left(files.values())
    durable.make_lasting(trust)
    # Two people make the keys of two bureaus: whoever comes second sends the request of the first.
    with durable.alone(trust):
        if not request.is_file():
            durable.put(request, _asked(files, member, federation, passphrase))
    return request


def _passphrase_of_left(files: Iterable[Path]) -> bytes | None:
    """Ask for the passphrase of a key that a kill has left without a request, while nobody has to wait for it."""
    locked = [each for each in files if each.is_file() and is_encrypted(each.read_bytes())]
    return passphrases.for_old()(locked[0]) if locked else None


def _asked(files: Mapping[str, Path], member: str, federation: str, passphrase: bytes | None) -> bytes:
    made = {name: _made(path, passphrase) for name, path in files.items()}
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
    first = [folder / "trust" / f"{name}.pem" for name in KEYS]  # also where a kill came before it was in its place
    named = [one for each in dict.fromkeys([*first, *_paths(folder)]) for one in (each, *durable.left(each))]
    return [each for each in named if each.is_file() and not is_encrypted(each.read_bytes())]


def _paths(folder: Path) -> list[Path]:
    """Find where a member's keys lie here, the newest last."""
    found = (each for each in (folder / "trust").glob("*.pem") if _FILE.fullmatch(each.name))
    return sorted(found, key=lambda each: (_number(_FILE, each), each.name))


def _number(pattern: re.Pattern[str], path: Path) -> int:
    found = pattern.fullmatch(path.name)
    return int(found[found.re.groups] or 1) if found else 0


def _generation(folder: Path) -> int:
    """Tell the newest generation of which a key or a request lies here; 0: none does."""
    asked = (_number(_REQUEST, each) for each in (folder / "trust").glob("*.signatory.json"))
    return max([*(_number(_FILE, each) for each in _paths(folder)), *asked], default=0)


def _requests(folder: Path, member: str) -> list[Path]:
    found = [each for each in (folder / "trust").glob("*.signatory.json") if is_of(each, member)]
    return sorted(found, key=lambda each: _number(_REQUEST, each))


def request_of(folder: Path, member: str) -> Path | None:
    """Find a member's newest request; None: it made none."""
    return next(reversed(_requests(folder, member)), None)


def is_of(path: Path, member: str) -> bool:
    """Say whether a request is called after this member."""
    found = _REQUEST.fullmatch(path.name)
    return found is not None and found["member"] == member


def speaking(folder: Path, member: str) -> SigningKey:
    """Give the key with which a member speaks: the one that the directory known here names, or else the newest.

    Raises ConfigurationError where none lies here.
    """
    here = [each for each in reversed(_paths(folder)) if each.name.startswith("member.")]
    if not here:
        message = f"{folder / 'trust' / 'member.pem'} is missing, the key that vouches for {member}: `valise key new`"
        raise ConfigurationError(message)
    opened = Versions(folder / "versions").guard().opened
    named = roles.keys_of(opened.targets, member) if opened else {}
    keys = [SigningKey.load(each, passphrases.for_old()) for each in here]
    return next((each for each in keys if each.public.id.hex() in named), keys[0])


def load(folder: Path) -> list[SigningKey]:
    """Load those of a member's keys that lie here. Raises ConfigurationError where none does."""
    here = [SigningKey.load(each, passphrases.for_old()) for each in _paths(folder) if each.is_file()]
    if not here:
        message = f"{folder / 'trust'} holds no key to sign with: `valise key new` makes a member's keys"
        raise ConfigurationError(message)
    return here


def own(folder: Path, member: str) -> frozenset[str]:
    """Give the ids of a member's two newest keys by their request: either may be kept elsewhere. Empty: none made."""
    path = request_of(folder, member)
    return frozenset() if path is None else _ids(path)


def ever_own(folder: Path, member: str) -> frozenset[str]:
    """Give the ids of all keys that a member has made here, by their requests. Empty: none made."""
    before = [each for each in (folder / "trust").glob(f"*{ASIDE}") if is_of(each.with_suffix(""), member)]
    return frozenset(key for each in (*_requests(folder, member), *before) for key in _ids(each))


def _ids(request: Path) -> frozenset[str]:
    asked = json.loads(request.read_bytes())
    return frozenset(key_id(bytes.fromhex(asked[f"{name}_key"])).hex() for name in KEYS)


def read(path: Path, federation: str) -> Signatory:
    """Read a request, and check that whoever made it has both private keys. Raises ConfigurationError."""
    try:
        asked: dict[str, str] = json.loads(reading.read(path, REQUEST_LIMIT))
        proofs = [bytes.fromhex(asked.pop(f"{name}_proof")) for name in KEYS]
        keys = [PublicKey.of(bytes.fromhex(asked[f"{name}_key"])) for name in KEYS]
        for key, proof in zip(keys, proofs, strict=True):
            key.check(proof, pae(TYPE, _canonical(asked)))
        found = Signatory(asked["member"], *keys)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ConfigurationError(message) from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        message = f"{path} is no signatory's request: have it made again with `valise key new`"
        raise ConfigurationError(message) from error
    except SignatureError as error:
        message = f"{path}: whoever made this request does not have the private keys: refused"
        raise ConfigurationError(message) from error
    if asked["federation"] != federation:
        message = (
            f"{path} asks for {asked['federation']!r}, not {federation}: the federation's file (--from) or this "
            "request is another's"
        )
        raise ConfigurationError(message)
    if keys[0].id == keys[1].id:
        message = f"{path} gives one key twice: have it made again with `valise key new`"
        raise ConfigurationError(message)
    return found


def of(members: Iterable[str], folders: Iterable[Path], federation: str) -> dict[str, Signatory]:
    """Read what these members ask for in folders. Raises ConfigurationError where one asks for two pairs of keys."""
    found: dict[str, Signatory] = {}
    wanted = frozenset(members)
    for path in found_in(folders):
        asked = read(path, federation)
        if asked.member in wanted and found.setdefault(asked.member, asked) != asked:
            message = f"{path}: {asked.member} asks for other keys, too: ask which it means, name that with --requests"
            raise ConfigurationError(message)
    return found


def found_in(folders: Iterable[Path]) -> list[Path]:
    """Find the requests in folders, however deep."""
    return sorted({path for folder in folders for path in folder.rglob("*.signatory.json")})


def _canonical(wanted: dict[str, str]) -> bytes:
    return json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
