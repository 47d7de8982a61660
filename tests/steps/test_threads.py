"""Work in a thread is waited for, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from broker.notice import Entry
from broker.records import Records
from broker.threads import to_the_end


async def test_who_is_cancelled_waits_for_the_work_to_end() -> None:
    begun, go_on, ended = Event(), Event(), Event()

    def work() -> None:
        begun.set()
        go_on.wait(60)
        ended.set()

    waiting = asyncio.create_task(to_the_end(work))
    await asyncio.to_thread(begun.wait, 60)
    waiting.cancel()
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_who_is_cancelled_twice_waits_all_the_same_and_may_hurry_the_work() -> None:
    begun, go_on, ended = Event(), Event(), Event()

    def work() -> None:
        begun.set()
        go_on.wait(60)
        ended.set()
        raise EOFError

    hurried = Event()
    waiting = asyncio.create_task(to_the_end(work, hurry=hurried.set))
    await asyncio.to_thread(begun.wait, 60)
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0.01)
    assert hurried.is_set()
    assert not waiting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_the_answer_and_the_error_of_the_work_arrive() -> None:
    def work(number: int) -> int:
        if number < 0:
            raise EOFError
        return number + 1

    assert await to_the_end(work, 1) == 2
    with pytest.raises(EOFError):
        await to_the_end(work, -1)


async def test_records_are_not_closed_under_who_reads_them(tmp_path: Path) -> None:
    """Closed in the middle of a page the interpreter died, at most a few tries later."""
    with closing(Records(tmp_path / "records.db")) as records:
        records.add([Entry(number, b"leaf", b"s" * 32, b"r" * 2000) for number in range(5000)])
    for _ in range(60):
        await _close_while_reading(Records(tmp_path / "records.db"))


async def _close_while_reading(records: Records) -> None:
    begun = Event()

    def read() -> None:
        while records.page(0):
            begun.set()

    reading = asyncio.create_task(to_the_end(read))
    await asyncio.to_thread(begun.wait, 60)
    records.close()
    with pytest.raises(sqlite3.ProgrammingError):
        await reading
