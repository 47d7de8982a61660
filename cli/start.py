"""The first step of `valise`: an interrupt while its modules are read ends it as any later one does, with 130."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and exit."""
    try:
        from cli.main import main as run  # noqa: PLC0415 -- what it reads takes a while, and is to be inside

        run()
    except KeyboardInterrupt:
        sys.exit(130)
