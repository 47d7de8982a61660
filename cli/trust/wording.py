"""Says in words what a draft changes, and who must still sign it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from broker.trust import draft
from broker.trust.bundle import Opened
from broker.trust.draft import Draft
from broker.trust.roles import POLICIES, TARGETS, Standing
from cli import answer
from cli.trust import powers

_LISTS = {"members": "id", "bureaus": "id", "keys": "key_id", "auditors": "id", "agreements": "id", "logs": "shard"}
"""Parts of a directory whose entries have a name."""
MANY = 12


def changes(made: Draft, base: Opened | None) -> list[str]:
    """List what becomes otherwise once a draft is in force. Raises VersionRefusedError if it does not add up."""
    draft.check_shown(made, base)
    lines = list(powers.changes(made, base))
    if set(made.roles) - {POLICIES}:
        after = json.loads(draft.plain_after(made, base))
        before = json.loads(base.plain) if base else {}
        lines += _directory(before, after)
    if made.policies is not None:
        lines.append(f"a policy set of {len(made.policies.encode()):,} bytes is put in force, drafted by {made.by}")
    renewed = ", ".join(sorted(set(made.roles) - {POLICIES, TARGETS}))
    return lines or [f"nothing changes; signed anew, so that it does not expire: {renewed}"]


def signatures(made: Draft, base: Opened | None) -> list[tuple[str, str, str, str]]:
    """Give a row for each role that must be signed: role, who has signed, how many are missing, who could."""
    return [_row(each) for each in draft.standings(made, base)]


def _row(each: Standing) -> tuple[str, str, str, str]:
    missing = f"{each.missing} of {each.threshold}" if each.missing else "none"
    left = sorted(each.could - each.signed) if each.missing else []
    return each.role, ", ".join(sorted(each.signed)) or "nobody", missing, ", ".join(left)


def _directory(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for part in sorted(set(before) | set(after)):
        if part in _LISTS:
            yield from _listed(part, before.get(part, []), after.get(part, []))
        elif part == "transfers":
            yield from _transfers(before.get(part, []), after[part]) if before else _counted(after[part])
        elif part != "version" and before.get(part) != after.get(part):
            yield f"{part}: {_short(before.get(part))} becomes {_short(after.get(part))}"


def _listed(part: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    name, what = _LISTS[part], part.removesuffix("s")
    old, new = ({str(each[name]): each for each in side} for side in (before, after))
    added = [_called(part, new[each]) for each in new if each not in old]
    if len(added) > MANY and not old:  # a founding draft; in any other the last of a long list must not pass unseen
        yield f"{len(added)} {part} are added: {', '.join(added[:MANY])} …"
    else:
        yield from (f"{what} {each} is added" for each in added)
    yield from (f"{what} {_called(part, old[each])} is taken out" for each in old if each not in new)
    for each in sorted(set(old) & set(new)):
        for field in sorted(set(old[each]) | set(new[each])):
            if old[each].get(field) != new[each].get(field):
                was, becomes = _short(old[each].get(field)), _short(new[each].get(field))
                yield f"{what} {_called(part, new[each])}: {field} {was} becomes {becomes}"


def _called(part: str, entry: Mapping[str, Any]) -> str:
    if part == "keys":
        return f"{entry['key_id'][:16]} of {entry['bureau']}, until {answer.when(entry['valid_until'])}"
    return str(entry[_LISTS[part]])


def _transfers(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """Name every transfer that comes, goes or rests on other words, those of one member and ground in one line."""
    old, new = ({_fact(each): each["reference"] for each in side} for side in (before, after))
    found: dict[tuple[str, str, str], list[str]] = {}
    for source, target, ground in sorted(old.keys() | new.keys()):
        was, becomes = (side.get((source, target, ground)) for side in (old, new))
        if was != becomes:
            found.setdefault((source, ground, _became(was, becomes)), []).append(target)
    for (source, ground, what), targets in found.items():
        yield f"transfers from {source} to {', '.join(targets)} by {ground}: {what}"


def _fact(transfer: Mapping[str, Any]) -> tuple[str, str, str]:
    """Tell a transfer from all others: from whom, to whom, and on what ground."""
    circle = f" {transfer['agreement']}" if transfer.get("agreement") else ""
    return transfer["source"], transfer["target"], transfer["basis"] + circle


def _became(was: str | None, becomes: str | None) -> str:
    if was is None:
        return f"added, under {becomes}"
    return "taken out" if becomes is None else f"reference {was} becomes {becomes}"


def _counted(founding: list[dict[str, Any]]) -> Iterator[str]:
    grounds = Counter(_fact(each)[2] for each in founding)
    yield from (f"{count} transfers are added by {ground}" for ground, count in sorted(grounds.items()))


def _short(value: object) -> str:
    if value is None:
        return "nothing"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"
