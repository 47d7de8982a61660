"""The cache of the register: what a late owner of the same home must not do to it, and steps that overlap."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import codec
from broker.errors import FencedError, UnavailableError
from broker.notice import Series
from broker.register import Register, missing_numbers, use_number
from tests.fake_bus import still_owned


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Register, Register]]:
    """The old owner and its successor, who share a home."""
    file = tmp_path / "register.db"
    with closing(Register(file)) as old, closing(Register(file)) as new:
        yield old, new


async def test_an_old_owner_never_settles_over_what_its_successor_restored(two: tuple[Register, Register]) -> None:
    old, new = two
    await old.take_over(still_owned)
    old.put("next/AT/ncb", b"1")
    committed = old.end_step()
    assert await new.take_over(still_owned) == 0
    new.restore([(b"next/AT/ncb", b"1")], 1)
    new.put("next/AT/ncb", b"2")
    new.settle(new.end_step(), 2)
    with pytest.raises(FencedError):
        old.settle(committed, 1)
    assert (new.get("next/AT/ncb"), new.place) == (b"2", 2)


async def test_a_successor_goes_on_where_the_old_owner_has_come_meanwhile(two: tuple[Register, Register]) -> None:
    old, new = two
    await old.take_over(still_owned)
    old.put("next/AT/ncb", b"1")
    old.settle(old.end_step(), 1)
    assert await new.take_over(still_owned) == 1
    new.put("next/AT/ncb", b"2")
    new.settle(new.end_step(), 2)
    assert new.place == 2


async def test_a_cache_that_was_emptied_and_filled_again_is_not_taken_for_ours(two: tuple[Register, Register]) -> None:
    old, third = two
    await old.take_over(still_owned)
    old.restore([(b"next/AT/ncb", b"1")], 1)
    old.check_ours()
    await third.take_over(still_owned)
    third.forget()
    third.restore([(b"next/AT/ncb", b"1")], 1)
    assert (old.get("next/AT/ncb"), old.place) == (b"1", 1)
    with pytest.raises(FencedError):
        old.check_ours()


async def test_an_owner_stopped_while_it_restores_turns_nothing_back(two: tuple[Register, Register]) -> None:
    old, new = two
    await old.take_over(still_owned)
    await new.take_over(still_owned)
    new.restore([(b"next/AT/ncb", b"1"), (b"next/AT/ncb", b"2")], 2)
    with pytest.raises(FencedError):
        old.restore([(b"next/AT/ncb", b"1")], 1)
    assert (new.get("next/AT/ncb"), new.place) == (b"2", 2)


async def test_who_only_looks_sees_place_and_keys_of_one_moment(tmp_path: Path) -> None:
    """Else a bureau would be given a key on the word of one that was revoked."""
    file = tmp_path / "register.db"

    class Interrupted(Register):
        def under(self, prefix: str) -> Iterator[tuple[str, bytes]]:
            owner.forget()
            return super().under(prefix)

    with closing(Register(file)) as owner, closing(Interrupted(file)) as looker:
        await owner.take_over(still_owned)
        owner.restore([(b"revoked/ff", b"1")], 5)
        assert looker.looked_at("revoked/") == (5, ["revoked/ff"])
        assert looker.looked_at("revoked/") == (0, [])


async def test_a_cache_of_before_is_taken_over_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "register.db"
    with closing(Register(file)) as made:
        await made.take_over(still_owned)
        made.restore([(b"next/AT/ncb", b"1")], 1)
        made._db.execute("DROP TABLE owner")
    with closing(Register(file)) as register:
        assert (await register.take_over(still_owned), register.get("next/AT/ncb")) == (1, b"1")
        register.check_ours()


async def test_two_steps_that_remove_the_same_entry_are_settled_one_after_the_other(
    two: tuple[Register, Register],
) -> None:
    """A held correction is released; the next step, judged while that one commits, withdraws it."""
    register, _ = two
    await register.take_over(still_owned)
    register.put("held/AT/ncb/1", b"kept")
    register.settle(register.end_step(), 1)
    register.put("held/AT/ncb/1", None)
    released = register.end_step()
    register.put("held/AT/ncb/1", None)
    register.settle(released, 2)
    assert register.get("held/AT/ncb/1") is None
    register.settle(register.end_step(), 3)
    assert register.get("held/AT/ncb/1") is None


async def test_what_the_next_step_has_changed_is_not_turned_back_when_the_one_before_it_is_settled(
    two: tuple[Register, Register],
) -> None:
    register, _ = two
    await register.take_over(still_owned)
    register.put("next/AT/ncb", b"1")
    first = register.end_step()
    register.put("next/AT/ncb", b"2")
    register.settle(first, 1)
    assert register.get("next/AT/ncb") == b"2"
    register.settle(register.end_step(), 2)
    assert register.get("next/AT/ncb") == b"2"


async def test_numbers_that_were_looked_up_before_the_cache_was_restored_are_looked_up_anew(
    two: tuple[Register, Register],
) -> None:
    register, _ = two
    await register.take_over(still_owned)
    assert register.series("receipts/AT/ncb") == Series(0, ())
    register.restore([(b"receipts/AT/ncb", codec.encode(Series(5, ((2, 3),))))], 1)
    assert register.series("receipts/AT/ncb") == Series(5, ((2, 3),))


NUMBERS = st.lists(st.integers(1, 40), max_size=60)


@given(NUMBERS, st.integers(1, 50))
def test_a_number_is_used_once_and_what_has_not_come_below_the_highest_is_missing(
    numbers: list[int], limit: int
) -> None:
    series, used = Series(0, ()), set[int]()
    for number in numbers:
        after = use_number(series, number)
        assert (after is None) == (number in used)
        series = after or series
        used.add(number)
        missing = [each for each in range(1, max(used)) if each not in used]
        assert (series.highest, missing_numbers(series, limit)) == (max(used), tuple(missing[:limit]))


async def test_who_has_lost_the_shard_takes_no_cache_over(two: tuple[Register, Register]) -> None:
    old, new = two
    await new.take_over(still_owned)

    async def lost() -> None:
        raise FencedError

    with pytest.raises(FencedError):
        await old.take_over(lost)
    new.check_ours()


async def test_a_successor_that_comes_after_the_answer_that_the_shard_is_ours_is_left_alone(
    two: tuple[Register, Register],
) -> None:
    """Whoever is stopped there keeps it from nothing, and is told that the shard is lost once it would go on."""
    old, new = two
    new._db.execute("PRAGMA busy_timeout = 0")
    asked: list[int] = []

    async def answered() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise FencedError
        await new.take_over(still_owned)

    with pytest.raises(FencedError):
        await old.take_over(answered)
    new.check_ours()


async def test_who_is_asked_again_and_still_owns_the_shard_takes_the_cache_over(two: tuple[Register, Register]) -> None:
    late, owner = two
    asked: list[int] = []

    async def answered() -> None:
        asked.append(1)
        if len(asked) == 1:
            await late.take_over(still_owned)  # its owner of before, whose answer is older

    await owner.take_over(answered)
    owner.check_ours()
    assert len(asked) == 2


async def test_who_has_not_taken_a_cache_over_does_not_empty_it(two: tuple[Register, Register]) -> None:
    old, new = two
    await old.take_over(still_owned)
    await new.take_over(still_owned)
    new.restore([(b"next/AT/ncb", b"1")], 1)
    with pytest.raises(FencedError):
        old.forget()
    assert (new.get("next/AT/ncb"), new.place) == (b"1", 1)


def looks(file: Path) -> list[str]:
    with closing(Register.to_read(file)) as register:
        return [key for key, _ in register.under("revoked/")]


async def test_a_cache_that_was_emptied_answers_nobody_before_it_is_rebuilt(tmp_path: Path) -> None:
    """What it lacks would be taken for what never was: a revocation, a notice in force."""
    file, there = tmp_path / "register.db", (b"revoked/ff", b"1")
    with pytest.raises(UnavailableError, match="next start"):
        looks(file)
    assert not file.exists()
    with closing(Register(file)) as owner:
        with pytest.raises(UnavailableError):
            looks(file)
        await owner.take_over(still_owned)
        owner.restore([there], 1)
        with pytest.raises(UnavailableError):
            looks(file)
        owner.rebuilt()
        assert looks(file) == ["revoked/ff"]
        owner.forget()
        with pytest.raises(UnavailableError):
            looks(file)
        await owner.take_over(still_owned)  # a start that is cut off
        owner.restore([there], 1)
        await owner.take_over(still_owned)
        with pytest.raises(UnavailableError):
            looks(file)
        owner.rebuilt()
        await owner.take_over(still_owned)
        owner.settle({"revoked/ee": b"1"}, 2)
        assert looks(file) == ["revoked/ee", "revoked/ff"]


async def test_a_cache_of_before_that_has_a_place_is_read(tmp_path: Path) -> None:
    file = tmp_path / "register.db"
    with closing(Register(file)) as owner:
        await owner.take_over(still_owned)
        owner.restore([(b"revoked/ff", b"1")], 1)
    with closing(sqlite3.connect(file)) as before:
        before.executescript("DROP TABLE owner; DROP TABLE emptied")
    assert looks(file) == ["revoked/ff"]


async def test_a_cache_of_before_that_was_emptied_answers_nobody(tmp_path: Path) -> None:
    """A version that knew no mark for it emptied it: with whose it is, and no place."""
    file = tmp_path / "register.db"
    with closing(Register(file)) as owner:
        await owner.take_over(still_owned)
    for left in ("DELETE FROM emptied", "DROP TABLE emptied"):
        with closing(sqlite3.connect(file)) as before:
            before.executescript(left)
        with pytest.raises(UnavailableError):
            looks(file)
    with closing(Register(file)) as owner:  # a start that is cut off before it owns the shard
        with pytest.raises(UnavailableError):
            looks(file)
        await owner.take_over(still_owned)
        owner.rebuilt()
        assert looks(file) == []


async def test_who_looks_sees_one_moment_of_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "register.db"
    with closing(Register(file)) as owner:
        await owner.take_over(still_owned)
        owner.restore([(b"revoked/ff", b"1")], 1)
        owner.rebuilt()
        with closing(Register.to_read(file)) as looking:
            owner.forget()
            assert looking.get("revoked/ff") == b"1"
