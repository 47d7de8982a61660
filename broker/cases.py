"""The cases of a policy set: small worlds, a notice, and who must receive and see what.

Each policy file has its file of cases; they run whenever the set is loaded, and one that fails refuses the whole set.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker import members
from broker.directory import Annex, Directory
from broker.errors import VersionRefusedError
from broker.facts import NO_LIMIT, Facts, facts_of
from broker.members import Clearance, WrittenAgreement, WrittenBureau, WrittenDirectory, WrittenMember, WrittenTransfer
from broker.notice import (
    KINDS,
    ROUTING,
    Audience,
    Grant,
    Header,
    Origin,
    Reference,
    Routing,
    RuleHit,
    Slot,
)

TOLD = 4
"""Mistakes in the form of a file that are told at once."""
NOW = 1_000_000
"""The `now` at which every case is judged."""
Moment = Annotated[int, Field(ge=0, lt=NO_LIMIT)]


class _Case(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class World(_Case):
    """A federation in a few lines. `transfers`: `all`, or pairs `AT>GE`, or `AT>GE under AGREEMENT`."""

    bureaus: dict[str, list[str]] = Field(description="bureau → its mandates; indices in this order")
    suspended: list[str] = []
    agreements: dict[str, list[str]] = {}
    suspended_agreements: dict[str, list[str]] = {}
    own_terms: list[str] = Field(default=[], description="agreements that cover only notices that name them")
    transfers: Literal["all"] | list[str] = "all"
    clearances: dict[str, Clearance] = {}
    supervision: list[str] = []
    reviewers: list[str] = []
    languages: dict[str, list[str]] = Field(default={}, description="bureau → what it reads; else `en`")


class WrittenNotice(_Case):
    """What the rules may know of a notice, with harmless defaults."""

    issuer: str
    kind: str = "person"
    purpose: str = "criminal-investigation"
    confidentiality: str = "restricted"
    urgency: str = "routine"
    handling: list[str] = []
    topics: list[str] = ["case"]
    languages: list[str] = ["en"]
    exercise: bool = False
    corrects: bool = False
    holders: list[str] = Field(default=[], description="bureaus that hold what it corrects")
    released: bool = False
    retain_until: Moment | None = None
    review_due: Moment | None = None
    everyone: bool = False
    agreements: list[str] = []
    to: list[str] = []
    deny: list[str] = []
    origins: list[tuple[str, list[str]]] = Field(default=[], description="[owner or '?', those it consents to]")
    subject_categories: list[str] = ["suspect"]
    minor: str = "no"
    special_categories: list[str] = []
    protected_from: list[str] = []
    grants: list[tuple[str, list[str], Moment]] = Field(default=[], description="[bureau, compartments, until]")
    derogation: str | None = None


class Case(_Case):
    """One case. `receive`, each list of `see` and of `met` are exact; the issuing bureau itself is left out."""

    name: str
    notice: WrittenNotice
    now: Moment = NOW
    receive: list[str]
    review: list[str] = Field(default=[], description="the bureaus that it is held for")
    see: dict[str, list[str]] = {}
    met: dict[str, list[str]] = Field(default={}, description="rule → the bureaus for which it is met")
    tricky: list[str] = Field(default=[], description="the points of the file's `tricky` that it is about")


class CaseFile(_Case):
    """A file of cases in one world."""

    world: World
    tricky: dict[str, str] = Field(default={}, description="point → what is tricky about the rule, in words")
    case: list[Case] = Field(min_length=1)


class Judged(Protocol):
    """What the rules say of one notice."""

    @property
    def receive(self) -> int:
        """Who may receive."""

    @property
    def review(self) -> int:
        """Who may release it."""

    @property
    def see(self) -> Mapping[str, int]:
        """Compartment → who may see it."""

    @property
    def hits(self) -> tuple[RuleHit, ...]:
        """Which rules were met."""


Compile = Callable[[Directory, Annex], Callable[[Facts], Judged]]


def file_of(policy_file: str) -> str:
    """Name the file of cases that belongs to a policy file."""
    return f"cases/{policy_file.removesuffix('.cedar')}.toml"


@dataclass(frozen=True, slots=True)
class Ran:
    """What was tried out of one file: its world, its notices, and the rules that they met."""

    directory: Directory
    annex: Annex
    facts: tuple[Facts, ...]
    met: frozenset[str]


def run(files: Mapping[str, str], policy_files: Iterable[str], compile_for: Compile) -> dict[str, Ran]:
    """Run all cases; give what each policy file's cases tried. Raises VersionRefusedError naming the case."""
    names = tuple(policy_files)
    for place in files:
        if place.startswith("cases/") and place not in map(file_of, names):
            raise _refused(place, 1, "these cases belong to no policy file: call them as the file of rules is called")
    found = {}
    for name in names:
        found[name], wrong = run_file(name, files.get(file_of(name)), compile_for)
        if wrong:
            raise wrong[0]
    return found


