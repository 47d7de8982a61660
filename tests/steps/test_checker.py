"""Checking in a second process finds what checking in our own finds, and its end is noticed."""

from __future__ import annotations

import marshal
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from broker import codec, flat, members
from broker.bus import Record
from broker.checker import Checker
from broker.checking import READY
from broker.errors import UnavailableError
from broker.marker import CHECKER_SLOT, Marker
from broker.notice import (
    Audience,
    Compartment,
    Grant,
    Header,
    Opened,
    Origin,
    Receipt,
    ReceiptItem,
    Reference,
    Routing,
    RuleHit,
    Verified,
)
from broker.verify import Keys, check
from tests import federation as world
from tests.making import NOW, Draft, receipt

LIMIT_S = 60.0
ROOT = Path(__file__).parents[2]
ADDRESSED = Draft("AT/ncb").to("GE/ncb").envelope()
OPENED = Opened(bytes(32), b"data")
ROUTING = Routing(
    Audience(False, ("circle",), ("GE", "LV/ncb")), ("EE",), (Origin(None), Origin("LV", ("EE", "GE"))), ("witness",),
    "no", (), (), b"series!!", 7, (Grant("GE/ncb", ("source", "contact"), 9),), "threat-to-life",
)  # fmt: skip
REFERENCE = Reference("AT/ncb", bytes(16), bytes(32), "corrects")
HEADER = codec.decode(Header, ADDRESSED.header)
FLAT: tuple[Any, ...] = (
    HEADER,
    replace(HEADER, references=(REFERENCE, REFERENCE), compartments=()),
    ROUTING,
    Routing(Audience(True), (), (), (), "yes", (), (), bytes(8), 1),
    Verified(HEADER, bytes(32), ROUTING, OPENED, (Compartment("a", None), Compartment("b", OPENED)), 2, ADDRESSED),
    Receipt("f", "AT/ncb", "LV", "read", (ReceiptItem(1, bytes(32)), ReceiptItem(2, bytes(32))), None, None, 1, 1),
    RuleHit("rule", 1 << 900),
)


@pytest.fixture
def checker(tmp_path: Path) -> Iterator[Checker]:
    made = Checker(tmp_path / "judging", LIMIT_S)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checker]:
    """For who asks it about notices and does it no harm."""
    made = Checker(tmp_path_factory.mktemp("shared") / "judging", LIMIT_S)
    yield made
    made.close()


def started(checker: Checker) -> Checker:
    deadline = time.monotonic() + LIMIT_S
    while not checker.ready():
        assert time.monotonic() < deadline, "the process did not start"
        os.sched_yield()
    return checker


def keys() -> Keys:
    return Keys(members.parse(members.canonical(world.directory())), set())


def notice() -> bytes:
    return codec.encode(Draft("AT/ncb").to("GE/ncb").envelope())


def record(value: bytes, offset: int = 0) -> Record:
    return Record("notices.at", 0, offset, NOW, b"", value)


def test_a_good_notice_is_found_as_we_would_find_it(shared: Checker) -> None:
    arrived = record(notice())
    (found,) = started(shared).check([arrived], [NOW], keys())
    assert found is not None
    assert found.value() == check(arrived, NOW, keys())


def test_a_receipt_is_found_as_we_would_find_it(shared: Checker) -> None:
    statement = receipt("AT/ncb", 0, bytes(32), "GE")
    arrived = Record("receipts.at", 0, 0, NOW, b"", statement)
    (found,) = started(shared).check([arrived], [NOW], keys())
    assert found is not None
    assert found.value() == check(arrived, NOW, keys())


def test_what_is_not_plainly_good_is_left_to_us(shared: Checker) -> None:
    good = notice()
    bad = good[:-1] + bytes([good[-1] ^ 1])
    answers = started(shared).check([record(bad), record(good, 1), record(b"", 2)], [NOW] * 3, keys())
    assert [each is not None for each in answers] == [False, True, False]


def test_a_revoked_key_is_not_good_there_either(shared: Checker) -> None:
    arrived = record(notice())
    verified = check(arrived, NOW, keys())
    assert isinstance(verified, Verified)
    revoked = Keys(members.parse(members.canonical(world.directory())), {verified.envelope.key_id})
    assert started(shared).check([arrived], [NOW], revoked) == [None]


