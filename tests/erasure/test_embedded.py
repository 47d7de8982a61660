"""On the embedded bus: once a notice has ended, no raw file holds its words or salts, and all goes on without it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from broker import notes, streams
from broker.notice import Envelope, Outcome
from tests.erasure.site import REVIEWER, Marked, following, found, gone, one, running, withdrawal
from tests.exchange.test_audited import examined
from tests.federation import Federation
from tests.making import Draft

BEFORE = {"bus.db", "bus.db-wal", "operator/register.db", "operator/register.db-wal"}
"""Where a notice in force may lie."""


async def publish(federation: Federation, draft: Draft | Envelope, issuer: str = "AT") -> tuple[Envelope, Outcome]:
    """Publish, and give what its issuer is told first."""
    envelope = draft if isinstance(draft, Envelope) else draft.envelope()
    told = len(await federation.outcomes(issuer))
    await federation.publish(envelope)
    return envelope, (await federation.outcomes(issuer, told + 1))[told]


def is_there(home: Path, draft: Marked) -> bool:
    """Tell whether each needle is found, all of them where a notice in force lies: the control of every test here."""
    assert len(draft.needles) > 2
    return all({"bus.db", "bus.db-wal"} & found(home, [each]) for each in draft.needles) and (
        found(home, draft.needles) <= BEFORE
    )


async def test_a_withdrawn_notice_is_in_no_file_and_the_trail_still_verifies(tmp_path: Path) -> None:
    home, draft, other = tmp_path / "home", one(), one(name="Somebody Else")
    async with running(home) as federation:
        envelope, _ = await publish(federation, draft)
        await publish(federation, other)
        assert len(await federation.inbox("LV/ncb", 2)) == 2
        await federation.settled()
        assert is_there(home, draft)
        await publish(federation, withdrawal(envelope))
        await gone(federation, home, draft.needles)
        kinds = [each.header.kind for each in await federation.inbox("LV/ncb", 2)]
        assert kinds == ["person", "withdrawal"]
        assert found(home, [b"Somebody Else"]) & {"bus.db", "bus.db-wal"}
        report = await verified(federation, tmp_path)
        assert report["findings"] == []


async def test_the_broker_restarts_and_rebuilds_its_register_without_it(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one()
    async with running(home) as federation:
        envelope, _ = await publish(federation, draft)
        await publish(federation, withdrawal(envelope))
        await gone(federation, home, draft.needles)
    for each in home.rglob("register.db*"):
        each.unlink()
    async with running(home) as federation:
        _, told = await publish(federation, envelope)
        assert (told.kind, told.code) == ("repeated", "withdrawn")
        # The copy that came after the end goes by itself: nothing else may end for days.
        await gone(federation, home, draft.needles)
        second, told = await publish(federation, one(name="Somebody Else"))
        assert told.kind == "routed"
        _, told = await publish(federation, withdrawal(second))
        assert told.kind == "routed"
        await gone(federation, home, [*draft.needles, b"Somebody Else"])
        assert (await verified(federation, tmp_path))["findings"] == []


async def test_the_versions_before_and_copies_of_them_go_with_it(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one()
    async with running(home) as federation:
        first, _ = await publish(federation, draft)
        _, told = await publish(federation, first)
        assert told.kind == "repeated"
        second, _ = await publish(federation, following(first, "person", "corrects"))
        assert is_there(home, draft)
        _, told = await publish(federation, withdrawal(second))
        assert told.kind == "routed"
        await gone(federation, home, draft.needles)
        _, told = await publish(federation, first)
        assert (told.kind, told.code) == ("repeated", "replaced")
        await gone(federation, home, draft.needles)


async def test_a_notice_that_came_after_its_withdrawal_is_kept_nowhere(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one()
    async with running(home) as federation:
        envelope = draft.envelope()
        _, told = await publish(federation, withdrawal(envelope))
        assert told.kind == "routed"
        before = len(await federation.outcomes("AT"))
        await federation.publish(envelope)
        assert found(home, draft.needles)  # at once: later it may be gone again
        assert (await federation.outcomes("AT", before + 1))[before].code == "already-withdrawn"
        await gone(federation, home, draft.needles)


async def test_a_notice_refused_in_review_goes_at_once(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one().but(topics=("wanted.red",))
    assert isinstance(draft, Marked)
    async with running(home) as federation:
        envelope, told = await publish(federation, draft)
        assert told.kind == "held"
        assert len(await federation.inbox(REVIEWER, 1)) == 1
        assert is_there(home, draft)
        _, told = await publish(
            federation, following(envelope, "approval", "approves", action_sought="refuse"), "EUROPOL"
        )
        assert told.kind == "routed"
        await gone(federation, home, draft.needles)
        assert [each.kind for each in await federation.leaves()][-1] == "not-released"


async def test_a_notice_that_was_released_and_withdrawn_goes_from_reviewer_and_holders(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one().but(topics=("wanted.red",))
    assert isinstance(draft, Marked)
    async with running(home) as federation:
        envelope, told = await publish(federation, draft)
        assert told.kind == "held"
        await publish(federation, following(envelope, "approval", "approves", action_sought="release"), "EUROPOL")
        assert len(await federation.inbox("LV/ncb", 1)) == 1
        assert is_there(home, draft)
        await publish(federation, withdrawal(envelope))
        await gone(federation, home, draft.needles)
        assert [each.header.kind for each in await federation.inbox("LV/ncb", 1)] == ["withdrawal"]


async def test_what_is_withdrawn_by_order_goes_whichever_version_the_order_names(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one()
    async with running(home) as federation:
        first, _ = await publish(federation, draft)
        await publish(federation, following(first, "person", "corrects"))
        assert is_there(home, draft)
        _, told = await publish(federation, following(first, "withdrawal", "withdraws", by_order=True), "EUROPOL")
        assert told.kind == "routed"
        await gone(federation, home, draft.needles)


async def test_of_a_correction_that_was_refused_the_version_before_it_stays(tmp_path: Path) -> None:
    home, draft = tmp_path / "home", one(to=("LV/ncb", REVIEWER))
    async with running(home) as federation:
        first, _ = await publish(federation, draft)
        wanted = following(first, "person", "corrects", topics=("wanted.red",))
        second, told = await publish(federation, wanted)
        assert told.kind == "held"
        await publish(federation, following(second, "approval", "approves", action_sought="refuse"), "EUROPOL")
        ended, _ = await publish(federation, other := one(name="Somebody Else"))
        await publish(federation, withdrawal(ended))
        await gone(federation, home, other.needles)
        assert [each.header.version for each in await federation.inbox(REVIEWER, 1)] == [1]


async def test_what_nobody_judged_yet_is_not_dropped_with_it(tmp_path: Path) -> None:
    """A second notice under the name and id of the first waits behind its end: it must still become a leaf."""
    home, draft = tmp_path / "home", one()
    async with running(home) as federation:
        envelope = draft.envelope()
        await asyncio.gather(
            *(federation.publish(each) for each in [envelope, withdrawal(envelope).envelope(), envelope])
        )
        told = await federation.outcomes("AT", 3)
        assert sorted(each.kind for each in told) in (
            ["repeated", "routed", "routed"],
            ["rejected", "rejected", "routed"],
            ["rejected", "repeated", "routed"],
        )
        await gone(federation, home, draft.needles)


async def verified(federation: Federation, folder: Path) -> dict[str, object]:
    """Let the auditor verify the trail, compared with a head that somebody kept."""
    seen = folder / "checkpoint-kept"
    (record,) = await federation.bus.read(streams.CHECKPOINTS, 0, limit=1)
    seen.write_text(notes.parse_advance(record.value or b"").checkpoint, encoding="utf-8")
    report: dict[str, object] = await examined("verify", str(federation.trail), "--seen", str(seen))
    return report
