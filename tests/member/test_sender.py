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
from broker.errors import CannotSignError, ConfigurationError
from broker.notice import Envelope, Header
from broker.signing import SigningKey
from tests.making import key_of
from tests.member.conftest import World, draft
from tests.member.test_outcomes import SHOWS, learn, reject, renewed


def _outbox(world: World, key: Callable[[str], SigningKey]) -> Outbox:
    at = world.machine("AT/ncb")
    return Outbox(at.folder / "outbox.db", Maker(at.versions.newest(), key, at.clock, os.urandom), "AT/ncb")


def _asking(world: World, generation: int, asked: list[bool]) -> Outbox:
    """AT's outbox; `asked`: whether it was held when a key was asked for."""

    def key(bureau: str) -> SigningKey:
        asked.append(outbox.database.in_transaction)
        return key_of(bureau, generation)

    outbox = _outbox(world, key)
    return outbox


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


@pytest.mark.parametrize("signs", [0, 1])
async def test_a_token_that_does_not_sign_stops_its_own_bureau_only(world: World, signs: int) -> None:
    """Its bureau's key has changed since: what waits is to be signed anew. `signs`: how often before it fails."""
    _kept(world)
    left = [signs]

    def fails(message: bytes) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise CannotSignError("the token does not sign: is it still plugged in?")
        return key_of("AT/border", 1).sign(message)

    token = SigningKey(key_of("AT/border", 1).public, fails)
    outbox = _outbox(world, lambda bureau: key_of(bureau) if bureau == "AT/ncb" else token)
    with pytest.raises(NoKeyError, match="AT/border has to send waits until it can sign: the token does not sign"):
        await outbox.flush(world.bus)
    assert outbox.waiting() == 60
    assert {bureau for bureau, _ in _records(await world.sent())} == {"AT/ncb"}
    outbox.close()
    outbox = world.machine("AT/ncb").outbox()
    assert await outbox.flush(world.bus) == 60
    outbox.close()


async def test_no_key_is_asked_for_while_the_outbox_is_held(world: World) -> None:
    """For what was rejected for its key alone, neither when that is heard nor when it is sent again."""
    (first,) = await world.publish(draft())
    await world.publish(draft(action_sought="arrest"))
    await renewed(world)
    asked: list[bool] = []
    outbox = _asking(world, 1, asked)
    await reject(world, first, "key-revoked", signed=False)
    await learn(world.machine("AT/ncb"), outbox)
    assert (outbox.waiting(), asked) == (1, [False])
    assert await outbox.flush(world.bus) == 1
    second = (await world.sent())[1]
    outbox.close()
    outbox = _outbox(world, _no_key)
    await reject(world, second, "key-revoked", signed=False)
    await learn(world.machine("AT/ncb"), outbox)
    outbox.close()
    outbox = _asking(world, 1, asked)
    assert (outbox.waiting(), await outbox.flush(world.bus)) == (0, 1)
    assert not any(asked)
    outbox.close()


async def test_no_key_is_asked_for_by_what_cannot_come_again(world: World) -> None:
    """A later version is on record: each flush would ask for the passphrase, for nothing; or when the word comes."""
    (first,) = await world.publish(draft())
    (second,) = await world.publish(draft(action_sought="arrest"))
    await world.broker.route(second, SHOWS)
    asked: list[bool] = []
    outbox = _asking(world, 1, asked)
    await learn(world.machine("AT/ncb"), outbox)
    await reject(world, first, "key-not-in-force", signed=False)
    assert await learn(world.machine("AT/ncb"), outbox) == ["key-not-in-force"]
    assert (await outbox.flush(world.bus), asked) == (0, [])
    outbox.close()


async def test_what_is_published_while_a_passphrase_is_typed_does_not_overtake_what_it_builds_on(world: World) -> None:
    (rejected,) = await world.publish(draft("B-1", bureau="AT/border"))
    (first,) = await world.publish(draft())
    await reject(world, rejected, "key-revoked", signed=False)
    outbox = world.machine("AT/ncb").outbox()
    await learn(world.machine("AT/ncb"), outbox)
    outbox.close()
    beside, typed = (await renewed(world)).outbox(), list[str]()

    def key(bureau: str) -> SigningKey:
        if not typed:
            typed.append(bureau)
            beside.publish([draft(action_sought="arrest")])
        return key_of(bureau, int(bureau == "AT/ncb"))

    outbox = _outbox(world, key)
    assert (await outbox.flush(world.bus), typed) == (2, ["AT/border"])
    again, correction = (await world.sent())[2:]
    assert codec.decode(Envelope, again).header == codec.decode(Envelope, first).header
    assert _records([correction]) == [("AT/ncb", "R-1")]
    outbox.close()
    beside.close()


def _no_key(bureau: str) -> SigningKey:
    raise ConfigurationError(f"{bureau} has no key here")
