"""What others kept of a trail: in collectors' and outboxes' files, checkpoints, proofs and bundles."""

from __future__ import annotations

import heapq
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from broker import begun, bundle, codec, cosignature, notes, reading
from broker.errors import ConfigurationError, NoticeRejectedError, ProofError
from broker.notice import Envelope, Receipt, Statement
from broker.rejections import NoticeCopy
from broker.seen import SeenDelivery, SeenHead, SeenLeaf

INBOX = "inbox.*.db"
OUTBOX = "outbox.db"
CHECKPOINT = "checkpoint*"
PROOF = "*.tlog-proof"
WITNESS = "witness*.db"
"""State of a witness where a folder is named; a file of another name is known by what is in it."""
_SQLITE = b"SQLite format 3\0"


class Seen:
    """Files to compare with. What lies in the trail's own folder is never among them: it would bear itself out."""

    def __init__(self, paths: Sequence[Path], trail: Path) -> None:
        own = trail.resolve()
        files = sorted({_regular(each) for path in paths for each in _files(path)})
        self.files = [each for each in files if not each.is_relative_to(own)]
        self.left_out = list[Path]()
        self._sort()

    def _sort(self) -> None:
        self._inboxes = [each for each in self.files if each.match(INBOX)]
        self._outboxes = [each for each in self.files if each.match(OUTBOX)]
        known = {*self._inboxes, *self._outboxes}
        self._states = [each for each in self.files if each not in known and _is_database(each)]
        databases = {*known, *self._states}
        self._plain = [_plain(each) for each in self.files if each not in databases]

    def of(self, origin: str) -> Seen:
        """Leave out what others kept of another log, where a home has several."""
        first = begun.first_of(origin)
        return self._only([each for each in self.files if begun.first_of(_origin(each)) in ("", first)])

    def without_other_shards(self, origin: str) -> Seen:
        """Leave out what others kept of other shards of the same federation; a log of another name contradicts this."""
        ours = begun.shard_of(origin)
        return self._only([each for each in self.files if not _is_beside(ours, begun.shard_of(_origin(each)))])

    def _only(self, files: list[Path]) -> Seen:
        found, kept = copy(self), set(files)
        found.files, found.left_out = files, [each for each in self.files if each not in kept]
        found._sort()  # noqa: SLF001 - our own
        return found

    def heads(self, origin: str) -> Iterator[SeenHead]:
        """Stream all kept heads by rising size but those of logs that `origin` went on from."""
        yield from (each for each in self._all_heads(origin) if not _before(each, origin))

    def witnessed(self) -> Iterator[tuple[Path, str]]:
        """Give each witness's state with each log of which it saw a leaf: no log's file, it is never left out."""
        for each in self._states:
            yield from ((each, origin) for (origin,) in _rows(each, "SELECT origin FROM heads WHERE size > 0", (str,)))

    def ended(self, origin: str) -> Iterator[SeenHead]:
        """Stream the kept heads of logs that `origin` went on from, by rising size."""
        yield from (each for each in self._all_heads(origin) if _before(each, origin))

    def _all_heads(self, origin: str) -> Iterator[SeenHead]:
        """Stream all kept heads by rising size; of witnesses, who see several logs, those of this shard's logs."""
        seen = (head for each in self._states for head in _state(each, begun.first_of(origin)))
        plain = sorted((*(head for head, _ in self._plain), *seen), key=lambda each: each.size)
        files = self._inboxes + self._outboxes
        yield from heapq.merge(plain, *map(_heads, files), *map(_heads_of_ended, files), key=lambda each: each.size)

    def deliveries(self) -> Iterator[SeenDelivery]:
        """Stream all kept deliveries by rising leaf number."""
        yield from heapq.merge(*map(_deliveries, self._inboxes), key=lambda each: each.leaf_number)

    def told(self) -> Iterator[SeenLeaf]:
        """Stream the leaves that issuers, and holders of proofs and bundles, were told of, by rising number."""
        plain = sorted((leaf for _, leaves in self._plain for leaf in leaves), key=lambda each: each.number)
        yield from heapq.merge(plain, *map(_told, self._outboxes), key=lambda each: each.number)

    def receipts(self) -> Iterator[SentReceipt]:
        """Stream the receipts that bureaus signed and handed to the bus."""
        for file in self._inboxes:
            yield from _receipts(file)

    def copies(self) -> Iterator[NoticeCopy]:
        """Stream what issuers sent and were not told that it was taken in: the broker may say that he rejected it."""
        for file in self._outboxes:
            for digest, header, key_id, signature, series, number in _rows(file, _NOT_TAKEN_IN, _COPY):
                yield NoticeCopy(Envelope(header, key_id, signature, b""), series, number, digest, _name(file))

    @property
    def keeps_what_was_sent(self) -> bool:
        """Whether these files say what their members sent: receipts, or notices that nobody answered or took in."""
        return any(True for each in (self.receipts, self.notices, self.copies) for _ in each())

    def notices(self) -> Iterator[SentNotice]:
        """Stream the notices that issuers sent and were told nothing of."""
        for file in self._outboxes:
            again = _again(file, "envelopes", "sent_at")
            for bureau, series, number, digest, at in _rows(file, _UNTOLD.format(again), _SENT_NOTICE):
                yield SentNotice(bureau, number, digest, _name(file), series, at)


