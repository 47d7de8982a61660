"""Checking in a second process finds what checking in our own finds, and its end is noticed."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

from broker import codec, flat, members
from broker.bus import Record
from broker.checker import Checker
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

LIMIT_S = 30.0
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


def test_a_good_notice_is_found_as_we_would_find_it(checker: Checker) -> None:
    arrived = record(notice())
    (found,) = started(checker).check([arrived], [NOW], keys())
    assert found is not None
    assert found.value() == check(arrived, NOW, keys())


def test_a_receipt_is_found_as_we_would_find_it(checker: Checker) -> None:
    statement = receipt("AT/ncb", 0, bytes(32), "GE")
    arrived = Record("receipts.at", 0, 0, NOW, b"", statement)
    (found,) = started(checker).check([arrived], [NOW], keys())
    assert found is not None
    assert found.value() == check(arrived, NOW, keys())


def test_what_is_not_plainly_good_is_left_to_us(checker: Checker) -> None:
    good = notice()
    bad = good[:-1] + bytes([good[-1] ^ 1])
    answers = started(checker).check([record(bad), record(good, 1), record(b"", 2)], [NOW] * 3, keys())
    assert [each is not None for each in answers] == [False, True, False]


def test_a_revoked_key_is_not_good_there_either(checker: Checker) -> None:
    arrived = record(notice())
    verified = check(arrived, NOW, keys())
    assert isinstance(verified, Verified)
    revoked = Keys(members.parse(members.canonical(world.directory())), {verified.envelope.key_id})
    assert started(checker).check([arrived], [NOW], revoked) == [None]


def test_its_death_is_told_and_the_next_batch_starts_another(checker: Checker) -> None:
    arrived = record(notice())
    os.kill(started(checker).pid, signal.SIGKILL)
    with pytest.raises(UnavailableError):
        checker.check([arrived], [NOW], keys())
    (found,) = started(checker).check([arrived], [NOW], keys())
    assert found is not None


def test_what_stops_the_broker_from_a_terminal_is_left_to_the_broker(checker: Checker) -> None:
    os.kill(started(checker).pid, signal.SIGINT)
    (found,) = checker.check([record(notice())], [NOW], keys())
    assert found is not None


def test_no_file_of_the_present_folder_runs_in_it(
    checker: Checker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("broker", "marshal", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit\n", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    (found,) = started(checker).check([record(notice())], [NOW], keys())
    assert found is not None


def test_without_a_process_to_be_had_we_check_by_ourselves(checker: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/no/such/python")
        assert not checker.ready()
        assert not checker.pid
    started(checker)


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
    assert Marker(tmp_path / "judging").calm


@pytest.mark.parametrize("value", FLAT, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_from_its_flat_form(value: Any) -> None:
    flattened = flat.flatten(value)
    assert flattened == astuple(value)
    assert marshal.loads(marshal.dumps(flattened)) == flattened
    back = flat.raised(type(value), flattened)
    assert repr(back) == repr(value)
    assert back == value
