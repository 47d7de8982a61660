"""Checks one delivery, from its bytes to the issuer's signature.

Pure: what is known comes in as look-ups. The order: whose it is, the row, the leaf in the trail, then what the issuer
signed; nothing of the body is read before all of it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from adapters.heads import Head
from adapters.refusals import (
    AlteredError,
    IssuerKeyError,
    NotAsShownError,
    NotInTrailError,
    OtherBureauError,
    OtherFederationError,
    RefusedError,
    SplitViewError,
    UnknownDirectoryError,
    UnknownHeadError,
    UnreadableDeliveryError,
    WrongLeafError,
    WrongRowError,
)
from broker import begun, codec, merkle, notes
from broker.directory import Directory
from broker.errors import NoticeRejectedError, ProofError, SignatureError
from broker.notice import (
    CLOCK_SKEW_MS,
    HEADER_TYPE,
    KINDS,
    RELEASED,
    ROUTING,
    Compartment,
    Delivery,
    Envelope,
    Header,
    Leaf,
    Row,
    Shared,
)
from broker.signing import compartment_digest, header_digest, pae

DELIVERED = ("routed", "held", RELEASED)
"""Leaves of which there are deliveries: a held notice goes to who reviews it."""


@dataclass(frozen=True, slots=True)
class Known:
    """What this bureau knows for itself, at one moment: made anew for each page, and once more has been learnt."""

    federation: str
    bureau: str
    shard: int
    directory: Callable[[bytes], Directory | None]
    """The directory of a digest, if it was published."""
    head: Callable[[int], Head | None]
    """The head of a size, if it is one of those that extend each other."""
    log: notes.Vkey
    """The key of the shard's log."""
    now: int
    """Our own clock, in ms since the epoch."""
    checked_heads: dict[str, notes.Checkpoint] = field(init=False, default_factory=dict)
    """Checkpoints that hold by all of the above, by their signed notes: neighbours carry the same one. Whatever is made
    of this value by `replace` has none of them."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A delivery of which everything was checked; only `check` makes one."""

    delivery: Delivery
    shared: Shared
    leaf: Leaf
    row: Row
    header: Header
    header_digest: bytes
    compartments: tuple[Compartment, ...]


def check(data: bytes, known: Known) -> Checked:
    """Check a delivery. Raises RefusedError, one class per reason."""
    try:
        return _check(data, known)
    except NoticeRejectedError as error:
        # The codec's and the signature's errors are those of a sender; here nobody may send such bytes.
        raise UnreadableDeliveryError(f"{error.code}: {error}") from error


def _check(data: bytes, known: Known) -> Checked:
    delivery = codec.decode(Delivery, data)
    if delivery.bureau != known.bureau or delivery.shard != known.shard:
        raise OtherBureauError
    shared = codec.decode(Shared, delivery.shared)
    leaf = check_leaf(shared.leaf, shared.proof, delivery.leaf_number, known)
    directory = find_directory(leaf, known)
    row = _check_row(delivery, leaf, directory)
    envelope = codec.decode(Envelope, shared.envelope)
    digest = header_digest(envelope.header)
    header = _check_header(envelope, digest, leaf, directory)
    if header.federation != known.federation:
        raise OtherFederationError
    compartments = _check_compartments(header, codec.decode_compartments(envelope.compartments), row, known.now)
    return Checked(delivery, shared, leaf, row, header, digest, compartments)


def check_leaf(data: bytes, proof: str, number: int, known: Known) -> Leaf:
    """Check that a leaf stands in the trail at `number`, below a head that is known; read it. Raises RefusedError."""
    try:
        parsed = notes.parse_proof(proof)
        head = _check_head(parsed.checkpoint, known)
        if parsed.number != number:
            message = f"a proof of leaf {parsed.number}, not of {number}"
            raise NotInTrailError(message)
        merkle.check_inclusion(merkle.leaf_hash(data), number, head.size, parsed.proof, head.root)
    except RefusedError:
        raise
    except ProofError as error:
        raise NotInTrailError(str(error)) from error
    return codec.decode(Leaf, data)


def _check_head(note: str, known: Known) -> notes.Checkpoint:
    """Check a checkpoint; what holds is remembered, what does not is looked into each time that it comes."""
    if (head := known.checked_heads.get(note)) is None:
        head = known.checked_heads[note] = _open_head(note, known)
    return head