@dataclass(frozen=True, slots=True)
class SentReceipt:
    """A receipt as its bureau sent it."""

    bureau: str
    number: int
    digest: bytes
    source: str
    leaves: tuple[int, ...]
    """Of which leaves it speaks."""
    read: Callable[[int], bytes]
    """Gives a statement of that file by its number."""
    again: float
    """0, or infinite where it was sent again, after later ones: no inbox says when."""


@dataclass(frozen=True, slots=True)
class SentNotice:
    """A notice as its issuer sent it, by its header digest, its place in its series."""

    bureau: str
    number: int
    digest: bytes
    source: str
    series: bytes
    again: int
    """When it was sent again, after later ones, by its issuer's clock (ms); 0 where it was not."""


def beside(trail: Path) -> list[Path]:
    """Find the files of the homes beside the trail's: HOME/members/*/inbox.*.db, outbox.db and witness*.db."""
    home = trail.resolve().parent.parent
    return sorted(each for pattern in (INBOX, OUTBOX, WITNESS) for each in home.glob(f"members/*/{pattern}"))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from path.rglob(INBOX)
        yield from path.rglob(OUTBOX)
        more = (each for pattern in (CHECKPOINT, PROOF, WITNESS) for each in path.rglob(pattern))
        yield from (each for each in more if not each.is_dir())
    elif path.exists():
        yield path
    else:
        raise ConfigurationError(f"there is nothing to compare with at {path}")


def _is_beside(one: tuple[str, int] | None, other: tuple[str, int] | None) -> bool:
    """Say whether two logs are of different shards of one federation."""
    return one is not None and other is not None and one[0] == other[0] and one != other


def _regular(file: Path) -> Path:
    """Follow a link. Raises ConfigurationError that names it as the auditor does if what it leads to is no file."""
    if not file.is_file():
        raise ConfigurationError(f"{file} cannot be read: it is no regular file, nor a link to one")
    return file.resolve()


def _plain(file: Path) -> tuple[SeenHead, tuple[SeenLeaf, ...]]:
    """Read a checkpoint, a proof or a bundle: the head in it, and the leaves that it brings along."""
    try:
        data = reading.read(file, bundle.SIZE_LIMIT)
        if data.startswith(b"{"):
            return _bundle(data, str(file))
        text = data.decode()
        if text.startswith(notes.PROOF_HEAD):
            proof = notes.parse_proof(text)
            leaf = notes.extra_of(text)
            return _head(proof.checkpoint, str(file)), (SeenLeaf(proof.number, leaf, str(file)),) if leaf else ()
        return _head(text, str(file)), ()
    except (OSError, UnicodeDecodeError, ProofError) as error:
        message = f"{file} is neither a checkpoint, a proof, a bundle, an inbox.*.db nor an outbox.db: {error}"
        raise ConfigurationError(message) from error


