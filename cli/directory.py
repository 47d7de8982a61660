"""`valise directory`: draft the next directory, show and sign drafts, put them in force, say how signatures stand."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from adapters.versions import Versions
from broker import durable, streams
from broker.errors import ConfigurationError, VersionRefusedError
from broker.streams import World
from broker.trust import draft, roles
from broker.trust.bundle import Opened
from broker.trust.draft import Draft
from cli import answer, exits, seed
from cli.home import clock, if_it_answers, member_home, open_bus, say_called_lost
from cli.officer.rewritten import told_to_signers
from cli.operator_home import NOBODY, OperatorHome, operator_folder, operator_home
from cli.operator_streams import told
from cli.options import Everywhere, Group, bureau, confirm, everywhere
from cli.trust import powers, proposing, signing, wording
from cli.trust.proposing import Activated, Proposed

_FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
_TABLE = partial(answer.Table, ("role", "signed by", "missing", "could sign"))
_MEANWHILE = "this is what was known before"
FROM = click.option(
    "--from", "file", type=click.Path(path_type=Path), help="The federation's file. Default: the first federation."
)
REQUESTS = click.option(
    "--requests",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder with members' requests (*.request.json, *.signatory.json). Default: HOME/members.",
)


@click.group(cls=Group)
def directory() -> None:
    """Draft, show, sign and activate what members decide together."""


@directory.command("draft")
@FROM
@REQUESTS
@everywhere
def draft_next(given: Everywhere, file: Path | None, requests: tuple[Path, ...]) -> None:
    """Draft the next directory: the federation's file, the keys known so far, and those that members ask for."""
    propose(given, file, requests)


def propose(given: Everywhere, file: Path | None, requests: tuple[Path, ...]) -> None:
    """Draft the next directory and say what is to be done with the draft (operator)."""
    home = operator_home(given.home)
    folders = [each for each in (requests or (home.folder.parent / "members",)) if each.is_dir()]
    federation = seed.read(file) if file else seed.seed()
    passed_over: list[str] = []

    def pass_over(said: str) -> None:
        answer.aside(f"passed over: {said}")
        passed_over.append(said)

    done = asyncio.run(proposing.propose(home, federation, folders, pass_over))
    tell(
        given,
        done.path,
        home.versions.guard().opened,
        f"drafted a directory: {_held(done)} ({done.new_keys} new)",
        {
            "keys": done.keys,
            "new_keys": done.new_keys,
            "members": done.members,
            "bureaus": done.bureaus,
            "passed_over": passed_over,
        },
    )
    exits.end(exits.PARTLY if passed_over else exits.DONE)


def _held(done: Proposed | Activated) -> str:
    numbers = (done.members, "member"), (done.bureaus, "bureau"), (done.keys, "key")
    return ", ".join(answer.count(*each) for each in numbers)


def tell(
    given: Everywhere,
    path: Path,
    base: Opened | None,
    first: str,
    value: dict[str, Any] | None = None,
    *,
    versions: Versions | None = None,
) -> None:
    """Say what a draft holds, and what is to be done with it next; `versions`: what it would change rules of."""
    made = draft.read_draft(path.read_bytes())
    lines, rows = _changes(made, base, versions), wording.signatures(made, base)
    answer.show(
        "\n".join([f"{first}: {path}", *lines]),
        (value or {})
        | {
            "draft": str(path),
            "title": made.title,
            "by": made.by,
            "changes": lines,
            "roles": _roles(rows),
        },
        as_json=given.as_json,
        table=_TABLE(rows),
        then=_next(given, path, made, base),
    )


def _changes(made: Draft, base: Opened | None, versions: Versions | None) -> list[str]:
    """List what becomes otherwise; of a policy set the rules that come, go and change, in their own sentences."""
    lines = wording.changes(made, base)
    return lines if made.policies is None or versions is None else [*lines, *told_to_signers(made.policies, versions)]


def _versions(given: Everywhere, bureau: str | None) -> Versions:
    """Give the versions that this party knows."""
    own = bureau is None and _operates(given)
    return _operator(given).versions if own else member_home(given.home, bureau).versions


def _roles(rows: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(("role", "signed", "missing", "could"), row, strict=True)) for row in rows]


def _next(given: Everywhere, path: Path, made: Draft, base: Opened | None) -> str:
    waiting = [each for each in draft.standings(made, base) if each.missing]
    if not waiting:
        group = "directory" if made.roots or set(made.roles) != {roles.POLICIES} else "policy"
        return given.again(f"valise {group} activate {shlex.quote(str(path))}")
    member = min(waiting[0].could - waiting[0].signed, default="MEMBER")
    return given.again(f"valise directory sign {shlex.quote(str(path))} --bureau {member}/NAME")


