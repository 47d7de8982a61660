"""What a member's home knows to be in doubt because a key was revoked."""

from __future__ import annotations

from dataclasses import dataclass

from adapters import doubts
from adapters.doubts import Answered, Held, Issued, Revoked
from adapters.inbox import Inbox
from adapters.outbox import Outbox
from cli.home import MemberHome


@dataclass(frozen=True, slots=True)
class Doubt:
    """A revoked key, and what of ours or with us rests on it. `held`: by bureau."""

    revoked: Revoked
    issued: tuple[Issued, ...]
    held: dict[str, tuple[Held, ...]]
    answered: tuple[Answered, ...]
    """Receipts that we were given."""


async def learn(home: MemberHome) -> None:
    """Take in what members were told lately. Raises UnavailableError."""
    async with home.bus() as bus:
        await home.versions.follow(bus)
        with home.outbox() as outbox:
            await home.learn(bus, outbox)


def known(home: MemberHome) -> list[Doubt]:
    """Look through outbox and inboxes, by what this home knows."""
    with home.outbox() as outbox:
        database = outbox.database
        return [
            Doubt(each, tuple(_issued(home, outbox, each)), _held(home, each), tuple(doubts.answered(database, each)))
            for each in doubts.revocations(database, home.versions.directory)
        ]


def _issued(home: MemberHome, outbox: Outbox, revoked: Revoked) -> list[Issued]:
    if revoked.bureau.partition("/")[0] != home.member:
        return []
    return doubts.issued(outbox.database, revoked)


def _held(home: MemberHome, revoked: Revoked) -> dict[str, tuple[Held, ...]]:
    found: dict[str, tuple[Held, ...]] = {}
    for path in sorted(home.folder.glob("inbox.*.db")):
        inbox = Inbox(path)
        try:
            found[f"{home.member}/{path.stem.partition('.')[2]}"] = tuple(doubts.held(inbox.database, revoked))
        finally:
            inbox.close()
    return {name: each for name, each in found.items() if each}


def about(home: MemberHome) -> dict[bytes, str]:
    """Say in words what is in doubt of what the bureau holds, by notice id."""
    return {
        each.notice_id: _words(doubt.revoked, each) for doubt in known(home) for each in doubt.held.get(home.bureau, ())
    }


def _words(revoked: Revoked, held: Held) -> str:
    if held.after:
        return f"IN DOUBT: it is on record after {revoked.bureau} had revoked the key that signed it; ask the operator"
    return (
        f"IN DOUBT: {revoked.bureau} has revoked the key that signed it ({revoked.reason}); wait until it is confirmed"
    )
