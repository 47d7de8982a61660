"""What is handed on about notices, so that a colleague checks it offline: leaves, proofs, and what they commit to.

One file of canonical JSON: a manifest, and parts in base64. Nothing in it is believed: leaves are proven under the
checkpoint, which the log's public key signs; a directory is what its digest in a leaf says; decisions, rows, receipts,
looks and envelopes are what leaf and directory bear out. What a bundle cannot show is that nothing was left out of it:
that is for `examine`, over the whole trail.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker import codec, members, notes
from broker.directory import Directory
from broker.errors import NoticeRejectedError, ProofError, VersionRefusedError
from broker.merkle import check_inclusion, check_row, leaf_hash
from broker.notes import Checkpoint, Vkey
from broker.notice import DecisionRecord, Envelope, Leaf, Look, Receipt, Row, Statement, Verified
from broker.recorded import binds, header_in
from broker.route import Laid, Lines, lay, rows_hold
from broker.signing import decision_digest, header_digest
from broker.verify import Arrival, verify, verify_statement

FORMAT = "valise-bundle/1"
SIZE_LIMIT = 256 * 1024 * 1024
"""Bytes of a whole bundle."""
PARTS_LIMIT = 200_000
SALT = 32
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
T = TypeVar("T")


class Manifest(BaseModel):
    """What the bundle says it is about; every word of it is checked against the parts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    origin: str = Field(min_length=1, max_length=255)
    data: Literal["clear", "digests"]
    notices: tuple[int, ...] = Field(min_length=1)
    """Record leaves of the notices."""
    size: int = Field(ge=1)
    """Leaves under the checkpoint."""


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    format: Literal["valise-bundle/1"]
    manifest: Manifest
    parts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest and its parts, nothing checked."""

    manifest: Manifest
    parts: Mapping[str, bytes]

    def written(self) -> bytes:
        """Write it the one way: the same bundle is the same bytes."""
        parts = {name: b64encode(data).decode() for name, data in self.parts.items()}
        value = {"format": FORMAT, "manifest": self.manifest.model_dump(mode="json"), "parts": parts}
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def read(data: bytes) -> Bundle:
    """Read a bundle. Raises ProofError for anything that is none."""
    if len(data) > SIZE_LIMIT:
        message = f"a bundle of {len(data):,} bytes is over the limit of {SIZE_LIMIT:,}"
        raise ProofError(message)
    try:
        # A name given twice would mean one thing to us and another to the next reader.
        json.loads(data, object_pairs_hook=_no_name_twice)
        written = _Written.model_validate_json(data)
        parts = {name: b64decode(text, validate=True) for name, text in written.parts.items()}
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"][:2])) or "as a whole"
        message = f"not a bundle: {place}: {first['msg']}"
        raise ProofError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"not a bundle: {error}"
        raise ProofError(message) from error
    if len(parts) > PARTS_LIMIT:
        message = f"a bundle of {len(parts):,} parts is over the limit of {PARTS_LIMIT:,}"
        raise ProofError(message)
    return Bundle(written.manifest, parts)


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        message = "a name is given twice"
        raise ValueError(message)
    return found


# Making one


def leaf_parts(number: int, leaf: bytes, proof: str) -> dict[str, bytes]:
    """Give the parts of a leaf itself."""
    return {f"leaf/{number}": leaf, f"proof/{number}": proof.encode()}


def decision_part(number: int, salt: bytes, record: bytes) -> dict[str, bytes]:
    """Give the decision record; of a notice it holds header and routing, of a receipt or look digests only."""
    return {f"decision/{number}": salt + record}


def row_parts(number: int, record: DecisionRecord) -> dict[str, bytes]:
    """Give the rows of a leaf one by one, each with its salt and path: who was given it, without what it says."""
    laid = lay(Lines.numbered(record.rows), record.seed, record.depth)
    return {f"row/{number}/{index}": _row(laid, index) for index in laid.rows}


def _row(laid: Laid, index: int) -> bytes:
    return laid.tree.salt(index) + len(laid.rows[index]).to_bytes(2, "big") + laid.rows[index] + laid.tree.path(index)


def directory_part(content: bytes) -> dict[str, bytes]:
    """Give a directory that a leaf names."""
    return {f"directory/{sha256(content).hexdigest()}": content}


def envelope_part(number: int, envelope: Envelope) -> dict[str, bytes]:
    """Give a notice as it arrived, with all that its issuer signed."""
    return {f"envelope/{number}": codec.encode(envelope)}


# Checking one


@dataclass(frozen=True, slots=True)
class Given:
    """A row of a notice: who was given it."""

    bureau: str
    delivery_number: int
    shown: int


@dataclass(slots=True)
class Told:
    """What a bundle proves of one leaf."""

    number: int
    leaf: Leaf
    decision: DecisionRecord | None = None
    verified: Verified | None = None
    receipt: Receipt | None = None
    look: Look | None = None
    rows: tuple[Given, ...] = ()


@dataclass(slots=True)
class Checked:
    """What checking came to: `wrong` is what does not hold, as PLACE: WHAT."""

    bundle: Bundle
    head: Checkpoint | None = None
    told: dict[int, Told] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def check(bundle: Bundle, key: Vkey) -> Checked:
    """Check everything in a bundle with the log's public key."""
    return _Check(bundle, key).run()