@directory.command()
@_FILE
@bureau
@everywhere
def show(given: Everywhere, file: Path, bureau: str | None) -> None:
    """Say in words what a draft changes, and whose signatures are missing."""
    made, (base, stale) = _read(file), _base(given, bureau)
    first, versions = f"{made.title} (drafted by {made.by})", _versions(given, bureau)
    tell(given, file, base, first, {"stale": stale}, versions=versions)
    exits.end(exits.UNAVAILABLE if stale else exits.DONE)


@directory.command()
@_FILE
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), help="Write the signed draft there instead.")
@bureau
@everywhere
def sign(given: Everywhere, file: Path, to: Path | None, bureau: str | None) -> None:
    """Sign a draft as a member, with the keys in its home. Read what it changes first: it is shown."""
    home, made = member_home(given.home, bureau), _read(file)
    base, _ = _base(given, bureau)  # who says yes has read that the bus does not answer
    accepted = home.versions.given
    if base is None and (not made.roots or accepted.is_file()):  # where a directory stands nothing is founded
        message = "the directory that this draft changes is not here: `valise directory trust FINGERPRINT`, then again"
        if made.roots:
            message += f". If nothing is founded yet, what was accepted is false: remove {accepted}"
        raise ConfigurationError(message)
    if unshown := home.versions.unshown():
        raise ConfigurationError(unshown)
    if not given.yes:
        answer.aside("\n".join([made.title, *_changes(made, base, home.versions)]))
        confirm(f"sign this as {home.member}?")
    signed, done = signing.sign(home.folder, home.member, made, base)
    if not done:
        message = f"{home.member} has no part in this draft, or not with the keys that lie here: nothing was signed"
        raise ConfigurationError(message)
    path = to or file
    signed = _put_together(path, signed)
    rows = wording.signatures(signed, base)
    answer.show(
        f"{home.member} has signed {', '.join(done)}",
        {"draft": str(path), "member": home.member, "signed": done, "roles": _roles(rows)},
        as_json=given.as_json,
        table=_TABLE(rows),
        then=_next(given, path, signed, base),
    )


def _put_together(path: Path, signed: Draft) -> Draft:
    """Put a signed draft in its place, with what others have signed there since it was read; give it as it lies there.

    Raises ConfigurationError where another draft lies there by now, which would be gone, UnavailableError.
    """
    with durable.alone(path.parent):  # from the look at what lies there until ours has taken its place
        if path.is_file():
            try:
                signed = draft.merge([signed, _read(path)])
            except VersionRefusedError as error:
                message = f"{path} is no copy of this draft ({error}): nothing was written; name another file with --to"
                raise ConfigurationError(message) from error
        durable.put(path, signed.content())
    return signed


@directory.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@everywhere
def activate(given: Everywhere, files: tuple[Path, ...]) -> None:
    """Put a draft in force (operator); several copies, each signed elsewhere, are put together first."""
    put_in_force(given, files)


def put_in_force(given: Everywhere, files: tuple[Path, ...]) -> None:
    """Publish what was signed; refused where a signature is missing."""
    done = asyncio.run(proposing.activate(operator_home(given.home), [_read(each) for each in files]))
    with_policies = " and a policy set" if done.policies else ""
    held = _held(done)
    first = f"wrote directory version {done.version}{with_policies}: {held}"
    if done.already:
        first = f"nothing was written, all of this draft is in force: directory version {done.version}, {held}"
    for each in done.differs:
        answer.aside(f"RED: {told(each)}; see `valise kafka check`")
    answer.show(
        f"{first}\nroot {done.root}: members that enter compare this with one another",
        asdict(done),
        as_json=given.as_json,
        # A broker that runs takes the next directory by itself.
        then=given.again("valise broker up" if done.version == 1 and not done.already else "valise directory status"),
    )


@directory.command()
@click.argument("fingerprint")
@bureau
@everywhere
def trust(given: Everywhere, fingerprint: str, bureau: str | None) -> None:
    """Pin the federation's root by its fingerprint, as another member (not the operator) told it."""
    home = member_home(given.home, bureau)
    home.versions.pin(fingerprint.lower())
    answer.show(
        f"{home.folder} trusts the root {fingerprint.lower()} and what follows it",
        {"home": str(home.folder), "root": fingerprint.lower()},
        as_json=given.as_json,
        then=given.again(f"valise directory status --bureau {home.bureau}"),
    )


@directory.command()
@everywhere
def refresh(given: Everywhere) -> None:
    """Sign the timestamp anew if half its time is over (operator); `valise broker up` does it by itself."""
    home = operator_home(given.home)

    async def work() -> bool:
        async with home.bus("operator", NOBODY) as bus:
            await home.versions.follow(bus)
            return await proposing.refresh(home, bus)

    done = asyncio.run(work())
    said = "the timestamp is signed anew" if done else "the timestamp has more than half its time left"
    answer.show(said, {"refreshed": done}, as_json=given.as_json, then=given.again("valise directory status"))


