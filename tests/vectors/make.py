"""Makes the known answers of docs/envelope.md again, from fixed seeds.

    .venv/bin/python -m tests.vectors.make

writes the JSON files beside this one. Bytes are hex, texts are texts. Everything random is SHAKE256 of a label, so that
two runs give the same bytes (Ed25519 is deterministic).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any

from broker import avro, codec, merkle, notes, notice, route
from broker.notice import (
    Audience,
    Compartment,
    DecisionRecord,
    Delivery,
    Envelope,
    Header,
    Leaf,
    Opened,
    Origin,
    Receipt,
    ReceiptItem,
    Recipient,
    Reference,
    Revocation,
    Routing,
    RuleHit,
    Shared,
    Slot,
    Statement,
    Subscription,
    Terms,
)
from broker.signing import SigningKey, compartment_digest, decision_digest, header_digest, pae

FOLDER = Path(__file__).parent
WIRE = (
    "envelope", "header", "compartments", "routing", "delivery", "shared", "row", "leaf", "decision",
    "outcome", "statement", "receipt", "subscription", "revocation", "look",
)  # fmt: skip
"""The schemas that docs/envelope.md describes."""
FEDERATION = "example"
ORIGIN = f"{FEDERATION}/trail"
ISSUED = 1_795_000_000_000
NOW = ISSUED + 5_000
LEAF_NUMBER = 4
SIZE = 7
Json = dict[str, Any]


def fixed(label: str, size: int = 32) -> bytes:
    """Give bytes that look random and are the same in every run."""
    return shake_256(b"valise vectors/" + label.encode()).digest(size)


def key(name: str) -> SigningKey:
    """Give the key of a bureau or of the log."""
    return SigningKey.from_seed(fixed(f"key/{name}"))


def plain(value: object) -> Any:
    """Turn a value into what JSON can hold: bytes become hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def key_json(name: str) -> Json:
    """Describe a key, secret seed included: it protects nothing."""
    made = key(name)
    return {"name": name, "seed": fixed(f"key/{name}"), "public": made.public.raw, "key_id": made.public.id}


# The notice: a request with a question and a desk, and no identity.

OPENED = {
    "routing": Opened(
        fixed("salt/routing"),
        codec.encode(
            Routing(
                audience=Audience(everyone=False, agreements=("project-millennium",), to=("GE", "LV/ncb")),
                deny=("RU",),
                origins=(Origin(None, ()), Origin("AT", ("everyone",))),
                subject_categories=("suspect",),
                minor="no",
                special_categories=(),
                protected_from=(),
                series=fixed("series", 8),
                number=1,
            )
        ),
    ),
    "question": Opened(
        fixed("salt/question"),
        avro.write("request.question", {
            "text": "Besitzt die Person Firmen in Ihrem Register? ფირმა?", "language": "de",
            "wanted": ["ownership"], "reason": None,
        }),
    ),
    "desk": Opened(
        fixed("salt/desk"),
        avro.write("request.desk", {
            "desk": "Duty desk", "bureau": "AT/ncb", "reference": "AT-2026-1", "channels": [], "languages": ["de"],
            "hours": None,
        }),
    ),
}  # fmt: skip
NAMES = ("routing", *notice.KINDS["request"])
EMPTY_SALT = fixed("salt/identity")


def compartments() -> tuple[Compartment, ...]:
    """The compartments as the issuer sends them: `identity` is empty."""
    return tuple(Compartment(name, OPENED.get(name)) for name in NAMES)


def slots() -> tuple[Slot, ...]:
    """The header's list: the digest of an empty compartment is that of a salt and no bytes."""
    opened = {name: OPENED.get(name, Opened(EMPTY_SALT, b"")) for name in NAMES}
    return tuple(Slot(name, compartment_digest(name, each.salt, each.data)) for name, each in opened.items())


