"""What a Kafka node has said in its log since it was started."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def said_since(log: Path, before: int) -> str:
    """Read what came after the log had `before` bytes."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        # A log that has become smaller was rolled over: then all of it is new.
        file.seek(before if log.stat().st_size >= before else 0)
        return file.read().decode("utf-8", errors="replace")


def last_words(log: Path, before: int) -> str:
    """Tell why a node gave up, in its own words: its log's, or what stands in `console.log` beside that."""
    console = log.with_name("console.log")
    said = _first_complaint(said_since(log, before).splitlines())
    said = said or console.read_text(encoding="utf-8", errors="replace").splitlines()[:1]
    return f"{' '.join(said) or 'it did not say why'} (all of it: {log})"


def _first_complaint(lines: Sequence[str]) -> list[str]:
    """Find the first error that a log tells of, and its cause, which stands in the line below."""
    for place, line in enumerate(lines):
        if re.search(r"\] (ERROR|FATAL) ", line):
            return [line, *(cause for cause in lines[place + 1 : place + 2] if not cause.startswith("["))]
    return []
