"""A program in another language, written from docs/envelope.md alone, opens our deliveries and refuses altered ones."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broker import by_hand, codec, merkle, notes, notice, route
from broker.notice import Delivery, Envelope, Leaf, Opened, Reference, Row, Shared
from broker.signing import SigningKey, header_digest
from tests.vectors import make

PROGRAM = Path(__file__).parents[2] / "docs" / "open-delivery.mjs"
VECTORS: dict[str, Any] = json.loads((make.FOLDER / "delivery.json").read_text(encoding="utf-8"))
OURS = VECTORS["deliveries"][1]
DELIVERY = bytes.fromhex(OURS["delivery"])
VKEY: str = VECTORS["vkey"]
ISSUER_KEY: str = VECTORS["issuer_key"]["public"]
FAILED = 4


def run(path: Path, **options: str) -> subprocess.CompletedProcess[str]:
    """A missing `node` is a failure, never a reason to skip."""
    # By its own clock nothing would have to be open once what the vectors may be kept for has passed.
    known = {"vkey": VKEY, "issuer-key": ISSUER_KEY, "now": str(make.NOW)}
    given = known | {key.replace("_", "-"): value for key, value in options.items()}
    arguments = [text for name, value in given.items() for text in (f"--{name}", value)]
    return subprocess.run(
        ["node", str(PROGRAM), str(path), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def opened(tmp_path: Path, data: bytes, **options: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "delivery").write_bytes(data)
    return run(tmp_path / "delivery", **options)


def assert_refused(done: subprocess.CompletedProcess[str], reason: str = "") -> None:
    assert (done.returncode, done.stdout) == (FAILED, ""), done.stdout + done.stderr
    assert reason in done.stderr
    assert "    at " not in done.stderr  # a reason, not a stack trace


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_delivery_of_the_vectors_is_opened(tmp_path: Path, position: int) -> None:
    expected = VECTORS["deliveries"][position]
    done = opened(
        tmp_path, bytes.fromhex(expected["delivery"]),
        bureau=expected["bureau"], index=str(expected["index"]), issuer="AT/ncb", federation=VECTORS["federation"],
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["bureau"] == expected["bureau"]
    assert found["delivery_number"] == expected["delivery_number"]
    assert found["shown"] == expected["shown"]
    assert [each["name"] for each in found["opened"]] == expected["opened"]
    assert found["leaf_hash"] == VECTORS["leaf"]["hash"]
    assert found["now"] == VECTORS["leaf"]["value"]["now"]
    assert found["header_digest"] == VECTORS["leaf"]["value"]["header_digest"]


def test_header_and_bodies_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = json.loads(opened(tmp_path, bytes.fromhex(VECTORS["deliveries"][0]["delivery"])).stdout)
    envelope = json.loads((make.FOLDER / "envelope.json").read_text(encoding="utf-8"))
    assert found["header"] == envelope["header"]["value"]
    bodies = {each["name"]: each["bytes"] for each in envelope["compartments"]}
    assert [bodies[each["name"]] for each in found["opened"]] == [each["bytes"] for each in found["opened"]]


def test_the_verifier_key_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "vkey").write_text(VKEY + "\n")
    assert opened(tmp_path, DELIVERY, vkey=str(tmp_path / "vkey")).returncode == 0


@pytest.mark.parametrize("position", [*range(10), *range(10, len(DELIVERY), 31), len(DELIVERY) - 1])
def test_a_changed_byte_is_refused(tmp_path: Path, position: int) -> None:
    data = bytearray(DELIVERY)
    data[position] ^= 1
    assert_refused(opened(tmp_path, bytes(data)))


@dataclass(frozen=True)
class Parts:
    """A delivery taken apart."""

    delivery: Delivery
    shared: Shared
    envelope: Envelope
    leaf: Leaf

    def joined(self) -> bytes:
        return codec.encode(replace(self.delivery, shared=codec.encode(self.shared)))

    def with_envelope(self, envelope: Envelope) -> bytes:
        return replace(self, shared=replace(self.shared, envelope=codec.encode(envelope))).joined()

    def with_shared(self, **changes: Any) -> bytes:
        return replace(self, shared=replace(self.shared, **changes)).joined()

    def with_delivery(self, **changes: Any) -> bytes:
        return replace(self, delivery=replace(self.delivery, **changes)).joined()

    def relogged(self, leaf: Leaf, envelope: Envelope | None = None, row: bytes | None = None) -> bytes:
        """What a log that lies would hand out: another leaf, rightly logged as the only one and signed."""
        leaf_bytes = codec.encode(leaf)
        checkpoint = notes.sign_checkpoint(
            notes.Checkpoint(make.ORIGIN, 1, merkle.leaf_hash(leaf_bytes)), make.key("log")
        )
        shared = Shared(codec.encode(envelope or self.envelope), leaf_bytes, notes.format_proof(0, [], checkpoint))
        delivery = replace(self.delivery, leaf_number=0, row=row or self.delivery.row)
        return replace(self, delivery=delivery, shared=shared).joined()


def parts() -> Parts:
    delivery = codec.decode(Delivery, DELIVERY)
    shared = codec.decode(Shared, delivery.shared)
    return Parts(delivery, shared, codec.decode(Envelope, shared.envelope), codec.decode(Leaf, shared.leaf))


def withheld(shown: int) -> Envelope:
    return replace(make.envelope(), compartments=by_hand.withhold(make.compartments(), shown))


def other_body() -> bytes:
    made = list(codec.decode_compartments(parts().envelope.compartments))
    made[3] = replace(made[3], opened=Opened(make.OPENED["desk"].salt, make.OPENED["desk"].data + b"\0"))
    return parts().with_envelope(replace(parts().envelope, compartments=codec.encode_compartments(tuple(made))))


def other_header(key: SigningKey, **changes: Any) -> bytes:
    """Another header, rightly in the log."""
    header = codec.encode(replace(make.header(), **changes))
    envelope = replace(
        parts().envelope,
        header=header, key_id=key.public.id, signature=key.sign_payload(notice.HEADER_TYPE, header),
    )  # fmt: skip
    return parts().relogged(replace(parts().leaf, header_digest=header_digest(header)), envelope)


def resigned_proof(key: SigningKey, origin: str = make.ORIGIN) -> bytes:
    head = notes.Checkpoint(origin, make.SIZE, merkle.root(make.leaf_hashes()))
    checkpoint = notes.sign_checkpoint(head, key)
    path = merkle.inclusion_proof(make.LEAF_NUMBER, make.SIZE, make.subtree)
    return parts().with_shared(proof=notes.format_proof(make.LEAF_NUMBER, path, checkpoint))


def row_of(bureau: str = "GE/ncb", number: int = 12, shown: int = 8) -> bytes:
    """A row that is rightly in the leaf, and not this delivery's."""
    row = codec.encode(Row(bureau, number, shown))
    tree = merkle.Rows(make.SEED, make.DEPTH)
    rows = dict(route.lay(make.LINES, make.SEED, make.DEPTH).rows)
    root = tree.build(rows | {9: row})
    laid = replace(parts(), delivery=replace(parts().delivery, path=tree.path(9)))
    return laid.relogged(replace(parts().leaf, rows=root), row=row)


