"""Whoever reads what a command prints may stop (`| head`): the exit code still says what became of the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.member_homes import make, person, publish, served

VALISE = "import sys; from cli.start import main; sys.argv[0] = 'valise'; main()"
SHOWN = """
from cli import answer
answer.show("first", None, as_json=False, table=answer.Table(("a", "b"), [("x" * 90, "y" * 90)] * 2000), then="then")
"""
LOGGED = """
import structlog
from cli import jsonlog
jsonlog.to_stderr()
for each in range(3):
    structlog.get_logger().error("broker.says", number=each)
print("went on")
"""


def unread(code: str, *arguments: str, home: Path | None = None) -> tuple[int, str]:
    """Run a program whose output nobody reads from the start; give its exit code and its stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | ({"VALISE_HOME": str(home)} if home else {})
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "code", [SHOWN, SHOWN.replace("False", "True"), "import click; from cli import answer; answer.say('x' * 9)"]
)
def test_an_answer_that_nobody_reads_ends_as_if_it_were_read(code: str) -> None:
    assert unread(code) == (0, "")


def test_a_command_whose_answer_nobody_reads_ends_with_the_code_of_its_work(tmp_path: Path) -> None:
    make(tmp_path)
    assert unread(VALISE, "inbox", "--bureau", "LV/ncb", home=tmp_path) == (0, "")
    code, said = unread(VALISE, "trace", "R-1", "--bureau", "LV/ncb", home=tmp_path)
    assert (code, said.strip()) == (1, "no-such-notice: no such notice")
    for each in tmp_path.glob("bus.db*"):
        each.unlink()
    assert unread(VALISE, "inbox", "--bureau", "LV/ncb", "--json", home=tmp_path)[0] == 5


def test_who_follows_an_inbox_ends_once_nobody_reads_any_more(tmp_path: Path) -> None:
    with served(tmp_path) as homes:
        publish(homes, person("R-1"))
        follow = ("inbox", "--follow", "--bureau", "LV/ncb")
        assert unread(VALISE, *follow, "--json", home=tmp_path) == (141, "")
        assert unread(VALISE, *follow, home=tmp_path) == (141, "")


def test_words_that_nobody_reads_are_no_failure() -> None:
    assert unread(VALISE, "--help") == (141, "")


def test_a_broker_whose_log_nobody_reads_any_more_goes_on() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", LOGGED], stdout=subprocess.PIPE, stderr=writing, text=True, check=True)
    os.close(writing)
    assert done.stdout == "went on\n"


def test_a_log_that_cannot_be_written_ends_nothing_and_an_answer_that_cannot_be_is_a_failure() -> None:
    """It may lie on the disk that is full: the broker was to wait for room, and ended over saying so."""
    program = [sys.executable, "-c"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        told = "import structlog; from cli import answer, jsonlog; jsonlog.to_stderr()\n"
        log = f"{told}for each in range(9_000): structlog.get_logger().warning('shard.unavailable')\nanswer.say('on')"
        done = subprocess.run([*program, log], stdout=subprocess.PIPE, stderr=full, timeout=60, check=False)
        assert done.stdout == b"on\n"
        say = subprocess.run(
            [*program, "from cli import answer; answer.say('on')"],
            stdout=full, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert (say.returncode, b"No space left" in say.stderr) == (1, True)


def test_a_broker_that_cannot_say_that_it_is_up_is_so_all_the_same() -> None:
    """Its home has room: it took its shard anew every second, a leaf each time, and named the disk of its home."""
    up = (
        "from types import SimpleNamespace as Some\nfrom cli import broker, jsonlog\njsonlog.to_stderr()\n"
        "home = Some(settings=Some(federation='x', shard=0, bus='sqlite:bus.db'))\n"
        "for as_json in (False, True): broker._say_ready(home, as_json=as_json)"
    )
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-c", up], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr.count(b"No space left")) == (0, 2)
