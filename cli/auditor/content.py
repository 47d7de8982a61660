"""What the broker still holds of a notice in clear: its envelope, while the notice is in force."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from broker import avro, codec, reading
from broker.errors import ConfigurationError, NoticeRejectedError
from broker.notice import ROUTING, Compartment, Envelope, Header, Standing
from broker.register import notice_key


def envelope(operator: Path, issuer: str, notice_id: bytes) -> Envelope | None:
    """Give a notice's envelope as it arrived; None once it has ended, or was never taken in."""
    file = operator / "register.db"
    try:
        with closing(reading.database(file)) as database:
            row = database.execute("SELECT value FROM entry WHERE key = ?", (notice_key(issuer, notice_id),)).fetchone()
    except (sqlite3.Error, OSError) as error:
        message = f"{file} cannot be read ({error}): name the operator's home with --home"
        raise ConfigurationError(message) from error
    standing = codec.decode(Standing, bytes(row[0])) if row else None
    return codec.decode(Envelope, standing.envelope) if standing and standing.envelope else None


def opened(held: Envelope) -> dict[str, Any]:
    """Open every compartment but routing that carries something."""
    kind = codec.decode(Header, held.header).kind
    parts = codec.decode_compartments(held.compartments)
    return {each.name: _body(kind, each) for each in parts if each.name != ROUTING and each.opened}


def _body(kind: str, part: Compartment) -> dict[str, Any]:
    assert part.opened is not None
    try:
        return avro.read(f"{kind}.{part.name}", part.opened.data)
    except NoticeRejectedError as error:
        return {"unreadable": error.code}


def brief(value: Any) -> Any:
    """Leave out what says nothing, for people; --json has all of it."""
    if isinstance(value, dict):
        kept = {name: brief(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in (None, [], {})}
    return [brief(each) for each in value] if isinstance(value, list) else value
