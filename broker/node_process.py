"""Finds the process of a Kafka node, which is no child to wait for: by the id that was kept, or by its command line."""

from __future__ import annotations

import os
import time
from pathlib import Path

LOOK_S = 0.001


def found(kept: Path, properties: Path) -> int | None:
    """Tell the process id of a node that runs; an id that another process has got since does not count.

    Where a kill or a full disk kept it from being written to `kept`, the node is found by what it was started with.
    """
    argument = os.fsencode(properties)
    try:
        written = int(kept.read_text(encoding="ascii"))
    except (OSError, ValueError):
        written = 0
    if written > 0:
        _reap(written)
    if _was_given(written, argument):
        return written
    others = (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())
    return next((pid for pid in others if _was_given(pid, argument)), None)


def await_command(pid: int) -> None:
    """Wait for the moment in which Linux knows a new process but not yet its command line."""
    try:
        while not Path(f"/proc/{pid}/cmdline").read_bytes():
            _reap(pid)
            time.sleep(LOOK_S)
    except OSError:
        return


def _was_given(pid: int, argument: bytes) -> bool:
    """Say whether a process was started as a node with this argument."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return argument in command and b"kafka.Kafka" in command


def _reap(pid: int) -> None:
    """Let go of a node that was our own child and has ended, or it would stay in the process table."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
