"""Tells one story; or plays many, from SEED on, and tells the first in which broker and model part.

.venv/bin/python -m tests.model SEED [COUNT]
"""

from __future__ import annotations

import sys

from tests.model.author import Author
from tests.model.compare import parting, retold
from tests.model.played import opened, played


def main(seed: int, count: int = 1) -> int:
    """Give the exit code: 1 if they part."""
    with opened() as register:
        for each in range(seed, seed + count):
            story = Author(each).story()
            found = parting(story, played(story, register))
            if found or count == 1:
                sys.stdout.write(retold(each, register) + "\n")
            if found:
                return 1
    sys.stdout.write(f"broker and model agree in {count} stories\n")
    return 0


sys.exit(main(*map(int, sys.argv[1:])))
