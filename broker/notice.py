"""A notice at each stage: Envelope → Verified → Decision → Delivery → Receipt.

The type says how far a thing may be trusted: an `Envelope` is what somebody sent, only `verify` makes a `Verified`,
only `decide` a `Decision`. Times are milliseconds since 1970-01-01T00:00:00Z; digests are 32 raw bytes; a mask is an
`int` whose bit *i* stands for the bureau of index *i* (bureau masks) or the *i*-th compartment of the header's list.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.quick import quick

SIZE_LIMIT = 256 * 1024
"""Bytes of a whole record, checked before anything is decoded (DESIGN §5)."""
CLOCK_SKEW_MS = 300_000
"""How far `issued` may lie after `now` (DESIGN §6)."""
ROUTING = "routing"

WITHDRAWAL, RESTRICTION, APPROVAL = "withdrawal", "restriction", "approval"
TO_HOLDERS = frozenset({WITHDRAWAL, RESTRICTION})
"""Kinds that reach every holder whatever the policy says (DESIGN §3.8)."""
KINDS: dict[str, tuple[str, ...]] = {
    "person": (
        "identity", "warnings", "description", "warrants", "biometrics",
        "location", "associates", "narrative", "contact", "source",
    ),
    "organisation": ("identity", "description", "location", "associates", "assets", "narrative", "contact", "source"),
    "object": ("identity", "description", "location", "associates", "assets", "narrative", "contact", "source"),
    "network": ("entities", "links", "events", "assets", "assessments", "source"),
    "report": ("summary", "findings", "sanitised", "chart", "method"),
    "contact": ("expertise", "desk"),
    "request": ("question", "identity", "desk"),
    "answer": ("reply", "identity", "desk"),
    WITHDRAWAL: ("reason",),
    RESTRICTION: ("reason",),
    APPROVAL: ("terms",),
}  # fmt: skip
"""Kinds of notice and their compartments after `routing`, in schema order (DESIGN §5)."""
BODY_SCHEMAS = tuple(f"{kind}.{name}" for kind, names in KINDS.items() for name in names)
RELATIONS = ("corrects", "withdraws", "restricts", "answers", "approves", "cites")
RELATION_OF_KIND = {WITHDRAWAL: "withdraws", RESTRICTION: "restricts", APPROVAL: "approves"}
"""These kinds carry exactly one reference, of this relation; no other kind may use the relation."""
RECORD_LIMIT = 128
"""characters of a record's name"""
RELEASE, REFUSE = "release", "refuse"
REVIEW_VERDICTS = (RELEASE, REFUSE)
"""What an approval seeks, as its header's `action_sought`."""
RELEASED, NOT_RELEASED = "released", "not-released"
"""Event leaves that follow an approval: the held notice goes out, or ends."""
ORDERED = "withdrawn-by-order"
"""Event leaf that follows an authority's withdrawal of what another published; it is for that issuer."""
BEGUN, LOST = "begun", "lost"
"""Event leaves of a new log: what it goes on from, and one in the place of each leaf of the old log that was lost."""
NOTHING = bytes(32)
"""What a leaf names as directory or policies where there is no version yet."""
URGENCIES = ("routine", "urgent", "flash")
H1, H2, H3 = "H1", "H2", "H3"
HANDLING_CODES = ("H0", H1, H2, H3)
CONFIDENTIALITIES = ("open", "restricted", "confidential", "secret")
SOURCE_EVALUATIONS = ("A", "B", "C", "X")
PURPOSES = (
    "criminal-investigation", "criminal-analysis", "border-control", "sanctions",
    "threat-prevention", "missing-persons", "extradition",
)  # fmt: skip
SUBJECT_CATEGORIES = ("suspect", "convicted", "victim", "witness", "other")
SPECIAL_CATEGORIES = (
    "racial-or-ethnic-origin", "political-opinions", "religious-beliefs", "military", "trade-union",
    "genetic", "biometric", "health", "sexual-life",
)  # fmt: skip
MINOR = ("yes", "no", "unknown")
AREAS = ("wanted", "warning")
"""First parts of topics of which rules may speak."""
THREAT_TO_LIFE = "threat-to-life"
DEROGATIONS = (THREAT_TO_LIFE,)
"""On what ground an issuer may break the glass of the rule on transfers."""
RECEIPT_ACTS = ("received", "read", "outcome", "erased")
RECEIPT_RESULTS = {
    "received": (None,),
    "read": (None,),
    "outcome": ("hit", "no-trace", "not-executable"),
    "erased": ("erased", "kept-under-national-law"),
}
RECEIPT_ITEMS = 500
"""How many notices one receipt may speak of."""
EVERYONE = "everyone"
REVOCATION_REASONS = ("lost", "stolen", "replaced", "other")