def header() -> Header:
    """The header, with every shape of field: null and not, empty list and not, number and text."""
    return Header(
        federation=FEDERATION,
        notice_id=bytes.fromhex("019a1b2c3d4e7f708192a3b4c5d6e7f8"),
        record="at-000001",
        version=1,
        issuer="AT/ncb",
        kind="request",
        conversation=None,
        references=(Reference("LV/ncb", fixed("cited", 16), fixed("cited digest"), "cites"),),
        topics=("organised-crime.eurasian",),
        action_sought="answer",
        urgency="urgent",
        acknowledge_by=None,
        answer_by=ISSUED + 86_400_000,
        purpose="criminal-investigation",
        legal_basis="Invented Act, section 1",
        handling=("H0", "H1"),
        handling_text=None,
        confidentiality="restricted",
        source_evaluation="B",
        information_evaluation=2,
        issued=ISSUED,
        expires=None,
        retain_until=ISSUED + 31_536_000_000,
        review_due=None,
        languages=("de", "ka"),
        exercise=False,
        compartments=slots(),
    )


def envelope() -> Envelope:
    """The signed envelope as its issuer sends it."""
    data = codec.encode(header())
    signature = key("AT/ncb").sign_payload(notice.HEADER_TYPE, data)
    return Envelope(data, key("AT/ncb").public.id, signature, codec.encode_compartments(compartments()))


def envelope_json() -> Json:
    """Header value → bytes → digest → PAE → signature; compartments; the whole envelope."""
    made = envelope()
    parts = [
        {
            "name": name,
            "salt": each.salt if each else EMPTY_SALT,
            "bytes": each.data if each else b"",
            "travels": each is not None,
            "digest": slot.digest,
        }
        for (name, each), slot in zip(((name, OPENED.get(name)) for name in NAMES), slots(), strict=True)
    ]
    return {
        "about": "A notice as its issuer sends it; described in docs/envelope.md.",
        "fingerprints": {name: avro.fingerprint(name) for name in WIRE},
        "key": key_json("AT/ncb"),
        "header": {
            "value": asdict(header()),
            "bytes": made.header,
            "digest": header_digest(made.header),
            "payload_type": notice.HEADER_TYPE,
            "pae": pae(notice.HEADER_TYPE, made.header),
            "signature": made.signature,
        },
        "compartments": parts,
        "routing": {"value": asdict(codec.decode(Routing, OPENED["routing"].data)), "bytes": OPENED["routing"].data},
        "compartments_bytes": made.compartments,
        "envelope": codec.encode(made),
    }


# The rows: three recipients in a directory whose highest index is 27.

SEED = fixed("rows seed")
RECIPIENTS = (
    Recipient(index=3, bureau="AT/organised-crime", shown=0b1010, delivery_number=300),
    Recipient(index=9, bureau="GE/ncb", shown=0b1000, delivery_number=12),
    Recipient(index=27, bureau="LV/ncb", shown=0b1010, delivery_number=1, replaces=(), erases=()),
)
LINES = route.Lines.numbered(RECIPIENTS)
DEPTH = merkle.rows_depth(27)


def empty(level: int, position: int) -> bytes:
    """Hash an empty subtree, said once more in words other than merkle.py's."""
    return sha256(b"valise/empty/v1\x00" + SEED + bytes([level]) + position.to_bytes(4, "big")).digest()


def rows_json() -> Json:
    """Seed, salts, rows, root and paths."""
    laid = route.lay(LINES, SEED, DEPTH)
    return {
        "about": "The rows' tree of one notice with three recipients; described in docs/envelope.md.",
        "seed": SEED,
        "depth": DEPTH,
        "rows": [
            {
                "index": each.index,
                "bureau": each.bureau,
                "delivery_number": each.delivery_number,
                "shown": each.shown,
                "row": laid.rows[each.index],
                "salt": laid.tree.salt(each.index),
                "hash": merkle.row_hash(laid.tree.salt(each.index), laid.rows[each.index]),
                "path": laid.tree.path(each.index),
            }
            for each in RECIPIENTS
        ],
        "empty": [{"level": a, "position": b, "hash": empty(a, b)} for a, b in ((0, 2), (1, 0), (5, 1))],
        "root": laid.root,
    }


