"""`valise member`: who takes part, as the newest directory says, drafts that change it, invitations to enter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from adapters.versions import CalledLost, Versions
from broker import durable, streams
from broker import settings as settings_file
from broker.directory import Directory
from broker.errors import ConfigurationError
from broker.streams import World
from cli import answer, exits, keyring, seed
from cli.directory import FROM, REQUESTS, propose
from cli.home import if_it_answers, member_home, open_bus, say_called_lost, settling
from cli.operator_home import operator_home
from cli.options import Everywhere, Group, bureau, everywhere
from cli.trust import invitation, proposing
from cli.trust.changing import check_executed, draft_change, with_status
from cli.trust.signatories import found_in, is_of, of


@click.group(cls=Group)
def member() -> None:
    """List members and bureaus, invite who enters, and draft who enters or is suspended."""


@member.command("list")
@bureau
@everywhere
def list_members(given: Everywhere, bureau: str | None) -> None:
    """List the members of the federation."""
    directory, stale = newest(given.home, bureau)
    rows = [_row(directory, name) for name in sorted(directory.members)]
    held = f"{answer.count(len(rows), 'member')}, {answer.count(len(directory.bureaus), 'bureau')}"
    answer.show(
        f"{held}; directory version {directory.version}",
        {
            "federation": directory.federation, "version": directory.version, "digest": directory.digest,
            "members": rows, "stale": stale,
        },
        as_json=given.as_json,
        table=answer.Table(
            ("member", "name", "kind", "status", "bureaus"),
            [(row["id"], row["name"], row["kind"], row["status"], ", ".join(row["bureaus"])) for row in rows],
        ),
        then=given.again("valise member show AT"),
    )  # fmt: skip
    exits.end(exits.UNAVAILABLE if stale else exits.DONE)


def _row(directory: Directory, name: str) -> dict[str, Any]:
    found = directory.members[name]
    bureaus = [each.id.partition("/")[2] for each in directory.bureaus_of(name)]
    return {"id": found.id, "name": found.name, "kind": found.kind, "status": found.status, "bureaus": bureaus}


@member.command()
@click.argument("name", metavar="MEMBER")
@bureau
@everywhere
def show(given: Everywhere, name: str, bureau: str | None) -> None:
    """Show one member: its bureaus, mandates and keys, the agreements that it is in, and keys of it called lost."""
    directory, stale = newest(given.home, bureau)
    lost = _where(given.home, bureau)[0].called_lost(name)
    if name not in directory.members:
        message = f"no member {name}: see `valise member list`"
        raise ConfigurationError(message)
    keys: dict[str, list[dict[str, Any]]] = {}
    for each in directory.keys.values():
        until = answer.when(each.valid_until)
        keys.setdefault(each.bureau, []).append({"key_id": each.key_id.hex(), "until": until})
    bureaus: list[dict[str, Any]] = [
        {
            "id": each.id,
            "name": each.name,
            "mandates": sorted(each.mandates),
            "languages": list(each.languages),
            "certified": each.certified,
            "keys": keys.get(each.id, []),
        }
        for each in directory.bureaus_of(name)
    ]
    agreements = sorted(each.id for each in directory.agreements.values() if name in each.members)
    found = directory.members[name]
    answer.show(
        f"{name}: {found.name}, {found.kind}, {found.status}; agreements: {', '.join(agreements) or 'none'}"
        + "".join(_called_lost(name, each, lost) for each in lost.keys),
        {**_row(directory, name), "bureaus": bureaus, "agreements": agreements, "lost": lost.keys, "stale": stale},
        as_json=given.as_json,
        table=answer.Table(
            ("bureau", "mandates", "languages", "key", "until"),
            [
                (
                    each["id"], ", ".join(each["mandates"]), ", ".join(each["languages"]),
                    each["keys"][0]["key_id"][:16] if each["keys"] else "none",
                    each["keys"][0]["until"] if each["keys"] else "–",
                )
                for each in bureaus
            ],
        ),
        then=given.again("valise member list"),
    )  # fmt: skip
    exits.end(exits.UNAVAILABLE if stale else exits.DONE)


def _called_lost(name: str, key: str, found: CalledLost) -> str:
    speaking = ", ".join(each[:16] for each in found.speaking)
    return (
        f"\nits key {key[:16]} for directories is called lost; {speaking} speaks for it, by the word of the root's "
        f"holders: ask {name} by another way whether that is its own"
    )


_NAME = click.argument("name", metavar="MEMBER")


@member.command()
@_NAME
@FROM
@REQUESTS
@everywhere
def add(given: Everywhere, name: str, file: Path | None, requests: tuple[Path, ...]) -> None:
    """Draft that MEMBER enters, from the requests that it made itself with `valise key new` (operator)."""
    home = operator_home(given.home)
    folders = requests or (home.folder.parent / "members",)
    base = asyncio.run(proposing.standing(home)).opened
    if base is not None and name in base.entered:
        message = (
            f"{name} has entered already: `valise directory draft` drafts its new bureaus and their keys, `valise "
            f"member rekey {name}` its keys for directories; `valise member show {name}` says how it stands"
        )
        raise ConfigurationError(message)
    if all(each.id != name for each in (seed.read(file) if file else seed.seed()).members):
        message = f"the federation's file has no member {name}: add it and its bureaus first, and name it with --from"
        raise ConfigurationError(message)
    if not any(is_of(each, name) for each in found_in(folders)):
        message = (
            f"{name} has not asked to enter: it makes its keys with `valise key new --bureau {name}/NAME` and sends "
        )
        raise ConfigurationError(
            message + f"its {name}.signatory.json and *.request.json; name their folder with --requests"
        )
    propose(given, file, requests)


@member.command()
@_NAME
@REQUESTS
@click.option(
    "--lost", is_flag=True, help="It has its key before no more: agreements that hang on that stay as they are."
)
@everywhere
def rekey(given: Everywhere, name: str, requests: tuple[Path, ...], *, lost: bool) -> None:
    """Draft that MEMBER speaks with the keys that it made with `valise key signatory` (operator).

    Without --lost it signs with those before, too. With it the directory says for good that the key before is lost.
    Whoever else signs asks it by another way whether that is so, and whether the new key, which the draft names, is its
    own.
    """
    home = operator_home(given.home)
    folders = requests or (home.folder.parent / "members",)
    base = asyncio.run(proposing.standing(home)).opened
    if base is None or name not in base.entered:
        message = f"{name} has not entered: `valise member add {name}` drafts that it does, with its first keys"
        raise ConfigurationError(message)
    asked = of([name], folders, home.settings.federation)
    if not asked:
        message = f"{name} has not asked for other keys: it makes them with `valise key signatory`; see --requests"
        raise ConfigurationError(message)
    kept = frozenset[str]() if lost else frozenset([name])
    new = list(asked.values())
    draft_change(given, f"{name} speaks with another key", lambda _: None, signatories=new, rotated=kept)


@member.command()
@_NAME
@everywhere
def suspend(given: Everywhere, name: str) -> None:
    """Draft that MEMBER sends and receives nothing new; refused while it has withdrawals to execute (operator)."""
    check_executed(given, name)
    draft_change(given, f"{name} is suspended", with_status("members", name, "suspended"))


@member.command()
@_NAME
@everywhere
def activate(given: Everywhere, name: str) -> None:
    """Draft that a suspended MEMBER takes part again (operator)."""
    draft_change(given, f"{name} takes part again", with_status("members", name, "active"))


@member.command()
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@everywhere
def invite(given: Everywhere, to: Path) -> None:
    """On Kafka: write the file with which members enter from machines of their own (operator). It holds no secret."""
    made, opened = asyncio.run(invitation.write(operator_home(given.home)))
    durable.put(to, made.content())
    if invitation.is_nearby(made.bus):
        answer.aside(
            f"{made.bus} is reached from this machine only: `valise broker init --advertise HOST` lets members "
            "elsewhere reach its nodes; nodes of your own are named by `--bus kafka:HOST:PORT` when you make the home"
        )
    held = f"directory version {opened.directory.version}" if opened else "no directory: none is in force yet"
    answer.show(
        f"wrote {to}: {made.federation} on {made.bus}, {held}",
        {
            "invitation": str(to),
            "federation": made.federation,
            "bus": made.bus,
            "version": opened.directory.version if opened else None,
        },
        as_json=given.as_json,
        then=f"send it to whoever enters, who takes it with `valise member accept {to.name} --bureau MEMBER/NAME`",
    )


@member.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@bureau
@everywhere
def accept(given: Everywhere, file: Path, bureau: str | None) -> None:
    """Take in the operator's invitation: it makes a member's home its settings, and brings the signed directory.

    Again with a newer one, until there is a certificate for the bus.
    """
    folder, name, known = settling(given.home, bureau)
    done = invitation.accept(folder, name, known, file)
    answer.show(
        "\n".join(_accepted(folder, done)),
        {
            "home": str(folder),
            "federation": done.settings.federation,
            "bus": done.settings.bus,
            "version": done.opened.directory.version if done.opened else None,
            "root": done.root or None,
            "pinned": done.pinned,
        },
        as_json=given.as_json,
        then=given.again(f"valise {_next(folder, name, done)} --bureau {name}"),
    )


def _accepted(folder: Path, done: invitation.Accepted) -> Iterator[str]:
    yield f"{folder} is a home of {done.settings.federation} on {done.settings.bus}"
    if done.opened is None:
        yield "there is no directory yet: whoever signs the first draft has read what it founds"
        return
    found = done.opened.directory
    held = f"{answer.count(len(found.members), 'member')}, {answer.count(len(found.bureaus), 'bureau')}"
    yield f"directory version {found.version}: {held}"
    if done.pinned:
        yield f"root {done.root}, pinned here"
    else:
        yield (
            f"root {done.root}: whether it is theirs only a member can tell you, not the operator (`valise directory "
            "status` there); nothing stands for true here before you pin what it tells you"
        )


def _next(folder: Path, name: str, done: invitation.Accepted) -> str:
    if not keyring.kept(folder, name):
        return "key new"
    return "directory status" if done.pinned or done.opened is None else "directory trust FINGERPRINT"


def newest(home: Path, bureau: str | None) -> tuple[Directory, bool]:
    """Give the newest directory, and whether it may be stale: what this home has kept, as the bus does not answer."""
    versions, folder, principal = _where(home, bureau)
    answered = asyncio.run(if_it_answers(_follow(versions, folder, principal), "this is what was known before"))
    if member := settings_file.load(folder).member:
        say_called_lost(folder, member, versions)
    return versions.newest(), not answered


def _where(home: Path, bureau: str | None) -> tuple[Versions, Path, str]:
    operator = home / "operator"
    if bureau is None and (operator / "settings.toml").is_file():
        return Versions(operator / "versions"), operator, streams.OPERATOR
    found = member_home(home, bureau)
    return found.versions, found.folder, streams.adapter(found.member)


async def _follow(versions: Versions, folder: Path, principal: str) -> None:
    settings = settings_file.load(folder)
    world = World((settings.member,) if settings.member else (), ())
    async with open_bus(folder, settings, principal, world) as bus:
        await versions.follow(bus)
