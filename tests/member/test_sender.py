"""What an outbox sends of bureaus of which some have no key."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from adapters import sender
from adapters.compose import Maker
from adapters.outbox import Outbox
from adapters.sender import NoKeyError
from broker import codec
from broker.errors import ConfigurationError
from broker.notice import Envelope, Header
from broker.signing import SigningKey
from tests.making import key_of
from tests.member.conftest import World, draft


def _outbox(world: World, key: Callable[[str], SigningKey]) -> Outbox:
    at = world.machine("AT/ncb")
    return Outbox(at.folder / "outbox.db", Maker(at.versions.newest(), key, at.clock, os.urandom), "AT/ncb")


def _records(sent: list[bytes]) -> list[tuple[str, str]]:
    headers = [codec.decode(Header, codec.decode(Envelope, each).header) for each in sent]
    return [(each.issuer, each.record) for each in headers]


def _kept(world: World) -> None:
    """Publish by turns for two bureaus, more than goes at once, and send nothing."""
    outbox = world.machine("AT/ncb").outbox()
    drafts = [draft(f"R-{n}", bureau=("AT/border", "AT/ncb")[n % 2]) for n in range(sender.PAGE + 20)]
    outbox.publish(drafts)
    outbox.close()


async def test_what_a_bureau_without_a_key_has_to_send_waits_and_nothing_else_does(world: World) -> None:
    _kept(world)
    asked: list[str] = []

    def key(bureau: str) -> SigningKey:
        asked.append(bureau)
        if bureau == "AT/border":
            raise ConfigurationError("every key was revoked")
        return key_of(bureau)

    outbox = _outbox(world, key)
    said = "what AT/border has to send waits until it can sign: every key was revoked"
    with pytest.raises(NoKeyError, match=said) as raised:
        await outbox.flush(world.bus)
    assert (raised.value.bureaus, outbox.waiting()) == ({"AT/border": "every key was revoked"}, 60)
    assert asked.count("AT/border") == 1
    outbox.close()
    assert _records(await world.sent()) == [("AT/ncb", f"R-{n}") for n in range(1, sender.PAGE + 20, 2)]

    outbox = world.machine("AT/ncb").outbox()
    assert await outbox.flush(world.bus) == 60
    outbox.close()
    assert _records(await world.sent())[60:] == [("AT/border", f"R-{n}") for n in range(0, sender.PAGE + 20, 2)]


async def test_a_key_that_comes_while_others_are_sent_lets_nothing_overtake_what_waits(world: World) -> None:
    _kept(world)
    tried: list[str] = []

    def key(bureau: str) -> SigningKey:
        if bureau == "AT/border" and not tried:
            tried.append(bureau)
            raise ConfigurationError("the token is not plugged in")
        return key_of(bureau)

    outbox = _outbox(world, key)
    with pytest.raises(NoKeyError):
        await outbox.flush(world.bus)
    assert await outbox.flush(world.bus) == 60
    outbox.close()
    theirs = [record for bureau, record in _records(await world.sent()) if bureau == "AT/border"]
    assert theirs == [f"R-{n}" for n in range(0, sender.PAGE + 20, 2)]