# The leaf, the log, the deliveries.


def decision() -> bytes:
    """The decision record."""
    made = envelope()
    mask = sum(1 << each.index for each in RECIPIENTS)
    return codec.encode(
        DecisionRecord(
            stream="notices.at",
            partition=0,
            offset=41,
            at=NOW - 10,
            record_digest=sha256(codec.encode(made)).digest(),
            header=made.header,
            routing=OPENED["routing"].salt + OPENED["routing"].data,
            statement=b"",
            seed=SEED,
            depth=DEPTH,
            rows=RECIPIENTS,
            rules=(RuleHit("share-within-agreement", mask),),
            terms=Terms(allowed=mask | 1, audience=mask, denied=1 << 20, reached=mask),
            warnings=(),
            detail="",
            key_id=made.key_id,
            signature=made.signature,
        )
    )


def leaf() -> Leaf:
    """The record leaf."""
    return Leaf(
        kind="routed",
        now=NOW,
        code=None,
        header_digest=header_digest(envelope().header),
        about=None,
        missing=0,
        directory=fixed("directory digest"),
        policies=fixed("policies digest"),
        decision=decision_digest(fixed("decision salt"), decision()),
        rows=route.lay(LINES, SEED, DEPTH).root,
    )


def leaf_hashes() -> list[bytes]:
    """The log: our leaf among six that are not leaves of anything."""
    entries = [b"entry %d" % number for number in range(SIZE)]
    entries[LEAF_NUMBER] = codec.encode(leaf())
    return [merkle.leaf_hash(each) for each in entries]


def subtree(level: int, index: int) -> bytes:
    """Root of a complete subtree of the log."""
    return merkle.root(leaf_hashes()[index << level : index + 1 << level])


def checkpoint(size: int) -> str:
    """The signed note of a head."""
    head = notes.Checkpoint(ORIGIN, size, merkle.root(leaf_hashes()[:size]))
    return notes.sign_checkpoint(head, key("log"))


def tlog_proof() -> str:
    """The tlog-proof text of our leaf."""
    path = merkle.inclusion_proof(LEAF_NUMBER, SIZE, subtree)
    return notes.format_proof(LEAF_NUMBER, path, checkpoint(SIZE))


def made_route() -> route.Route:
    """What distribute would hold of this leaf."""
    return route.Route(
        leaf_number=LEAF_NUMBER,
        leaf=codec.encode(leaf()),
        decision_salt=fixed("decision salt"),
        decision=decision(),
        lines=LINES,
        laid=route.lay(LINES, SEED, DEPTH),
        envelope=envelope(),
        compartments=compartments(),
        expires=None,
        tell=(),
        outcome=None,
        key=header().notice_id,
    )


def deliveries() -> dict[str, bytes]:
    """The deliveries as the bureaus read them, by inbox stream."""
    copies = route.deliveries(made_route(), tlog_proof(), 0, expired=False)
    return {stream: own + each.shared for each in copies for stream, own in each.own}


def _delivery_json(recipient: Recipient, data: bytes) -> Json:
    delivery = codec.decode(Delivery, data)
    shared = codec.decode(Shared, delivery.shared)
    shown = codec.decode(Envelope, shared.envelope)
    return {
        "bureau": recipient.bureau,
        "index": recipient.index,
        "delivery_number": recipient.delivery_number,
        "shown": recipient.shown,
        "opened": [each.name for each in codec.decode_compartments(shown.compartments) if each.opened],
        "envelope": shared.envelope,
        "shared": delivery.shared,
        "delivery": data,
    }


