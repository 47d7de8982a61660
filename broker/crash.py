"""Named crash points: where the tests kill or stop this process to prove that nothing is lost.

Commands arm what `VALISE_CRASH_AT` names, in production, too: who sets the environment of a process can end it anyway.
"""

from __future__ import annotations

import os
import signal

_armed: dict[str, signal.Signals] = {}


def arm(name: str, by: signal.Signals = signal.SIGKILL) -> None:
    """Make the process kill itself at the point of this name; with SIGSTOP it stops there, once. Only tests do."""
    _armed[name] = by


def here(name: str) -> None:
    """Mark a point at which the process may be killed without anything being lost."""
    if by := _armed.pop(name, None):
        os.kill(os.getpid(), by)
