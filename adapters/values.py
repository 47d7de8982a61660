"""Builds the values that the body schemas hold: dates, names, places, states, texts."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from adapters.countries import code_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Value = dict[str, Any]
SCRIPTS = {
    "LATIN": "Latn", "CYRILLIC": "Cyrl", "GEORGIAN": "Geor", "GREEK": "Grek", "ARABIC": "Arab", "ARMENIAN": "Armn",
    "HEBREW": "Hebr", "HANGUL": "Hang", "HIRAGANA": "Hira", "KATAKANA": "Kana", "CJK": "Hani",
}  # fmt: skip
UNKNOWN_SCRIPT = "Zyyy"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PRECISION = {4: "year", 7: "month", 10: "day"}
MAJORITY = 18
CIRCA_YEARS = 5
"""How far a date that the source calls approximate may be off, for the question of age."""
YEARS = range(1800, 2201)
"""A year outside of these is a placeholder such as 9999, or a slip."""
_ISO = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)
_WORDS = re.compile(r"(?:(\d{1,2})\s+)?([A-Za-z]{3})[a-z]*\.?\s+(\d{4})", re.ASCII)


def tidy(**fields: Any) -> Value:
    """Leave out what is unknown or empty: the schema's defaults say that."""
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {})}


def script(text: str) -> str:
    """Give the ISO 15924 code of the script of most letters; `Zyyy` where there are none."""
    found: dict[str, int] = {}
    for letter in text:
        if letter.isalpha():
            word = unicodedata.name(letter, "").partition(" ")[0]
            found[word] = found.get(word, 0) + 1
    return SCRIPTS.get(max(found, key=lambda word: found[word]), UNKNOWN_SCRIPT) if found else UNKNOWN_SCRIPT


def partial_date(text: str | None, note: str | None = None) -> Value | None:
    """Read `1971`, `1971-03`, `1971-03-05`, `5 Mar 1971`, `Mar 1971`, `circa …`, `… to …`; None: not understood."""
    if text is None:
        return None
    bare = re.sub(r"^(?:circa|approximately|approx\.?)\s+", "", text.strip(), flags=re.IGNORECASE)
    first, _, last = bare.partition(" to ")
    start, end = _iso(first), _iso(last) if last else None
    if start is None or (last and end is None):
        return None
    if end is not None and len(end) != len(start):  # a range has one precision: the coarser
        start, end = (value[: min(len(start), len(end))] for value in (start, end))
    if end is not None and end < start:
        return None
    circa = True if bare != text.strip() else None
    return tidy(date=start, precision=PRECISION[len(start)], until=end, approximate=circa, note=note or None)


def moment(text: str | None) -> int | None:
    """Read `2026-02-27T00:00:09.554Z` as ms since 1970-01-01T00:00:00Z; None for anything else, or without a zone."""
    try:
        read = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if read.tzinfo is None else (read - EPOCH) // timedelta(milliseconds=1)


def _iso(text: str) -> str | None:
    text = text.strip()
    if found := _ISO.fullmatch(text):
        year, month, day = found.groups()
    elif (found := _WORDS.fullmatch(text)) and found[2].lower() in MONTHS:
        day, year = found[1], found[3]
        month = f"{MONTHS.index(found[2].lower()) + 1:02}"
        day = day and f"{int(day):02}"
    else:
        return None
    if int(year) not in YEARS:
        return None
    try:
        date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return None
    return "-".join(part for part in (year, month, day) if part)


def minor(births: Iterable[Mapping[str, Any]], today: date, known_since: date | None = None) -> str:
    """Say yes, no or unknown: no birth date, or one too coarse to tell, is unknown.

    Whoever was known to an authority a full age ago (`known_since`) is of age, whatever the birth date.
    """
    border = _years_before(today, MAJORITY)
    if known_since is not None and known_since <= border:
        return "no"
    spans = [_span(birth) for birth in births]
    if spans and all(latest <= border for _, latest in spans):
        return "no"
    return "yes" if spans and all(earliest > border for earliest, _ in spans) else "unknown"


def minor_of_any(persons: Iterable[str]) -> str:
    """Say it of a record that names several persons: no only where it is no of each, or nobody is named."""
    said = set(persons)
    return next((each for each in ("yes", "unknown") if each in said), "no")


def _span(birth: Mapping[str, Any]) -> tuple[date, date]:
    first, last = birth["date"], birth.get("until") or birth["date"]
    margin = timedelta(days=366 * CIRCA_YEARS if birth.get("approximate") else 0)
    earliest = date.fromisoformat((first + "-01-01")[:10])
    return earliest - margin, _end(last) + margin


def _end(text: str) -> date:
    if len(text) == 10:
        return date.fromisoformat(text)
    year, month = int(text[:4]), int(text[5:7] or 12)
    return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)


def _years_before(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year - years)
    except ValueError:  # born on 29 February
        return day.replace(year=day.year - years, day=28)


def person_name(
    *, family: str | None = None, given: str | None = None, patronymic: str | None = None, whole: str | None = None,
    parts: list[str] | None = None, kind: str = "primary", quality: str | None = None, note: str | None = None,
) -> Value:  # fmt: skip
    """Build one name of a person; the script is read from its letters."""
    letters = " ".join(part for part in (family, given, patronymic, whole) if part)
    return tidy(
        family=family, given=given, patronymic=patronymic, whole=whole, parts=parts, script=script(letters),
        kind=kind, quality=quality, note=note,
    )  # fmt: skip


def other_name(name: str, kind: str = "primary", quality: str | None = None, note: str | None = None) -> Value:
    """Build one name of an organisation or object."""
    return tidy(name=name, script=script(name), kind=kind, quality=quality, note=note)


def state(text: str | None) -> Value | None:
    """Build a state from a code or a name; a name that says no more than the code is not repeated."""
    if text is None:
        return None
    code = code_of(text)
    return tidy(code=code, name=None if text == code else text)


def place(
    country: str | None = None, region: str | None = None, city: str | None = None, street: str | None = None,
    postal_code: str | None = None, note: str | None = None,
) -> Value | None:  # fmt: skip
    """Build a place; None where nothing is known of it."""
    made = tidy(state=state(country), region=region, city=city, street=street, postal_code=postal_code, note=note)
    return made or None


def text(words: str, heading: str | None = None, language: str | None = None) -> Value:
    """Build a piece of text."""
    return tidy(heading=heading, text=words, language=language)


def items(values: list[Value]) -> Value | None:
    """Build a compartment that is a list; None where the list is empty."""
    return {"items": values} if values else None


def compartments(**bodies: Value | None) -> dict[str, Value]:
    """Leave out the compartments that have nothing to say."""
    return {name: body for name, body in bodies.items() if body}


def end_of(known: Mapping[str, Any]) -> date:
    """Give the last day that a partial date may mean."""
    return _end(known.get("until") or known["date"])
