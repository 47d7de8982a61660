"""The remarks of the OFAC list: `;`-separated phrases, read into facts; what is not understood stays text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapters import values
from adapters.countries import code_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.adapter import SourceReport
    from adapters.values import Value

SEXES = {"male": "male", "female": "female"}
ALIASES = {"a.k.a.": ("alias", None), "f.k.a.": ("former", None), "n.k.a.": ("alias", "now known as")}
KINDS = {
    "Passport": "passport", "Diplomatic Passport": "diplomatic-passport", "National ID No.": "national-id",
    "Identification Number": "identification-number", "Tax ID No.": "tax-number", "SSN": "social-security-number",
    "Driver's License No.": "driving-licence", "Registration Number": "registration-number",
    "Registration ID": "registration-number", "Company Number": "company-number", "MMSI": "mmsi",
    "Vessel Registration Identification": "vessel-registration", "SWIFT/BIC": "bic",
}  # fmt: skip
CHANNELS = {"Telephone": "phone", "Phone Number": "phone", "Fax": "fax", "Email Address": "e-mail", "Website": "web"}
OBJECT_NUMBERS = ("Aircraft Manufacturer's Serial Number (MSN)", "Aircraft Mode S Transponder Code")

_NUMBERED = re.compile(
    r"(?P<kind>SWIFT/BIC|MMSI|SSN|Vessel Registration Identification|Business Registration Document #|"
    r"(?:[A-Z][\w.'/&-]*\s+(?:[A-Za-z][\w.'/&-]*\s+|\([A-Z.]+\)\s+){0,4}?)?"
    r"(?:Passport|Number|No\.?|#|ID|D\.N\.I\.|C\.U\.R\.P\.|R\.F\.C\.|C\.U\.I\.T\.|C\.I\.F\.|C\.R\.|N\.I\.E\.|I\.F\.E\.|"
    r"V\.A\.T\.|Card|License|Code|Permit))"
    r"\s+(?P<number>[^()]*\d[^()]*?)"
    r"(?:\s+\((?P<state>[^)]*)\))?"
    r"(?:\s+issued\s+(?P<issued>\d[\w ]*?\d{4}))?(?:\s+expires\s+(?P<expires>\d[\w ]*?\d{4}))?"
)
_QUOTED = re.compile(r"([afn]\.k\.a\.)\s+'(.*)'")
_CRYPTO = re.compile(r"Digital Currency Address - (\w+)\s+(\S+)")
_CONSTRUCTION = re.compile(r"(Aircraft Construction Number) \(.*?\)\s+(.+)")
_END = "."


@dataclass
class Facts:
    """What the remarks of one entry say; every phrase is in exactly one of these."""

    births: list[Value] = field(default_factory=list)
    birthplaces: list[Value] = field(default_factory=list)
    nationalities: list[Value] = field(default_factory=list)
    sex: str | None = None
    documents: list[Value] = field(default_factory=list)
    aliases: list[tuple[str, str, str | None]] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    owners: list[tuple[str, str]] = field(default_factory=list)
    channels: list[Value] = field(default_factory=list)
    assets: list[Value] = field(default_factory=list)
    founded: list[Value] = field(default_factory=list)
    built: list[Value] = field(default_factory=list)
    flags: list[Value] = field(default_factory=list)
    model: str | None = None
    tail: str | None = None
    texts: list[str] = field(default_factory=list)


def read(remarks: str, sort: str, report: SourceReport) -> Facts:
    """Read the remarks of one entry; `sort` is person, organisation, vessel or aircraft."""
    facts = Facts()
    for phrase in _phrases(remarks):
        name = _fact(phrase, sort, facts)
        if name is None:
            facts.texts.append(phrase)
        report.carry(f"remarks: {name or 'other phrases, into the narrative'}")
    return facts


def _phrases(remarks: str) -> list[str]:
    """Split at semicolons, but not inside a quoted alias; the full stop ends the remarks and no phrase."""
    found = re.findall(r"\s*[afn]\.k\.a\. '.*?'(?=;|\.?$)|[^;]+", remarks)
    phrases = [phrase.strip() for phrase in found]
    if phrases:
        phrases[-1] = phrases[-1].removesuffix(_END)
    return [phrase for phrase in phrases if phrase]


def _fact(phrase: str, sort: str, facts: Facts) -> str | None:
    """Put one phrase where it belongs and name what it was; None: not understood."""
    bare = phrase.removeprefix("alt. ")
    for prefix, reader in _READERS[sort].items():
        if bare.startswith(prefix + " ") and reader(facts, bare.removeprefix(prefix).strip()):
            return prefix
    found = (reader(facts, bare) for reader in (_alias, _crypto, _construction, _numbered))
    return next((name for name in found if name), None)


def _birth(facts: Facts, rest: str) -> bool:
    born = values.partial_date(rest)
    facts.births += [born] if born else []
    return born is not None


def _birthplace(facts: Facts, rest: str) -> bool:
    facts.birthplaces.append(_place(rest))
    return True


def _place(words: str) -> Value:
    """`Town, Region, State`: the last part is the state where the table knows it; the rest is kept as written."""
    rest, _, last = words.rpartition(", ")
    if code_of(last) is None:
        return {"note": words}
    city, _, region = rest.partition(", ")
    made = values.place(last, region=region or None, city=city or None)
    assert made is not None
    return made


def _nationality(facts: Facts, rest: str) -> bool:
    state = values.state(rest)
    facts.nationalities += [state] if state and state not in facts.nationalities else []
    return True


def _gender(facts: Facts, rest: str) -> bool:
    facts.sex = SEXES.get(rest.lower())
    return facts.sex is not None


def _linked(facts: Facts, rest: str) -> bool:
    facts.linked.append(rest)
    return True


def _operator(facts: Facts, rest: str) -> bool:
    facts.owners.append(("operator", rest))
    return True


def _founded(facts: Facts, rest: str) -> bool:
    day = values.partial_date(rest)
    facts.founded += [day] if day else []
    return day is not None


def _built(facts: Facts, rest: str) -> bool:
    day = values.partial_date(rest)
    facts.built += [day] if day else []
    return day is not None


def _flag(facts: Facts, rest: str) -> bool:
    state = values.state(rest)
    facts.flags += [state] if state else []
    return state is not None


def _model(facts: Facts, rest: str) -> bool:
    if facts.model is not None:
        return False
    facts.model = rest
    return True


def _tail(facts: Facts, rest: str) -> bool:
    if facts.tail is not None:
        return False
    facts.tail = rest
    return True


def _object_number(kind: str) -> Callable[[Facts, str], bool]:
    def read_number(facts: Facts, rest: str) -> bool:
        facts.documents.append({"kind": kind, "number": rest})
        return True

    return read_number


def _channel(kind: str) -> Callable[[Facts, str], bool]:
    def read_channel(facts: Facts, rest: str) -> bool:
        facts.channels.append({"kind": kind, "value": rest})
        return True

    return read_channel


def _alias(facts: Facts, phrase: str) -> str | None:
    found = _QUOTED.fullmatch(phrase)
    if found is None:
        return None
    kind, note = ALIASES[found[1]]
    facts.aliases.append((found[2], kind, note))
    return found[1]


def _crypto(facts: Facts, phrase: str) -> str | None:
    found = _CRYPTO.fullmatch(phrase)
    if found is None:
        return None
    facts.assets.append({"kind": "crypto-address", "currency": found[1], "identifier": found[2]})
    return "Digital Currency Address"


def _construction(facts: Facts, phrase: str) -> str | None:
    found = _CONSTRUCTION.fullmatch(phrase)
    if found is None:
        return None
    facts.documents.append({"kind": found[1], "number": found[2]})
    return found[1]


def _numbered(facts: Facts, phrase: str) -> str | None:
    found = _NUMBERED.fullmatch(phrase)
    if found is None:
        return None
    issued, expires = values.partial_date(found["issued"]), values.partial_date(found["expires"])
    if (found["issued"] and not issued) or (found["expires"] and not expires):
        return None
    facts.documents.append(
        values.tidy(
            kind=KINDS.get(found["kind"], found["kind"]), number=found["number"].strip(),
            state=values.state(found["state"]) if found["state"] else None, issued=issued, expires=expires,
        )
    )  # fmt: skip
    return "documents and numbers"


_OF_ALL: dict[str, Callable[[Facts, str], bool]] = {
    "Linked To:": _linked,
    **{prefix: _channel(kind) for prefix, kind in CHANNELS.items()},
}
_OF_OBJECT = {
    **_OF_ALL,
    "Aircraft Operator": _operator,
    "Aircraft Manufacture Date": _built,
    "Vessel Year of Build": _built,
    "Former Vessel Flag": _flag,
    "Aircraft Model": _model,
    "Aircraft Tail Number": _tail,
    **{prefix: _object_number(prefix) for prefix in OBJECT_NUMBERS},
}
_READERS: dict[str, dict[str, Callable[[Facts, str], bool]]] = {
    "person": {
        **_OF_ALL,
        "DOB": _birth,
        "POB": _birthplace,
        "nationality": _nationality,
        "citizen": _nationality,
        "Gender": _gender,
    },
    "organisation": {
        **_OF_ALL,
        "Organization Established Date": _founded,
        "nationality": _nationality,
        "citizen": _nationality,
    },
    "vessel": _OF_OBJECT,
    "aircraft": _OF_OBJECT,
}
