"""Puts an opened notice into words for whoever reads it: what is asked of him, then a section for each compartment.

No line of what others wrote begins at the left edge, where only our own words stand: a text cannot pose as the next
section, neither by line breaks nor, on a terminal, by so many blanks that what follows them is at the edge again. What
has no words here is shown as it came: nothing is left out but what is empty.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adapters.countries import name_of
from cli import answer
from cli.in_words import HANDLING, INFORMATION, SCRIPTS, SOURCES

if TYPE_CHECKING:
    from adapters.inbox import Opened
    from broker.notice import Header

REFERENCES = 20
"""Records of others that a notice speaks of and that are listed for people: thousands would push it off the screen."""
WIDTH = 16
"""columns for what a field is called"""
_UNITS = {
    "height_cm": "cm",
    "length_cm": "cm",
    "weight_kg": "kg",
    "deadweight_tons": "t",
    "gross_tons": "t",
    "bytes": "bytes",
}
_TITLES = {name: name.partition("_")[0] for name in _UNITS} | {"bytes": "size", "gross_tons": "gross tonnage"}
_FIRST = ("local_id", "code", "kind", "type", "names", "name", "from", "to")
"""What tells one of several from the others comes first; all else as the schema orders it."""
_IDS = ("entity", "from", "to", "holders", "basis")
"""Fields that name entities of the same notice by their local ids."""
_OPEN = ("confirmed", "authenticity")
"""Fields in which it matters, for each of several, that something is not known."""
_CONFIRMED = {True: "confirmed", False: "suspected, not confirmed", None: "unknown whether confirmed"}
_WHETHER = {True: "yes", False: "no", None: "unknown"}
_ZONED = ("until",)
"""Fields that are times in ms where they are numbers."""


def pages(opened: Opened, withheld: list[str], columns: int | None = None) -> Iterator[str]:
    """Give the lines of a notice, the header's first. `withheld`: what is withheld or was never there, which is one.

    `columns`: those of the terminal, to which lines are folded; None where there is none.
    """
    for line in _head(opened):
        yield _hanging("", answer.one_line(line), columns)
    names = _names_of(opened.body)
    for slot in opened.header.compartments[1:]:
        title = slot.name.replace("_", " ").upper()
        if slot.name in withheld:
            yield f"\n{title}: not shown"
        elif slot.name in opened.unreadable:
            yield f"\n{title}: cannot be read"
        else:
            yield f"\n{title}"
            yield from _section(opened.body[slot.name], names, columns)
    if meanings := list(_meanings(opened.body)):
        yield "\ngrades, of a source and of what it says:"
        yield from meanings
    if opened.unreadable:
        issuer = answer.one_line(opened.header.issuer)
        yield f"\ncannot be read: what came is not what its schema says; {issuer} would have to correct it"
    if withheld:
        yield "\nnot shown: kept from this bureau, or never there; the two look the same"


def _head(opened: Opened) -> Iterator[str]:
    header = opened.header
    if header.exercise:
        yield "EXERCISE: nothing of this is real"
    terms = ", ".join((*header.handling, header.confidentiality))
    named = f"record {header.record}, version {header.version}"
    yield f"{header.kind} {opened.line.id} from {header.issuer} ({named}; {terms})"
    for code in header.handling:
        if code in HANDLING:
            yield f"{code}: {HANDLING[code]}"
    if header.handling_text:
        yield f"handling: {header.handling_text}"
    yield f"purpose {header.purpose}; basis: {header.legal_basis}"
    yield f"about {', '.join(header.topics)}; {header.urgency}"
    for each in header.references[:REFERENCES]:
        yield f"{each.relation} {uuid.UUID(bytes=each.notice_id)} of {each.issuer}"
    if (more := len(header.references) - REFERENCES) > 0:
        yield f"and {more:,} more references: --json lists all"
    if header.action_sought:
        yield f"action sought: {header.action_sought}"
    source, told = header.source_evaluation, header.information_evaluation
    yield f"source {source or '–'}: {SOURCES.get(source or '', 'not evaluated')}"
    yield f"information {told or '–'}: {INFORMATION.get(told or 0, 'not evaluated')}"
    yield "; ".join(f"{name} {answer.when(at)} UTC" for name, at in _times(header).items() if at is not None)


def _times(header: Header) -> Mapping[str, int | None]:
    return {
        "issued": header.issued, "acknowledge by": header.acknowledge_by, "answer by": header.answer_by,
        "expires": header.expires, "keep until": header.retain_until, "review due": header.review_due,
    }  # fmt: skip


def _section(body: Mapping[str, Any], names: Mapping[str, str], columns: int | None) -> Iterator[str]:
    """Show a compartment: its fields, then those of which nothing is known."""
    unknown = [_title(name) for name, value in body.items() if value in (None, [], {})]
    for name, value in body.items():
        if value in (None, [], {}):
            continue
        if isinstance(value, list) and (name == "items" or any(map(_is_long, value))):
            if name != "items":
                yield f"  {_title(name)}"
            for each in value:
                yield _hanging("  - " if name == "items" else "    - ", _said(name, each, names), columns)
        else:
            yield _hanging(f"  {_title(name):<{WIDTH}}", _field(name, value, names, "; "), columns)
    if unknown:
        yield _hanging(f"  {'unknown':<{WIDTH}}", ", ".join(unknown), columns)


def _hanging(first: str, text: str, columns: int | None) -> str:
    """Put a text after what it is called; lines that it breaks itself, or a terminal would, stand further in."""
    lines, begin = answer.safe(text).split("\n"), "\n" + " " * (len(first) + 2)
    if columns and any(len(each) * 2 > columns - len(begin) for each in lines):  # a letter takes two at most
        from cli.narrow import fold  # noqa: PLC0415 -- it needs rich: a tenth of a second

        lines = [part for each in lines for part in fold(each, columns - len(begin))]
    return first + begin.join(lines)


def _is_long(value: object) -> bool:
    """Say whether one of several takes a line of its own: what is a word, a date or a state does not."""
    return isinstance(value, dict) and _whole(value) is None


def _field(name: str, value: Any, names: Mapping[str, str], between: str = ", ") -> str:
    if isinstance(value, list):
        return between.join(_said(name, each, names) for each in value)
    return _said(name, value, names)


def _said(name: str, value: Any, names: Mapping[str, str]) -> str:
    """Say a value, on one line but for the line breaks that a text of its own has."""
    if isinstance(value, dict):
        whole = _whole(value)
        return whole if whole is not None else _parts(value, names)
    if value is None or isinstance(value, bool):
        return _CONFIRMED[value] if name == "confirmed" else f"{_title(name)} {_WHETHER[value]}".strip()
    if isinstance(value, int | float):
        return f"{answer.when(int(value))} UTC" if name in _ZONED else f"{value:,} {_UNITS.get(name, '')}".strip()
    text = answer.plain(value)
    return f"{text} ({names[text]})" if name in _IDS and text in names else text


def _parts(value: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Say several fields of one thing, each by its name where that says more than the value."""
    first = [name for name in _FIRST if name in value]
    found = []
    for name in [*first, *(each for each in value if each not in first)]:
        each = value[name]
        if each in (None, [], {}) and not (each is None and name in _OPEN):
            continue
        said = _field(name, each, names, ", " if name in _IDS else " / ")
        bare = name in _BARE or each is None or isinstance(each, bool)
        found.append(said if bare else f"{_title(name)}: {said}")
    return "; ".join(found)


