"""Judges one record in a child process and throws the result away, to see whether it kills whoever judges it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker import members
from broker.decide import Subscriptions, View, decide
from broker.directory import NO_ANNEX
from broker.errors import NoticeRejectedError
from broker.notice import Verified
from broker.rules import PolicySet, Rules
from broker.verify import Keys, check

if TYPE_CHECKING:
    from broker.bus import Record


def judge_alone(directory: bytes, policies: bytes, now: int, record: Record) -> None:
    """Check and decide as the broker does. Returns for any answer: only the death of this process counts."""
    listed = members.parse(directory)
    try:
        checked = check(record, now, Keys(listed, set()))
        if isinstance(checked, Verified):
            rules = Rules.load(PolicySet.parse(policies), listed, NO_ANNEX)
            decide(checked, View(listed, rules, Subscriptions.of(listed, {})), now, ())
    except NoticeRejectedError:
        return
