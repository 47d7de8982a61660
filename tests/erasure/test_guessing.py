"""Whoever has the whole trail and a list of names finds none of them in it once the salts are gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from broker import codec, streams
from broker.notice import Entry
from broker.signing import compartment_digest, decision_digest
from tests.erasure.site import NAME, files, gone, identity, one, running, withdrawal
from tests.erasure.test_embedded import publish
from tests.federation import Federation

GUESSES = ("Ann Other", "Zebedee", NAME, NAME.upper(), "Pat Random")


def unsalted(name: str) -> Iterator[bytes]:
    """Every digest of a name that our forms of digest allow without a salt."""
    for data in (name.encode(), identity(name)):
        yield sha256(data).digest()
        for salt in (b"", bytes(32)):
            yield compartment_digest("identity", salt, data)
            yield decision_digest(salt, data)


def salted(name: str, salts: Sequence[bytes]) -> Iterator[bytes]:
    """The digests of a name's compartment under these salts."""
    return (compartment_digest("identity", each, identity(name)) for each in salts)


def windows(data: bytes) -> list[bytes]:
    """Whatever could be a salt."""
    return [data[i : i + 32] for i in range(len(data) - 31)]


async def kept(federation: Federation) -> list[bytes]:
    """All entries of the trail as they are kept: leaf, salt and decision record."""
    records = await federation.bus.read(streams.TRAIL, 0)
    return [each.value or b"" for each in records if each.key == b"entry"]


async def test_no_guessed_name_is_tied_to_what_is_left(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one()
    async with running(home) as federation:
        envelope, told = await publish(federation, draft)
        await publish(federation, withdrawal(envelope))
        await gone(federation, home, draft.needles)
        entries = await kept(federation)
        trail = b"".join(entries)
        # Control: with the salt, the digest that stayed in the header is found, for that name only.
        hits = [each for each in GUESSES if any(digest in trail for digest in salted(each, draft.salts))]
        assert hits == [NAME]
        # Without it no form of digest is anywhere, in trail, tiles, index or register.
        left = b"".join([trail, *files(home).values()])
        assert not any(digest in left for guess in GUESSES for digest in unsalted(guess))
        # Nor is any of the bytes beside the notice its salt.
        (entry,) = (each for each in map(decoded, entries) if each.leaf_number == told.leaf_number)
        beside = windows(entry.decision + entry.decision_salt + entry.leaf)
        assert len(beside) > 500
        assert not any(digest in trail for guess in GUESSES for digest in salted(guess, beside))


def decoded(value: bytes) -> Entry:
    """Read an entry."""
    return codec.decode(Entry, value)