_BARE = frozenset({
    "local_id", "code", "kind", "type", "names", "name", "facts", "evaluation", "place", "text", "asset", "statement",
    "entity",
})  # fmt: skip
"""Fields whose values speak for themselves."""


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


# Records that are one thing to whoever reads


def _whole(value: Mapping[str, Any]) -> str | None:
    """Say a record that is one thing: a date, a state, a name, a place, an evaluation; None for any other."""
    keys = frozenset(value)
    return next((say(value) for needed, may, say in _RECORDS if needed <= keys <= needed | may), None)


def _date(value: Mapping[str, Any]) -> str:
    """Say a date with all that is known of how exact it is: 1971 to 1973 (year; circa; note)."""
    date = value["date"] + (f" to {value['until']}" if value.get("until") else "")
    more = [] if value["precision"] == "day" else [f"{value['precision']} only"]
    more += ["circa"] if value.get("approximate") else []
    more += [value["note"]] if value.get("note") else []
    return f"{date} ({'; '.join(more)})" if more else str(date)


def _state(value: Mapping[str, Any]) -> str:
    code, name = value.get("code"), value.get("name")
    known = name_of(code) if code else None
    said = f"{known} ({code})" if known else code or ""
    return f"{said}, as written: {name}" if said and name else said or name or "state unknown"