STRANGER = SigningKey.from_seed(b"stranger" * 4)
CORRUPTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "leftover bytes": (lambda: DELIVERY + b"\0", "left over"),
    "cut short": (lambda: DELIVERY[:-1], "cut short"),
    "empty": (lambda: b"", "not a delivery"),
    "over the limit": (lambda: bytes(1_000_001), "1000000 bytes"),
    "leftover bytes in shared": (
        lambda: codec.encode(replace(parts().delivery, shared=parts().delivery.shared + b"\0")), "left over",
    ),
    "leftover bytes in the envelope": (
        lambda: parts().with_shared(envelope=parts().shared.envelope + b"\0"), "left over",
    ),
    "another leaf number": (lambda: parts().with_delivery(leaf_number=3), "another leaf"),
    "another bureau": (lambda: parts().with_delivery(bureau="RU/ncb"), "another bureau"),
    "another delivery number": (lambda: parts().with_delivery(delivery_number=13), "another delivery number"),
    "another shard": (lambda: parts().with_delivery(shard=1), "another shard"),
    "another index": (lambda: parts().with_delivery(index=8), "not below the root"),
    "an index beyond the path": (lambda: parts().with_delivery(index=9 + 64), "beyond the path"),
    "another salt": (lambda: parts().with_delivery(salt=bytes(32)), "not below the root"),
    "a shorter path": (lambda: parts().with_delivery(path=parts().delivery.path[:-32]), "wrong length"),
    "a longer path": (lambda: parts().with_delivery(path=parts().delivery.path + bytes(32)), "not below the root"),
    "the row of another": (
        lambda: parts().with_delivery(
            row=route.lay(make.LINES, make.SEED, make.DEPTH).rows[27]
        ),
        "not below the root",
    ),
    "another leaf": (
        lambda: parts().with_shared(leaf=codec.encode(replace(parts().leaf, now=make.NOW + 1))), "not in the log",
    ),
    "a proof of another leaf": (
        lambda: parts().with_shared(proof=parts().shared.proof.replace("index 4", "index 5")), "another leaf",
    ),
    "a proof that lacks a hash": (
        lambda: parts().with_shared(
            proof="\n".join(parts().shared.proof.split("\n")[:2] + parts().shared.proof.split("\n")[3:])
        ),
        "not in the log",
    ),
    "a checkpoint of another size": (
        lambda: parts().with_shared(proof=parts().shared.proof.replace("trail\n7\n", "trail\n8\n")),
        "signature of the checkpoint",
    ),
    "a checkpoint that nobody signed": (
        lambda: parts().with_shared(proof=parts().shared.proof.rpartition("\n\n")[0] + "\n\n"), "",
    ),
    "a checkpoint signed by a stranger": (lambda: resigned_proof(STRANGER), "not signed by this log"),
    "a checkpoint of another log": (lambda: resigned_proof(make.key("log"), "example/other"), "not signed by this log"),
    "another signature": (
        lambda: parts().with_envelope(replace(parts().envelope, signature=bytes(64))), "signature is not good",
    ),
    "another key id": (
        lambda: parts().with_envelope(replace(parts().envelope, key_id=bytes(32))), "another key",
    ),
    "another header, signed": (
        lambda: parts().with_envelope(
            replace(parts().envelope, header=codec.encode(replace(make.header(), urgency="flash")))
        ),
        "another header",
    ),
    "a header that a stranger signed": (lambda: other_header(STRANGER), "another key"),
    "a header of another federation": (lambda: other_header(make.key("AT/ncb"), federation="other"), "federation"),
    "a header of an unknown kind": (lambda: other_header(make.key("AT/ncb"), kind="rumour"), "not those of the kind"),
    "a header of Object's own kind": (
        lambda: other_header(make.key("AT/ncb"), kind="constructor"), "not those of the kind",
    ),
    "other bytes in a compartment": (other_body, "digest of desk"),
    "a compartment too many": (lambda: parts().with_envelope(withheld(0b1010)), "is not what the row says"),
    "routing shown": (lambda: parts().with_envelope(withheld(0b1001)), "is not what the row says"),
    "a compartment too few": (lambda: parts().with_envelope(withheld(0)), "is not what the row says"),
    "a row that shows more": (lambda: row_of(shown=0b1010), "is not what the row says"),
    "a row of another bureau": (lambda: row_of(bureau="RU/ncb"), "another bureau"),
    "a row of another number": (lambda: row_of(number=13), "another delivery number"),
    "a leaf of a rejection": (
        lambda: parts().relogged(replace(parts().leaf, kind="rejected")), "without deliveries",
    ),
    "a leaf without rows": (lambda: parts().relogged(replace(parts().leaf, rows=None)), "without deliveries"),
}  # fmt: skip


