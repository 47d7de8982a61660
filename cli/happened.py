"""Tells what happened in a federation: who published, who received what, what was withheld, what was rejected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adapters.adapter import Draft
from adapters.trace import Story, trace
from adapters.versions import Versions
from broker import codec
from broker.index import Index
from broker.notice import DecisionRecord, Leaf
from broker.records import Records
from broker.rules import PolicySet
from broker.trail import Trail
from cli.invented.sites import Site
from cli.play import Desk
from cli.stage import Stage
from cli.standing import held
from cli.story import Stories
from cli.tally import note

NO_MANDATE = "no mandate for the purpose"
_RULE = re.compile(r'@id\("([^"]+)"\).*?\b(permit|forbid)\s*\((.*?)\bresource', re.DOTALL)


@dataclass(slots=True)
class Member:
    """One member's part: notices published, deliveries made of them, deliveries received, and how many were read."""

    published: int = 0
    delivered: int = 0
    received: int = 0
    read: int = 0


@dataclass(slots=True)
class Happened:
    """Counts of everything, and the notice that is told as an example."""

    members: dict[str, Member] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    leaves: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    """Compartments that were there and not shown, by kind and name; one for each delivery."""
    waiting: int = 0
    """Held notices on which no reviewer has decided."""
    kept_from: Counter[str] = field(default_factory=Counter)
    """Why a bureau that wanted a notice did not get it, by rule, or `denied by the issuer`; one for each bureau."""

    @property
    def notices(self) -> int:
        """All notices that outboxes sent."""
        return sum(each.published for each in self.members.values())

    @property
    def deliveries(self) -> int:
        """All deliveries that collectors verified."""
        return sum(each.received for each in self.members.values())


def happened(stage: Stage, opened: dict[str, Desk], sites: Sequence[Site]) -> Happened:
    """Look into every home: national systems, outboxes, inboxes, and the operator's trail."""
    told, present = Happened(), _present(sites)
    for name, desk in opened.items():
        member = told.members.setdefault(name, Member())
        _published(desk, member, present, told)
        for box, _ in desk.collectors.values():
            states = [line.state for line in box.lines()]
            member.received += len(states)
            member.read += states.count("read")
    _recorded(stage, told)
    return told


def _present(sites: Sequence[Site]) -> dict[str, frozenset[str]]:
    """Tell which compartments the national systems fill, by record: an outbox forgets the body once it is on record."""
    today = datetime.now(UTC).date()
    return {
        made.record: frozenset(made.compartments)
        for site in sites
        for made in site.source(today).drafts(site.path)
        if isinstance(made, Draft)
    }


def _published(desk: Desk, member: Member, present: dict[str, frozenset[str]], told: Happened) -> None:
    for row in desk.outbox.database.execute("SELECT notice_id FROM envelopes ORDER BY place").fetchall():
        story = trace(desk.outbox.database, bytes(row["notice_id"]))
        assert story is not None
        member.published += 1
        member.delivered += len(story.reached) + _to_reviewers(desk, story, bytes(row["notice_id"]))
        told.kinds[story.kind] += 1
        if story.kind != "withdrawal":
            there = present.get(story.record, frozenset())
            told.withheld.update(f"{story.kind}.{name}" for each in story.reached for name in there - set(each.shown))


def _to_reviewers(desk: Desk, story: Story, notice_id: bytes) -> int:
    """Count the deliveries to reviewing bureaus of a notice that was held and is decided since."""
    if story.outcome == "held":
        return 0
    query = "SELECT decision FROM outcomes WHERE notice_id = ? AND kind = 'held'"
    rows = desk.outbox.database.execute(query, (notice_id,)).fetchall()
    return sum(len(codec.decode(DecisionRecord, bytes(row["decision"])).rows) for row in rows)


def _recorded(stage: Stage, told: Happened) -> None:
    rules = _rules_of_receiving()
    trail = Trail.open(stage.operator.folder / "trail")
    undecided = dict[int, int]()
    for number, entry in enumerate(trail.entries()):
        leaf = codec.decode(Leaf, entry)
        note(undecided, number, leaf)
        told.leaves[leaf.kind] += 1
        if leaf.kind == "rejected":
            told.rejected[leaf.code or "?"] += 1
    told.waiting = len(held(stage.operator, undecided))
    with closing(Records.to_read(stage.operator.folder / "records.db")) as records:
        for _, _, record in records.since(0):
            told.kept_from += _kept_from(codec.decode(DecisionRecord, record), rules)


def _rules_of_receiving() -> dict[str, str]:
    """Give the effect of every rule that speaks of receiving, by its id."""
    text = "\n".join(PolicySet.packaged().files.values())
    return {name: effect for name, effect, scope in _RULE.findall(text) if 'Action::"receive"' in scope}


def _kept_from(decision: DecisionRecord, rules: dict[str, str]) -> Counter[str]:
    """Count the bureaus that were in the audience and wanted the topic, and did not get it, by reason."""
    terms = decision.terms
    wanted = terms.audience & terms.reached
    kept, permitted = wanted & ~terms.denied & ~terms.allowed, 0
    found = Counter({"denied by the issuer": (wanted & terms.denied).bit_count()})
    for hit in decision.rules:
        if rules.get(hit.rule) == "permit":
            permitted |= hit.bureaus
        elif hit.rule in rules:
            found[hit.rule] += (hit.bureaus & kept).bit_count()
    found[NO_MANDATE] = (kept & ~permitted).bit_count()
    return +found


def why_not(chapter: dict[str, Any], wanted: set[str]) -> dict[str, set[str]]:
    """Say of a notice's chapter which bureaus of those that wanted it did not get it, by reason."""
    rules, kept = _rules_of_receiving(), wanted - set(chapter["terms"]["allowed"])
    found: dict[str, set[str]] = {}
    permitted: set[str] = set()
    for each in chapter["rules"]:
        if rules.get(each["rule"]) == "permit":
            permitted.update(each["bureaus"])
        elif each["rule"] in rules:
            found[f"rule {each['rule']}"] = kept.intersection(each["bureaus"])
    found[NO_MANDATE] = kept - permitted
    return {reason: bureaus for reason, bureaus in found.items() if bureaus}


def example(desk: Desk) -> Story:
    """Choose a network that was corrected, or else the first notice that reached somebody."""
    rows = desk.outbox.database.execute(
        "SELECT notice_id FROM envelopes WHERE outcome = 'routed' ORDER BY kind = 'network' DESC, version DESC"
    ).fetchall()
    stories = [story for row in rows if (story := trace(desk.outbox.database, bytes(row[0])))]
    return next(each for each in stories if each.reached)


def chapters(stage: Stage, notice: str) -> list[dict[str, Any]]:
    """Tell one notice's story from trail and decision records, as `valise audit show` does."""
    operator = stage.operator.folder
    trail = Trail.open(operator / "trail")
    with (
        closing(Records.to_read(operator / "records.db")) as records,
        closing(Index(operator / "records.index.db")) as index,
    ):
        trail = index.update(trail, records, lambda _done, _all: None)
        stories = Stories(trail, records, index, Versions(operator / "versions"))
        return stories.tell(stories.find(notice))
