"""The words of every withdrawal, its issuer's or an authority's: always the same, whatever the record's versions said.

It goes to who holds any version, and so to those whom a later one denied: from its header they must learn nothing of
why (rule 9). Whom it reaches the holders decide; its audience names the bureau whose record it is, and nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.adapter import Draft
from broker.notice import WITHDRAWAL, Audience

TOPIC = "withdrawal"
PURPOSE = "criminal-investigation"
"""A header names one; of a withdrawal no rule asks for it."""
BASIS = "Withdrawal by its issuer (federation rules)"


def withdrawal(record: str, issuer: str, reason: Mapping[str, Any] | None, basis: str = BASIS) -> Draft:
    """Draft the withdrawal of a record that `issuer` published; `reason` is shown to every holder."""
    return Draft(
        record=record,
        kind=WITHDRAWAL,
        topics=(TOPIC,),
        purpose=PURPOSE,
        legal_basis=basis,
        audience=Audience(everyone=False, to=(issuer,)),
        compartments={"reason": reason} if reason else {},
        confidentiality="open",
        minor="no",
    )