@pytest.mark.parametrize("case", CORRUPTED)
def test_an_altered_delivery_is_refused(tmp_path: Path, case: str) -> None:
    made, reason = CORRUPTED[case]
    assert_refused(opened(tmp_path, made()), reason)


def test_what_the_lying_log_of_these_tests_hands_out_is_otherwise_good(tmp_path: Path) -> None:
    assert opened(tmp_path, parts().relogged(parts().leaf)).returncode == 0
    assert opened(tmp_path, row_of()).returncode == 0
    assert opened(tmp_path, other_header(make.key("AT/ncb"), urgency="flash")).returncode == 0
    cited = (Reference("GE/ncb", bytes(16), bytes(32), "cites"),) * 70  # a count of two bytes
    assert opened(tmp_path, other_header(make.key("AT/ncb"), references=cited)).returncode == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("issuer_key", STRANGER.public.raw.hex()),
        ("vkey", str(notes.vkey(make.ORIGIN, STRANGER.public.raw))),
        ("vkey", VKEY[:-2] + "A="),
        ("vkey", VKEY.replace("trail+8", "trail+9")),
        ("bureau", "RU/ncb"),
        ("index", "27"),
        ("issuer", "LV/ncb"),
        ("federation", "other"),
        ("shard", "1"),
    ],
)
def test_a_delivery_that_does_not_fit_what_is_known_is_refused(tmp_path: Path, option: str, value: str) -> None:
    assert_refused(opened(tmp_path, DELIVERY, **{option: value}))


def test_a_notice_that_expired_on_the_way_comes_with_nothing_open(tmp_path: Path) -> None:
    expires = make.NOW + 1_000_000
    header = codec.encode(replace(make.header(), expires=expires))
    envelope = replace(
        withheld(0), header=header, signature=make.key("AT/ncb").sign_payload(notice.HEADER_TYPE, header)
    )
    data = parts().relogged(replace(parts().leaf, header_digest=header_digest(header)), envelope)
    assert opened(tmp_path, data, now=str(expires)).returncode == 0
    assert_refused(opened(tmp_path, data, now=str(make.NOW)), "is not what the row says")


def test_wrong_usage_is_told_apart(tmp_path: Path) -> None:
    usage = 2
    assert opened(tmp_path, DELIVERY, issuer_key="key").returncode == usage
    assert run(tmp_path / "missing").returncode == usage