class _Check:
    """One pass over the parts. What does not hold is noted and its part passed over."""

    def __init__(self, bundle: Bundle, key: Vkey) -> None:
        self._parts, self._manifest, self._key = bundle.parts, bundle.manifest, key
        self._checked = Checked(bundle)
        self._directories: dict[bytes, Directory] = {}
        self._seen: set[str] = {"checkpoint"}

    def run(self) -> Checked:
        checked = self._checked
        note = self._try("checkpoint", self._parts.get("checkpoint", b"").decode)
        checked.head = self._try("checkpoint", lambda: notes.open_checkpoint(note or "", self._key))
        if checked.head is None:
            return checked
        if (checked.head.origin, checked.head.size) != (self._manifest.origin, self._manifest.size):
            checked.wrong.append("checkpoint: it is not the one that the manifest names")
        for name in sorted(each for each in self._parts if each.startswith("directory/")):
            self._try(name, partial(self._directory, name))
        for number in self._numbers():
            self._leaf(number, note or "", checked.head)
        self._belong()
        for name in sorted(self._parts.keys() - self._seen):
            checked.wrong.append(f"{name}: nothing speaks of it")
        return checked

    def _try(self, place: str, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except KeyError:
            self._checked.wrong.append(f"{place}: is missing")
        except NoticeRejectedError as error:
            self._checked.wrong.append(f"{place}: {error.code}: {error}")
        except (ProofError, VersionRefusedError, ValueError) as error:
            self._checked.wrong.append(f"{place}: {error}")
        return None

    def _numbers(self) -> list[int]:
        named = [each.removeprefix("leaf/") for each in self._parts if each.startswith("leaf/")]
        return sorted(int(each) for each in named if _NUMBER.fullmatch(each))

    def _directory(self, name: str) -> None:
        self._seen.add(name)
        directory = members.parse(self._parts[name])
        if directory.digest.hex() != name.removeprefix("directory/"):
            message = "it is another than its name says"
            raise ProofError(message)
        self._directories[directory.digest] = directory

    def _leaf(self, number: int, note: str, head: Checkpoint) -> None:
        place = f"leaf {number}"
        self._seen |= {f"leaf/{number}", f"proof/{number}"}
        leaf = self._try(place, lambda: self._proven(number, note, head))
        if leaf is None:
            return
        told = Told(number, leaf)
        self._checked.told[number] = told
        self._try(place, lambda: self._decision(told))
        self._try(place, lambda: self._rows(told))
        self._try(place, lambda: self._statement(told))
        self._try(place, lambda: self._envelope(told))

    def _proven(self, number: int, note: str, head: Checkpoint) -> Leaf:
        proof = notes.parse_proof(self._parts[f"proof/{number}"].decode())
        if proof.number != number or proof.checkpoint != note:
            message = "its proof is of another leaf, or under another checkpoint"
            raise ProofError(message)
        data = self._parts[f"leaf/{number}"]
        check_inclusion(leaf_hash(data), number, head.size, proof.proof, head.root)
        return codec.decode(Leaf, data)

    def _decision(self, told: Told) -> None:
        name = f"decision/{told.number}"
        self._seen.add(name)
        if name not in self._parts:
            return
        salt, record = self._parts[name][:SALT], self._parts[name][SALT:]
        if decision_digest(salt, record) != told.leaf.decision:
            message = "the decision record is not the one that the leaf commits to"
            raise ProofError(message)
        decision = codec.decode(DecisionRecord, record)
        if not binds(told.leaf, decision, header_in(decision)):
            message = "the header or routing is not the one that the leaf commits to"
            raise ProofError(message)
        if not rows_hold(told.leaf, decision):
            message = "the recipients are not those whose rows the leaf commits to"
            raise ProofError(message)
        told.decision = decision
        told.rows = tuple(Given(each.bureau, each.delivery_number, each.shown) for each in decision.rows)

    def _rows(self, told: Told) -> None:
        prefix = f"row/{told.number}/"
        names = sorted(each for each in self._parts if each.startswith(prefix))
        self._seen.update(names)
        if names and not told.rows:
            told.rows = tuple(self._row(told, name, int(name.removeprefix(prefix))) for name in names)

    def _row(self, told: Told, name: str, index: int) -> Given:
        data = self._parts[name]
        salt, rest = data[:SALT], data[SALT:]
        length = int.from_bytes(rest[:2], "big")
        row, path = rest[2 : 2 + length], rest[2 + length :]
        check_row(salt, row, index, path, told.leaf.rows or b"")
        read_row = codec.decode(Row, row)
        return Given(read_row.bureau, read_row.delivery_number, read_row.shown)

    def _of(self, told: Told) -> Directory:
        directory = self._directories.get(told.leaf.directory)
        if directory is None:
            message = f"the directory {told.leaf.directory.hex()[:16]}… that it was judged by is missing"
            raise ProofError(message)
        return directory

    def _statement(self, told: Told) -> None:
        """Check a receipt or look: its signature, and that it is the record that the leaf is of."""
        if told.leaf.kind not in ("receipt", "look") or told.decision is None:
            return
        data, arrived = told.decision.statement, told.decision
        if sha256(data).digest() != arrived.record_digest:
            message = "its statement is not the record that was taken in"
            raise ProofError(message)
        arrival = Arrival(arrived.stream, told.leaf.now, self._of(told), ())
        said = verify_statement(codec.decode(Statement, data), arrival)
        if isinstance(said, Receipt) and told.leaf.kind == "receipt" and said.act == told.leaf.code:
            told.receipt = said
        elif isinstance(said, Look) and told.leaf.kind == "look":
            told.look = said
        else:
            message = "its statement is of another kind than the leaf"
            raise ProofError(message)

    def _envelope(self, told: Told) -> None:
        """Check a notice as its issuer signed it: signature, key in force, digest of every compartment."""
        name = f"envelope/{told.number}"
        self._seen.add(name)
        if name not in self._parts:
            return
        envelope = codec.decode(Envelope, self._parts[name])
        if header_digest(envelope.header) != told.leaf.header_digest:
            message = "the envelope is another notice's"
            raise ProofError(message)
        stream = told.decision.stream if told.decision else ""
        told.verified = verify(envelope, Arrival(stream, told.leaf.now, self._of(told), ()))

    def _belong(self) -> None:
        """Check that the notices are there, and that every other leaf speaks of one of them."""
        told, wrong = self._checked.told, self._checked.wrong
        notices = {each for each in self._manifest.notices if each in told and told[each].leaf.header_digest}
        wrong += [
            f"leaf {each}: the manifest names it as a notice" for each in self._manifest.notices if each not in notices
        ]
        for number, each in told.items():
            if number not in notices and not self._speaks_of(each) & notices:
                wrong.append(f"leaf {number}: it speaks of none of the notices")
        for directory in self._directories:
            if all(each.leaf.directory != directory for each in told.values()):
                wrong.append(f"directory {directory.hex()[:16]}…: no leaf names it")

    def _speaks_of(self, told: Told) -> set[int]:
        about = set() if told.leaf.about is None else {told.leaf.about}
        if told.look:
            about.update(told.look.leaves)
        if told.receipt:
            leaves = self._checked.told
            about.update(
                each.leaf_number
                for each in told.receipt.items
                if each.leaf_number in leaves and leaves[each.leaf_number].leaf.header_digest == each.header_digest
            )
        return about
