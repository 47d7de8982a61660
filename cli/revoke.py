"""`valise key revoke` and `revoked`: take a key out of force, and list what is in doubt because of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import click

from adapters.doubts import Issued
from adapters.outbox import Outbox
from adapters.outcomes import Outcomes
from adapters.receipts import Signer
from broker import codec, streams
from broker.directory import Directory, Key
from broker.errors import ConfigurationError
from broker.key_use import Doubted
from broker.notice import REVOCATION_REASONS, REVOCATION_TYPE, Revocation
from cli import answer, exits, keyring
from cli.home import MemberHome, clock, if_it_answers, member_home
from cli.in_doubt import Doubt, known, learn
from cli.key_use import looking
from cli.keyring import Kept
from cli.operator_home import operator_folder, operator_home
from cli.options import Everywhere, bureau, confirm, everywhere
from cli.progress import progress

PREFIX = 8
WAIT_S = 10.0


class Moment(click.ParamType[int]):
    """A time in UTC, as 2026-11-01 or 2026-11-01T12:30; given on in ms since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        try:
            given = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value} is no time: write it as 2026-11-01 or 2026-11-01T12:30 (UTC)", param, ctx)
        return int((given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command()
@click.argument("key", metavar="KEY")
@click.option("--compromised-since", "since", type=Moment(), help="What was recorded from then on is in doubt (UTC).")
@click.option("--reason", type=click.Choice(REVOCATION_REASONS), default="other", show_default=True)
@click.option("--wait", default=WAIT_S, show_default=True, help="Seconds to wait until it is on record.")
@bureau
@everywhere
def revoke(given: Everywhere, key: str, since: int | None, reason: str, wait: float, bureau: str | None) -> None:
    """Take a key of ours out of force, at once and for ever. KEY: the first digits of its id (`valise key list`).

    Another key of the member signs the statement; the last one there is signs its own end.
    """
    home = member_home(given.home, bureau)
    if since is not None and since > clock():
        message = "--compromised-since lies in the future"
        raise click.UsageError(message)
    asyncio.run(if_it_answers(home.follow(), "going on with the directory known before"))
    directory = home.versions.newest()
    target = _target(home, directory, key)
    with_key = _signer(home, directory, target)
    _confirm(given, target, with_key)
    statement = Revocation(home.settings.federation, with_key.bureau, target.key_id, reason, clock(), since)
    told = asyncio.run(send(home, with_key, statement, wait))
    if told and told[0] in ("revoked", "repeated"):
        keyring.forget(home.folder, target.key_id)
    _show_revoked(given, home, target, with_key, told)


def _target(home: MemberHome, directory: Directory, key: str) -> Key:
    own = [each for each in directory.keys.values() if each.bureau.partition("/")[0] == home.member]
    found = [each for each in own if each.key_id.hex().startswith(key.lower())] if len(key) >= PREFIX else []
    if len(found) != 1:
        said = "names several keys" if found else f"is no key of {home.member} in the directory"
        message = f"{key} {said}: give at least {PREFIX} digits of an id from `valise key list`"
        raise ConfigurationError(message)
    return found[0]


def _signer(home: MemberHome, directory: Directory, target: Key) -> Kept:
    """Choose who signs: a key of the same bureau if there is one, any other of the member, last the key itself."""
    gone, now = keyring.revoked(home.folder), clock()
    left = [(each, each.key_id()) for each in keyring.all_kept(home.folder, home.member)]
    good = [
        (each, key_id)
        for each, key_id in left
        if key_id not in gone and (found := directory.key(key_id)) is not None and found.in_force(now)
    ]
    if not good:
        message = f"no key of {home.member} in force lies here: a revocation is signed by one of them"
        raise ConfigurationError(message)
    return min(good, key=lambda each: (each[1] == target.key_id, each[0].bureau != target.bureau))[0]


def _confirm(given: Everywhere, target: Key, with_key: Kept) -> None:
    if given.yes:
        return
    last = " It is the last one here: nobody can sign for you until another is entered." * (
        with_key.key_id() == target.key_id
    )
    ask = f"revoke {target.key_id.hex()[:16]} of {target.bureau}? It signs nothing ever again.{last} Go on?"
    confirm(ask)


async def send(home: MemberHome, with_key: Kept, said: Revocation, wait: float) -> tuple[str, str | None] | None:
    """Put the statement on the member's own stream and wait for its leaf: (kind, code), None if it has not come.

    Raises UnavailableError only where it may not have been sent.
    """
    key = with_key.load()
    signer = Signer(said.federation, with_key.bureau, key, clock)
    value = codec.encode(signer.statement(REVOCATION_TYPE, codec.encode(said)))
    with home.outbox() as outbox:
        async with home.bus() as bus:
            await bus.append(streams.notices(home.member), [(b"", value)], partition=home.settings.shard)
            await if_it_answers(_await(home.outcomes(bus, outbox), outbox, sha256(value).digest(), wait), "it was sent")
        return _told(outbox, sha256(value).digest())


async def _await(outcomes: Outcomes, outbox: Outbox, digest: bytes, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        left = deadline - time.monotonic()
        await outcomes.round(max(0.0, min(left, 0.5)))
        if _told(outbox, digest) or left <= 0:
            return


def _told(outbox: Outbox, digest: bytes) -> tuple[str, str | None] | None:
    row = outbox.database.execute("SELECT kind, code FROM outcomes WHERE record_digest = ?", (digest,)).fetchone()
    return (str(row["kind"]), row["code"]) if row else None


def _show_revoked(
    given: Everywhere, home: MemberHome, target: Key, with_key: Kept, told: tuple[str, str | None] | None
) -> None:
    short, kind = target.key_id.hex()[:16], told[0] if told else None
    first = {
        "revoked": f"{short} of {target.bureau} is revoked: it signs nothing any more, and everybody was told",
        "repeated": f"{short} of {target.bureau} was revoked before",
        None: f"the revocation of {short} is on the bus, but not on record yet: see `valise key list`",
    }.get(kind, f"the revocation of {short} was {kind}: {told[1] if told else ''}")
    value = {
        "key_id": target.key_id.hex(), "bureau": target.bureau, "signed_by": with_key.key_id().hex(),
        "state": kind or "sent", "code": told[1] if told else None,
    }  # fmt: skip
    answer.show(first, value, as_json=given.as_json, then=given.again(f"valise key revoked --bureau {home.bureau}"))
    exits.end({"revoked": exits.DONE, "repeated": exits.DONE, None: exits.UNDECIDED}.get(kind, exits.FAILED))


# What is in doubt


@click.command("revoked")
@bureau
@everywhere
def list_revoked(given: Everywhere, bureau: str | None) -> None:
    """List revoked keys and what is in doubt: notices of ours to confirm again, and what we hold of others."""
    if bureau is None and (operator_folder(given.home) / "settings.toml").is_file():
        _show_operator(given)
        return
    home = member_home(given.home, bureau)
    stale = not asyncio.run(if_it_answers(learn(home), "this is what was known before"))
    found = known(home)
    mine = [each for doubt in found for each in doubt.issued]
    rows = [row for doubt in found for row in _rows(doubt)]
    held = sum(len(each) for doubt in found for each in doubt.held.values())
    answered = sum(len(doubt.answered) for doubt in found)
    answer.show(
        f"{answer.count(len(found), 'revoked key')}; {answer.count(len(mine), 'notice')} of {home.member} to confirm "
        f"again or withdraw, {answer.count(held, 'delivery', 'deliveries')} and {answer.count(answered, 'receipt')} "
        "in doubt",
        {"stale": stale, "keys": [_value(each) for each in found]},
        as_json=given.as_json,
        table=answer.Table(("key", "of", "in doubt since", "notice", "record", "recorded", "with", "to do"), rows),
        then=given.again(_next(mine, home.bureau)),
    )
    exits.end(exits.UNAVAILABLE if stale else exits.DONE)


def _rows(doubt: Doubt) -> list[tuple[str, ...]]:
    revoked = doubt.revoked
    begin = (revoked.key_id.hex()[:16], revoked.bureau, answer.when(revoked.compromised_since))
    rows: list[tuple[str, ...]] = [
        (
            *begin, each.id, each.record, answer.when(each.recorded_at), ", ".join(each.reached) or "nobody",
            "confirm: publish it again" if each.ours else "NOT FROM HERE: withdraw it",
        )
        for each in doubt.issued
    ]  # fmt: skip
    rows += [
        (
            *begin, each.id, each.record, answer.when(each.recorded_at), bureau,
            "RECORDED AFTER THE REVOCATION: ask the operator" if each.after else "wait until it is confirmed",
        )
        for bureau, held in doubt.held.items()
        for each in held
    ]  # fmt: skip
    rows += [
        (
            *begin, f"leaves {', '.join(map(str, each.about[:5]))}{' …' * (len(each.about) > 5)}", "–",
            answer.when(each.recorded_at), each.bureau, f"do not rely on its receipt '{each.result or each.act}'",
        )
        for each in doubt.answered
    ]  # fmt: skip
    return rows or [(*begin, "–", "–", "–", "–", "nothing")]


def _next(mine: list[Issued], bureau: str) -> str:
    for each in mine:
        if not each.ours:
            return f"valise withdraw {each.id} --bureau {bureau}"
    return f"valise correct {mine[0].id} FILE --bureau {bureau}" if mine else "valise key list"


def _value(doubt: Doubt) -> dict[str, Any]:
    return {
        **asdict(doubt.revoked),
        "issued": [{**asdict(each), "id": each.id} for each in doubt.issued],
        "answered": [asdict(each) for each in doubt.answered],
        "held": {bureau: [{**asdict(each), "id": each.id} for each in found] for bureau, found in doubt.held.items()},
    }


def _show_operator(given: Everywhere) -> None:
    """List for the operator what stands recorded under revoked keys, and who holds it."""
    home = operator_home(given.home)
    directory = home.versions.newest()
    if not (home.folder / "records.db").is_file():
        message = "the broker has taken nothing in yet: start it with `valise broker up`"
        raise ConfigurationError(message)
    with looking(home) as use:
        say = progress("looked at", "notices in force of who revoked a key")
        found = [(each, use.in_doubt(each, directory, say)) for each in use.revocations().values()]
    rows = [row for said, notices in found for row in _operator_rows(said, notices, directory)]
    doubted = sum(len(notices) for _, notices in found)
    answer.show(
        f"{answer.count(len(found), 'revoked key')}; in force and to be confirmed again by its issuer: "
        f"{answer.count(doubted, 'notice')}",
        {
            "stale": False,
            "keys": [{**asdict(said), "issued": [asdict(each) for each in notices]} for said, notices in found],
        },
        as_json=given.as_json,
        table=answer.Table(("key", "of", "reason", "in doubt since", "leaf", "recorded", "held by"), rows),
        then=given.again("valise key list"),
    )


def _operator_rows(said: Revocation, notices: list[Doubted], directory: Directory) -> list[tuple[str, ...]]:
    key = directory.key(said.key_id)
    begin = (said.key_id.hex()[:16], key.bureau if key else "?", said.reason, answer.when(said.compromised_since))
    return [
        (*begin, str(each.leaf_number), answer.when(each.recorded_at), ", ".join(each.holders) or "nobody")
        for each in notices
    ] or [(*begin, "–", "–", "nobody")]
