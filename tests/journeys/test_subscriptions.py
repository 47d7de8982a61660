"""A bureau sees to what it subscribes: what is on record, and what still waits to be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from adapters import subscriptions
from broker import codec, streams
from broker.notice import SUBSCRIPTION_TYPE, Subscription
from broker.sqlite import SqliteBus
from cli.home import clock, member_home
from tests import federation as world
from tests.broker_beside import broker_beside
from tests.journeys.member_homes import Homes, make

LIST = ("subscribe", "--list", "--bureau", "LV/ncb", "--json")


def _until(homes: Homes, name: str) -> Any:
    """List until the broker has said something of what was sent last."""
    deadline = monotonic() + 60
    while monotonic() < deadline:
        found = homes.valise(*LIST).value
        if found["waiting"] is None and found[name] is not None:
            return found
    raise AssertionError(found)


def test_a_bureau_is_told_what_is_in_force_and_what_still_waits(tmp_path: Path) -> None:
    make(tmp_path)
    homes = Homes(tmp_path)
    nothing = homes.valise(*LIST).value
    assert (nothing["patterns"], nothing["waiting"], nothing["stale"]) == (None, None, False)
    assert homes.valise("subscribe", "sought.*", "crime.drugs", "--bureau", "LV/ncb").code == 0
    waits = homes.valise(*LIST).value
    assert (waits["patterns"], waits["waiting"]["patterns"]) == (None, ["sought.*", "crime.drugs"])

    with broker_beside(tmp_path):
        found = _until(homes, "patterns")
        assert (found["patterns"], found["rejected"]) == (["sought.*", "crime.drugs"], None)
        assert found["leaf"] >= 0
        asyncio.run(_replay(tmp_path))  # an earlier one, which the broker rejects
        assert homes.valise(*LIST).value["patterns"] == ["sought.*", "crime.drugs"]
        assert homes.valise("subscribe", "--none", "--bureau", "LV/ncb").code == 0
        deadline = monotonic() + 60
        while homes.valise(*LIST).value["patterns"] and monotonic() < deadline:
            pass
    assert homes.valise(*LIST).value["patterns"] == []

    homes.valise("subscribe", "sought.*", "--bureau", "LV/ncb")
    told = homes.valise(*[each for each in LIST if each != "--json"])
    assert "subscribes to nothing, by leaf" in told.out
    assert "(sought.*) waits for the broker" in told.out
    for each in tmp_path.glob("bus.db*"):
        each.unlink()
    stale = homes.valise(*LIST)
    assert (stale.code, stale.value["stale"], stale.value["patterns"]) == (5, True, [])


async def _replay(folder: Path) -> None:
    home = member_home(folder, "LV/ncb")
    payload = codec.encode(Subscription(home.settings.federation, home.bureau, 1, ("*",), 1))
    early = codec.encode(home.signer().statement(SUBSCRIPTION_TYPE, payload))
    async with SqliteBus(folder / "bus.db", streams.adapter("LV"), world.world(), clock) as bus:
        await bus.append(streams.notices("LV"), [(b"", early)])


@pytest.mark.parametrize("why", ["another federation", "a clock set back"])
def test_what_the_broker_rejected_is_said_with_its_code(tmp_path: Path, why: str) -> None:
    make(tmp_path)
    homes = Homes(tmp_path)
    home = member_home(tmp_path, "LV/ncb")
    with broker_beside(tmp_path):
        homes.valise("subscribe", "sought.*", "--bureau", "LV/ncb")
        _until(homes, "patterns")
        # As by a home whose settings somebody has changed; or older than what is on record.
        of, at = ("another", clock()) if why == "another federation" else (home.settings.federation, 1)
        payload = codec.encode(Subscription(of, home.bureau, at, ("*",), at))
        false = codec.encode(home.signer().statement(SUBSCRIPTION_TYPE, payload))

        async def put() -> None:
            async with home.bus() as bus:
                with home.outbox() as outbox:
                    subscriptions.keep(outbox.database, false)
                    await bus.append(streams.notices("LV"), [(b"", false)])
                    subscriptions.mark_sent(outbox.database, false, clock())

        asyncio.run(put())
        found = _until(homes, "rejected")
    assert found["patterns"] == ["sought.*"]
    assert found["rejected"]["code"]
    told = homes.valise(*[each for each in LIST if each != "--json"]).out
    assert f"was rejected: {found['rejected']['code']}; subscribe again" in told


def test_one_of_patterns_none_and_list_is_meant(tmp_path: Path) -> None:
    make(tmp_path)
    homes = Homes(tmp_path)
    for words in ((), ("--list", "--none"), ("--list", "sought.*"), ("--none", "sought.*")):
        assert homes.valise("subscribe", *words, "--bureau", "LV/ncb").code == 2
