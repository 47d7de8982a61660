"""Prints answers: the answer, a table, the next command; or one JSON value.

All that a command prints goes through here (tests/test_architecture.py): much of it others wrote. Whoever reads may
stop (`| head`): what is left of an answer then goes nowhere, and the command ends with the exit code of its work.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from broker.moments import moment

LEAST_WIDTH = 40
"""columns of a table on a terminal, at least: a narrower one breaks its lines"""
_BLANKS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0]")
"""Letters and marks that nobody sees, and by which two names that look the same are not: fillers, blanks, joiners."""
FILE_WIDTH = 160
"""columns of a table that goes into a file or a pipe"""


@dataclass(frozen=True, slots=True)
class Table:
    """Column titles and rows of text."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]


def show(
    first: str,
    value: Any,
    *,
    as_json: bool,
    table: Table | None = None,
    then: str = "",
    beside: Mapping[str, bool | int] | None = None,
) -> None:
    """Print an answer. With `as_json` only `value`, on one line: an object, which says of itself if it is stale or cut.

    A few commands of before answer with a list, which cannot, and scripts read it: what is to be said of it, `beside`,
    is then one object on stderr, where any of it is so.
    """
    if as_json:
        say(in_json(value))
        if beside and any(beside.values()):
            aside(in_json(beside))
        return
    say(first)
    if table and table.rows:
        _print(table)
    if then:
        say(then)


def say(text: str) -> bool:
    """Print what was asked for; False where nobody reads it any more, by which a stream of answers has to end.

    A line break in it is one on the terminal: see `one_line`.
    """
    return _write(safe(text))


def aside(text: str) -> None:
    """Print on stderr what goes beside the answer: a failure, a warning, how far it is."""
    _write(safe(text), err=True)


def _write(text: str, *, err: bool = False) -> bool:
    """Write a line. Whoever read may be gone: all that follows goes nowhere, and no work stops or fails by it.

    Nor by a log that lies on a full disk: what goes beside the answer is lost then, and comes again once there is room.
    """
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        file = sys.stderr if err else sys.stdout
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())  # what is still in its buffer, too
        os.close(nowhere)
        return False
    except OSError:
        if not err:
            raise
        return False
    return True


def in_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON, on one line without `indent`; what a terminal would obey is escaped, not lost."""
    text = json.dumps(value, ensure_ascii=False, default=plain, indent=indent)
    if _is_printable(text):
        return text
    # Only within its strings JSON has what is not printable, but for the line breaks of the indentation.
    return "".join(each if _is_seen(each) or each == "\n" else json.dumps(each)[1:-1] for each in text)


def _print(table: Table) -> None:
    from rich.console import Console  # noqa: PLC0415 -- a tenth of a second that most commands need not pay
    from rich.table import Table as RichTable  # noqa: PLC0415

    from cli import narrow  # noqa: PLC0415 -- it needs rich, too

    # Text from elsewhere may hold what rich or a terminal would take for a command.
    rows = [[one_line(each) for each in row] for row in table.rows]
    console = Console()
    console.width = max(console.width, LEAST_WIDTH) if console.is_terminal else FILE_WIDTH
    if console.is_terminal and narrow.width([table.titles, *rows]) > console.width:
        _write("\n".join(narrow.lines(table.titles, rows, console.width)))
        return
    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    for title in table.titles:
        # An id that is broken over lines cannot be copied: the other columns give way.
        drawn.add_column(title, overflow="fold", no_wrap=title == "notice")
    for row in rows:
        drawn.add_row(*map(_cell, row))
    with console.capture() as printed:  # rich itself would end the command with 1 where nobody reads any more
        console.print(drawn, markup=False)
    _write(printed.get().removesuffix("\n"))


def _cell(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415

    return Text(text)


def columns() -> int | None:
    """Tell how wide the terminal is that answers go to; None where they go elsewhere, and no line is folded."""
    try:
        return max(os.get_terminal_size(sys.stdout.fileno()).columns, LEAST_WIDTH) if sys.stdout.isatty() else None
    except OSError:
        return None


def safe(text: str) -> str:
    """Take out what a terminal would obey; line breaks stay."""
    if _is_printable(text):
        return text
    return "".join(each if _is_seen(each) or each == "\n" else "�" for each in text)


def _is_printable(text: str) -> bool:
    """Say whether a terminal obeys nothing in it but line breaks: most is so, and of many MB no list is made."""
    return _is_seen(text.replace("\n", ""))


def _is_seen(text: str) -> bool:
    return text.isprintable() and (text.isascii() or not _BLANKS.search(text))


def one_line(text: str) -> str:
    """Make one field that others wrote safe: with a line break in it, it could pose as the lines that follow it."""
    return safe(text.replace("\n", " ⏎ "))


def plain(value: Any) -> Any:
    """Make JSON of what JSON has no word for."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def count(number: int, one: str, many: str = "") -> str:
    """Write a number of things: `one` names one of them, `many` several, by default with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def when(ms: int | None) -> str:
    """Write a time for people, in UTC."""
    if ms is None:
        return "–"
    at = moment(ms)
    return at.strftime("%Y-%m-%d %H:%M:%S") if at else f"{ms} ms"


def iso(ms: int, timespec: str = "milliseconds") -> str:
    """Write a time as ISO 8601 has it, in UTC."""
    at = moment(ms)
    return at.isoformat(timespec=timespec) if at else f"{ms} ms"
