"""What `broker status` counts is what a look at every leaf gives; a leaf that was counted is not looked at again."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from broker import codec, notes
from broker.notice import DecisionRecord, Entry, Leaf
from broker.records import Records
from broker.signing import SigningKey
from broker.trail import Trail
from cli.tally import FILE, Tally, counted, note

KEY = SigningKey.from_seed(sha256(b"tally").digest())
ORIGIN = "tally/trail"
DIGEST = bytes(32)
KINDS = ("held", "routed", "released", "receipt")
STREAMS = ("notices.at", "receipts.at", "notices.lv", "versions")


def entry(number: int) -> Entry:
    """Any leaf of a log, and its record."""
    draw = random.Random(number)
    about = draw.choice((None, draw.randrange(number))) if number else None
    leaf = Leaf(draw.choice(KINDS), 1000 + number, None, None, about, 0, DIGEST, DIGEST, DIGEST, None)
    record = DecisionRecord(draw.choice(STREAMS), 0, number, 5000 + number, DIGEST)
    return Entry(number, codec.encode(leaf), DIGEST, codec.encode(record))


def extend(folder: Path, size: int, *, records: int | None = None, first: int = 0) -> Trail:
    """Let the log of a home go on to `size` leaves, its records to `records`; `first` makes it another log."""
    trail = Trail.open(folder / "trail", ORIGIN)
    staged = trail.stage([entry(first + each).leaf for each in range(trail.size, size)])
    trail.write(staged)
    note_ = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, staged.size, staged.root), KEY)
    trail.publish(staged, note_)
    trail.adopt(staged, note_)
    with closing(Records(folder / "records.db")) as kept:
        kept.add([entry(each) for each in range(kept.size, size if records is None else records)])
    return trail


def told(folder: Path, trail: Trail) -> tuple[Tally, list[int]]:
    """Count, and give what it came to and which leaves were looked at."""
    looked = list[int]()
    return counted(folder, trail, lambda done, _size: looked.append(done)), looked


def expected(size: int, first: int = 0) -> tuple[Counter[str], dict[int, int]]:
    """Look at every leaf."""
    kinds, undecided = Counter[str](), dict[int, int]()
    for number in range(size):
        leaf = codec.decode(Leaf, entry(first + number).leaf)
        kinds[leaf.kind] += 1
        note(undecided, number, leaf)
    return kinds, undecided


def test_what_was_counted_is_gone_on_from(tmp_path: Path) -> None:
    for before, size in ((0, 300), (300, 700), (700, 700)):
        tally, looked = told(tmp_path, extend(tmp_path, size))
        assert (tally.kinds, tally.undecided, tally.size) == (*expected(size), size)
        assert set(looked) == set(range(before + 1, size + 1))
        came = [codec.decode(DecisionRecord, entry(each).decision) for each in range(size)]
        assert tally.seen == {
            member: max(each.at for each in came if each.stream.endswith(f".{member.lower()}"))
            for member in ("AT", "LV")
        }


@pytest.mark.parametrize("left", [b"", b"{}", b"nonsense", b'{"form": 0, "size": 1}'])
def test_what_cannot_be_read_is_counted_again(tmp_path: Path, left: bytes) -> None:
    trail = extend(tmp_path, 300)
    told(tmp_path, trail)
    assert told(tmp_path, trail)[1] == []
    (tmp_path / FILE).write_bytes(left)
    tally, looked = told(tmp_path, trail)
    assert (tally.kinds, len(set(looked))) == (expected(300)[0], 300)


def test_what_one_bit_changed_is_counted_again(tmp_path: Path) -> None:
    trail = extend(tmp_path, 300)
    told(tmp_path, trail)
    whole = (tmp_path / FILE).read_bytes()
    for place in random.Random(0).sample(range(len(whole)), 20):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / FILE).write_bytes(damaged)
        tally, looked = told(tmp_path, trail)
        assert ((tally.kinds, tally.undecided), len(set(looked))) == (expected(300), 300)


@pytest.mark.parametrize("size", [200, 300, 400])
def test_the_count_of_another_log_is_not_gone_on_from(tmp_path: Path, size: int) -> None:
    told(tmp_path, extend(tmp_path, 300))
    other = tmp_path / "other"
    trail = extend(other, size, first=1000)
    (tmp_path / FILE).rename(other / FILE)
    tally, _ = told(other, trail)
    assert (tally.kinds, tally.undecided) == expected(size, first=1000)


def test_leaves_whose_records_were_lost_are_counted_and_heard_later(tmp_path: Path) -> None:
    trail = extend(tmp_path, 300, records=100)
    assert told(tmp_path, trail)[0].kinds == expected(300)[0]
    tally, looked = told(tmp_path, extend(tmp_path, 300))
    assert (tally.kinds, tally.undecided) == expected(300)
    assert min(looked) == 101
    assert max(tally.seen.values()) > 5000 + 200


def test_where_nothing_may_be_written_all_is_counted(tmp_path: Path) -> None:
    trail = extend(tmp_path, 300)
    (tmp_path / FILE).mkdir()
    assert told(tmp_path, trail)[0].kinds == expected(300)[0]
    assert len(set(told(tmp_path, trail)[1])) == 300
