"""An adapter of your own, whole: stolen boats of a file with commas.

Copy it, and change what stands above `read`. `.venv/bin/python docs/own_adapter.py boats.csv LV/ncb` publishes what is
new, changed or gone since its last run, for the home that VALISE_HOME names. It exits 0 where all of the file is
published, and 1 where a line was refused, which is named, or the whole run. With `--drafts` it publishes nothing, and
writes what it makes of the lines: `… --drafts | valise publish --dry-run - --bureau LV/ncb`.
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import click

from adapters import terms, values
from adapters.adapter import Draft, Rejected, SourceReport
from adapters.changes import changes
from adapters.fields import FieldError, Fields
from adapters.kinds import kinds
from adapters.outbox import Published, Refusal, Result
from broker.errors import ValiseError
from cli import answer, exits, refused
from cli.home import MemberHome, member_home
from cli.options import default_home

SOURCE = "boats"
"""What this source is called, for ever: by it the outbox knows what stands published from here."""
ENCODING = "utf-8-sig"  # cp1252 of older systems
DELIMITER = ","
COLUMNS = ("id", "name", "facts", "audience", "deny", "handling")
"""What the file has to have: without its column nothing would be denied, and nobody told."""
MORE = "more columns"


def _record(row: Fields) -> str:
    """Name the record: the same boat, the same record, for ever."""
    return f"boat-{row.need('id')}"


def _draft(row: Fields, record: str) -> Draft:
    """Translate a line. Every column is taken, or skipped for a reason; what is left over is reported."""
    row.skip("clerk", "no business of others")
    boat = values.tidy(
        names=[values.other_name(row.need("name"))], category="boat", registration=row.take("registration")
    )
    return Draft(
        record=record,
        kind="object",
        topics=("stolen.boat",),
        purpose="criminal-investigation",
        legal_basis="in words: the law that lets you share this",
        audience=terms.audience(row, "audience"),  # everyone; or agreement:NAME, to:GE, to:GE/ncb, with blanks between
        deny=terms.denied(row, "deny"),
        handling=terms.handling(row, "handling"),
        minor="no",  # of a boat; of persons: values.minor(births, today), or they are shown to few as of unknown age
        compartments=values.compartments(identity=boat, narrative=values.items([values.text(row.need("facts"))])),
    )


def read(file: Path, report: SourceReport) -> Iterator[Draft | Rejected]:
    """Give a draft of each line, or say why there is none; a line that is wrong stops no other.

    What names no record, as a line or a file that was cut off, lets nobody take what is lacking for withdrawn.
    """
    text = file.read_text(encoding=ENCODING)
    if not text.endswith("\n"):
        yield report.count(Rejected(file.name, "file", "cut off: it does not end with a line break"))
        return
    rows = csv.DictReader(StringIO(text, newline=""), restkey=MORE, strict=True, delimiter=DELIMITER)
    try:
        if wrong := _unsound(rows.fieldnames or ()):
            yield report.count(Rejected(file.name, "header", wrong))
            return
        for number, line in enumerate(rows, 2):
            yield report.count(_line(line, f"line {number}", report))
    except csv.Error:
        yield report.count(Rejected(file.name, "file", f"a stray quote at line {rows.line_num}"))


def _unsound(columns: Sequence[str]) -> str | None:
    """Say why no line under this header can be believed; None if that is not so."""
    if lacking := [each for each in COLUMNS if each not in columns]:
        return f"no column {', '.join(lacking)}; is it a file with {DELIMITER!r} between its columns?"
    return None if len(set(columns)) == len(columns) else "two columns have one name: the last would empty the first"


def _line(line: dict[str, str | None], place: str, report: SourceReport) -> Draft | Rejected:
    if MORE in line or None in line.values():
        return Rejected(place, "row", "not as many columns as the header")
    row, record = Fields(line, report), None
    try:
        record = _record(row)
        made = _draft(row, record)
        row.close()
    except FieldError as error:
        return Rejected(place, error.field, error.reason, record)
    return made


async def run(home: MemberHome, file: Path, report: SourceReport) -> list[Result]:
    """Compare the file with what stands published from it, and publish the difference."""
    async with home.bus() as bus:
        await home.versions.follow(bus)
        with home.outbox() as outbox:
            await home.learn(bus, outbox)  # what became of the last run's notices
            before = outbox.published(SOURCE)  # taken before the file is read
            found = changes(before, read(file, report), kinds=kinds(outbox.database, SOURCE), report=report)
            results = outbox.apply(found, SOURCE, previous=before)
            await home.flush(bus, outbox)
            return results


@contextmanager
def told() -> Iterator[None]:
    """Say what stops a run and end it: run-refused, unavailable …; what was published before stands as it is."""
    try:
        with refused.here():
            yield
    except ValiseError as error:
        answer.aside(f"{error.code}: {error}")
        raise click.exceptions.Exit(exits.of(error)) from error


def show(file: Path) -> None:
    """Write what is made of the file, as drafts in JSON, and the report beside it."""
    report = SourceReport()
    with told():
        answer.say(answer.in_json([asdict(each) for each in read(file, report) if isinstance(each, Draft)], indent=2))
    answer.aside(report.table())
    exits.end(exits.FAILED if report.rejected else exits.DONE)


@click.command()
@click.option("--drafts", is_flag=True, help="Publish nothing: write the drafts, for `valise publish --dry-run -`.")
@click.argument("file")
@click.argument("bureau")
def main(file: str, bureau: str, *, drafts: bool) -> None:
    """Publish for BUREAU (AT/ncb) what is new, changed or gone in FILE; say what became of every column and line."""
    if drafts:
        show(Path(file))
        return
    report, results = SourceReport(), list[Result]()
    try:
        with told():
            results = asyncio.run(run(member_home(default_home(), bureau), Path(file), report))
    finally:
        answer.say(report.table())
    for each in results:
        if isinstance(each, Published):
            answer.say(f"published: {each.kind} {each.id} (record {each.record}, version {each.version})")
            answer.say(f"  what becomes of it: valise trace {each.record} --bureau {bureau}")
    wrong = [each for each in results if isinstance(each, Refusal)]
    for each in wrong:
        answer.say(f"refused: {each.record}: {each.code}: {each.reason}")
    published = sum(isinstance(each, Published) for each in results)
    unchanged = len(results) - published - len(wrong)
    answer.say(f"{published} published, {len(wrong)} refused, {unchanged} stand as they are")
    exits.end(exits.FAILED if wrong or report.rejected else exits.DONE)


if __name__ == "__main__":
    main()