def _head(note: str, source: str) -> SeenHead:
    head = cosignature.head_of(notes.parse(note).text)  # a log that signs more lines than a head has signed a head
    return SeenHead(head.size, head.root, note, source)


def _bundle(data: bytes, source: str) -> tuple[SeenHead, tuple[SeenLeaf, ...]]:
    parts = bundle.read(data).parts
    leaves = tuple(
        SeenLeaf(int(name.removeprefix("leaf/")), leaf, source)
        for name, leaf in parts.items()
        if name.startswith("leaf/") and name.removeprefix("leaf/").isdecimal() and len(name) < 24
    )
    return _head(parts.get("checkpoint", b"").decode(), source), leaves


_MADE_UP = """
SELECT 1 FROM sqlite_schema AS s LEFT JOIN pragma_table_xinfo(s.name) AS c
WHERE c.hidden OR s.type = 'view' AND lower(s.name) IN
('heads', 'ended', 'deliveries', 'receipts', 'outcomes', 'envelopes', 'evidence') LIMIT 1
"""
"""Finds what is worked out by a query or an expression: a small file may give rows without end so."""


def _rows(file: Path, query: str, kinds: Sequence[Any], *values: str | int) -> Iterator[tuple[Any, ...]]:
    """Stream rows whose columns are of these kinds; SQLite itself keeps to none."""
    try:
        with closing(reading.database(file)) as database:
            if database.execute(_MADE_UP).fetchone():
                raise ConfigurationError(f"{file} cannot be read as a member's file: not all in it is stored there")
            for row in database.execute(query, values):
                if not all(map(isinstance, row, kinds)):
                    raise ConfigurationError(
                        f"{file} cannot be read as a member's file: it holds values of other kinds"
                    )
                yield row
    except (sqlite3.Error, OSError) as error:
        raise ConfigurationError(f"{file} cannot be read as a member's file: {error}") from error


def _name(file: Path) -> str:
    """Name a collector's file as people know it: `AT/inbox.ncb.db`."""
    return f"{file.parent.name}/{file.name}"


def _heads(file: Path) -> Iterator[SeenHead]:
    for size, root, note in _rows(file, "SELECT size, root, note FROM heads ORDER BY size", _HEAD):
        yield SeenHead(size, root, note, _name(file))


_SENT = "SELECT number, statement, {} FROM receipts WHERE sent = 1 ORDER BY number"
_HEAD = (int, bytes, str)
_COPY = (bytes, bytes, bytes, bytes, bytes, int)
_SENT_NOTICE = (str, bytes, int, bytes, int)
_DELIVERY = (int, bytes, str, int, bytes, bytes, bytes, int, str, int | None)
"""Kinds of columns: of a kept head, of what was not taken in, of what was told nothing of, of a delivery."""
_UNTOLD = """
SELECT bureau, series, number, header_digest, {} FROM envelopes AS e
WHERE sent_at IS NOT NULL AND (outcome IS NULL OR outcome = 'rejected' AND leaf_number IS NULL)
AND NOT EXISTS (SELECT 1 FROM outcomes AS o WHERE o.record_digest = e.sent_digest) ORDER BY place
"""


_NOT_TAKEN_IN = """
SELECT sent_digest, coalesce(CAST(header AS BLOB), x''), coalesce(CAST(key_id AS BLOB), x''),
coalesce(CAST(signature AS BLOB), x''), coalesce(CAST(series AS BLOB), x''), CAST(number AS INTEGER) FROM envelopes
WHERE sent_digest IS NOT NULL AND (outcome IS NULL OR outcome = 'rejected') ORDER BY place
"""
"""Whatever a member has put there, it is bytes that say nothing: they are checked as those of anybody."""


def _is_database(file: Path) -> bool:
    try:
        with reading.opened(file) as found:
            return found.read(len(_SQLITE)) == _SQLITE
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error


