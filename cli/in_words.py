"""Says in words what became of a notice of ours, and of what follows it; and what the codes of any notice mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.notice import ORDERED, WITHDRAWAL
from cli import answer

if TYPE_CHECKING:
    from adapters.outbox import Result
    from adapters.trace import Reached, Story

HANDLING = {
    "H1": "may be read; no evidence without the owner's consent",
    "H2": "stays with this bureau; nobody else has it without the owner's grant",
    "H3": "opened only on the owner's terms",
}
"""What each handling code asks of whoever reads."""
SOURCES = {
    "A": "beyond doubt, or reliable in all instances",
    "B": "reliable in most instances",
    "C": "unreliable in most instances",
    "X": "cannot be assessed",
}
INFORMATION = {
    1: "known to be true without reservation",
    2: "known to the source, not to whoever reports it",
    3: "not known to the source, but corroborated",
    4: "not known to the source, and not corroborated",
}
"""The 4x4 grading of Europol and SIENA: of a source, and of what it says."""
SCRIPTS = {
    "Arab": "Arabic", "Armn": "Armenian", "Cyrl": "Cyrillic", "Geor": "Georgian", "Grek": "Greek", "Hans": "Chinese",
    "Hant": "Chinese", "Hebr": "Hebrew", "Jpan": "Japanese", "Kore": "Korean", "Latn": "Latin",
}  # fmt: skip
"""ISO 15924, the scripts that names are written in most."""
TRIES_AGAIN = "the next `valise trace` or `inbox`, or whatever publishes or withdraws, tries again"


SILENT_MS = 8 * 3_600_000
"""From then on who has not answered is called silent: after as many hours as the broker's alarm for reviewers rings."""


def became(story: Story, now: int) -> str:
    """Say where a notice stands at `now`: waiting, sent, decided, who has not answered yet, and who is silent."""
    name = f"{story.kind} {story.id} (record {answer.one_line(story.record)}, version {story.version})"
    if story.sent_at is None:
        return f"{name} waits in the outbox since {answer.when(story.made_at)}"
    if story.outcome is None:
        return f"{name} was sent {answer.when(story.sent_at)} and is not decided yet"
    if story.outcome in _SAID:
        return f"{name} {_SAID[story.outcome](story, now)}"
    if story.outcome == ORDERED:
        when = answer.when(story.decided_at)
        return f"{name}, decided {when} in leaf {story.leaf_number}, has been withdrawn by order of an authority"
    called = "silent" if _is_late(story, now) else "no answer yet from"
    silent = f"; {called}: {', '.join(story.silent)}" if story.silent else ""
    warned = f"; warnings: {', '.join(story.warnings)}" if story.warnings else ""
    when = answer.when(story.decided_at)
    reached = answer.count(len(story.reached), "bureau")
    return f"{name} was {story.outcome} {when} in leaf {story.leaf_number} to {reached}{silent}{warned}"


def _is_late(story: Story, now: int) -> bool:
    return story.decided_at is None or now - story.decided_at >= SILENT_MS


def _rejected(story: Story, _now: int) -> str:
    if story.leaf_number is None:
        return "is not on record: its withdrawal was rejected for that, and its own outcome is lost"
    return f"was rejected in leaf {story.leaf_number}: {story.code} ({answer.one_line(story.detail)})"


def _unknown(story: Story, _now: int) -> str:
    """Say what is to be done about a notice of which nobody can say any more what became of it."""
    lost = f"was sent {answer.when(story.sent_at)}, and the bus has dropped what became of it before it was read here"
    again = f"`valise withdraw {answer.one_line(story.record)} --bureau {story.bureau}`"
    if story.kind == WITHDRAWAL:
        return f"{lost}: unless a later one says more, withdraw it once more: {again}"
    return f"{lost}: it may stand with its holders; publish its record again, as its source does by itself, or {again}"


def _held(story: Story, now: int) -> str:
    when = answer.when(story.decided_at)
    if story.unreviewed:
        return f"was held {when} in leaf {story.leaf_number} for review; its record has been withdrawn since"
    late = _is_late(story, now)
    reviewers = ", ".join(_review(each, late=late) for each in story.reached) or "nobody can review it"
    return f"is held since {when} in leaf {story.leaf_number} for review: {reviewers}"


_SAID = {"unknown": _unknown, "rejected": _rejected, "held": _held}


def _review(each: Reached, *, late: bool) -> str:
    if each.at("read") is not None:
        return f"{each.bureau} has opened it and not decided"
    if each.at("received") is not None:
        return f"{each.bureau} has not opened it"
    return f"{each.bureau} is silent" if late else f"{each.bureau} has not answered yet"


def follows(result: Result) -> str:
    """Say what came of following a withdrawal that told nobody."""
    from adapters.outbox import Published, Refusal  # noqa: PLC0415 -- no command that opens a home need load it

    left = f"a withdrawal of {answer.one_line(result.record)} told nobody and left a version with its holders"
    if isinstance(result, Published):
        return f"{left}: withdrawal {result.id}, version {result.version}, follows it"
    why = f" ({answer.one_line(result.reason)})" if isinstance(result, Refusal) else ""
    return f"{left}, and cannot be followed now{why}: {TRIES_AGAIN}"
