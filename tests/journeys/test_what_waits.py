"""What waits in an outbox: for the bus, for a key, for another process; and what commands say of it."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NoReturn

import click
import pytest

from adapters.compose import Maker
from adapters.database import WAIT_S, transaction
from adapters.outbox import Outbox, Result
from broker.bus import Bus
from broker.errors import ConfigurationError, UnavailableError
from broker.signing import SigningKey
from cli import drafts
from cli import home as homes_of
from cli.home import MemberHome, member_home
from cli.inbox import collect
from cli.options import Everywhere
from cli.publish import finish, send
from tests.journeys.member_homes import Homes, notices, person, publish

OTHER = "AT/organised-crime"
WITHDRAW = ("withdraw", "--yes", "--json", "--wait", "60", "--bureau", "AT/ncb")


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Take a file away for a while."""
    aside = path.rename(path.with_suffix(".away"))
    yield
    aside.rename(path)


def waiting(homes: Homes) -> list[str]:
    """Name the records of AT that wait in its outbox."""
    with member_home(homes.folder, "AT/ncb").outbox() as outbox:
        rows = outbox.database.execute("SELECT record FROM envelopes WHERE sent_at IS NULL ORDER BY place")
        return [str(row[0]) for row in rows]


def put(homes: Homes, bureau: str, *made: str) -> None:
    """Publish into the outbox, while no bus answers."""
    with member_home(homes.folder, bureau).outbox() as outbox:
        for each in made:
            outbox.publish(drafts.load(io.StringIO(each)))


def test_a_bureau_without_a_key_stops_no_other_of_its_member(homes: Homes, capsys: pytest.CaptureFixture[str]) -> None:
    publish(homes, person("W-1"))
    put(homes, OTHER, person("W-2"), person("W-2", action_sought="arrest"))
    with away(homes.folder / "members" / "AT" / "keys" / "organised-crime.pem"):
        withdrawn = homes.valise(*WITHDRAW, "W-1")
        assert (withdrawn.code, withdrawn.value["sent"], notices(withdrawn)[0]["state"]) == (0, True, "routed")
        said = f"what {OTHER} has to send waits until it can sign: {OTHER} has no key here: make one with `valise key"
        assert said in capsys.readouterr().err
        assert (notices(publish(homes, person("W-3")))[0]["state"], waiting(homes)) == ("routed", ["W-2", "W-2"])
        told = homes.valise("trace", "W-1", "--bureau", "AT/ncb", "--json")
        assert (told.code, told.value["outcome"], told.value["stale"]) == (0, "routed", False)
    sent = homes.valise("trace", "W-2", "--bureau", OTHER, "--json")
    assert (sent.value["version"], sent.value["sent_at"] is not None, waiting(homes)) == (2, True, [])