def delivery_json() -> Json:
    """Decision → leaf → log → proof → deliveries."""
    made, read = codec.encode(leaf()), deliveries()
    return {
        "about": "The deliveries of the notice of envelope.json; described in docs/envelope.md.",
        "federation": FEDERATION,
        "shard": 0,
        "issuer_key": key_json("AT/ncb"),
        "log_key": key_json("log") | {"name": ORIGIN},
        "vkey": str(notes.vkey(ORIGIN, key("log").public.raw)),
        "decision": {
            "record": decision(),
            "salt": fixed("decision salt"),
            "digest": decision_digest(fixed("decision salt"), decision()),
        },
        "leaf": {
            "value": asdict(leaf()),
            "number": LEAF_NUMBER,
            "bytes": made,
            "hash": merkle.leaf_hash(made),
        },
        "checkpoint": checkpoint(SIZE),
        "proof": tlog_proof(),
        "deliveries": [
            _delivery_json(each, read["inbox." + each.bureau.lower().replace("/", ".")]) for each in RECIPIENTS
        ],
    }


def trail_json() -> Json:
    """Roots, inclusion and consistency proofs of every size of a log of seven leaves."""
    sizes = range(1, SIZE + 1)
    return {
        "about": "A log of seven leaves; leaf 4 is that of delivery.json. Proofs are lists of hashes as in RFC 6962.",
        "leaf_hashes": leaf_hashes(),
        "roots": [merkle.root(leaf_hashes()[:size]) for size in sizes],
        "inclusion": [
            {"leaf": number, "size": size, "proof": merkle.inclusion_proof(number, size, subtree)}
            for size in sizes
            for number in range(size)
        ],
        "consistency": [
            {"old": old, "new": new, "proof": merkle.consistency_proof(old, new, subtree)}
            for new in sizes
            for old in range(1, new)
        ],
        "checkpoints_record": notes.format_advance(
            3, merkle.consistency_proof(3, SIZE, subtree), checkpoint(SIZE)
        ),
    }  # fmt: skip


# Statements.


def _statement_json(payload_type: str, payload: Receipt | Subscription | Revocation) -> Json:
    data, signer = codec.encode(payload), key(payload.bureau)
    signature = signer.sign_payload(payload_type, data)
    return {
        "payload_type": payload_type,
        "signer": key_json(payload.bureau),
        "value": asdict(payload),
        "payload": data,
        "pae": pae(payload_type, data),
        "signature": signature,
        "statement": codec.encode(Statement(payload_type, data, signer.public.id, signature)),
    }


def statement_json() -> Json:
    """A receipt, a subscription and a revocation."""
    item = ReceiptItem(LEAF_NUMBER, header_digest(envelope().header))
    case = sha256(fixed("case salt") + b"LV-77/2026").digest()
    receipt = Receipt(FEDERATION, "LV/ncb", "AT", "read", (item,), None, case, 2, NOW + 60_000)
    subscription = Subscription(FEDERATION, "LV/ncb", 1, ("wanted.red", "organised-crime.*"), NOW)
    revocation = Revocation(FEDERATION, "LV/ncb", key("LV/lost").public.id, "lost", NOW)
    return {
        "about": "Statements; described in docs/envelope.md.",
        "case": {"salt": fixed("case salt"), "reference": "LV-77/2026", "digest": case},
        "statements": [
            _statement_json(notice.RECEIPT_TYPE, receipt),
            _statement_json(notice.SUBSCRIPTION_TYPE, subscription),
            _statement_json(notice.REVOCATION_TYPE, revocation),
        ],
    }


FILES = {
    "envelope": envelope_json,
    "rows": rows_json,
    "delivery": delivery_json,
    "trail": trail_json,
    "statement": statement_json,
}


def text(name: str) -> str:
    """Make one file's text."""
    return json.dumps(plain(FILES[name]()), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all files."""
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")


if __name__ == "__main__":
    main()
