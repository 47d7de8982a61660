"""What waits for its review: who has it meanwhile, what ends the waiting, and that silence is heard."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker import codec
from broker.errors import FencedError
from broker.notice import Envelope, Grant, Header, Outcome
from broker.overdue import Overdue, held_key, held_since
from broker.register import Register
from broker.rules import PolicySet
from broker.settings import Settings
from cli.broker import _held_lines
from cli.operator_home import OperatorHome
from cli.standing import held
from cli.tally import note
from tests import federation as world
from tests.fake_bus import Clock, FakeBus, Memory, still_owned
from tests.federation import Federation
from tests.making import FEDERATION, NOW, Draft, reference

DAY = 86_400_000
HOUR = 3_600_000
REVIEWER = "EUROPOL/analysis"
TO = "LV/ncb"


@pytest.fixture
async def reviewed(tmp_path: Path) -> AsyncIterator[Federation]:
    """A running federation in which EUROPOL/analysis reviews."""
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    directory = world.directory(reviewers=(REVIEWER,))
    await world.write_versions(bus, directory, PolicySet.packaged())
    made = Federation(tmp_path, bus, clock)
    async with world.running(tmp_path, bus, lambda: clock.now):
        await made.adopted()
        yield made


def one(issuer: str = "AT/ncb", **more: object) -> Draft:
    """A notice of a series of its own."""
    made = Draft(issuer, **more).to(TO).but(record=os.urandom(8).hex())  # type: ignore[arg-type] # kind and parts
    return made.numbered(1, os.urandom(8))


def wanted(**header: object) -> Draft:
    """A notice that is held."""
    return one().but(topics=("wanted.red",), **header)


def word(of: Envelope, verdict: str = "release") -> Draft:
    """What the reviewer says of it."""
    return one(REVIEWER, kind="approval", parts=("terms",)).but(
        action_sought=verdict, references=(reference(of, "approves"),)
    )


def withdrawal(of: Envelope, issuer: str = "AT/ncb") -> Draft:
    """The end of a notice."""
    header = codec.decode(Header, of.header)
    made = one(issuer, kind="withdrawal", parts=("reason",))
    return made.but(references=(reference(of, "withdraws"),), record=header.record, version=2)


async def publish(federation: Federation, draft: Draft | Envelope) -> tuple[Envelope, Outcome]:
    """Publish, and give what its issuer is told first."""
    envelope = draft if isinstance(draft, Envelope) else draft.envelope()
    member = codec.decode(Header, envelope.header).member
    before = len(await federation.outcomes(member))
    await federation.publish(envelope)
    return envelope, (await federation.outcomes(member, before + 1))[before]


async def kinds(federation: Federation) -> list[str]:
    """The kinds of all leaves, receipts and starts left out."""
    return [each.kind for each in await federation.leaves() if each.kind in ("held", "released", "not-released")]


@pytest.mark.parametrize("person", [{}, {"minor": "yes"}, {"subject_categories": ("victim", "witness")}], ids=str)
async def test_the_reviewer_sees_all_but_routing_and_sources_and_nobody_else_sees_anything(
    reviewed: Federation, person: dict[str, Any]
) -> None:
    parts = ("identity", "narrative", "source")
    _, told = await publish(reviewed, one(parts=parts).but(topics=("wanted.red",)).routed(**person))
    assert told.kind == "held"
    (delivery,) = await reviewed.inbox(REVIEWER, 1)
    assert delivery.shown == {"identity", "narrative"}
    assert await reviewed.inbox(TO) == []


async def test_a_release_decides_anew_at_that_now(reviewed: Federation) -> None:
    first, _ = await publish(reviewed, wanted(retain_until=NOW + DAY))
    second, _ = await publish(reviewed, wanted(retain_until=NOW + 3 * DAY))
    reviewed.clock.now = NOW + DAY
    for each in (first, second):
        _, told = await publish(reviewed, word(each))
        assert told.kind == "routed"
    (delivery,) = await reviewed.inbox(TO, 1)
    assert delivery.header.retain_until == NOW + 3 * DAY
    assert await kinds(reviewed) == ["held", "held", "released", "released"]


async def test_what_expires_while_it_waits_is_not_released(reviewed: Federation) -> None:
    envelope, _ = await publish(reviewed, wanted(expires=NOW + DAY))
    reviewed.clock.now = NOW + DAY
    _, told = await publish(reviewed, word(envelope))
    assert (told.kind, told.code) == ("rejected", "invalid-reference")
    assert await kinds(reviewed) == ["held"]


async def test_a_withdrawal_of_what_waits_reaches_the_reviewer_and_ends_the_waiting(reviewed: Federation) -> None:
    envelope, _ = await publish(reviewed, wanted())
    await publish(reviewed, withdrawal(envelope))
    first, second = await reviewed.inbox(REVIEWER, 2)
    assert (first.leaf.kind, second.header.kind) == ("held", "withdrawal")
    assert second.delivery.erases == (first.delivery.delivery_number,)
    _, told = await publish(reviewed, word(envelope))
    assert told.code == "invalid-reference"


async def test_the_withdrawal_of_what_was_released_reaches_holders_and_reviewer(reviewed: Federation) -> None:
    envelope, _ = await publish(reviewed, wanted())
    await publish(reviewed, word(envelope))
    await reviewed.inbox(TO, 1)
    await publish(reviewed, withdrawal(envelope))
    assert (await reviewed.inbox(TO, 2))[1].header.kind == "withdrawal"
    assert (await reviewed.inbox(REVIEWER, 2))[1].header.kind == "withdrawal"


async def test_a_withdrawal_reaches_who_has_the_version_before_a_correction_that_was_refused(
    reviewed: Federation,
) -> None:
    first, _ = await publish(reviewed, one())
    await reviewed.inbox(TO, 1)
    header = codec.decode(Header, first.header)
    again = wanted(version=2, references=(reference(first, "corrects"),)).but(record=header.record)
    second, told = await publish(reviewed, again)
    assert told.kind == "held"
    await publish(reviewed, word(second, "refuse"))
    end, told = await publish(reviewed, withdrawal(second).but(version=3))
    assert told.kind == "routed"
    first_there, last_there = await reviewed.inbox(TO, 2)
    assert last_there.delivery.erases == (first_there.delivery.delivery_number,)
    assert (await reviewed.inbox(REVIEWER, 2))[1].header.notice_id == codec.decode(Header, end.header).notice_id


@pytest.mark.parametrize("end", ["release", "refuse", "withdraw"])
async def test_a_reviewer_who_has_the_version_before_keeps_it_until_the_correction_is_released_or_ended(
    reviewed: Federation, end: str
) -> None:
    first, _ = await publish(reviewed, one().to(TO, REVIEWER))
    header = codec.decode(Header, first.header)
    again = wanted(version=2, references=(reference(first, "corrects"),)).to(TO, REVIEWER).but(record=header.record)
    second, _ = await publish(reviewed, again)
    had, held = await reviewed.inbox(REVIEWER, 2)
    assert (held.leaf.kind, held.delivery.replaces) == ("held", ())
    both = (had.delivery.delivery_number, held.delivery.delivery_number)
    if end != "withdraw":
        await publish(reviewed, word(second, end))
    if end == "release":
        released = (await reviewed.inbox(REVIEWER, 3))[2]
        assert (released.leaf.kind, released.delivery.replaces) == ("released", both)
    await publish(reviewed, withdrawal(second).but(version=3))
    last = (await reviewed.inbox(REVIEWER, 4 if end == "release" else 3))[-1]
    assert last.delivery.erases == ((released.delivery.delivery_number,) if end == "release" else both)


def forget_register(folder: Path) -> None:
    """Lose the cache, as an empty disk does."""
    for each in folder.glob("register.db*"):
        each.unlink()


async def test_it_waits_across_a_restart_whose_register_is_gone(tmp_path: Path) -> None:
    clock = Clock(NOW)
    bus = FakeBus(Memory(clock=clock))
    await world.write_versions(bus, world.directory(reviewers=(REVIEWER,)), PolicySet.packaged())
    federation = Federation(tmp_path, bus, clock)
    async with world.running(tmp_path, bus, lambda: clock.now):
        await federation.adopted()
        envelope, _ = await publish(federation, wanted())
    forget_register(tmp_path)
    async with world.running(tmp_path, bus, lambda: clock.now):
        await publish(federation, word(envelope))
        assert len(await federation.inbox(TO, 1)) == 1


async def waiting(federation: Federation) -> tuple[list[list[str]], list[str]]:
    """What `valise broker status` knows of held notices: who can review each, and the first words of its lines."""
    home = OperatorHome(federation.folder, Settings(role="operator", federation=FEDERATION, bus="sqlite:../bus.db"))
    await home.versions.follow(federation.bus)
    undecided = dict[int, int]()
    for number, leaf in enumerate(await federation.leaves()):
        note(undecided, number, leaf)
    found = [replace(each, late=False) for each in held(home, undecided)]
    return [each.reviewers for each in found], [" ".join(line.split()[:3]) for line in _held_lines(found)]


async def test_the_operator_is_told_apart_what_nobody_can_review(reviewed: Federation) -> None:
    await publish(reviewed, wanted())
    stuck, _ = await publish(reviewed, wanted().routed(deny=(REVIEWER,)))
    stuck_id = uuid.UUID(bytes=codec.decode(Header, stuck.header).notice_id)
    said = ["held 2 wait", "RED 1 held", f"RED {stuck_id} (leaf"]
    first, _ = await publish(reviewed, wanted())
    # What a correction replaces waits no more, though nobody has decided on it.
    record = codec.decode(Header, first.header).record
    _, told = await publish(reviewed, wanted(version=2, references=(reference(first, "corrects"),)).but(record=record))
    assert told.kind == "held"
    assert await waiting(reviewed) == ([[REVIEWER], [], [REVIEWER]], said)
    await world.write_versions(reviewed.bus, world.directory(2))
    assert (await waiting(reviewed))[0] == [[], [], []]


async def test_silence_raises_an_alarm_every_hour_until_somebody_decides(tmp_path: Path) -> None:
    clock = Clock(NOW)
    register = Register(tmp_path / "register.db")
    overdue = Overdue(register, lambda: clock.now, 8 * HOUR)
    key, short = held_key("AT/ncb", bytes(16)), held_key("AT/ncb", bytes(15) + b"\1")
    register.put(key, held_since(NOW, None))
    register.put(short, held_since(NOW, NOW + HOUR))
    heard = []
    for hours in (1, 7.9, 8, 8.5, 9, 10):
        clock.now = NOW + int(hours * HOUR)
        heard.append([each.key for each in overdue.look()])
    assert heard == [[], [], [key], [], [key], [key]]
    heard.clear()
    for days in (1, -1, 0):  # set ahead, and right again: that is no reason to be silent until then
        clock.now += days * DAY
        heard.append([each.key for each in overdue.look()])
    assert heard == [[key], [key], []]
    register.put(key, None)
    clock.now += DAY
    assert overdue.look() == []
    register.close()


async def test_no_silence_is_passed_over_on_a_cache_that_was_emptied(tmp_path: Path) -> None:
    with closing(Register(tmp_path / "register.db")) as register, closing(Register(tmp_path / "register.db")) as other:
        await register.take_over(still_owned)
        register.restore([(held_key("AT/ncb", bytes(16)).encode(), held_since(NOW, None))], 1)
        overdue = Overdue(register, lambda: NOW + 9 * HOUR, 8 * HOUR)
        assert len(overdue.look()) == 1
        await other.take_over(still_owned)
        other.forget()
        with pytest.raises(FencedError):
            overdue.look()


async def test_the_register_notes_who_waits_and_who_no_longer(reviewed: Federation) -> None:
    released, ended = [(await publish(reviewed, wanted()))[0] for _ in range(2)]
    assert await _noted(reviewed) == 2
    await publish(reviewed, word(released))
    await publish(reviewed, withdrawal(ended))
    assert await _noted(reviewed) == 0


async def _noted(federation: Federation) -> int:
    """How many entries of the register's stream say that a notice waits, removed ones left out."""
    newest: dict[bytes, bool] = {}
    for record in await federation.bus.read("register", 0, limit=10_000):
        if record.key.startswith(b"held/"):
            newest[record.key] = record.value is not None
    return sum(newest.values())


