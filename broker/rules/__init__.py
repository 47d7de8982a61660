"""Policy files: read, validated, compiled, judged by, explained; the only door to Cedar.

Cedar is the language and the reference, masks are the fast path. A set is loaded as a whole or refused as a whole, with
file, line, reason and what to do. These are the names that others use; how a set is read stands in `read`, how it
judges in `compiled`, what it is held against in `reference`.
"""

from broker.rules.actions import ACTIONS, RECEIVE, REVIEW, SEE
from broker.rules.compiled import Explanation, Rules, Verdict
from broker.rules.policy_set import SCHEMA, PolicySet
from broker.rules.read import Read, Rule, read_rules
from broker.rules.reference import Reference

__all__ = [
    "ACTIONS",
    "RECEIVE",
    "REVIEW",
    "SCHEMA",
    "SEE",
    "Explanation",
    "PolicySet",
    "Read",
    "Reference",
    "Rule",
    "Rules",
    "Verdict",
    "read_rules",
]