def _heads_of_ended(file: Path) -> Iterator[SeenHead]:
    """Read the heads that a new log has not, put aside when its shard's log ended."""
    if not list(_rows(file, "SELECT 1 FROM sqlite_master WHERE name = 'ended'", (int,))):
        return
    for size, root, note in _rows(file, "SELECT size, root, note FROM ended ORDER BY size", _HEAD):
        yield SeenHead(size, root, note, _name(file))


def _before(head: SeenHead, origin: str) -> bool:
    """Say whether a head is of a log that `origin` went on from."""
    try:
        return begun.is_before(_plain_origin(head), origin)
    except ProofError:
        return False


_LOGS = "WHERE origin = ?1 OR substr(origin, 1, length(?1) + 1) = ?1 || '.'"
"""The logs of one shard, by the name of its first."""
_KNOWN = "SELECT size, root, coalesce(cosigned, note) FROM heads " + _LOGS  # noqa: S608 - ours
_EVIDENCE = "SELECT request FROM evidence " + _LOGS  # noqa: S608 - ours


def _state(file: Path, first: str) -> Iterator[SeenHead]:
    """Read what a witness saw last of a shard's logs, and what they signed that contradicts it."""
    name = _name(file)
    for size, root, note in _rows(file, _KNOWN, _HEAD, first):
        yield SeenHead(size, root, note, name)
    for (request,) in _rows(file, _EVIDENCE, (bytes,), first):
        try:
            yield _head(notes.parse_advance(request).checkpoint, name)
        except ProofError as error:
            raise ConfigurationError(f"{file} holds a request that cannot be read: {error}") from error


_DELIVERIES = """
SELECT leaf_number, leaf, bureau, delivery_number, row, salt, path, row_index, ?1, CAST(taken_at AS INTEGER)
FROM deliveries ORDER BY leaf_number
"""


def _deliveries(file: Path) -> Iterator[SeenDelivery]:
    for values in _rows(file, _DELIVERIES, _DELIVERY, _name(file)):
        yield SeenDelivery(*values)


def _told(file: Path) -> Iterator[SeenLeaf]:
    for number, leaf in _rows(file, "SELECT leaf_number, leaf FROM outcomes ORDER BY leaf_number", (int, bytes)):
        yield SeenLeaf(number, leaf, _name(file))


def _receipts(file: Path) -> Iterator[SentReceipt]:
    if not list(_rows(file, "SELECT 1 FROM sqlite_master WHERE name = 'receipts'", (int,))):
        return
    read = partial(_statement, file)
    for number, statement, again in _rows(file, _SENT.format(_again(file, "receipts", "1")), (int, bytes, int)):
        try:
            receipt = codec.decode(Receipt, codec.decode(Statement, statement).payload)
        except NoticeRejectedError as error:
            raise ConfigurationError(f"{file} holds a receipt that cannot be read: {error}") from error
        leaves = tuple(each.leaf_number for each in receipt.items)
        digest, name = sha256(statement).digest(), _name(file)
        yield SentReceipt(receipt.bureau, number, digest, name, leaves, read, math.inf if again else 0)


def _again(file: Path, table: str, when: str) -> str:
    """Give the column that tells what was queued anew, 0 where it was not: a file of before does not say it."""
    asked = "SELECT 1 FROM pragma_table_info(?) WHERE name = 'queued'"
    return f"CASE WHEN queued > 0 THEN {when} ELSE 0 END" if list(_rows(file, asked, (int,), table)) else "0"


def _statement(file: Path, number: int) -> bytes:
    found = _rows(file, "SELECT CAST(statement AS BLOB) FROM receipts WHERE sent = 1 AND number = ?", (bytes,), number)
    return next((bytes(statement) for (statement,) in found), b"")


def _origin(file: Path) -> str:
    """Tell which log a file is about; "" where it does not say."""
    if file.match(INBOX) or file.match(OUTBOX):
        try:
            return next(map(_plain_origin, _heads(file)), "")
        except ProofError as error:
            raise ConfigurationError(f"{file} cannot be read as a member's file: {error}") from error
    return "" if _is_database(file) else _plain_origin(_plain(file)[0])


def _plain_origin(head: SeenHead) -> str:
    return cosignature.head_of(notes.parse(head.note).text).origin