def read(place: str, text: str) -> CaseFile:
    """Read a file of cases. Raises VersionRefusedError."""
    try:
        return CaseFile.model_validate(tomllib.loads(text))
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)
        number = next((each for each in wrong[0]["loc"] if isinstance(each, int)), None)
        line = 1 if number is None or wrong[0]["loc"][0] != "case" else _line(text, number)
        # All of one case at once: a field that is missing is often there under a name with a slip of the pen.
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrong[:TOLD])
        raise _refused(place, line, f"{told}: correct the case") from error
    except (ValueError, RecursionError) as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines()) or 1
        raise _refused(place, line, f"this is no TOML, {error}: correct what stands there") from error


def run_file(policy_file: str, text: str | None, compile_for: Compile) -> tuple[Ran, list[VersionRefusedError]]:
    """Run the cases of one policy file; give what they tried, and a refusal for each that does not hold.

    Raises VersionRefusedError if they cannot be read.
    """
    place = file_of(policy_file)
    if text is None:
        what = f"{policy_file} has no cases: {place} is missing: write one case for each of its rules"
        raise _refused(policy_file, 1, what)
    written = read(place, text)
    directory, annex = world_of(written.world, place)
    judge = compile_for(directory, annex)
    tried, met, refusals = list[Facts](), set[str](), list[VersionRefusedError]()
    for number, case in enumerate(written.case):
        facts = case_facts(case, directory, annex)
        verdict = judge(facts)
        wrong = mistakes(case, directory) or differences(case, verdict, directory)
        if wrong:
            what = f"case {case.name!r}: {'; '.join(wrong)}: correct the case, or the rule"
            refusals.append(_refused(place, _line(text, number), what))
        tried.append(facts)
        met.update(hit.rule for hit in verdict.hits)
    return Ran(directory, annex, tuple(tried), frozenset(met)), refusals


def case_facts(case: Case, directory: Directory, annex: Annex) -> Facts:
    """Compute the facts of a case's notice."""
    written = case.notice
    header, routing = notice_of(written, directory.federation)
    holders = directory.bureau_mask(written.holders)
    return facts_of(header, routing, directory, annex, case.now, released=written.released, holders=holders)


def _refused(place: str, line: int, reason: str) -> VersionRefusedError:
    return VersionRefusedError(f"policies: {place}:{line}: {reason}")


def _line(text: str, number: int) -> int:
    """Find the line on which a case begins."""
    heads = [line for line, each in enumerate(text.splitlines(), start=1) if each.strip().startswith("[[case]]")]
    return heads[number] if number < len(heads) else 1


def mistakes(case: Case, directory: Directory) -> list[str]:
    """Name whoever a case names that is not in its world: with a slip of the pen it could hold for a wrong reason."""
    notice = case.notice
    lists = (case.receive, case.review, *case.see.values(), *case.met.values())
    bureaus = {each for found in lists for each in found}
    named: tuple[tuple[str, Iterable[str], Container[str]], ...] = (
        ("bureau", [notice.issuer, *notice.holders, *sorted(bureaus)], directory.bureaus),
        ("member or bureau", [*notice.to, *notice.deny, *notice.protected_from], _both(directory)),
        ("agreement", notice.agreements, directory.agreements),
    )
    found = [f"there is no {what} {each!r}" for what, words, known in named for each in words if each not in known]
    return [*found, "holders: it corrects nothing that they could hold"] if _holds_nothing(notice) else found


def _holds_nothing(notice: WrittenNotice) -> bool:
    return bool(notice.holders) and not notice.corrects


def _both(directory: Directory) -> Container[str]:
    return directory.bureaus.keys() | directory.members.keys()


