"""Processes that end before they have done what they were told, as at kill -9: begun afresh, in a moment."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from typing import TypeVarTuple

LIMIT_S = 60.0
# Each is forked from a process that has done nothing but load what most of them need: no thread, file or lock of the
# test's is in it, as in one that is spawned, and it is there thirty times as soon.
AFRESH = multiprocessing.get_context("forkserver")
AFRESH.set_forkserver_preload(["pytest", "tests.member.conftest", "tests.steps.ledger"])
Arguments = TypeVarTuple("Arguments")


def killed(target: Callable[[*Arguments], None], *arguments: *Arguments) -> None:
    """Run `target`, which arms a crash point (broker/crash.py), in a process of its own; it must be killed there."""
    process = AFRESH.Process(target=target, args=arguments)
    process.start()
    process.join(LIMIT_S)
    ended_by = process.exitcode
    process.kill()  # one that does not end: whoever has ended is left alone
    process.join()
    assert ended_by == -signal.SIGKILL
