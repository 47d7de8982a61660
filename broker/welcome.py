"""Says to a recipient why it got a notice, from what it may know: the header, its own row, the directory, the rules.

Routing is not its business: whom else the issuer meant, whom it distrusts, of whom the notice speaks. What is not shown
is absent or withheld, which look the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.notice import KINDS, ROUTING
from broker.rules import RECEIVE
from broker.wording import attributes_of

if TYPE_CHECKING:
    from broker.members import Bureau, Directory
    from broker.notice import Header
    from broker.rules import Read

HEADER_FACTS = frozenset({"kind", "issuer", "owner", "purpose", "confidentiality", "urgency", "exercise"})
"""Facts of a notice that its header alone tells; the others need the routing."""
OWN_FACTS = frozenset({"member", "mandates", "agreements"})
"""Facts of a bureau that the directory tells; clearances stand in the annex."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """Why a bureau got a notice, as far as it may know."""

    rules: tuple[str, ...]
    facts: tuple[str, ...]
    shown: tuple[str, ...]
    lines: tuple[str, ...]


def welcome(header: Header | None, shown: int, name: str, directory: Directory, rules: tuple[Read, ...]) -> Welcome:
    """Tell it. `header` None: the delivery has been erased here, so only the rules can be told."""
    bureau = directory.bureaus[name]
    permits = [each for each in rules if _could_permit(each)]
    facts = _facts(header, bureau) if header else ()
    names = (ROUTING, *KINDS.get(header.kind, ())) if header else ()
    open_ = tuple(each for place, each in enumerate(names) if shown >> place & 1)
    lines = [f"rule {each.rule.id}: {each.rule.sentence} Basis: {each.rule.basis}" for each in permits]
    lines += [f"fact: {each}" for each in facts]
    if header:
        lines.append(f"shown: {', '.join(open_) or 'the header only'}; what is not shown is absent or not for you")
    return Welcome(tuple(each.rule.id for each in permits), facts, open_, tuple(lines))


def _could_permit(rule: Read) -> bool:
    """Say whether a rule permits receiving on facts that a recipient may know."""
    if rule.rule.effect != "permit" or RECEIVE not in rule.actions:
        return False
    return all(name in (OWN_FACTS if of == "principal" else HEADER_FACTS) for of, name in attributes_of(rule.condition))


def _facts(header: Header, bureau: Bureau) -> tuple[str, ...]:
    mandate = "has a mandate" if header.purpose in bureau.mandates else "needed no mandate"
    reached = (
        "a flash goes to the whole audience"
        if header.urgency == "flash"
        else "it is addressed to you, or is on a topic that you subscribed to: " + ", ".join(header.topics)
    )
    return (f"{bureau.id} {mandate} for its purpose, {header.purpose}", reached)
