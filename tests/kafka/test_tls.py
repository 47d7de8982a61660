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
from broker.kafka_tls import Context
from broker.streams import OPERATOR, ROUTER
from cli import home

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


async def connect(port: int, context: Context) -> None:
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