HEADER_TYPE = "application/vnd.valise.header.v1+avro"
RECEIPT_TYPE = "application/vnd.valise.receipt.v1+avro"
SUBSCRIPTION_TYPE = "application/vnd.valise.subscription.v1+avro"
REVOCATION_TYPE = "application/vnd.valise.revocation.v1+avro"
LOOK_TYPE = "application/vnd.valise.look.v1+avro"
LOOK_LEAVES = 100
"""How many notices one look may be at."""


@quick
@dataclass(frozen=True, slots=True)
class Reference:
    """Another notice that this one speaks of."""

    issuer: str
    notice_id: bytes
    header_digest: bytes
    relation: str


@quick
@dataclass(frozen=True, slots=True)
class Slot:
    """One compartment of the header's list and its salted digest."""

    name: str
    digest: bytes


@quick
@dataclass(frozen=True, slots=True)
class Header:
    """The signed part that every recipient sees; fields as in schemas/header."""

    federation: str
    notice_id: bytes
    record: str
    version: int
    issuer: str
    kind: str
    conversation: str | None
    references: tuple[Reference, ...]
    topics: tuple[str, ...]
    action_sought: str | None
    urgency: str
    acknowledge_by: int | None
    answer_by: int | None
    purpose: str
    legal_basis: str
    handling: tuple[str, ...]
    handling_text: str | None
    confidentiality: str
    source_evaluation: str | None
    information_evaluation: int | None
    issued: int
    expires: int | None
    retain_until: int | None
    review_due: int | None
    languages: tuple[str, ...]
    exercise: bool
    compartments: tuple[Slot, ...]

    @property
    def member(self) -> str:
        """The member whose bureau issued it."""
        return self.issuer.partition("/")[0]

    @property
    def shown_until(self) -> int | None:
        """When nothing of it is shown any more: expired, no longer to be kept, or its review overdue (rule 11)."""
        if self.retain_until is None and self.review_due is None:
            return self.expires
        ends = (self.expires, self.retain_until, self.review_due)
        return min(each for each in ends if each is not None)


@quick
@dataclass(frozen=True, slots=True)
class Opened:
    """Salt and bytes of one compartment: they travel, are withheld and are erased together."""

    salt: bytes
    data: bytes


@quick
@dataclass(frozen=True, slots=True)
class Compartment:
    """A part of the body; `opened` is None where it is absent or withheld, which look the same."""

    name: str
    opened: Opened | None


