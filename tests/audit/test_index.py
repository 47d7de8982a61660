"""The index says what a look at every leaf would say, goes on after a kill, and is made again when it is not ours."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from broker import codec, notes
from broker import index as index_module
from broker.index import BLOCK, Index, leaf_at
from broker.merkle import EMPTY_ROOT
from broker.notice import DecisionRecord, Leaf
from broker.signing import SigningKey
from broker.trail import Trail
from broker.writing import transaction
from cli.auditor import opened
from tests.policy.remembered import Place

KEY = SigningKey.from_seed(sha256(b"index").digest())
ORIGIN = "index/trail"
KINDS = ("resumed", "rejected", "adopted")
CODES = (None, "one", "two")
DIGEST = bytes(32)
SIZE = BLOCK + BLOCK // 2


class Stopped(Exception):  # noqa: N818 -- stands for kill -9
    """The process ended here."""


def leaf(number: int) -> Leaf:
    draw = random.Random(number)
    return Leaf(draw.choice(KINDS), 1000 + 2 * number, draw.choice(CODES), None, None, 0, DIGEST, DIGEST, DIGEST, None)


RECORD = codec.encode(DecisionRecord("", 0, 0, 0, DIGEST))


class Kept:
    """Records that end where the test wants."""

    def __init__(self, end: int, missing: int = -1) -> None:
        self._end, self._missing = end, missing

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream records."""
        return ((each, b"", RECORD) for each in range(begin, self._end) if each != self._missing)


def extend(trail: Trail, size: int) -> Trail:
    """Append leaves up to a size."""
    staged = trail.stage([codec.encode(leaf(each)) for each in range(trail.size, size)])
    trail.write(staged)
    note = notes.sign_checkpoint(notes.Checkpoint(ORIGIN, staged.size, staged.root), KEY)
    trail.publish(staged, note)
    trail.adopt(staged, note)
    return trail


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    return extend(Trail.open(tmp_path_factory.mktemp("index") / "trail", ORIGIN), SIZE)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    made = Index(tmp_path / "index.db")
    yield made
    made.close()


def nothing(_done: int, _all: int) -> None:
    """Say nothing."""


def expected(words: list[set[str]], begin: int, end: int) -> list[int]:
    """Look at every leaf, newest first."""
    found = []
    for number in range(end - 1, begin - 1, -1):
        each = leaf(number)
        if all({each.kind, each.code} & group for group in words):
            found.append(number)
    return found


def test_an_answer_is_what_a_look_at_every_leaf_gives(index: Index, trail: Trail) -> None:
    index.update(trail, Kept(SIZE), nothing)
    draw = random.Random(1)
    for _ in range(200):
        begin, end = sorted(draw.sample(range(SIZE + 1), 2))
        words = [set(draw.sample(("resumed", "rejected", "one", "two", "no-such-word"), draw.randint(1, 2)))
                 for _ in range(draw.randint(0, 2))]  # fmt: skip
        limit = draw.choice((1, 7, 10_000))
        found = index.search([[f"outcome:{each}" for each in group] for group in words], begin, end, limit)
        wanted = expected(words, begin, end)
        assert (list(found.leaves), found.total) == (wanted[:limit], len(wanted))


@pytest.mark.parametrize(
    ("code", "header_digest", "named"),
    [
        ("bad-signature", None, True),
        ("unknown-kind", DIGEST, True),
        ("unknown-kind", None, False),
        ("unknown-key", None, False),
    ],
)
def test_a_key_of_nobodys_is_no_word(code: str, header_digest: bytes | None, *, named: bool) -> None:
    """Whoever sends under keys that he invents, on a stream or as a kind where nobody asks for them, adds no words."""
    rejected = codec.encode(Leaf("rejected", 1000, code, header_digest, None, 0, DIGEST, DIGEST, DIGEST, None))
    record = codec.encode(DecisionRecord("receipts.at", 0, 0, 0, DIGEST, key_id=DIGEST))
    block = index_module._Block(0)
    block.add(0, rejected, record)
    assert (f"key:{DIGEST.hex()}" in block.masks) == named


def test_empty_and_upside_down_ranges_are_empty(index: Index, trail: Trail) -> None:
    index.update(trail, Kept(SIZE), nothing)
    for begin, end in ((5, 5), (9, 5), (SIZE, SIZE + 10), (SIZE + 5, SIZE + 10), (0, 0)):
        assert index.search([], begin, end, 10).total == 0
        assert index.search([["outcome:resumed"]], begin, end, 10).total == 0


