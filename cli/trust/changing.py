"""Drafts of one change: a member or agreement suspended or taken up again, an agreement made, joined or left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from broker.errors import ConfigurationError
from cli import answer
from cli.directory import tell
from cli.operator_home import operator_home
from cli.options import Everywhere
from cli.trust import proposing
from cli.trust.unexecuted import unexecuted

Change = Callable[[dict[str, Any]], None]


def draft_change(given: Everywhere, title: str, change: Change, **more: Any) -> None:
    """Draft the directory in force with one change, and say who must sign it (operator).

    Raises ConfigurationError where nothing was signed yet, or nothing would change.
    """
    home = operator_home(given.home)
    base = asyncio.run(proposing.standing(home)).opened
    if base is None:
        message = "there is no signed directory yet: `valise directory draft` makes the first"
        raise ConfigurationError(message)
    wanted = json.loads(base.plain)
    change(wanted)
    path = asyncio.run(proposing.change(home, title, wanted, base, **more))
    tell(given, path, base, f"drafted, and not in force before members sign it: {title}")


def with_status(part: str, name: str, status: str) -> Change:
    """Give a member or an agreement a status."""

    def change(wanted: dict[str, Any]) -> None:
        found = named(wanted, part, name)
        if found["status"] == status:
            message = f"{name} is {status} already"
            raise ConfigurationError(message)
        found["status"] = status

    return change


def named(wanted: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    """Find a member or an agreement. Raises ConfigurationError."""
    found = next((each for each in wanted[part] if each["id"] == name), None)
    if found is None:
        message = f"there is no {part.removesuffix('s')} {name}: see `valise {part.removesuffix('s')} list`"
        raise ConfigurationError(message)
    entry: dict[str, Any] = found
    return entry


def check_executed(given: Everywhere, member: str) -> None:
    """Refuse to cut a member off while it owes an answer to a withdrawal. Raises ConfigurationError with the list."""
    owed = unexecuted(operator_home(given.home).folder, member)
    if owed:
        lines = [f"  {each.bureau}: {each.notice} of {each.issuer} (leaf {each.leaf_number})" for each in owed]
        many = answer.count(len(owed), "withdrawal")
        message = f"{member} has not executed {many}; it would keep what was withdrawn:"
        raise ConfigurationError("\n".join([message, *map(answer.safe, lines)]))
