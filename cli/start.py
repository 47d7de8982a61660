"""The first step of `valise`: an interrupt while its modules are read ends it as any later one does, with 130."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command and exit."""
    _open_what_is_closed()
    try:
        from cli.main import main as run  # noqa: PLC0415 -- what it reads takes a while, and is to be inside

        run()
    except KeyboardInterrupt:
        sys.exit(130)


def _open_what_is_closed() -> None:
    """Open /dev/null for what the caller has closed of the first three files: what opens next would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