def _name(value: Mapping[str, Any]) -> str:
    family, given = value.get("family"), " ".join(filter(None, (value.get("given"), value.get("patronymic"))))
    said = value.get("whole") or value.get("name") or ", ".join(filter(None, (family, given)))
    script = value["script"]
    more = [value["kind"], SCRIPTS.get(script, script)]
    more += [f"{value['quality']} quality"] if value.get("quality") else []
    more += [f"MIXES {' and '.join(mixed)} letters"] if (mixed := _mixed(said)) else []
    more += [value["note"]] if value.get("note") else []
    return f"{said or 'name unknown'} ({', '.join(more)})"


def _mixed(name: str) -> list[str]:
    """Name the alphabets of which letters stand in one word: such a name looks like another, and is not found as it."""
    for word in re.findall(r"[^\W\d_]+", name):
        alphabets = {unicodedata.name(each, "").partition(" ")[0] for each in word} & _ALIKE
        if len(alphabets) > 1:
            return sorted(map(str.capitalize, alphabets))
    return []


_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN"})
"""Alphabets with letters that look the same."""


def _grade(value: Mapping[str, Any]) -> str:
    """Give a grade, A to X and 1 to 4, as who works with them reads them; what they mean is said once, at the end."""
    return f"graded {value['source'] or '–'}{value['information'] or '–'}"


def _meanings(body: object) -> Iterator[str]:
    """Say what the grades mean that stand in these compartments."""
    grades = list(_grades(body))
    yield from (f"  {each}  {said}" for each, said in SOURCES.items() if any(each == one for one, _ in grades))
    yield from (f"  {each}  {said}" for each, said in INFORMATION.items() if any(each == one for _, one in grades))


def _grades(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, dict):
        if value.keys() == {"source", "information"}:
            yield value["source"], value["information"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _grades(each)


def _place(value: Mapping[str, Any]) -> str:
    parts = [value.get(name) for name in ("street", "postal_code", "city", "region")]
    state = [_state(value["state"])] if value.get("state") else []
    note = [value["note"]] if value.get("note") else []
    return ", ".join([*filter(None, parts), *state, *note]) or "place unknown"


def _fact(value: Mapping[str, Any]) -> str:
    return f"{value['name']}: {value['value']}"


_RECORDS: tuple[tuple[frozenset[str], frozenset[str], Callable[[Mapping[str, Any]], str]], ...] = (
    (frozenset({"date", "precision"}), frozenset({"until", "approximate", "note"}), _date),
    (
        frozenset({"script", "kind"}),
        frozenset({"name", "whole", "parts", "family", "given", "patronymic", "quality", "note"}),
        _name,
    ),
    (frozenset({"code"}), frozenset({"name"}), _state),
    (frozenset({"source", "information"}), frozenset(), _grade),
    (frozenset({"state", "city"}), frozenset({"region", "street", "postal_code", "note"}), _place),
    (frozenset({"name", "value"}), frozenset(), _fact),
)
"""By which fields a record is known, which others it may have, and what says all of them."""


def _names_of(body: Mapping[str, Any]) -> Mapping[str, str]:
    """Give the first name of each entity of a network, by its local id."""
    entities = (body.get("entities") or {}).get("items", [])
    return {each["local_id"]: _first_name(each["names"]) for each in entities if each["names"]}


def _first_name(names: list[Mapping[str, Any]]) -> str:
    return re.sub(r" \([^()]*\)$", "", answer.one_line(_name(names[0])))