@quick
@dataclass(frozen=True, slots=True)
class Audience:
    """Who may be considered at all: everyone, or members of agreements and those named in `to`."""

    everyone: bool
    agreements: tuple[str, ...] = ()
    to: tuple[str, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Origin:
    """Where a part of the facts comes from; `owner` None: unknown. `releasable_to` may hold `everyone`."""

    owner: str | None
    releasable_to: tuple[str, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Grant:
    """What the owner of an H2 notice lets one bureau have: these compartments, until `until` (ms, exclusive)."""

    bureau: str
    compartments: tuple[str, ...]
    until: int


@quick
@dataclass(frozen=True, slots=True)
class Routing:
    """The reserved compartment that only broker and auditors see; fields as in schemas/routing."""

    audience: Audience
    deny: tuple[str, ...]
    origins: tuple[Origin, ...]
    subject_categories: tuple[str, ...]
    minor: str
    special_categories: tuple[str, ...]
    protected_from: tuple[str, ...]
    series: bytes
    number: int
    grants: tuple[Grant, ...] = ()
    derogation: str | None = None


@quick
@dataclass(frozen=True, slots=True)
class Envelope:
    """What travels: exact header bytes, key id, signature, compartments still encoded."""

    header: bytes
    key_id: bytes
    signature: bytes
    compartments: bytes


@quick
@dataclass(frozen=True, slots=True)
class Statement:
    """A small signed record that is no notice, still as it arrived."""

    payload_type: str
    payload: bytes
    key_id: bytes
    signature: bytes


@quick
@dataclass(frozen=True, slots=True)
class Signed:
    """What is known of a rejected notice whose header was signed by its issuer; `routing` None: not even read."""

    header: Header
    header_digest: bytes
    routing: Routing | None


@quick
@dataclass(frozen=True, slots=True)
class Verified:
    """A notice whose signature, form and digests were checked; only `verify` makes one.

    `present` is the mask of compartments that carry bytes (bit 0, routing, always).
    """

    header: Header
    header_digest: bytes
    routing: Routing
    routing_opened: Opened
    compartments: tuple[Compartment, ...]
    present: int
    envelope: Envelope


@quick
@dataclass(frozen=True, slots=True)
class ReceiptItem:
    """One notice that a receipt speaks of."""

    leaf_number: int
    header_digest: bytes


@quick
@dataclass(frozen=True, slots=True)
class Receipt:
    """What a bureau signs about deliveries of one issuer member's notices."""

    federation: str
    bureau: str
    issuer_member: str
    act: str
    items: tuple[ReceiptItem, ...]
    result: str | None
    case_digest: bytes | None
    number: int
    at: int


@quick
@dataclass(frozen=True, slots=True)
class Subscription:
    """The topic patterns of one bureau; a higher number replaces a lower."""

    federation: str
    bureau: str
    number: int
    patterns: tuple[str, ...]
    at: int


@quick
@dataclass(frozen=True, slots=True)
class Revocation:
    """A member takes one of its keys out of force."""

    federation: str
    bureau: str
    key_id: bytes
    reason: str
    at: int
    compromised_since: int | None = None
    """What was recorded under the key from then on needs to be confirmed again; None: nothing does."""


@quick
@dataclass(frozen=True, slots=True)
class Look:
    """An operator or auditor is about to see clear data of one issuer member's notices, and says why."""

    federation: str
    by: str
    look_id: bytes
    issuer_member: str
    leaves: tuple[int, ...]
    reason: str
    at: int


@quick
@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that was satisfied, and for which bureaus (mask)."""

    rule: str
    bureaus: int


@quick
@dataclass(frozen=True, slots=True)
class Terms:
    """The four terms of promise 1 as bureau masks: receivers = allowed & audience & ~denied & reached."""

    allowed: int
    audience: int
    denied: int
    reached: int

    @property
    def receivers(self) -> int:
        """Who receives it."""
        return self.allowed & self.audience & ~self.denied & self.reached


@quick
@dataclass(frozen=True, slots=True)
class Holder:
    """A bureau (by index) and the delivery numbers of one record that it holds."""

    index: int
    numbers: tuple[int, ...]


@quick
@dataclass(frozen=True, slots=True)
class Recipient:
    """One line of a decision: who gets it, as which delivery, and what is shown.

    `delivery_number` is 0 until ingest has given it one.
    """

    index: int
    bureau: str
    shown: int
    replaces: tuple[int, ...] = ()
    erases: tuple[int, ...] = ()
    delivery_number: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Decision:
    """For one notice: who receives it, what each is shown, and which rules said so. Only `decide` makes one."""

    state: str
    """routed or held."""
    recipients: tuple[Recipient, ...]
    terms: Terms
    hits: tuple[RuleHit, ...]
    warnings: tuple[str, ...] = ()
    holders: int | None = None
    """Of a correction: the bureaus that hold what it corrects, as the rules were told."""


@quick
@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the trail; fields as in schemas/leaf."""

    kind: str
    now: int
    code: str | None
    header_digest: bytes | None
    about: int | None
    missing: int
    directory: bytes
    policies: bytes
    decision: bytes
    rows: bytes | None


@quick
@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """What was decided and on what; fields as in schemas/decision."""

    stream: str
    partition: int
    offset: int
    at: int
    record_digest: bytes
    header: bytes = b""
    routing: bytes = b""
    statement: bytes = b""
    seed: bytes = b""
    depth: int = 0
    rows: tuple[Recipient, ...] = ()
    rules: tuple[RuleHit, ...] = ()
    terms: Terms = Terms(0, 0, 0, 0)
    warnings: tuple[str, ...] = ()
    detail: str = ""
    holders: int | None = None
    key_id: bytes | None = None
    signature: bytes | None = None


@quick
@dataclass(frozen=True, slots=True)
class Row:
    """One bureau's line in the rows' tree."""

    bureau: str
    delivery_number: int
    shown: int


@quick
@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice as one bureau gets it; `shared` is still encoded. Fields as in schemas/delivery."""

    leaf_number: int
    shard: int
    bureau: str
    delivery_number: int
    row: bytes
    salt: bytes
    path: bytes
    index: int
    replaces: tuple[int, ...]
    erases: tuple[int, ...]
    shared: bytes


@quick
@dataclass(frozen=True, slots=True)
class Shared:
    """The part of a delivery that is the same for every bureau that is shown the same."""

    envelope: bytes
    leaf: bytes
    proof: str


@quick
@dataclass(frozen=True, slots=True)
class Outcome:
    """What a member learns of a record of its own, or of its notice's receipts; fields as in schemas/outcome."""

    kind: str
    code: str | None
    detail: str
    notice_id: bytes | None
    issuer: str | None
    record_digest: bytes
    original: int | None
    missing: tuple[int, ...]
    warnings: tuple[str, ...]
    statement: bytes
    decision_salt: bytes
    decision: bytes
    leaf_number: int
    leaf: bytes
    proof: str


@quick
@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf with its decision record, as a step commits them to the trail stream."""

    leaf_number: int
    leaf: bytes
    decision_salt: bytes
    decision: bytes


@quick
@dataclass(frozen=True, slots=True)
class Opening:
    """How `checkpoints` shows a new log; fields as in schemas/opening."""

    entry: bytes
    proof: str
    advance: str


@dataclass(frozen=True, slots=True)
class Head:
    """The tree that a step's leaves complete; the last trail record of the step."""

    size: int
    root: bytes
    now: int


@quick
@dataclass(frozen=True, slots=True)
class Routed:
    """What distribute needs to make deliveries and outcomes of one leaf; fields as in schemas/routed."""

    leaf_number: int
    leaf: bytes
    decision_salt: bytes
    decision: bytes
    envelope: bytes
    expires: int | None
    tell: tuple[str, ...]
    outcome: bytes


@quick
@dataclass(frozen=True, slots=True)
class Standing:
    """The register's entry for one notice; fields as in schemas/standing."""

    header_digest: bytes
    state: str
    leaf_number: int
    series: bytes
    number: int
    record: str
    version: int
    holders: tuple[Holder, ...]
    envelope: bytes
    replaced_by: bytes = b""
    """Id of its issuer's notice that replaced it; empty while none has."""


@quick
@dataclass(frozen=True, slots=True)
class Series:
    """Which numbers of one series were used: all up to `highest` but those in `missing` (ranges, ends included)."""

    highest: int
    missing: tuple[tuple[int, int], ...]


@quick
@dataclass(frozen=True, slots=True)
class Version:
    """A directory, policy set or annex as the operator writes it; its digest is the SHA-256 of `content`."""

    kind: str
    content: bytes
