"""What must hold of every story, said once more by nothing but what was delivered (DESIGN §3.8, rule 12)."""

from __future__ import annotations

from tests.model.life import FOLLOWING, Life
from tests.model.story import Key, Outcome, Sent

Place = tuple[str, int]
"""Bureau and delivery number."""


class Promises:
    """Follows what stands with whom; `life` tells what a leaf speaks of, and whether it was ever in force."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.standing: dict[Place, Sent] = {}

    def broken(self, sent: Sent, came: tuple[Outcome, ...]) -> str:
        """Say which promise the leaves of this notice break, if any."""
        found = ""
        for outcome in came:
            notice = self.released(sent) if outcome.kind == "released" else sent
            older = {place for place, each in self.standing.items() if self.is_version(each, notice)}
            self.hand_out(notice, outcome)
            left = older & self.standing.keys()
            if outcome.kind == "routed" and notice.kind == "withdrawal" and left and self.was_in_force(notice):
                found = found or "withdrawn, and a version of the record stands"
            told = "holders-not-reached" in outcome.warnings
            if outcome.kind in ("routed", "released") and notice.written.corrects and left and not told:
                found = found or "corrected, and an older version stands without a word"
        return found

    def hand_out(self, notice: Sent, outcome: Outcome) -> None:
        for bureau, line in outcome.lines.items():
            for number in (*line.replaces, *line.erases):
                self.standing.pop((bureau, number), None)
            self.standing[bureau, line.number] = notice

    def is_version(self, each: Sent, notice: Sent) -> bool:
        owner = notice.subject.issuer if notice.kind == "withdrawal" and notice.subject else notice.issuer
        return (
            each is not notice and each.kind not in FOLLOWING and (each.issuer, each.record) == (owner, notice.record)
        )

    def released(self, approval: Sent) -> Sent:
        held = self.life.known[named(approval)].sent
        assert held is not None
        return held

    def was_in_force(self, withdrawal: Sent) -> bool:
        """Tell whether what it names was ever accepted: its withdrawal may come before a notice, which is then none."""
        known = self.life.known[named(withdrawal)]
        return known.sent is not None and known.accepted


def named(sent: Sent) -> Key:
    assert sent.subject is not None
    return sent.subject.issuer, sent.subject.notice_id
