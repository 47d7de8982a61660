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
