"""`valise audit export`: one file about notices that a colleague checks offline."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from broker import bundle, codec, durable
from broker.bundle import Bundle, Manifest
from broker.errors import ConfigurationError, TrailError
from broker.notice import DecisionRecord, Header, Leaf
from broker.signing import decision_digest
from broker.witnessed import to_prove_with
from cli import answer
from cli.auditor import content
from cli.auditor.looks import Looked, Why, asks, looked
from cli.auditor.opened import Opened, opened_about
from cli.officer import in_force
from cli.operator_home import operator_home
from cli.options import Everywhere, everywhere

RECORDED = ("routed", "held")


@click.command()
@click.argument("notices", nargs=-1, required=True, metavar="NOTICE…")
@click.option("--to", "file", required=True, type=click.Path(path_type=Path), help="The file to write.")
@click.option("--digests-only", is_flag=True, help="No header, routing or content: leaves, proofs, rows, receipts.")
@asks
@everywhere
def export(given: Everywhere, notices: tuple[str, ...], file: Path, digests_only: bool, why: Why) -> None:
    """Write what is on record about notices into one file, for `valise audit verify FILE --vkey FILE`.

    With data the broker first records who looks, and why, as a leaf of the trail; the issuers are told. This
    alone opens the bus that the home's settings name, and asks first where the key does not lie in that home.
    """
    there = f"{file} is there already: name another, or remove it"
    if os.path.lexists(file):  # before a look is on record
        raise ConfigurationError(there)
    with opened_about(given.home, notices[0]) as home:
        leaves = _leaves(home, notices)
        asked = {} if digests_only else _by_member(leaves)
    looks = [] if digests_only else looked(operator_home(given.home), asked, why, yes=given.yes)
    with opened_about(given.home, notices[0]) as home:  # anew: the looks are on record by now, and go along
        made = _bundle(home, _leaves(home, notices), looks)
    data = made.written()
    try:
        durable.write_new(file, data)
    except FileExistsError as error:
        raise ConfigurationError(there) from error
    answer.show(
        _first(made, file, looks),
        {
            "file": str(file),
            "bytes": len(data),
            "data": made.manifest.data,
            "notices": list(made.manifest.notices),
            "leaves": sum(each.startswith("leaf/") for each in made.parts),
            "looks": [each.leaf_number for each in looks],
        },
        as_json=given.as_json,
        then=f"valise audit verify {shlex.quote(str(file))} --vkey FILE",
    )


def _first(made: Bundle, file: Path, looks: list[Looked]) -> str:
    leaves = sum(each.startswith("leaf/") for each in made.parts)
    what = f"{answer.count(len(made.manifest.notices), 'notice')}, {answer.count(leaves, 'leaf', 'leaves')}"
    if made.manifest.data == "digests":
        return f"{file}: {what}, digests only"
    numbers = ", ".join(str(each.leaf_number) for each in looks)
    return f"{file}: {what}, with data; the look is on record as leaf {numbers}"


@dataclass(frozen=True, slots=True)
class _Leaf:
    number: int
    own: bool
    leaf: Leaf
    salt: bytes
    record: bytes
    decision: DecisionRecord


def _leaves(home: Opened, notices: Iterable[str]) -> list[_Leaf]:
    """Find all leaves of the notices and about them. Raises NoSuchNoticeError."""
    found: dict[int, _Leaf] = {}
    for name in notices:
        numbers = home.stories.find(name)
        made = [_leaf(home, each) for each in numbers]
        if not any(each.own for each in made):
            raise home.no_such_notice()
        found |= {each.number: each for each in made}
    return [found[each] for each in sorted(found)]


def _leaf(home: Opened, number: int) -> _Leaf:
    leaf = codec.decode(Leaf, home.trail.entry(number))
    kept = home.records.get(number)
    if kept is None:
        message = f"the decision record of leaf {number} is missing"
        raise TrailError(message)
    # What goes out is what the trail commits to, and not what else lies in the file: it may be a link to another's.
    if decision_digest(*kept) != leaf.decision:
        message = f"the decision record of leaf {number} is not the one that it commits to"
        raise TrailError(message)
    decision = codec.decode(DecisionRecord, kept[1])
    return _Leaf(number, leaf.kind in RECORDED and bool(decision.header), leaf, kept[0], kept[1], decision)


def _by_member(leaves: list[_Leaf]) -> dict[str, list[int]]:
    """Sort the leaves whose records tell a notice by whose it is, also of its end: each issuer is told of its own."""
    found: dict[str, list[int]] = {}
    for each in leaves:
        if each.decision.header:
            found.setdefault(codec.decode(Header, each.decision.header).member, []).append(each.number)
    return found


def _bundle(home: Opened, leaves: list[_Leaf], looks: list[Looked]) -> Bundle:
    """Put a bundle together; without a look of digests only."""
    numbers = [each.number for each in leaves]
    # What came on record since the looks were asked for is in none of them: of that, too, digests only.
    seen = {number for each in looks for number in each.leaves}
    clear = {each.number for each in leaves if each.number in seen or not each.decision.header} if looks else set()
    size, checkpoint = to_prove_with(home.trail, max(numbers, default=0))
    parts = {"checkpoint": checkpoint.encode()}
    proofs = home.trail.proofs(numbers, size, checkpoint)
    for each, proof in zip(leaves, proofs, strict=True):
        parts |= bundle.leaf_parts(each.number, home.trail.entry(each.number), proof)
        parts |= _data(home, each) if each.number in clear else _digests(each)
    for content_of in _directories(home, leaves):
        parts |= bundle.directory_part(content_of)
    manifest = Manifest(
        origin=home.trail.origin,
        data="clear" if looks else "digests",
        notices=tuple(each.number for each in leaves if each.own),
        size=size,
    )
    return Bundle(manifest, parts)


def _digests(leaf: _Leaf) -> dict[str, bytes]:
    """Give what names nobody and says nothing of a notice: its rows; of a receipt or look all of it."""
    if leaf.decision.header:
        return bundle.row_parts(leaf.number, leaf.decision) if leaf.leaf.rows is not None else {}
    return bundle.decision_part(leaf.number, leaf.salt, leaf.record) if leaf.leaf.kind in ("receipt", "look") else {}


def _data(home: Opened, leaf: _Leaf) -> dict[str, bytes]:
    parts = bundle.decision_part(leaf.number, leaf.salt, leaf.record)
    if leaf.own:
        header = codec.decode(Header, leaf.decision.header)
        held = content.envelope(home.folder, header.issuer, header.notice_id)
        if held and held.header == leaf.decision.header:
            parts |= bundle.envelope_part(leaf.number, held)
    return parts


def _directories(home: Opened, leaves: list[_Leaf]) -> Iterator[bytes]:
    for digest in sorted({each.leaf.directory for each in leaves}):
        # What only bears this name may be a link to a file of the auditor's own, who hands the bundle on.
        yield in_force.found(home.versions.content(digest), "directory", digest)
