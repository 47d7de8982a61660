"""Somebody looks into a withdrawal for what it says in passing of the version that it ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.adapter import Draft
from adapters.compose import Maker
from adapters.order import order
from adapters.outbox import Outbox
from broker import members
from broker.notice import Audience, Header
from broker.signing import header_digest
from tests import federation as world
from tests.attacks.bench import AUTHORITY, TOPIC, Bench
from tests.federation import Opened
from tests.making import NOW, key_of
from tests.member.conftest import draft

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET: dict[str, object] = {
    "topics": ("asylum.protection",),
    "purpose": "threat-prevention",
    "legal_basis": "Protection Act, section 7",
    "handling": ("H1",),
    "handling_text": "Not to be shown to RU: she testified there",
    "languages": ("ru",),
    "confidentiality": "confidential",
    "deny": ("RU",),
    "protected_from": ("RU",),
    "audience": Audience(everyone=False, to=(AUTHORITY,)),
}


@asynccontextmanager
async def outbox(shared: Bench, folder: Path, bureau: str) -> AsyncIterator[Outbox]:
    """A bureau's outbox, all of which is on the bus at the end."""
    directory = members.parse(members.canonical(world.directory(authorities=(AUTHORITY,))))
    made = Outbox(folder / f"{bureau.replace('/', '.')}.db", Maker(directory, key_of, lambda: NOW, os.urandom), bureau)
    yield made
    await made.flush(shared.federation.bus)
    made.close()


def versions(record: str, second: dict[str, object]) -> tuple[Draft, Draft]:
    """A record that RU and the authority get, and its correction."""
    first = draft(record, topics=(TOPIC,), audience=Audience(everyone=False, to=(AUTHORITY, "RU/ncb")))
    return first, replace(first, **second)  # type: ignore[arg-type] # fields of Draft


async def delivered(shared: Bench, bureau: str, record: str, many: int) -> list[Opened]:
    """What a bureau got of a record, once that are so many."""
    at_least = 0
    while True:
        found = [each for each in await shared.federation.inbox(bureau, at_least) if each.header.record == record]
        if len(found) >= many:
            return found
        at_least = await shared.federation.bus.end(f"inbox.{bureau.lower().replace('/', '.')}") + 1


def said(end: Opened) -> Header:
    """All that a withdrawal's header says, but for what it is about and when."""
    return replace(end.header, notice_id=b"", record="", references=(), issued=0, compartments=())


async def test_who_was_shut_out_of_a_correction_looks_for_why_in_the_withdrawal(shared: Bench, tmp_path: Path) -> None:
    """RU has the first version; the second says why RU must not have it. Then AT withdraws: what RU gets says the same
    as the withdrawal of a record of which every version said the same."""
    records: dict[str, dict[str, object]] = {"plain": {"action_sought": "arrest"}, "protected": SECRET}
    async with outbox(shared, tmp_path, "AT/ncb") as ours:
        for record, second in records.items():
            for each in versions(record, second):
                assert ours.publish([each])
            ours.withdraw(record, {"code": "other"})
    plain, protected = [
        (await delivered(shared, "RU/ncb", record, n))[-1] for record, n in (("plain", 3), ("protected", 2))
    ]
    assert (plain.header.kind, protected.header.kind) == ("withdrawal", "withdrawal")
    assert said(protected) == said(plain)
    assert protected.shown == {"reason"}


async def test_who_was_shut_out_of_a_correction_looks_for_why_in_an_order(shared: Bench, tmp_path: Path) -> None:
    """As before, and an authority that has the newest version ends the record."""
    records: dict[str, dict[str, object]] = {
        "plain-2": {"action_sought": "arrest"},
        "protected-2": SECRET | {"confidentiality": "restricted"},
    }
    async with outbox(shared, tmp_path, "AT/ncb") as ours:
        for record, second in records.items():
            for each in versions(record, second):
                assert ours.publish([each])
    async with outbox(shared, tmp_path, AUTHORITY) as authority:
        for record in records:
            newest = (await delivered(shared, AUTHORITY, record, 2))[-1]
            authority.order(order(newest.header, header_digest(newest.envelope.header), AUTHORITY))
    plain, protected = [
        (await delivered(shared, "RU/ncb", record, n))[-1] for record, n in (("plain-2", 3), ("protected-2", 2))
    ]
    assert (plain.header.kind, protected.header.kind) == ("withdrawal", "withdrawal")
    assert said(protected) == said(plain)
