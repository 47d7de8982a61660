"""What libraries log is one JSON object a line where a broker logs, and nothing where a person reads."""

from __future__ import annotations

import json
import subprocess
import sys

_LIBRARY = "logging.getLogger('aiokafka.cluster').warning('No broker for %s', 'inbox')"


def _stderr(*lines: str) -> str:
    """Run a few lines in a process of their own: what is set there is set for the whole process."""
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return done.stderr


def test_a_library_s_line_becomes_one_json_object() -> None:
    said = json.loads(_stderr("import logging", "from cli import jsonlog", "jsonlog.to_stderr()", _LIBRARY))
    assert (said["event"], said["level"], said["library"]) == ("library.said", "warning", "aiokafka.cluster")
    assert said["said"] == "No broker for inbox"


def test_a_library_s_traceback_stays_on_its_line() -> None:
    failing = ("try: 1 / 0", "except ZeroDivisionError: logging.getLogger('asyncio').exception('lost')")
    said = json.loads(_stderr("import logging", "from cli import jsonlog", "jsonlog.to_stderr()", *failing))
    assert (said["level"], said["severity"], said["said"]) == ("warning", "error", "lost")
    assert "ZeroDivisionError" in said["traceback"]


def test_what_a_library_says_again_and_again_is_written_once_a_minute_with_how_often() -> None:
    """Of a topic that is gone aiokafka says a thousand lines a second, on the disk that the trail lies on."""
    lines = _stderr(
        "import logging",
        "from cli import jsonlog",
        "jsonlog.to_stderr()",
        "now = [7.0]",
        "logging.getLogger().handlers[:] = [jsonlog.Libraries(logging.WARNING, lambda: now[0])]",
        "for _ in range(4): logging.getLogger('aiokafka.cluster').error('gone')",
        "logging.getLogger('aiokafka.cluster').error('another')",
        "now[0] += jsonlog.AGAIN_S",
        "for _ in range(2): logging.getLogger('aiokafka.cluster').error('gone')",
    )
    said = [(each["said"], each.get("kept_back", 0)) for each in map(json.loads, lines.splitlines())]
    assert said == [("gone", 0), ("another", 0), ("gone", 3)]


def test_another_exception_under_the_same_words_is_another_line() -> None:
    """aiokafka says `Unexpected error in sender routine` over whatever it met."""
    lines = _stderr(
        "import logging",
        "from cli import jsonlog",
        "jsonlog.to_stderr()",
        "for each in (KeyError('a'), KeyError('b'), KeyError('b')): logging.error('Unexpected error', exc_info=each)",
    )
    assert [json.loads(each)["traceback"] for each in lines.splitlines()] == ["KeyError: 'a'", "KeyError: 'b'"]


def test_people_are_told_nothing_by_libraries() -> None:
    command = (
        "import logging",
        "from cli import main",
        "try: main.main(['member', '--help'])",
        "except SystemExit: pass",
    )
    assert _stderr(*command, _LIBRARY, _LIBRARY.replace("warning", "error")) == ""
