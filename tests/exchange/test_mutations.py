"""20,000 mutated envelopes: each ends in a ruling, none escapes, none is routed that its issuer did not sign."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from broker import avro, codec
from broker.bus import Record
from broker.decide import Subscriptions, View
from broker.directory import NO_ANNEX
from broker.errors import NoticeRejectedError
from broker.judge import Judge
from broker.members import canonical, parse
from broker.register import Register
from broker.rules import PolicySet, Rules
from broker.verify import Keys, check
from tests import federation as world
from tests.making import NOW, Draft

DIRECTORY = parse(canonical(world.directory()))
SEED = 20_261_123
MUTATIONS = 20_000


def _judge(folder: Path) -> Judge:
    view = View(DIRECTORY, Rules.load(PolicySet.packaged(), DIRECTORY, NO_ANNEX), Subscriptions.of(DIRECTORY, {}))
    return Judge(Register(folder / "register.db"), view, lambda _: None)


def _rule(judge: Judge, data: bytes) -> str:
    """Do to one record what ingest does, without its nets: whatever escapes fails the test."""
    record = Record("notices.at", 0, 0, NOW, b"", data)
    try:
        checked = check(record, NOW, Keys(DIRECTORY, set()))
    except NoticeRejectedError as error:
        return judge.rule(record, error, NOW).kind
    return judge.rule(record, checked, NOW).kind


def _mutated(data: bytes, source: random.Random) -> bytes:
    """Change, insert, delete, double or swap a stretch, once to four times."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        begin = source.randrange(len(changed))
        end = min(len(changed), begin + source.choice((1, 1, 1, 2, 4, 16, 64)))
        act = source.randrange(5)
        if act == 0:
            changed[begin] ^= 1 << source.randrange(8)
        elif act == 1:
            changed[begin:begin] = source.randbytes(end - begin)
        elif act == 2 and len(changed) > end - begin + 20:
            del changed[begin:end]
        elif act == 3:
            changed[begin:begin] = changed[begin:end]
        else:
            changed[begin:end] = source.choice((b"\0", b"\xff", b"\x80")) * (end - begin)
    return bytes(changed)


def test_no_mutation_escapes(tmp_path: Path) -> None:
    judge, source = _judge(tmp_path), random.Random(SEED)
    honest = [
        codec.encode(Draft("AT/ncb", kind=kind, parts=()).to("GE/ncb").envelope()) for kind in ("person", "network")
    ]
    honest.append(codec.encode(Draft("AT/ncb").to("GE/ncb").envelope()))
    assert {_rule(judge, each) for each in honest} == {"routed"}
    kinds = set[str]()
    for _ in range(MUTATIONS):
        original = source.choice(honest)
        mutated = _mutated(original, source)
        if mutated != original:
            kinds.add(_rule(judge, mutated))
    assert "rejected" in kinds
    assert kinds <= {"rejected", "routed"}  # routed: one that only wrote a length in more bytes; see below


def test_only_signed_bytes_are_ever_routed(tmp_path: Path) -> None:
    """What is routed carries the honest header, and compartments of the honest notice: it may lack some."""
    judge, source = _judge(tmp_path), random.Random(SEED + 1)
    original = Draft("AT/ncb").to("GE/ncb").envelope()
    honest = codec.decode_compartments(original.compartments)
    routed = 0
    for _ in range(2_000):
        withheld = {each.name for each in honest[1:] if source.random() < 0.5}
        parts = tuple(replace(each, opened=None) if each.name in withheld else each for each in honest)
        data = codec.encode(replace(original, compartments=codec.encode_compartments(parts)))
        data = _mutated(data, source) if source.random() < 0.5 else data
        record = Record("notices.at", 0, 0, NOW, b"", data)
        try:
            checked = check(record, NOW, Keys(DIRECTORY, set()))
        except NoticeRejectedError:
            continue
        ruling = judge.rule(record, checked, NOW)
        if ruling.verified:
            routed += 1
            assert ruling.verified.envelope.header == original.header
            assert {each for each in ruling.verified.compartments if each.opened} <= set(honest)
    assert routed > 900


@settings(max_examples=300)
@given(data=st.binary(max_size=600))
def test_any_bytes_behind_a_right_prefix_are_refused(data: bytes) -> None:
    record = Record("notices.at", 0, 0, NOW, b"", avro.prefix("envelope") + data)
    try:
        check(record, NOW, Keys(DIRECTORY, set()))
    except NoticeRejectedError:
        return
    message = "unsigned bytes were accepted"
    raise AssertionError(message)
