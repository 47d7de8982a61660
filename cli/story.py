"""One notice's story from trail and decision records, as an auditor reads it: digests, ids and routing only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from adapters.versions import Versions
from broker import codec
from broker.errors import NoticeRejectedError, TrailError
from broker.index import Index, look_in, receipt_in
from broker.notice import DecisionRecord, Header, Leaf, Recipient, Routing
from broker.recorded import key_in
from broker.records import Records
from broker.route import rows_hold
from broker.signing import decision_digest
from broker.trail import Trail
from cli import answer


class Stories:
    """Tells stories out of one operator's home."""

    def __init__(self, trail: Trail, records: Records, index: Index, versions: Versions) -> None:
        self._trail, self._records, self._index, self._versions = trail, records, index, versions

    def find(self, name: str) -> list[int]:
        """Find the leaves of a story, by a leaf number or a notice id; empty if there is no such notice."""
        if name.isdecimal() and len(name) < 19:
            number = int(name)
            if number >= self._trail.size:
                return []
            header = self._header(self._decision(number)[1])
            own = self._index.leaves_of(header.notice_id) if header else [number]
        else:
            own = self._index.leaves_of(_notice_id(name))
        leaves = set(own)
        for each in own:
            leaves.update(self._index.leaves_about(each))
        return sorted(leaves)

    def tell(self, leaves: Iterable[int]) -> list[dict[str, Any]]:
        """Tell what each leaf says, in order."""
        return [self._chapter(each) for each in leaves]

    def _decision(self, number: int) -> tuple[bytes, DecisionRecord, bytes]:
        kept = self._records.get(number)
        if kept is None:
            message = f"the decision record of leaf {number} is missing"
            raise TrailError(message)
        return kept[0], codec.decode(DecisionRecord, kept[1]), kept[1]

    def _header(self, decision: DecisionRecord) -> Header | None:
        return codec.decode(Header, decision.header) if decision.header else None

    def _chapter(self, number: int) -> dict[str, Any]:
        leaf = codec.decode(Leaf, self._trail.entry(number))
        salt, decision, raw = self._decision(number)
        chapter: dict[str, Any] = {
            "leaf": number,
            "kind": leaf.kind,
            "code": leaf.code,
            "about": leaf.about,
            "at": answer.iso(leaf.now),
            "header_digest": leaf.header_digest.hex() if leaf.header_digest else None,
            "directory": leaf.directory.hex(),
            "policies": leaf.policies.hex(),
            "decision_holds": decision_digest(salt, raw) == leaf.decision and rows_hold(leaf, decision),
            "key_id": key.hex() if (key := key_in(decision)) else None,
            "came_on": f"{decision.stream} {decision.partition}:{decision.offset}" if decision.stream else None,
            "warnings": list(decision.warnings),
            "detail": decision.detail,
        }
        if header := self._header(decision):
            chapter |= self._notice(header, decision, _bureaus(self._versions, leaf.directory))
        if receipt := receipt_in(decision):
            chapter["receipt"] = {"bureau": receipt.bureau, "act": receipt.act, "result": receipt.result}
            chapter["receipt"]["case_digest"] = receipt.case_digest.hex() if receipt.case_digest else None
            chapter["receipt"]["at"] = answer.iso(receipt.at)
        if look := look_in(decision):
            chapter["look"] = {"by": look.by, "reason": look.reason, "leaves": list(look.leaves)}
        return chapter

    def _notice(self, header: Header, decision: DecisionRecord, bureaus: dict[int, str]) -> dict[str, Any]:
        names = [each.name for each in header.compartments]
        return {
            "notice": str(UUID(bytes=header.notice_id)),
            "issuer": header.issuer,
            "notice_kind": header.kind,
            "record": header.record,
            "version": header.version,
            "urgency": header.urgency,
            "purpose": header.purpose,
            "handling": list(header.handling),
            "relations": [
                {"relation": each.relation, "notice": str(UUID(bytes=each.notice_id))} for each in header.references
            ],
            "routing": _routing(decision.routing),
            "recipients": [_recipient(each, names) for each in decision.rows],
            "rules": [{"rule": each.rule, "bureaus": _named(each.bureaus, bureaus)} for each in decision.rules],
            "terms": {
                name: _named(getattr(decision.terms, name), bureaus)
                for name in ("allowed", "audience", "denied", "reached")
            },
        }


def _notice_id(name: str) -> bytes:
    try:
        return UUID(name).bytes
    except ValueError:
        return b""


def _routing(opened: bytes) -> dict[str, Any] | None:
    """Read the routing compartment: salt ‖ bytes."""
    if not opened:
        return None
    try:
        routing = codec.decode(Routing, opened[32:])
    except NoticeRejectedError as error:
        return {"unreadable": error.code}
    audience = routing.audience
    return {
        "everyone": audience.everyone,
        "agreements": list(audience.agreements),
        "to": list(audience.to),
        "deny": list(routing.deny),
        "number": routing.number,
    }


def _recipient(recipient: Recipient, names: list[str]) -> dict[str, Any]:
    return {
        "bureau": recipient.bureau,
        "delivery": recipient.delivery_number,
        "shown": [name for bit, name in enumerate(names) if recipient.shown >> bit & 1],
        "replaces": list(recipient.replaces),
        "erases": list(recipient.erases),
    }


def _bureaus(versions: Versions, digest: bytes) -> dict[int, str]:
    """Read the bureaus' names by index from the directory that the leaf names, if the home holds it."""
    try:
        directory = json.loads(versions.content(digest) or b"{}")
        return {each["index"]: each["id"] for each in directory["bureaus"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _named(mask: int, bureaus: dict[int, str]) -> list[str]:
    return [bureaus.get(bit, f"bureau {bit}") for bit in range(mask.bit_length()) if mask >> bit & 1]