def differences(case: Case, verdict: Judged, directory: Directory) -> list[str]:
    """Say where a verdict is not what the case demands."""
    wrong = []
    others = ~directory.mask([case.notice.issuer])
    held = verdict.review & directory.reviewers if not verdict.receive else 0
    demanded = {"receive": (case.receive, verdict.receive), "review": (case.review, held)}
    demanded |= {f"see.{name}": (bureaus, verdict.see.get(name, 0)) for name, bureaus in case.see.items()}
    met = {hit.rule: hit.bureaus for hit in verdict.hits}
    demanded |= {f"met.{rule}": (bureaus, met.get(rule, 0)) for rule, bureaus in case.met.items()}
    for what, (bureaus, mask) in demanded.items():
        got = directory.bureaus_in(mask & others)
        if sorted(got) != sorted(bureaus):
            wrong.append(f"{what} should be {sorted(bureaus)} and is {sorted(got)}")
    return wrong


def world_of(world: World, place: str = "cases") -> tuple[Directory, Annex]:
    """Make the directory of a world. Raises VersionRefusedError."""
    try:
        written = _directory(world)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _refused(place, 1, f"a case's world: {where}: {first['msg']}: correct [world]") from error
    directory = members.parse(members.canonical(written))
    return directory, Annex(None, MappingProxyType(dict(world.clearances)), frozenset(world.supervision))


def _directory(world: World) -> WrittenDirectory:
    names = sorted({each.partition("/")[0] for each in world.bureaus})
    circles = [(each, "active") for each in world.agreements.items()]
    circles += [(each, "suspended") for each in world.suspended_agreements.items()]
    return WrittenDirectory.model_validate(
        {
            "federation": "cases",
            "version": 1,
            "members": tuple(
                WrittenMember(
                    id=each, name=each, kind="state", status="suspended" if each in world.suspended else "active"
                )
                for each in names
            ),
            "bureaus": tuple(
                WrittenBureau(
                    id=each,
                    index=index,
                    name=each,
                    mandates=tuple(mandates),
                    languages=tuple(world.languages.get(each, ("en",))),
                )
                for index, (each, mandates) in enumerate(world.bureaus.items())
            ),
            "agreements": tuple(
                WrittenAgreement.model_validate(
                    {
                        "id": name,
                        "title": name,
                        "basis": "case",
                        "members": tuple(parties),
                        "status": status,
                        "own_terms": name in world.own_terms,
                    }
                )
                for (name, parties), status in circles
            ),
            "transfers": tuple(_transfers(world, names)),
            "reviewers": tuple(world.reviewers),
        }
    )


def _transfers(world: World, names: list[str]) -> Iterable[WrittenTransfer]:
    pairs = world.transfers
    if pairs == "all":
        pairs = [f"{source}>{target}" for source in names for target in names if source != target]
    for each in pairs:
        pair, _, agreement = each.partition(" under ")
        source, _, target = pair.partition(">")
        basis: Literal["agreement", "adequacy"] = "agreement" if agreement else "adequacy"
        yield WrittenTransfer(source=source, target=target, basis=basis, reference="case", agreement=agreement or None)


def notice_of(written: WrittenNotice, federation: str) -> tuple[Header, Routing]:
    """Make header and routing of a case's notice; what no rule can see is empty."""
    return _header(written, federation), _routing(written)


def _header(written: WrittenNotice, federation: str) -> Header:
    corrected = Reference(written.issuer, bytes(16), bytes(32), "corrects")
    return Header(
        federation=federation,
        notice_id=bytes(16),
        record="case",
        version=1,
        issuer=written.issuer,
        kind=written.kind,
        conversation=None,
        references=(corrected,) if written.corrects else (),
        topics=tuple(written.topics),
        action_sought=None,
        urgency=written.urgency,
        acknowledge_by=None,
        answer_by=None,
        purpose=written.purpose,
        legal_basis="case",
        handling=tuple(written.handling),
        handling_text=None,
        confidentiality=written.confidentiality,
        source_evaluation=None,
        information_evaluation=None,
        issued=0,
        expires=None,
        retain_until=written.retain_until,
        review_due=written.review_due,
        languages=tuple(written.languages),
        exercise=written.exercise,
        compartments=tuple(Slot(name, bytes(32)) for name in (ROUTING, *KINDS.get(written.kind, ()))),
    )


def _routing(written: WrittenNotice) -> Routing:
    return Routing(
        audience=Audience(written.everyone, tuple(written.agreements), tuple(written.to)),
        deny=tuple(written.deny),
        origins=tuple(Origin(None if owner == "?" else owner, tuple(to)) for owner, to in written.origins),
        subject_categories=tuple(written.subject_categories),
        minor=written.minor,
        special_categories=tuple(written.special_categories),
        protected_from=tuple(written.protected_from),
        series=bytes(8),
        number=1,
        grants=tuple(Grant(bureau, tuple(names), until) for bureau, names, until in written.grants),
        derogation=written.derogation,
    )
