"""A principal's certificate that is made anew is shown from the next connection on, by whoever runs already."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker import authorities, certificates
from broker.errors import UnavailableError
from broker.kafka import KafkaBus
from broker.kafka_tls import Context
from broker.settings import Tls
from broker.streams import OPERATOR, ROUTER, World
from cli import home, witnessing

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(pki: Path, seen: asyncio.Queue[str]) -> AsyncIterator[int]:
    """Serve as a node does, and note who connects."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki / "node-1.pem")
    server.load_verify_locations(pki / "root.pem")
    server.verify_mode = ssl.CERT_REQUIRED

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subject = dict(each for (each,) in writer.get_extra_info("peercert")["subject"])
        seen.put_nowait(subject["commonName"])
        writer.write(b"\n")
        writer.close()

    async with await asyncio.start_server(connected, HOST, 0, ssl=server) as found:
        yield found.sockets[0].getsockname()[1]


async def connect(port: int, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    await reader.readline()
    writer.close()


async def test_a_certificate_that_is_made_anew_is_shown_from_the_next_connection_on(tmp_path: Path) -> None:
    """And while it is being replaced, the one before: of the new key and the old certificate nothing is loaded."""
    pki = authorities.init_pki(tmp_path, [], datetime.now(UTC))
    for each in ("crt", "key"):
        shutil.copyfile(pki / f"{ROUTER}.{each}", tmp_path / f"mine.{each}")
    context = Context.of(*(str(each) for each in (pki / "nodes-ca.pem", tmp_path / "mine.crt", tmp_path / "mine.key")))
    seen = asyncio.Queue[str]()
    async with serving(pki, seen) as port:
        await connect(port, context)
        shutil.copyfile(pki / f"{OPERATOR}.key", tmp_path / "mine.key")
        await connect(port, context)
        shutil.copyfile(pki / f"{OPERATOR}.crt", tmp_path / "mine.crt")
        await connect(port, context)
        (tmp_path / "mine.key").unlink()
        await connect(port, context)
    assert [seen.get_nowait() for _ in range(4)] == [ROUTER, ROUTER, OPERATOR, OPERATOR]


async def test_witnesses_are_shown_the_next_certificate_too(tmp_path: Path) -> None:
    pki = authorities.init_pki(tmp_path, [], datetime.now(UTC))

    def lay(name: str) -> None:
        for each in ("crt", "key"):
            shutil.copyfile(pki / f"{name}.{each}", tmp_path / f"mine.{each}")

    lay(ROUTER)
    files = Tls(ca=pki / "nodes-ca.pem", certificate=tmp_path / "mine.crt", key=tmp_path / "mine.key")
    context, seen = witnessing._context(tmp_path, files), asyncio.Queue[str]()
    async with serving(pki, seen) as port:
        await connect(port, context)
        lay(OPERATOR)
        await connect(port, context)
    assert [seen.get_nowait() for _ in range(2)] == [ROUTER, OPERATOR]


class Overtaken(Context):
    """Its files are replaced just after it has loaded them for the first time."""

    others: tuple[Path, Path] | None = None

    def load_cert_chain(self, *files: Any, **named: Any) -> None:
        super().load_cert_chain(*files, **named)
        if self.others:
            for other, mine in zip(self.others, self._files, strict=True):
                shutil.copyfile(other, mine)
            type(self).others = None


async def test_a_certificate_that_is_made_anew_while_the_one_before_is_loaded_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki = authorities.init_pki(tmp_path, [], datetime.now(UTC))
    for each in ("crt", "key"):
        shutil.copyfile(pki / f"{ROUTER}.{each}", tmp_path / f"mine.{each}")
    monkeypatch.setattr(Overtaken, "others", (pki / f"{OPERATOR}.crt", pki / f"{OPERATOR}.key"))
    context = Overtaken.of(
        *(str(each) for each in (pki / "nodes-ca.pem", tmp_path / "mine.crt", tmp_path / "mine.key"))
    )
    seen = asyncio.Queue[str]()
    async with serving(pki, seen) as port:
        await connect(port, context)
    assert seen.get_nowait() == OPERATOR


def test_who_opens_the_bus_is_told_that_a_certificate_of_the_operators_ends_soon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = authorities.init_pki(tmp_path, [], datetime.now(UTC))
    home._say_ending("", ROUTER, made / f"{ROUTER}.crt")
    assert capsys.readouterr().err == ""
    old = authorities.init_pki(
        tmp_path / "old", [], datetime.now(UTC) - authorities.LEAF_LIFE + certificates.RENEW_BEFORE
    )
    home._say_ending("", ROUTER, old / f"{ROUTER}.crt")
    assert f"RED: the certificate of {ROUTER} ends" in (said := capsys.readouterr().err)
    assert "make the next one with `valise broker init`" in said


YEAR = authorities.LEAF_LIFE


@pytest.mark.parametrize(
    ("whose", "said"), [("ours", "our certificate ended at"), ("nodes", "certificate has expired")]
)
async def test_who_cannot_connect_any_more_for_an_ended_certificate_is_told_so(
    tmp_path: Path, whose: str, said: str
) -> None:
    """It was told as if the nodes did not answer."""
    ended = authorities.init_pki(tmp_path / "ended", [], datetime.now(UTC) - YEAR)
    pki = authorities.init_pki(tmp_path / "whole", [], datetime.now(UTC))
    for each in ("nodes-ca", "root"):  # who signed it is no reason
        shutil.copyfile((pki if whose == "ours" else ended) / f"{each}.pem", tmp_path / f"{each}.pem")
    ours, theirs = (ended, pki) if whose == "ours" else (pki, ended)
    shutil.copyfile(tmp_path / "root.pem", theirs / "root.pem")
    files = (str(tmp_path / "nodes-ca.pem"), str(ours / f"{ROUTER}.crt"), str(ours / f"{ROUTER}.key"))
    async with serving(theirs, asyncio.Queue()) as port:
        with pytest.raises(UnavailableError, match=said):
            async with KafkaBus(f"{HOST}:{port}", ROUTER, files, World((), ()), limit=20):
                pass


def test_a_certificate_that_is_damaged_since_is_no_reason_to_end(tmp_path: Path) -> None:
    """What was loaded is shown on; nodes that do not answer are for time to mend."""
    pki = authorities.init_pki(tmp_path, [], datetime.now(UTC))
    context = Context.of(*(str(pki / each) for each in ("nodes-ca.pem", f"{ROUTER}.crt", f"{ROUTER}.key")))
    (pki / f"{ROUTER}.crt").write_bytes(b"damaged")
    assert context.fault() == ""


def test_why_a_node_was_refused_is_told_though_another_connection_is_under_way(tmp_path: Path) -> None:
    """A process has many of one context, and each that begins would make it forget."""
    pki = authorities.init_pki(tmp_path, [], datetime.now(UTC))
    context = Context.of(*(str(pki / each) for each in ("nodes-ca.pem", f"{ROUTER}.crt", f"{ROUTER}.key")))
    context.refused = "certificate has expired"
    under_way = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        under_way.do_handshake()
    assert context.fault() == "a node's certificate is refused here: certificate has expired"
