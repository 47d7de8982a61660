"""A log that asks for cosignatures, a witness to ask, and ways to ask it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from broker import cosignature, merkle, notes
from broker.cosignature import Cosigner
from broker.fetch import Place
from broker.notes import Checkpoint, Vkey
from broker.owner import Known
from broker.signing import SigningKey
from broker.witness import Identity, Witness
from cli.auditor import answering
from tests.fake_bus import START

ORIGIN = "log.example/trail"
LOG_KEY = SigningKey.from_seed(sha256(b"witnessed log").digest())
OTHER_KEY = SigningKey.from_seed(sha256(b"another log").digest())
LOG = notes.vkey(ORIGIN, LOG_KEY.public.raw)


def identity(name: str = "witness.example/w1") -> Identity:
    """Who a witness is."""
    return Identity(name, SigningKey.from_seed(sha256(name.encode()).digest()))


def cosigner(name: str = "witness.example/w1") -> Cosigner:
    """Its verifier key."""
    return cosignature.cosigner(name, identity(name).key.public.raw)


class Log:
    """A log of any leaves; `fork` makes another one with the same past."""

    def __init__(self, size: int = 0, key: SigningKey = LOG_KEY) -> None:
        self.hashes, self.key = list[bytes](), key
        self.grow(size)

    def grow(self, count: int, word: str = "") -> Log:
        first = len(self.hashes)
        self.hashes += [merkle.leaf_hash(f"{each}{word}".encode()) for each in range(first, first + count)]
        return self

    def fork(self, at: int, count: int) -> Log:
        other = Log(key=self.key)
        other.hashes = self.hashes[:at]
        return other.grow(count, "another past")

    def head(self, size: int | None = None) -> Checkpoint:
        size = len(self.hashes) if size is None else size
        return Checkpoint(ORIGIN, size, merkle.root(self.hashes[:size]))

    def note(self, size: int | None = None) -> str:
        return notes.sign_checkpoint(self.head(size), self.key)

    def proof(self, old: int, new: int | None = None) -> list[bytes]:
        new = len(self.hashes) if new is None else new
        return merkle.consistency_proof(old, new, self._subtree) if old else []

    def request(self, old: int, new: int | None = None) -> bytes:
        return notes.format_advance(old, self.proof(old, new), self.note(new)).encode()

    def _subtree(self, level: int, index: int) -> bytes:
        return merkle.root(self.hashes[index << level : (index + 1) << level])


def made(state: Path, *logs: Vkey, name: str = "witness.example/w1", at: int = START) -> Witness:
    """A witness with a clock that stands still."""
    return Witness(state, identity(name), logs or [LOG], lambda: at)


@dataclass(frozen=True)
class Heard:
    """What the application answered."""

    status: int
    media: str
    text: str


async def asked(
    witness: Witness, body: bytes = b"", method: str = "POST", path: str = "/add-checkpoint", declared: str = ""
) -> Heard:
    """Ask the application itself, without a connection."""
    sent = list[dict[str, object]]()
    parts = [body[each : each + 65536] for each in range(0, len(body), 65536)] or [b""]
    waiting = [
        {"type": "http.request", "body": part, "more_body": place < len(parts) - 1} for place, part in enumerate(parts)
    ]

    async def receive() -> dict[str, object]:
        return waiting.pop(0)

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"content-length", (declared or str(len(body))).encode())] if declared != "none" else []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": headers,
    }
    await answering.application(witness)(scope, receive, send)  # type: ignore[arg-type]  # ASGI's own dicts
    first = sent[0]
    found = dict(first["headers"])  # type: ignore[call-overload]  # pairs of bytes
    text = b"".join(each["body"] for each in sent[1:])  # type: ignore[misc]  # bytes
    return Heard(first["status"], found.get(b"content-type", b"").decode(), text.decode())  # type: ignore[arg-type]


@asynccontextmanager
async def answering_on(witness: Witness) -> AsyncIterator[Known]:
    """Let a witness answer on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        server = answering.server(witness)
        working = asyncio.ensure_future(server.serve(sockets=[opened]))
        name = witness.identity.name
        try:
            yield Known(cosigner(name), Place("127.0.0.1", opened.getsockname()[1], "", None))
        finally:
            server.should_exit = True
            await working
            witness.close()


@asynccontextmanager
async def saying(
    answer: bytes, name: str = "witness.example/odd", *, hang: bool = False, until: asyncio.Event | None = None
) -> AsyncIterator[Known]:
    """Let somebody answer whatever comes with these bytes.

    With `hang` the connection is kept open without a word more until the other side goes, with `until` as long as that.
    """

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            if hang:
                await reader.read()
            if until:
                await until.wait()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Known(cosigner(name), Place("127.0.0.1", port, "", None))
