"""`valise agreement`: the circles of members, and drafts that change them; each needs the signatures that it names."""

from __future__ import annotations

from typing import Any

import click

from broker.errors import ConfigurationError
from cli import answer, exits
from cli.members import newest
from cli.options import Everywhere, Group, bureau, everywhere
from cli.trust.changing import Change, draft_change, named, with_status

LEAST = 2
"""Members of an agreement."""
_NAME = click.argument("name", metavar="AGREEMENT")


@click.group(cls=Group)
def agreement() -> None:
    """List agreements, and draft what changes them."""


@agreement.command("list")
@bureau
@everywhere
def list_agreements(given: Everywhere, bureau: str | None) -> None:
    """List the agreements, their basis and members."""
    directory, stale = newest(given.home, bureau)
    found = [each for _, each in sorted(directory.agreements.items())]
    rows = [
        {
            "id": each.id,
            "title": each.title,
            "basis": each.basis,
            "status": each.status,
            "members": sorted(each.members),
        }
        for each in found
    ]
    answer.show(
        f"{answer.count(len(rows), 'agreement')}; directory version {directory.version}",
        {"version": directory.version, "agreements": rows, "stale": stale},
        as_json=given.as_json,
        table=answer.Table(
            ("agreement", "title", "status", "members"),
            [(each.id, each.title, each.status, ", ".join(sorted(each.members))) for each in found],
        ),
        then=given.again("valise member show AT"),
    )
    exits.end(exits.UNAVAILABLE if stale else exits.DONE)


@agreement.command()
@_NAME
@click.option("--title", required=True, help="What it is called.")
@click.option("--basis", required=True, help="Its legal basis, in words.")
@click.option(
    "--member", "members", multiple=True, required=True, help="A member that it binds; give it again for more."
)
@click.option(
    "--signatures", type=click.IntRange(min=1), default=2, show_default=True, help="How many must sign a change."
)
@everywhere
def add(given: Everywhere, name: str, title: str, basis: str, members: tuple[str, ...], signatures: int) -> None:
    """Draft a new agreement (operator); its own members sign it."""

    def change(wanted: dict[str, Any]) -> None:
        if any(each["id"] == name for each in wanted["agreements"]):
            message = f"there is an agreement {name} already"
            raise ConfigurationError(message)
        for each in members:
            named(wanted, "members", each)
        made = {"id": name, "title": title, "basis": basis, "members": list(members), "status": "active"}
        wanted["agreements"].append(made)

    draft_change(given, f"agreement {name} between {', '.join(members)}", change, signatures={name: signatures})


@agreement.command()
@_NAME
@everywhere
def suspend(given: Everywhere, name: str) -> None:
    """Draft that an agreement permits nothing new; withdrawals and corrections still flow."""
    draft_change(given, f"agreement {name} is suspended", with_status("agreements", name, "suspended"))


@agreement.command()
@_NAME
@everywhere
def resume(given: Everywhere, name: str) -> None:
    """Draft that a suspended agreement holds again."""
    draft_change(given, f"agreement {name} holds again", with_status("agreements", name, "active"))


@agreement.command()
@_NAME
@click.argument("member")
@everywhere
def join(given: Everywhere, name: str, member: str) -> None:
    """Draft that MEMBER joins; it must sign itself, whatever the threshold."""
    draft_change(given, f"{member} joins agreement {name}", _joining(name, member))


@agreement.command()
@_NAME
@click.argument("member")
@everywhere
def leave(given: Everywhere, name: str, member: str) -> None:
    """Draft that MEMBER leaves; as many must sign as the agreement names, MEMBER may be one of them."""

    def change(wanted: dict[str, Any]) -> None:
        circle = named(wanted, "agreements", name)
        if member not in circle["members"]:
            message = f"{member} is not in {name}"
            raise ConfigurationError(message)
        circle["members"].remove(member)
        if len(circle["members"]) < LEAST:
            message = f"{name} would bind nobody to anybody: `valise agreement suspend {name}`"
            raise ConfigurationError(message)

    draft_change(given, f"{member} leaves agreement {name}", change)


def _joining(name: str, member: str) -> Change:
    def change(wanted: dict[str, Any]) -> None:
        named(wanted, "members", member)
        circle = named(wanted, "agreements", name)
        if member in circle["members"]:
            message = f"{member} is in {name} already"
            raise ConfigurationError(message)
        circle["members"].append(member)

    return change
