"""`valise schema`: the schemas of what travels, with examples, and a check of a draft against them."""

from __future__ import annotations

import shlex
from typing import IO, Any

import click

from adapters.adapter import Draft
from broker import avro
from broker.errors import ConfigurationError, NoticeRejectedError
from broker.notice import APPROVAL, KINDS, RELATION_OF_KIND, RELEASE
from cli import answer, drafts, exits
from cli.home import clock
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
    return {"name": name, "version": version, "fingerprint": avro.fingerprint(name, version).hex(), "doc": doc}


@schema.command()
@click.argument("name")
@click.option("--example", is_flag=True, help="Print an invented value; for a kind, a whole draft to change.")
@everywhere
def show(given: Everywhere, name: str, example: bool) -> None:
    """Show a schema by NAME (person.identity, header …), or all of a kind (person)."""
    value = _kind(name, example=example) if name in KINDS else _single(name, example=example)
    answer.say(answer.in_json(value, indent=None if given.as_json else 2))


def _kind(name: str, *, example: bool) -> dict[str, Any]:
    return example_of(name) if example else {part: loader.load(f"{name}.{part}") for part in KINDS[name]}


def example_of(name: str) -> dict[str, Any]:
    """Give an invented draft of a kind, as people write it."""
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
        **_reference(name),
    }


def _reference(kind: str) -> dict[str, Any]:
    """Give the fields in which a kind that changes another notice says which, and what it decides of it."""
    relation = RELATION_OF_KIND.get(kind)
    if relation is None:
        return {}
    record = "THEIR-RECORD-1" if kind == APPROVAL else f"YOUR-{kind.upper()}-1"  # what ends a record has its name
    pointer = {"issuer": "LV/ncb" if kind == APPROVAL else "", "record": record, "relation": relation}
    return {"pointers": [pointer]} | ({"action_sought": RELEASE} if kind == APPROVAL else {})


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
    """Check the drafts in FILE: schemas, words, references, sizes, dates. Nothing is sent.

    Whether members, bureaus, agreements and records that they name exist only `publish --dry-run` knows.
    """
    from adapters import alone  # noqa: PLC0415
    from broker.signing import SigningKey  # noqa: PLC0415 -- `list` and `show` need no cryptography

    read, key, now = drafts.load(file), SigningKey.new(), clock()
    problems: list[dict[str, str]] = []
    for draft in read:
        try:
            alone.check(draft, key, now)
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

    said = why(draft, error, "no directory can have all of it")
    return f"{said} ({error.__cause__})" if error.__cause__ else said
