"""Cuts a policy file into its rules, each with the line on which it begins.

Cedar's own reader overflows its stack, and ends the process, on a text that is nested or chained some hundreds deep
(seen with cedarpy 4.12: 1,000 brackets, 1,500 times `true &&`). Such a text is refused here, before Cedar meets it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from broker.rules.policy_set import refused

DEPTH = 30
"""How deep brackets may be nested."""
STEPS = 250
"""How many brackets, dots and operators one rule may have."""
_TOKEN = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"?|[()\[\]{}<>;.+*!-]|&&|\|\||\bif\b', re.DOTALL)
_ELSEWHERE = re.compile(r"\s*(?:(?:[ \t]*//[^\n]*\n)+[ \t\r]*\n\s*)*")
"""Blank lines, and comments that a blank line parts from what follows: they speak of something else.

Each line is taken in one way only, so the time is linear; possessive quantifiers are wrong in Python before 3.11.5.
"""
_REST_OF_LINE = re.compile(r"[ \t]*(//[^\n]*)?")


@dataclass(frozen=True, slots=True)
class Statement:
    """The text of one rule with the comment right above it, where `line` is."""

    text: str
    line: int

    @property
    def sentence(self) -> str:
        """What the comment right above the rule says."""
        lines = (each.strip() for each in self.text.splitlines())
        comments = takewhile(lambda each: each.startswith("//"), lines)
        return " ".join(each.removeprefix("//").strip() for each in comments)


def statements(name: str, text: str) -> Iterator[Statement]:
    """Cut a file at the semicolons that end its rules. Raises VersionRefusedError for what is nested too deep."""
    start = _after(_ELSEWHERE, text, 0)
    line, depth, steps = 1 + text.count("\n", 0, start), 0, 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark == ";":
            yield Statement(text[start : token.end()], line)
            begin = _after(_ELSEWHERE, text, _after(_REST_OF_LINE, text, token.end()))
            line += text.count("\n", start, begin)
            start, depth, steps = begin, 0, 0
        elif not mark.startswith(("//", '"')):
            depth += (mark in "([{") - (mark in ")]}")
            steps += mark not in ")]}<>"
            if depth > DEPTH or steps > STEPS:
                raise refused(name, line, _too_much(depth))
    if _code(text[start:]):
        yield Statement(text[start:], line)


def check_depth(name: str, text: str) -> None:
    """Refuse a schema that is nested too deep for Cedar's reader. Raises VersionRefusedError."""
    depth = 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        depth += (mark in "([{<") - (mark in ")]}>")
        if depth > DEPTH:
            raise refused(name, 1 + text.count("\n", 0, token.start()), _too_much(depth))


def _too_much(depth: int) -> str:
    if depth > DEPTH:
        return f"brackets are nested more than {DEPTH} deep: write it flat"
    return f"the rule has more than {STEPS} brackets, dots and operators: split it into several rules"


def _after(pattern: re.Pattern[str], text: str, place: int) -> int:
    """Give the place after what a pattern that takes anything takes here."""
    found = pattern.match(text, place)
    return found.end() if found else place


def _code(text: str) -> str:
    return "".join(line for line in text.splitlines() if not line.strip().startswith("//")).strip()
