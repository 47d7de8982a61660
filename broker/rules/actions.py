"""What the rules are asked about a notice: may a bureau receive it, review it, see this compartment."""

from broker.notice import KINDS

RECEIVE, REVIEW = "receive", "review"
SEE = {name: f"see_{name}" for names in KINDS.values() for name in names}
"""Compartment → its action. `routing` has none, so nobody is shown it."""
ACTIONS = (RECEIVE, REVIEW, *SEE.values())