@directory.command()
@click.argument("holders", nargs=-1, required=True, metavar="MEMBER…")
@REQUESTS
@everywhere
def root(given: Everywhere, holders: tuple[str, ...], requests: tuple[Path, ...]) -> None:
    """Draft that the root passes to these members (operator): most of the old holders and most of the new must sign."""
    home = operator_home(given.home)
    base = asyncio.run(proposing.standing(home)).opened
    if base is None:
        message = "there is no signed directory yet: `valise directory draft` makes the first"
        raise ConfigurationError(message)
    path = proposing.pass_root(home, base, holders, requests or (home.folder.parent / "members",))
    tell(given, path, base, f"the root passes to {', '.join(holders)}")


@directory.command()
@bureau
@everywhere
def status(given: Everywhere, bureau: str | None) -> None:
    """Say whose keys may sign what, how many must, and what expires when; what has expired is red and stops nothing."""
    versions = member_home(given.home, bureau).versions if bureau or not _operates(given) else _operator(given).versions
    base, stale = _base(given, bureau)
    if bureau or not _operates(given):
        home = member_home(given.home, bureau)
        say_called_lost(home.folder, home.member, versions)
    if base is None:
        versions.check_kept()
        message = "no signed directory has come yet: " + (
            versions.refused() or "`valise directory draft` makes the first"
        )
        raise ConfigurationError(message)
    rows = [_role(role, base) for role in sorted(base.expires)]
    red = base.overdue(clock())
    first = f"directory version {base.directory.version}, {len(rows)} roles" + (
        f"; RED: {', '.join(red)}" if red else ""
    )
    first += f"\nroot {versions.guard().root}: compare it with another member's"
    if versions.refused():
        first += f"\nthe last version was refused: {versions.refused()}"
    answer.show(
        first,
        {
            "version": base.directory.version,
            "digest": base.directory.digest.hex(),
            "root": versions.guard().root,
            "red": red,
            "refused": versions.refused(),
            "roles": rows,
            "stale": stale,
        },
        as_json=given.as_json,
        table=answer.Table(
            ("role", "version", "signed by", "must sign", "until"),
            [(row["role"], str(row["version"]), _holders(row), str(row["threshold"]), row["until"]) for row in rows],
        ),
        then=given.again("valise directory show DRAFT"),
    )
    exits.end(exits.UNAVAILABLE if stale else exits.DONE)


def _role(role: str, base: Opened) -> dict[str, Any]:
    delegator = base.root if role in base.root.roles else base.targets
    given = delegator.get_delegated_role(role)
    end = base.expires[role]
    keys = sorted((roles.owner(delegator.get_key(each)), each) for each in given.keyids)
    return {
        "role": role,
        "version": base.seen[role][0],
        "holders": sorted({member for member, _ in keys}),
        "keys": [{"member": member, "key_id": keyid} for member, keyid in keys],
        "threshold": given.threshold,
        "lost": sorted(roles.lost(base.targets, role)) if role in base.entered else [],
        "until": answer.when(end) + (" EXPIRED" if end <= clock() else ""),
    }


def _holders(row: dict[str, Any]) -> str:
    called = ", ".join(powers.called(each["member"], each["key_id"]) for each in row["keys"])
    lost = ", ".join(each[:16] for each in row["lost"])
    return f"{called}, called lost: {lost}" if lost else called


def _read(file: Path) -> Draft:
    return draft.read_draft(file.read_bytes())


def _operates(given: Everywhere) -> bool:
    return (operator_folder(given.home) / "log.key").is_file()


def _operator(given: Everywhere) -> OperatorHome:
    return operator_home(given.home)


def _base(given: Everywhere, bureau: str | None) -> tuple[Opened | None, bool]:
    """Open the newest signed directory that this party has, and say whether it may be stale: the bus was not heard."""
    if bureau is None and _operates(given):
        home = _operator(given)
        answered = asyncio.run(if_it_answers(proposing.standing(home), _MEANWHILE))
        return home.versions.guard().opened, not answered
    member = member_home(given.home, bureau)
    if member.settings.bus_kind == "kafka" and not member.settings.tls:
        answer.aside("this home has no certificate for the bus yet: this is what is known here")
        return member.versions.guard().opened, True

    async def follow() -> None:
        # Before it has entered the newest directory does not list it: it reads what everybody may read.
        alone = World((member.member,), ())
        async with open_bus(member.folder, member.settings, streams.adapter(member.member), alone) as bus:
            await member.versions.follow(bus)
            await member.versions.take_missing(bus)

    answered = asyncio.run(if_it_answers(follow(), _MEANWHILE))
    return member.versions.guard().opened, not answered
