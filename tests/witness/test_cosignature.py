"""Cosignatures as C2SP tlog-cosignature writes them."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from broker import cosignature, notes
from broker.errors import ProofError
from broker.signing import SigningKey
from tests.witness.log import LOG, Log, cosigner, identity

KNOWN = json.loads((Path(__file__).parent.parent / "vectors" / "cosignature.json").read_text(encoding="utf-8"))
NAME = "witness.example/w1"


def cosigned(time: int = 5, name: str = NAME) -> str:
    log = Log(3)
    return log.note() + cosignature.cosign(log.head().text, name, identity(name).key, time)


def test_the_cosignature_of_another_implementation_is_made_and_checked_alike() -> None:
    key = SigningKey.from_seed(bytes.fromhex(KNOWN["seed"]))
    by = cosignature.parse_cosigner(KNOWN["vkey"])
    assert str(by) == KNOWN["vkey"] == str(cosignature.cosigner(KNOWN["name"], key.public.raw))
    assert cosignature.cosign(KNOWN["text"], KNOWN["name"], key, KNOWN["time"]) == KNOWN["line"]
    (found,) = cosignature.cosignatures(f"{KNOWN['text']}\n{KNOWN['line']}", [by]).values()
    assert (found.time, found.line, found.by.name) == (KNOWN["time"], KNOWN["line"], KNOWN["name"])


def test_the_log_s_own_signature_still_verifies_beside_a_cosignature() -> None:
    assert notes.open_checkpoint(cosigned(), LOG) == Log(3).head()


def test_a_cosignature_is_passed_over_by_who_does_not_know_the_witness() -> None:
    assert cosignature.cosignatures(cosigned(), [cosigner("witness.example/w2")]) == {}


def test_the_key_of_a_log_is_no_key_of_a_witness() -> None:
    with pytest.raises(ProofError, match="0x04"):
        cosignature.parse_cosigner(str(LOG))
    with pytest.raises(ProofError, match="not an Ed25519 verifier key"):
        notes.parse_vkey(str(cosigner()))


@pytest.mark.parametrize("time", [0, -1, 2**63])
def test_no_cosignature_bears_a_time_that_the_format_excludes(time: int) -> None:
    with pytest.raises(ProofError):
        cosignature.cosign(Log(3).head().text, NAME, identity().key, time)


def test_another_time_another_text_or_another_length_fails() -> None:
    by, note = cosigner(), cosigned()
    name, key_id, signature = notes.parse(note).signatures[1]
    later = notes.signature_line(name, key_id, (6).to_bytes(8, "big") + signature[8:])
    never = notes.signature_line(name, key_id, bytes(8) + signature[8:])
    longer = notes.signature_line(name, key_id, signature + b"x")
    plain = f"— {NAME} {b64encode(by.id + identity().key.sign(Log(3).head().text.encode())).decode()}\n"
    wrong = [Log(3).note() + each for each in (later, never, longer, plain)]
    wrong.append(Log(4).note() + note.rpartition("\n\n")[2])
    for each in wrong:
        with pytest.raises(ProofError, match=NAME):
            cosignature.cosignatures(each, [by])


def test_of_one_witness_the_latest_word_counts_and_counts_once() -> None:
    log = Log(3)
    both = cosigned(5) + cosignature.cosign(log.head().text, NAME, identity().key, 9)
    found = cosignature.cosignatures(both, [cosigner()])
    assert [each.time for each in found.values()] == [9]
    assert cosignature.quorum_time(found, 1) == 9
    assert cosignature.quorum_time(found, 2) is None


def test_one_key_under_two_names_is_one_witness() -> None:
    key, head = identity().key, Log(3).head()
    twins = [cosignature.cosigner(each, key.public.raw) for each in ("w.example/a", "w.example/b")]
    note = Log(3).note() + "".join(cosignature.cosign(head.text, each.name, key, 5) for each in twins)
    assert len(cosignature.cosignatures(note, twins)) == 1
    with pytest.raises(ProofError, match="twice"):
        cosignature.check_distinct(twins)


def test_lines_are_added_once_and_replaced_by_newer_ones() -> None:
    by = cosigner()
    older, newer = cosigned(5), cosigned(9)
    found = cosignature.cosignatures(newer, [by])
    assert cosignature.with_lines(Log(3).note(), found) == newer
    assert cosignature.with_lines(older, found) == newer


def test_a_quorum_stood_by_it_when_its_last_needed_word_was_given() -> None:
    names = ("w.example/a", "w.example/b", "w.example/c")
    lines = [
        cosignature.cosign(Log(3).head().text, each, identity(each).key, time)
        for each, time in zip(names, (50, 90, 70), strict=True)
    ]
    found = cosignature.cosignatures(Log(3).note() + "".join(lines), map(cosigner, names))
    assert [cosignature.quorum_time(found, each) for each in (1, 2, 3, 4, 0)] == [90, 70, 50, None, None]