def test_its_death_is_told_and_the_next_batch_starts_another(checker: Checker) -> None:
    arrived = record(notice())
    os.kill(started(checker).pid, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        checker.check([arrived], [NOW], keys())
    (found,) = started(checker).check([arrived], [NOW], keys())
    assert found is not None


def test_a_signal_to_the_group_of_the_broker_is_left_to_the_broker(shared: Checker) -> None:
    assert os.getpgid(started(shared).pid) != os.getpgid(0)


def test_no_file_of_the_present_folder_runs_in_it(
    checker: Checker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("broker", "marshal", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit\n", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    (found,) = started(checker).check([record(notice())], [NOW], keys())
    assert found is not None


def test_without_a_process_to_be_had_we_check_by_ourselves_and_try_again(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker._pause_s = 0.05
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/no/such/python")
        assert not checker.ready()
        assert not checker.pid
    started(checker)


def test_one_that_ends_at_its_start_is_not_started_with_every_batch(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.checker._PROGRAM", "raise SystemExit")
    begun: list[int] = []
    open_ = checker._open

    def opened() -> None:
        begun.append(1)
        open_()

    monkeypatch.setattr(checker, "_open", opened)
    checker._pause_s = 3600.0
    deadline = time.monotonic() + LIMIT_S
    while not checker._not_before:  # its end is noticed by a look
        assert not checker.ready()
        assert time.monotonic() < deadline
    assert not any(checker.ready() for _ in range(1000))
    assert len(begun) == 1


def test_one_that_stands_still_is_ended_and_its_batch_told_as_unavailable(checker: Checker) -> None:
    """After the limit, of whatever size the batch is: nothing is taken in meanwhile."""
    started(checker)._limit_s = 0.3
    os.kill(checker.pid, signal.SIGSTOP)
    batch, since = [record(notice(), offset) for offset in range(500)], time.monotonic()
    with pytest.raises(UnavailableError):  # more than its socket takes
        checker.check(batch, [NOW] * 500, keys())
    assert time.monotonic() - since < 20.0
    assert not checker.pid


def test_a_broker_that_stops_waits_no_longer_than_a_batch_takes(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.checker.HURRY_S", 0.3)
    os.kill(started(checker).pid, signal.SIGSTOP)
    checker.hurry()
    with pytest.raises(UnavailableError):
        checker.check([record(notice())], [NOW], keys())


def test_one_that_died_while_nothing_was_asked_is_noticed_before_the_next_batch(checker: Checker) -> None:
    checker._pause_s = 0.05
    os.kill(started(checker).pid, signal.SIGKILL)
    deadline = time.monotonic() + LIMIT_S
    while checker.ready():
        assert time.monotonic() < deadline
    (found,) = started(checker).check([record(notice())], [NOW], keys())
    assert found is not None


@contextmanager
def asked(check: str, limit_s: float, marker: Path) -> Iterator[tuple[Connection, subprocess.Popen[bytes]]]:
    """Start the program with another `check`, and ask it about one record."""
    ours, theirs = multiprocessing.Pipe()
    program = f"import broker.checking as c, sys; c.check = lambda *_: {check}; c.main(sys.argv[1:])"
    arguments = [sys.executable, "-c", program, str(theirs.fileno()), str(marker)]
    with theirs, ours, subprocess.Popen(arguments, pass_fds=[theirs.fileno()], cwd=ROOT) as child:
        assert ours.recv_bytes() == READY
        ours.send_bytes(marshal.dumps((pickle.dumps(None), limit_s, [("notices.at", 0, 0, NOW, b"")], [NOW])))
        yield ours, child


def test_it_ends_by_itself_where_its_parent_cannot_end_it(tmp_path: Path) -> None:
    with asked("exec('while True: pass')", 0.5, tmp_path / "judging") as (_, child):
        assert child.wait(LIMIT_S) == -signal.SIGALRM
    assert Marker(tmp_path / "judging").suspects == {"notices.at/0/0"}


def test_a_bug_that_one_record_hits_is_left_to_us(tmp_path: Path) -> None:
    with asked("1 / 0", LIMIT_S, tmp_path / "judging") as (pipe, child):
        assert marshal.loads(pipe.recv_bytes()) == [None]
        child.kill()


def test_keys_go_to_it_only_where_they_have_changed(shared: Checker) -> None:
    arrived, same = record(notice()), keys()
    for _ in range(2):
        (found,) = started(shared).check([arrived], [NOW], same)
        assert found is not None
    verified = check(arrived, NOW, same)
    assert isinstance(verified, Verified)
    assert shared.check([arrived], [NOW], Keys(same.directory, {verified.envelope.key_id})) == [None]


def test_it_loads_no_library_that_checking_does_not_need() -> None:
    # Each would cost the broker's host memory a second time.
    names = ("pydantic", "aiokafka", "cedarpy", "structlog", "asyncio", "click", "sqlite3", "tuf")
    program = f"import broker.checking, sys; print([each for each in {names} if each in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout == "[]\n"


def test_what_it_was_checking_when_it_died_is_a_suspect_at_the_next_start(tmp_path: Path) -> None:
    marker = Marker(tmp_path / "judging")
    arrived = record(b"deadly", 17)
    with marker.around(arrived, CHECKER_SLOT):
        assert Marker(tmp_path / "judging").suspects == {"notices.at/0/17"}
    again = Marker(tmp_path / "judging")
    assert not again.doubts([record(b"other", 18)])
    with marker.around(arrived, CHECKER_SLOT):
        assert Marker(tmp_path / "judging").doubts([record(b"other", 18), arrived])


@pytest.mark.parametrize("value", FLAT, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_from_its_flat_form(value: Any) -> None:
    flattened = flat.flatten(value)
    assert flattened == astuple(value)
    assert marshal.loads(marshal.dumps(flattened)) == flattened
    back = flat.raised(type(value), flattened)
    assert repr(back) == repr(value)
    assert back == value
