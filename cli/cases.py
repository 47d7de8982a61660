"""`valise cases`: for which cases a bureau opened what was delivered to it; only the bureau knows, and may tell."""

from __future__ import annotations

import json
import shlex
import uuid
from pathlib import Path
from typing import Any

import click

from adapters.inbox import OpenedFor
from broker import durable
from broker.errors import ConfigurationError
from cli import answer
from cli.home import member_home
from cli.options import Everywhere, bureau, everywhere

FORMAT = "valise/cases/1"


@click.command()
@click.option("--to", "file", type=click.Path(path_type=Path), help="Write them there, for an auditor to hold against "
              "the digests on record.")  # fmt: skip
@bureau
@everywhere
def cases(given: Everywhere, file: Path | None, bureau: str | None) -> None:
    """List for which cases the bureau opened what. On record is a salted digest of each case number, nothing else."""
    home = member_home(given.home, bureau)
    with home.inbox() as box:
        found = [_value(each) for each in box.opened_for()]
    if file:
        written = {"format": FORMAT, "bureau": home.bureau, "cases": found}
        try:
            durable.write_new(file, json.dumps(written, ensure_ascii=False, indent=1).encode() + b"\n")
        except FileExistsError as error:
            message = f"{file} is there already: name another, or remove it"
            raise ConfigurationError(message) from error
    opened, numbers = answer.count(len(found), "notice"), len({each["case"] for each in found})
    first = f"{home.bureau} opened {opened} for {answer.count(numbers, 'case')}"
    answer.show(
        f"{first}: {file}" if file else first,
        found,
        as_json=given.as_json,
        table=None if file else answer.Table(("at", "case", "notice", "leaf"), [_row(each) for each in found]),
        then=f"valise audit reads --cases {shlex.quote(str(file))}"
        if file
        else given.again(f"valise cases --bureau {home.bureau} --to FILE"),
    )


def _value(each: OpenedFor) -> dict[str, Any]:
    return {
        "case": each.reference,
        "digest": each.digest.hex(),
        "salt": each.salt.hex(),
        "at": answer.when(each.at),
        "notice": str(uuid.UUID(bytes=each.notice_id)),
        "leaf": each.leaf_number,
    }


def _row(value: dict[str, Any]) -> tuple[str, ...]:
    return value["at"], value["case"], value["notice"], str(value["leaf"])
