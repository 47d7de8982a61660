"""Says to a recipient why it got a notice, from what it may know: the header, its own row, the directory, the rules.

Routing is not its business: whom else the issuer meant, whom it distrusts, of whom the notice speaks. What is not shown
is absent or withheld, which look the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.notice import AREAS, KINDS, ROUTING
from broker.rules import RECEIVE, REVIEW
from broker.wording import attributes_of

if TYPE_CHECKING:
    from broker.directory import Bureau, Directory
    from broker.notice import Header
    from broker.rules import Read

HEADER_FACTS = frozenset({"kind", "issuer", "owner", "purpose", "confidentiality", "urgency", "exercise"})
"""Facts of a notice that its header alone tells; the others need the routing."""
REVIEW_FACTS = frozenset({"areas", "released"})
"""What else a reviewing bureau knows: the topics stand in the header, and nobody has released it yet."""
OWN_FACTS = frozenset({"member", "mandates", "agreements"})
"""Facts of a bureau that the directory tells; clearances stand in the annex."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """Why a bureau got a notice, as far as it may know."""

    rules: tuple[str, ...]
    facts: tuple[str, ...]
    shown: tuple[str, ...]
    lines: tuple[str, ...]


def welcome(
    header: Header | None,
    shown: int,
    name: str,
    directory: Directory,
    rules: tuple[Read, ...],
    *,
    to_review: bool = False,
) -> Welcome:
    """Tell it. `header` None: the delivery has been erased here, so only the rules can be told.

    `to_review`: it is held, and this bureau may release it. By which rule it is held may rest on the routing or the
    annex, so a reviewing bureau is told the rules that its topics alone can meet.
    """
    bureau = directory.bureaus[name]
    permits = [each for each in rules if _could_permit(each, REVIEW if to_review else RECEIVE)]
    if to_review and not _in_area(header):
        permits = []
    facts = () if header is None else _facts_of_review(header, bureau) if to_review else _facts(header, bureau)
    names = (ROUTING, *KINDS.get(header.kind, ())) if header else ()
    open_ = tuple(each for place, each in enumerate(names) if shown >> place & 1)
    lines = [f"rule {each.rule.id}: {each.rule.sentence} Basis: {each.rule.basis}" for each in permits]
    lines += [f"fact: {each}" for each in facts]
    if header:
        lines.append(f"shown: {', '.join(open_) or 'the header only'}; what is not shown is absent or not for you")
    return Welcome(tuple(each.rule.id for each in permits), facts, open_, tuple(lines))


def _could_permit(rule: Read, action: str) -> bool:
    """Say whether a rule permits receiving, or reviewing, on facts that a recipient may know."""
    if rule.rule.effect != "permit" or action not in rule.actions:
        return False
    known = HEADER_FACTS | REVIEW_FACTS if action == REVIEW else HEADER_FACTS
    return all(name in (OWN_FACTS if of == "principal" else known) for of, name in attributes_of(rule.condition))


def _in_area(header: Header | None) -> bool:
    return header is not None and any(each.partition(".")[0] in AREAS for each in header.topics)


def _facts_of_review(header: Header, bureau: Bureau) -> tuple[str, ...]:
    topics = ", ".join(header.topics) or "none"
    return f"{bureau.id} is a reviewing bureau: it goes on only once one has released it", f"its topics: {topics}"


def _facts(header: Header, bureau: Bureau) -> tuple[str, ...]:
    mandate = "has a mandate" if header.purpose in bureau.mandates else "needed no mandate"
    reached = (
        "a flash goes to the whole audience"
        if header.urgency == "flash"
        else "it is addressed to you, or is on a topic that you subscribed to: " + ", ".join(header.topics)
    )
    if any(each.relation == "corrects" for each in header.references):
        reached += "; or you hold what it corrects, under an agreement that is suspended"
    return (f"{bureau.id} {mandate} for its purpose, {header.purpose}", reached)
