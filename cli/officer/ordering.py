"""`valise withdraw --order`: an authority withdraws another's notice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from adapters.order import Order, order
from broker.errors import ConfigurationError
from cli import exits
from cli.inbox import collect
from cli.publish import NoSuchNoticeError, confirm_withdrawal, finish, send

if TYPE_CHECKING:
    from cli.home import MemberHome
    from cli.options import Everywhere


def by_order(given: Everywhere, home: MemberHome, notice: str, wait: float) -> None:
    """Withdraw what was delivered here and is another's. Raises NoSuchNoticeError, ConfigurationError."""
    collected = asyncio.run(collect(home))
    made = _order(home, notice)
    if not given.yes:
        confirm_withdrawal(notice)
    finish(given, home, asyncio.run(send(home, lambda outbox: [outbox.order(made)], wait)))
    exits.end(collected.code_of_act)


def _order(home: MemberHome, notice: str) -> Order:
    if not home.versions.newest().may_order(home.bureau):
        message = f"{home.bureau} is no authority: all members together would have to name it (valise directory draft)"
        raise ConfigurationError(message)
    with home.inbox() as box:
        line = box.find(notice)
        opened = box.open(line.number) if line else None
    if line is None:
        raise NoSuchNoticeError
    if opened is None:
        message = f"{line.id} is {line.state}: nothing is kept here of what an order would have to name"
        raise ConfigurationError(message)
    return order(opened.header, line.header_digest, home.bureau)