def test_a_withdrawal_that_is_given_once_more_is_sent_and_told(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(homes, person("W-4"))
    with away(homes.folder / "bus.db"):
        kept = homes.valise(*WITHDRAW[:2], *WITHDRAW[3:], "W-4")
        assert (kept.code, waiting(homes)) == (5, ["W-4"])
        first = kept.out.splitlines()[0]
        assert "there is no bus at" in first
        assert "what was published is kept in the outbox; the next `valise trace` or `inbox`" in first
        again = homes.valise(*WITHDRAW, "W-4")
        assert (again.code, waiting(homes)) == (1, ["W-4"])
        said = capsys.readouterr().err
        assert "no such record is published any more: withdrawal" in said
        assert "(record W-4, version 2) waits in the outbox since" in said
    again = homes.valise(*WITHDRAW, "W-4")
    assert (again.code, waiting(homes)) == (1, [])
    assert "(record W-4, version 2) was" in capsys.readouterr().err


def test_who_is_asked_whether_it_is_meant_has_sent_before_what_waits(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(homes, person("W-5"))
    with away(homes.folder / "bus.db"):
        assert homes.valise(*WITHDRAW, "W-5").code == 5
    assert homes.valise("withdraw", "W-5", "--bureau", "AT/ncb").code == 1
    assert waiting(homes) == []
    assert "no such record is published any more: withdrawal" in capsys.readouterr().err


def test_what_was_published_before_and_waits_is_not_called_done(homes: Homes) -> None:
    with away(homes.folder / "bus.db"):
        for state in ("waiting", "unchanged"):
            kept = publish(homes, person("W-6"))
            assert (kept.code, kept.value["sent"], notices(kept)[0]["state"]) == (5, False, state)
    sent = publish(homes, person("W-6"))
    assert (sent.code, sent.value["sent"], notices(sent)[0]["state"]) == (0, True, "unchanged")


def test_what_has_come_is_taken_in_while_another_process_keeps_the_outbox(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    home = member_home(homes.folder, "LV/ncb")
    deadline = time.monotonic() + 60

    def come(states: list[str]) -> None:
        found: list[str] = []
        while found != states:
            assert time.monotonic() < deadline, found
            with home.outbox() as kept, transaction(kept.database):  # as one that publishes a long list does
                begun = time.monotonic()
                collected = asyncio.run(collect(home))
                assert time.monotonic() - begun < WAIT_S / 2
            assert (collected.stale, collected.refused) == (False, 0)
            with home.inbox() as box:
                found = [each.state for each in box.lines() if each.record == "W-7"]

    homes.valise("inbox", "--bureau", "LV/ncb")
    publish(homes, person("W-7"))
    come(["new"])
    assert homes.valise(*WITHDRAW, "W-7").code == 0
    come(["erased", "new"])
    said = "what became of our own notices cannot be taken in now: a file of this home cannot be used now"
    assert said in capsys.readouterr().err


class _KeyGone(MemberHome):
    """A home whose key goes as soon as something was sent with it."""

    def maker(self) -> Maker:
        made = super().maker()

        def key(bureau: str) -> SigningKey:
            if (self.folder / "gone").exists():
                raise ConfigurationError(f"every key of {bureau} was revoked")
            return made.key(bureau)

        return replace(made, key=key)

    async def flush(self, bus: Bus, outbox: Outbox, tell: Callable[[Result], object] | None = None) -> None:
        await super().flush(bus, outbox, tell)
        (self.folder / "gone").touch()


def test_a_withdrawal_that_told_nobody_and_cannot_be_followed_is_not_called_done(
    homes: Homes, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(homes, person("W-8"))
    with member_home(homes.folder, "AT/ncb").outbox() as outbox:  # a correction that never arrives
        outbox.publish(drafts.load(io.StringIO(person("W-8", action_sought="arrest"))))
        outbox.database.execute("UPDATE envelopes SET sent_at = 1 WHERE sent_at IS NULL")
    home = member_home(homes.folder, "AT/ncb")
    gone = _KeyGone(home.folder, home.settings, home.bureau)
    done = asyncio.run(send(gone, lambda outbox: outbox.withdraw("W-8"), 60))
    with pytest.raises(click.exceptions.Exit) as ended:
        finish(Everywhere(homes.folder, as_json=False, yes=True), home, done)
    (home.folder / "gone").unlink()
    assert ended.value.exit_code == 6
    answered = capsys.readouterr()
    assert answered.out.startswith("1 refused-here, 1 routed")
    assert "a withdrawal of W-8 told nobody and left a version with its holders, and cannot be followed" in answered.err
    followed = homes.valise("trace", "W-8", "--bureau", "AT/ncb", "--json")
    assert (followed.value["version"], waiting(homes)) == (4, [])


class _Asks(MemberHome):
    """A home that asks for passphrases, which nobody knows."""

    asked: ClassVar[list[str]] = []

    def key(self, bureau: str = "") -> NoReturn:
        self.asked.append(bureau)
        raise ConfigurationError("the passphrase does not open the key")


def test_a_passphrase_that_does_not_open_a_key_is_asked_for_once(homes: Homes) -> None:
    put(homes, OTHER, person("W-9"))
    home = member_home(homes.folder, OTHER)
    asking = _Asks(home.folder, home.settings, home.bureau)
    with pytest.raises(ConfigurationError, match="does not open"):
        asyncio.run(send(asking, lambda outbox: outbox.withdraw("W-9"), 0))
    assert _Asks.asked == [OTHER]


def test_what_could_not_be_done_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with homes_of.going_on("it cannot be done now"):
            raise UnavailableError("W-9")
    assert capsys.readouterr().err == "it cannot be done now: W-9\n"
