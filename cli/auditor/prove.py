"""`valise audit prove`: the inclusion proof of a leaf, for anybody who holds the log's public key."""

from __future__ import annotations

import shlex
from base64 import b64encode
from pathlib import Path

import click

from broker import notes
from broker.witnessed import to_prove_with
from cli import answer
from cli.auditor.opened import Opened, opened
from cli.options import Everywhere, everywhere


@click.command()
@click.argument("notice", metavar="NOTICE|LEAF")
@click.option("--to", "file", type=click.Path(path_type=Path), help="Write it there instead of printing it.")
@click.option("--shard", default=0, type=click.IntRange(min=0), help="Which shard's trail.")
@everywhere
def prove(given: Everywhere, notice: str, file: Path | None, shard: int) -> None:
    """Print the C2SP tlog-proof of a leaf; of a notice, that of its record leaf. The leaf goes along as `extra`.

    It is checked offline: `valise audit verify FILE --vkey FILE`, or by any reader of C2SP tlog-proof.
    """
    with opened(given.home, shard) as home:
        number = _number(home, notice)
        leaf = home.trail.entry(number)
        text = with_leaf(home.trail.prove(number, *to_prove_with(home.trail, number)), leaf)
    if file:
        file.write_text(text, encoding="utf-8")
        then = f"valise audit verify {shlex.quote(str(file))} --vkey FILE"
        answer.show(
            f"the proof of leaf {number} is in {file}", _value(number, leaf, text), as_json=given.as_json, then=then
        )
    else:
        answer.say(answer.in_json(_value(number, leaf, text)) if given.as_json else text.removesuffix("\n"))


def _value(number: int, leaf: bytes, text: str) -> dict[str, int | str]:
    return {"leaf": number, "entry": leaf.hex(), "proof": text}


def _number(home: Opened, notice: str) -> int:
    """Find the leaf of a number, or the first record leaf of a notice."""
    if notice.isdecimal() and int(notice) < home.trail.size:
        return int(notice)
    found = home.stories.find(notice)
    if not found:
        raise home.no_such_notice()
    return found[0]


def with_leaf(proof: str, leaf: bytes) -> str:
    """Put the leaf into a tlog-proof as its `extra` line (C2SP tlog-proof, "Format"): opaque to other readers."""
    head, rest = proof.split("\n", 1)
    assert head == notes.PROOF_HEAD
    return f"{head}\nextra {b64encode(leaf).decode()}\n{rest}"