def test_a_time_is_found_exactly(trail: Trail) -> None:
    for moment, number in ((0, 0), (1000, 0), (1001, 1), (1002, 1), (1000 + 2 * (SIZE - 1), SIZE - 1), (10**12, SIZE)):
        assert leaf_at(trail, moment) == number


@pytest.mark.parametrize("steps", [(BLOCK,), (1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1), (BLOCK // 3, BLOCK + 5)])
def test_made_in_parts_it_is_the_same(tmp_path: Path, trail: Trail, steps: tuple[int, ...]) -> None:
    with closing(Index(tmp_path / "parts.db")) as parts, closing(Index(tmp_path / "whole.db")) as whole:
        for size in (*steps, SIZE):
            parts.update(trail, Kept(size), nothing)
            assert parts.size == size
        whole.update(trail, Kept(SIZE), nothing)
        rows = "SELECT name, block, mask FROM posting JOIN word ON word.id = posting.word ORDER BY name, block"
        assert parts._database.execute(rows).fetchall() == whole._database.execute(rows).fetchall()


def test_after_a_kill_it_goes_on_where_it_was(tmp_path: Path, trail: Trail) -> None:
    def stop(done: int, _all: int) -> None:
        if done == BLOCK:
            raise Stopped

    killed = Index(tmp_path / "index.db")
    with pytest.raises(Stopped):
        killed.update(trail, Kept(SIZE), stop)
    killed.close()
    done: list[int] = []
    with closing(Index(tmp_path / "index.db")) as again:
        assert again.size == BLOCK
        again.update(trail, Kept(SIZE), lambda at, _: done.append(at))
        assert (again.size, done) == (SIZE, [SIZE])
        assert again.search([["outcome:resumed"]], 0, SIZE, 1).total == len(expected([{"resumed"}], 0, SIZE))


def test_an_index_of_another_past_is_made_again(tmp_path: Path, index: Index, trail: Trail) -> None:
    index.update(trail, Kept(SIZE), nothing)
    short = extend(Trail.open(tmp_path / "trail", ORIGIN), 10)
    index.update(short, Kept(10), nothing)
    assert index.size == 10
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        database.execute("UPDATE done SET root = ?", (EMPTY_ROOT,))
        database.execute("DELETE FROM posting")
        database.commit()
    index.update(short, Kept(10), nothing)
    assert index.search([["outcome:resumed", "outcome:rejected", "outcome:adopted"]], 0, 10, 1).total == 10


def test_an_index_of_an_older_form_is_made_again(tmp_path: Path, trail: Trail) -> None:
    with closing(sqlite3.connect(tmp_path / "index.db")) as database:
        database.executescript("CREATE TABLE notice(x); CREATE TABLE done(size INTEGER); INSERT INTO done VALUES (5);")
    with closing(Index(tmp_path / "index.db")) as index:
        assert index.size == 0
        index.update(trail, Kept(SIZE), nothing)
        assert index.size == SIZE


def test_where_a_record_is_missing_its_leaf_is_found_all_the_same(index: Index, trail: Trail) -> None:
    index.update(trail, Kept(SIZE, missing=7), nothing)
    assert index.size == SIZE
    assert index.search([[f"outcome:{leaf(7).kind}"]], 7, 8, 1).leaves == (7,)


class Warned(Kept):
    """Records of which one is that of a decision that warned of something."""

    def __init__(self, end: int, number: int, record: bytes) -> None:
        super().__init__(end)
        self._number, self._record = number, record

    def since(self, begin: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Stream records."""
        return (
            (number, b"", self._record if number == self._number else RECORD) for number, *_ in super().since(begin)
        )


def test_every_broken_glass_is_found_for_its_review(tmp_path: Path, index: Index) -> None:
    place = Place()
    made = place.notice(to=["GE/ncb"], derogation="threat-to-life")
    short = extend(Trail.open(tmp_path / "trail", ORIGIN), 10)
    index.update(short, Warned(10, 3, place.entry(made)[2]), nothing)
    assert index.search([["outcome:glass-broken"]], 0, 10, 5).leaves == (3,)


ALL = [["outcome:resumed", "outcome:rejected", "outcome:adopted"]]


def right(index: Index) -> None:
    """What it answers is what a look at every leaf gives."""
    assert index.search(ALL, 0, SIZE, 1).total == SIZE
    for word in (*KINDS, "one", "two"):
        assert index.search([[f"outcome:{word}"]], 0, SIZE, 1).total == len(expected([{word}], 0, SIZE))


def made_again(file: Path, trail: Trail, size: int) -> None:
    """Do as another auditor's `--rebuild`, as far as it has come; the words have other numbers."""
    with closing(Index(file)) as other:
        other.forget()
        other._database.execute("INSERT INTO word(name) VALUES ('before all')")
        other.update(trail, Kept(size), nothing)


@pytest.mark.parametrize("size", [0, 7, BLOCK, SIZE])
def test_an_index_made_again_by_another_meanwhile_answers_right_now_and_later(
    tmp_path: Path, trail: Trail, size: int
) -> None:
    file, times = tmp_path / "index.db", [1]

    def meanwhile(_done: int, _all: int) -> None:
        if times:
            times.pop()
            made_again(file, trail, size)

    with closing(Index(file)) as index:
        index.update(trail, Kept(SIZE), meanwhile)
        right(index)
        made_again(file, trail, size)
        right(index)  # all questions after one update are answered from the same
    with closing(Index(file)) as later:
        later.update(trail, Kept(SIZE), nothing)
        right(later)


def test_an_index_that_another_makes_while_it_is_opened_is_kept(
    tmp_path: Path, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "index.db"

    @contextmanager
    def after_another(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        monkeypatch.undo()
        made_again(file, trail, SIZE)
        with transaction(database):
            yield database

    monkeypatch.setattr(index_module, "transaction", after_another)
    with closing(Index(file)) as index:
        assert index.size == SIZE
        index.update(trail, Kept(SIZE), nothing)
        right(index)


def test_a_file_that_may_not_be_written_is_told_when_it_is_opened(
    tmp_path: Path, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An auditor's tool then makes one of its own, in memory."""
    file = tmp_path / "index.db"
    made_again(file, trail, 7)
    connect = sqlite3.connect

    def to_read(path: Path, **how: Any) -> sqlite3.Connection:
        opened: sqlite3.Connection = connect(f"file:{path}?mode=ro", uri=True, **how)
        return opened

    monkeypatch.setattr(sqlite3, "connect", to_read)
    with pytest.raises(sqlite3.OperationalError):
        Index(file)


def test_an_older_look_at_the_trail_throws_no_newer_index_away(tmp_path: Path) -> None:
    trail, file = extend(Trail.open(tmp_path / "trail", ORIGIN), SIZE), tmp_path / "index.db"
    older = Trail.open(tmp_path / "trail", ORIGIN)
    extend(trail, SIZE + 10)
    again = list[int]()
    with closing(Index(file)) as newer, closing(Index(file)) as index:
        newer.update(trail, Kept(SIZE + 10), nothing)
        seen = index.update(older, Kept(SIZE + 10), lambda at, _: again.append(at))
        assert (seen.size, index.size, again) == (SIZE + 10, SIZE + 10, [])


def test_an_index_that_another_keeps_is_not_made_in_memory_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, connect = tmp_path / "index.db", sqlite3.connect
    Index(file).close()

    def impatient(path: Any, **_: Any) -> sqlite3.Connection:
        return connect(path, timeout=0, isolation_level=None)

    monkeypatch.setattr(sqlite3, "connect", impatient)
    with closing(connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            opened._index(file)


@pytest.mark.parametrize("there", [False, True])
def test_where_the_disk_is_full_an_index_is_made_in_memory(
    tmp_path: Path, trail: Trail, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    """It has no room as it is made, or for what is added to one that is there."""
    file, connect = tmp_path / "index.db", sqlite3.connect
    if there:
        with closing(Index(file)) as index, transaction(index._database) as database:
            database.executemany("INSERT INTO posting VALUES(?, 0, zeroblob(1990))", [(90,), (91,), (92,), (93,)])

    def full(path: Any, **how: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(path, **how)
        if path == file:
            database.execute("PRAGMA max_page_count = 1")  # no page more than there are
        return database

    monkeypatch.setattr(sqlite3, "connect", full)
    records: Any = Kept(SIZE)
    with opened._indexed(file, trail, records, rebuild=False) as (index, covered):
        assert (covered.size, index._database.execute("PRAGMA database_list").fetchone()[2]) == (SIZE, "")
        right(index)
