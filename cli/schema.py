"""`valise schema`: the schemas of what travels, with examples, and a check of a draft against them."""

from __future__ import annotations

import shlex
from typing import IO, Any

import click

from adapters.adapter import Draft
from broker import codec
from broker.errors import ConfigurationError, NoticeRejectedError
from broker.notice import KINDS
from cli import answer, drafts, exits
from cli.options import Everywhere, Group, everywhere
from schemas import loader


@click.group(cls=Group)
def schema() -> None:
    """List, show and check schemas."""


@schema.command("list")
@everywhere
def list_schemas(given: Everywhere) -> None:
    """List the schemas: bodies by kind and compartment, and what carries them."""
    rows = [_row(name, version) for name, version in loader.names()]
    answer.show(
        f"{len(rows)} schemas",
        rows,
        as_json=given.as_json,
        table=answer.Table(
            ("schema", "version", "fingerprint", "what it is"),
            [(row["name"], row["version"], row["fingerprint"], row["doc"]) for row in rows],
        ),
        then=given.again("valise schema show person --example"),
    )


def _row(name: str, version: str) -> dict[str, Any]:
    doc = str(loader.load(name, version).get("doc", ""))
    return {"name": name, "version": version, "fingerprint": codec.fingerprint(name, version).hex(), "doc": doc}


@schema.command()
@click.argument("name")
@click.option("--example", is_flag=True, help="Print an invented value; for a kind, a draft that can be published.")
@everywhere
def show(given: Everywhere, name: str, example: bool) -> None:
    """Show a schema by NAME (person.identity, header …), or all of a kind (person)."""
    value = _kind(name, example=example) if name in KINDS else _single(name, example=example)
    answer.say(answer.in_json(value, indent=None if given.as_json else 2))


def _kind(name: str, *, example: bool) -> dict[str, Any]:
    if not example:
        return {part: loader.load(f"{name}.{part}") for part in KINDS[name]}
    return {
        "record": f"YOUR-{name.upper()}-1",  # its own for each kind: of one name they would be versions of one record
        "kind": name,
        "topics": ["wanted.red"],
        "purpose": "criminal-investigation",
        "legal_basis": "in words: the law that lets you share this",
        "audience": "everyone",
        "handling": ["H0"],
        "confidentiality": "restricted",
        "subject_categories": ["suspect"],
        "minor": "no",
        "compartments": {part: loader.example(f"{name}.{part}") for part in KINDS[name]},
    }


def _single(name: str, *, example: bool) -> dict[str, Any]:
    try:
        return loader.example(name) if example else loader.load(name)
    except KeyError as error:
        what = "example of" if example and name in {known for known, _ in loader.names()} else "schema"
        message = f"no {what} {name}: see `valise schema list`"
        raise ConfigurationError(message) from error


@schema.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@everywhere
def check(given: Everywhere, file: IO[str]) -> None:
    """Check the drafts in FILE: schemas, words, lengths. Nothing is sent.

    Whether the members, bureaus and agreements that they name exist only `publish --dry-run` knows.
    """
    from adapters.compose import check_words  # noqa: PLC0415

    read = drafts.load(file)
    problems: list[dict[str, str]] = []
    for draft in read:
        try:
            check_words(draft)
        except NoticeRejectedError as error:
            problems.append({"record": draft.record, "code": error.code, "detail": _said(draft, error)})
    answer.show(
        f"{answer.count(len(read), 'draft')}, {len(problems)} with problems",
        {"drafts": len(read), "problems": problems},
        as_json=given.as_json,
        table=answer.Table(("record", "code", "detail"), [tuple(each.values()) for each in problems]),
        then="" if problems else given.again(_try(drafts.name_of(file), read)),
    )
    if problems:
        raise click.exceptions.Exit(exits.FAILED)


def _try(file: str, read: list[Draft]) -> str:
    named = {each.bureau or "MEMBER/NAME" for each in read}
    bureau = named.pop() if len(named) == 1 else "MEMBER/NAME"
    return f"valise publish {shlex.quote(file)} --dry-run --bureau {shlex.quote(bureau)}"


def _said(draft: Draft, error: NoticeRejectedError) -> str:
    from adapters.wrong import why  # noqa: PLC0415

    said = why(draft, error)
    return f"{said} ({error.__cause__})" if error.__cause__ else said