# What else an issuer may say


async def test_a_grant_shows_its_compartments_and_no_more(reviewed: Federation) -> None:
    grants = (Grant("GE/ncb", ("warnings",), NOW + DAY), Grant("RU/ncb", ("identity",), NOW))
    await publish(reviewed, one(parts=("identity", "warnings")).but(handling=("H2",)).routed(grants=grants))
    (named,), (granted,) = await reviewed.inbox(TO, 1), await reviewed.inbox("GE/ncb", 1)
    assert (named.shown, granted.shown) == ({"identity", "warnings"}, {"warnings"})
    assert await reviewed.inbox("RU/ncb") == []


@pytest.mark.parametrize(
    "draft",
    [
        one().routed(grants=(Grant("GE/ncb", ("warnings",), NOW + DAY),)),
        one().but(handling=("H2",)).routed(grants=(Grant("GE", ("warnings",), NOW + DAY),)),
        one().but(handling=("H2",)).routed(grants=(Grant("GE/ncb", ("routing",), NOW + DAY),)),
        one().but(handling=("H2",)).routed(grants=(Grant("GE/ncb", (), NOW + DAY),)),
        one().but(handling=("H2",)).routed(grants=(Grant("GE/ncb", ("warnings",), 0),)),
        one().routed(derogation="because"),
    ],
    ids=["without H2", "to a member", "of the routing", "of nothing", "until never", "on a ground that there is not"],
)
async def test_a_grant_or_derogation_that_says_too_little_is_refused(reviewed: Federation, draft: Draft) -> None:
    _, told = await publish(reviewed, draft)
    assert (told.kind, told.code) == ("rejected", "invalid-field")


async def test_who_breaks_the_glass_is_told_that_it_is_on_record(reviewed: Federation) -> None:
    _, told = await publish(reviewed, one().routed(derogation="threat-to-life"))
    assert (told.kind, told.warnings) == ("routed", ("glass-broken",))
