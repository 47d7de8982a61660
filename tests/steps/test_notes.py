"""Signed notes, checkpoints and proofs as C2SP writes them."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest

from broker import notes
from broker.errors import ProofError
from broker.notes import Checkpoint
from broker.signing import SigningKey

# C2SP signed-note, "Example"
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
KEY = SigningKey.from_seed(sha256(b"key").digest())
OTHER = SigningKey.from_seed(sha256(b"other").digest())
NAME = "example.org/log"
KNOWN = notes.vkey(NAME, KEY.public.raw)
HEAD = Checkpoint(NAME, 5, sha256(b"root").digest())


def test_the_example_of_the_specification_verifies() -> None:
    key = notes.parse_vkey(VKEY)
    assert str(key) == VKEY
    assert notes.check(NOTE, [key]) == "This is an example message.\n"


def test_a_changed_text_is_refused() -> None:
    with pytest.raises(ProofError, match="does not fit"):
        notes.check(NOTE.replace("example message", "exbmple message"), [notes.parse_vkey(VKEY)])


def test_a_note_of_unknown_keys_only_is_refused() -> None:
    with pytest.raises(ProofError, match="no signature of a known key"):
        notes.check(NOTE, [KNOWN])


def test_signatures_of_unknown_keys_are_passed_over() -> None:
    signed = notes.sign("text\n", NAME, KEY)
    witness = notes.sign("text\n", "witness.example", OTHER).rpartition("\n\n")[2]
    same_name = notes.sign("text\n", NAME, OTHER).rpartition("\n\n")[2]
    assert notes.check(signed + witness + same_name, [KNOWN]) == "text\n"


def test_one_bad_signature_of_a_known_key_refuses_the_whole_note() -> None:
    signed = notes.sign("text\n", NAME, KEY)
    bad = f"— {NAME} {b64encode(KNOWN.id + bytes(64)).decode()}\n"
    with pytest.raises(ProofError, match="does not fit"):
        notes.check(signed + bad, [KNOWN])


def test_a_text_may_hold_empty_lines() -> None:
    assert notes.check(notes.sign("a\n\n— b\n\nc\n", NAME, KEY), [KNOWN]) == "a\n\n— b\n\nc\n"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text",
        "text\n",
        "text\n\n",
        "\n\n— a AAAAAAA=\n",
        "text\n\n- a AAAAAAA=\n",
        "text\n\n— a+b AAAAAAA=\n",
        "text\n\n— a\u00a0b AAAAAAA=\n",
        "text\n\n— a AAAA\n",
        "text\n\n— a AAAAAA==\n",
        "text\n\n— a AAAAAAB=\n",
        "text\n\n— a AAAAAAA=",
        "text\n\n— a AAAAAAA= \n",
        "te\txt\n\n— a AAAAAAA=\n",
        "te\rxt\n\n— a AAAAAAA=\n",
        b"t\xff\n\n",
        "text\n\n" + "— a AAAAAAA=\n" * (notes.SIGNATURE_LIMIT + 1),
        "x" * (notes.NOTE_LIMIT + 1),
    ],
)
def test_what_is_no_note_is_refused(note: str | bytes) -> None:
    with pytest.raises(ProofError):
        notes.parse(note)


def test_sixteen_signatures_are_accepted() -> None:
    assert len(notes.parse("text\n\n" + "— a AAAAAAA=\n" * 16).signatures) == 16


@pytest.mark.parametrize(
    "text",
    [
        "example.com/foo",
        "example.com/foo+530d903a",
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("example.com/foo", "example.com/fo o"),
        VKEY.replace("+Aek", "+Bek"),
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        notes.parse_vkey(text)


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    assert notes.open_checkpoint(notes.sign_checkpoint(HEAD, KEY), KNOWN) == HEAD


def test_a_checkpoint_of_another_origin_is_refused_though_the_key_signed_it() -> None:
    text = Checkpoint("example.org/another", 5, HEAD.root).text
    with pytest.raises(ProofError, match="not of"):
        notes.open_checkpoint(notes.sign(text, NAME, KEY), KNOWN)


@pytest.mark.parametrize("size", ["05", "-1", "", "5 ", "٥", "1e3"])
def test_a_size_is_written_in_one_way_only(size: str) -> None:
    with pytest.raises(ProofError):
        notes.parse_checkpoint(f"{NAME}\n{size}\n{notes.line(HEAD.root)}\n")


@pytest.mark.parametrize("tail", ["extension\n", "\n"])
def test_a_checkpoint_with_more_lines_is_refused(tail: str) -> None:
    with pytest.raises(ProofError):
        notes.parse_checkpoint(HEAD.text + tail)


def test_a_proof_comes_back_as_it_was_written() -> None:
    checkpoint = notes.sign_checkpoint(HEAD, KEY)
    hashes = (sha256(b"1").digest(), sha256(b"2").digest())
    parsed = notes.parse_proof(notes.format_proof(3, hashes, checkpoint))
    assert (parsed.number, parsed.proof, parsed.checkpoint) == (3, hashes, checkpoint)


def test_the_extra_line_of_a_proof_is_passed_over() -> None:
    text = notes.format_proof(0, (), notes.sign_checkpoint(HEAD, KEY)).replace("\nindex", "\nextra QUJD\nindex")
    assert notes.parse_proof(text).number == 0


@pytest.mark.parametrize(
    "head",
    [
        "c2sp.org/tlog-proof@v2\nindex 0",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\nindex 00",
        "c2sp.org/tlog-proof@v1\nindex 0\nAAAA",
        "c2sp.org/tlog-proof@v1\nextra ?\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex 0" + ("\n" + notes.line(bytes(32))) * 64,
    ],
)
def test_what_is_no_proof_is_refused(head: str) -> None:
    with pytest.raises(ProofError):
        notes.parse_proof(f"{head}\n\n{notes.sign_checkpoint(HEAD, KEY)}")


def test_an_advance_comes_back_as_it_was_written() -> None:
    checkpoint = notes.sign_checkpoint(HEAD, KEY)
    body = notes.format_advance(3, [sha256(b"1").digest()], checkpoint)
    assert body.startswith("old 3\n")
    parsed = notes.parse_advance(body.encode())
    assert (parsed.old, parsed.proof, parsed.checkpoint) == (3, (sha256(b"1").digest(),), checkpoint)


@pytest.mark.parametrize("body", ["", "old 3", "new 3\n\nx", "old 03\n\nx", "old 3\nAAAA\n\nx"])
def test_what_is_no_advance_is_refused(body: str) -> None:
    with pytest.raises(ProofError):
        notes.parse_advance(body)
