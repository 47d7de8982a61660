"""What is withdrawn of a record is what the broker holds of it, whatever was rejected or forged before."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import uuid
from typing import Any

import pytest

from broker import codec, streams
from broker.notice import Header
from broker.sqlite import SqliteBus
from cli import drafts
from cli.home import MemberHome, clock, member_home
from tests import federation as world
from tests.journeys.member_homes import Answer, Homes, notices, person, publish
from tests.making import Draft as Making

HOUR = 3_600_000


def withdraw(homes: Homes, notice: str, wait: int = 60) -> Answer:
    return homes.valise("withdraw", notice, "--yes", "--bureau", "AT/ncb", "--json", "--wait", str(wait))


def states(answer: Answer) -> tuple[int, list[tuple[int, str]]]:
    return answer.code, [(each["version"], each["state"]) for each in notices(answer)]


async def _put(homes: Homes, value: bytes) -> None:
    async with SqliteBus(homes.folder / "bus.db", streams.adapter("AT"), world.world(), clock) as bus:
        await bus.append(streams.notices("AT"), [(b"", value)])


def corrected_by_a_thief(homes: Homes, record: str) -> str:
    """Let a thief of AT's key correct the first version of a record; give the id of what he publishes."""
    with member_home(homes.folder, "AT/ncb").outbox() as outbox:
        found = outbox.standing("AT/ncb", record)
    assert found is not None
    reference = dataclasses.replace(found[1], relation="corrects")
    made = Making("AT/ncb").but(record=record, version=2, references=(reference,), issued=clock() - 1000)
    envelope = made.to("LV/ncb", "GE/ncb").numbered(1, b"thief-01").envelope()
    asyncio.run(_put(homes, codec.encode(envelope)))
    return str(uuid.UUID(bytes=codec.decode(Header, envelope.header).notice_id))


def test_what_a_thief_corrected_is_published_anew_and_withdrawn_once_that_is_disowned(homes: Homes) -> None:
    """However often its owner has tried to correct it before."""
    publish(homes, person("W-1"))
    theirs = corrected_by_a_thief(homes, "W-1")
    for tried, version in (("a", 2), ("b", 3)):
        assert states(publish(homes, person("W-1", action_sought=tried))) == (1, [(version, "rejected")])
    assert states(withdraw(homes, theirs)) == (0, [(3, "routed")])
    assert states(publish(homes, person("W-1", action_sought="c"))) == (0, [(4, "routed")])
    assert states(withdraw(homes, "W-1")) == (0, [(5, "routed")])


def held(homes: Homes, bureau: str, record: str) -> list[str]:
    """The states of what a bureau has of a record, its withdrawals left out."""
    lines: list[dict[str, Any]] = notices(homes.valise("inbox", "--bureau", bureau, "--json"))
    return [each["state"] for each in lines if (each["record"], each["kind"]) == (record, "person")]


def test_nobody_keeps_what_a_rejected_withdrawal_has_left_beside_a_newer_publication(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The withdrawal was made while the machine's clock was an hour ahead; LV and GE have what it names."""
    publish(homes, person("W-2"))
    assert [held(homes, each, "W-2") for each in ("LV/ncb", "GE/ncb")] == [["new"], ["new"]]
    maker = MemberHome.maker
    with monkeypatch.context() as ahead:
        ahead.setattr(MemberHome, "maker", lambda home: dataclasses.replace(maker(home), clock=lambda: clock() + HOUR))
        assert states(withdraw(homes, "W-2", wait=0)) == (8, [(2, "sent")])
    with member_home(homes.folder, "AT/ncb").outbox() as outbox:  # before the rejection is heard
        outbox.publish(drafts.load(io.StringIO(person("W-2", audience={"to": ["LV/ncb"]}, action_sought="again"))))
    assert publish(homes, person("W-3")).code == 0
    assert [held(homes, each, "W-2") for each in ("LV/ncb", "GE/ncb")] == [["erased", "new"], ["erased"]]
    assert states(withdraw(homes, "W-2")) == (0, [(4, "routed")])
    assert held(homes, "LV/ncb", "W-2") == ["erased", "erased"]