def _open_head(note: str, known: Known) -> notes.Checkpoint:
    head = notes.parse_checkpoint(notes.parse(note).text)
    kept = known.head(head.size)
    # The very note that was checked when it came needs no second check of its signature.
    if kept is None or note != kept.note:
        begun.open_checkpoint(note, known.log)
    if kept is None:
        raise UnknownHeadError
    if kept.root != head.root:
        raise SplitViewError
    return head


def find_directory(leaf: Leaf, known: Known) -> Directory:
    """Find the directory that a leaf was judged by. Raises UnknownDirectoryError."""
    directory = known.directory(leaf.directory)
    if directory is None:
        raise UnknownDirectoryError
    return directory


def check_key(directory: Directory, key_id: bytes, at: int, signed: tuple[bytes, bytes]) -> str:
    """Check that a key in force at `at` signed; name its bureau. `signed` is (signature, message)."""
    key = directory.key(key_id)
    if key is None or not key.in_force(at):
        raise IssuerKeyError
    try:
        key.public.check(*signed)
    except SignatureError as error:
        raise IssuerKeyError from error
    return key.bureau


def _check_row(delivery: Delivery, leaf: Leaf, directory: Directory) -> Row:
    if leaf.kind not in DELIVERED or leaf.rows is None:
        message = f"a delivery of a leaf that is {leaf.kind}"
        raise WrongLeafError(message)
    try:
        merkle.check_row(delivery.salt, delivery.row, delivery.index, delivery.path, leaf.rows)
    except ProofError as error:
        raise WrongRowError(str(error)) from error
    row = codec.decode(Row, delivery.row)
    if (row.bureau, row.delivery_number) != (delivery.bureau, delivery.delivery_number):
        raise WrongRowError
    bureau = directory.bureaus.get(row.bureau)
    # At any other place than the bureau's own the broker could keep a second row for it.
    if bureau is None or bureau.index != delivery.index or len(delivery.path) != 32 * _depth(directory):
        message = "the row does not stand at its bureau's place"
        raise WrongRowError(message)
    return row


def _depth(directory: Directory) -> int:
    return merkle.rows_depth(len(directory.by_index) - 1)


def _check_header(envelope: Envelope, digest: bytes, leaf: Leaf, directory: Directory) -> Header:
    if digest != leaf.header_digest:
        message = "the leaf is that of another header"
        raise AlteredError(message)
    signed = (envelope.signature, pae(HEADER_TYPE, envelope.header))
    signer = check_key(directory, envelope.key_id, leaf.now, signed)
    header = codec.decode(Header, envelope.header)
    if header.issuer != signer:
        raise IssuerKeyError
    if directory.federation != header.federation:
        raise OtherFederationError
    check_time(header, leaf)
    return header


def check_time(header: Header, leaf: Leaf) -> None:
    """Check that a notice was made before it was recorded: whoever backdates a leaf cannot backdate the notice."""
    if header.issued > leaf.now + CLOCK_SKEW_MS:
        message = "the leaf is older than the notice"
        raise WrongLeafError(message)


def _check_compartments(
    header: Header, compartments: tuple[Compartment, ...], row: Row, now: int
) -> tuple[Compartment, ...]:
    names = [ROUTING, *KINDS.get(header.kind, ())]
    if [slot.name for slot in header.compartments] != names or [each.name for each in compartments] != names:
        message = "the compartments are not those of the kind"
        raise AlteredError(message)
    opened = 0
    for position, (slot, each) in enumerate(zip(header.compartments, compartments, strict=True)):
        if each.opened is None:
            continue
        if compartment_digest(each.name, each.opened.salt, each.opened.data) != slot.digest:
            message = f"the digest of {each.name} does not fit"
            raise AlteredError(message)
        opened |= 1 << position
    if opened != row.shown and not _ran_out(header, opened, now):
        raise NotAsShownError
    return compartments


def _ran_out(header: Header, opened: int, now: int) -> bool:
    """Say whether its time ran out between record and delivery: then nothing is open (DESIGN §6, rule 11)."""
    until = header.shown_until
    return opened == 0 and until is not None and until <= now + CLOCK_SKEW_MS
