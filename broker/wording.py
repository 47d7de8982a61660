"""Puts the facts that a rule asks about into sentences, and what would have to be otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

from broker.directory import NO_ANNEX
from broker.facts import NO_LIMIT, Facts, carried, indices
from broker.masks import BUREAU_SETS, Apply, Attribute, Expression, Value, subjects
from broker.moments import moment
from broker.notice import TO_HOLDERS

if TYPE_CHECKING:
    from broker.directory import Annex, Bureau, Directory
    from broker.notice import Header, Routing

DAYS = frozenset({"now", "retain_until", "review_due", "expires"})
"""Facts that are times in ms."""
Spoken = frozenset[tuple[str, str]]
Say = Callable[["Bureau"], tuple[str, ...]]


def attributes_of(expression: Expression) -> Spoken:
    """List what a condition asks about, as (principal or notice, attribute)."""
    return frozenset(_attributes(expression))


def _attributes(expression: Expression) -> Iterator[tuple[str, str]]:
    if isinstance(expression, Attribute):
        yield expression.of, expression.name
    if isinstance(expression, Apply):
        for each in expression.operands:
            yield from _attributes(each)


def day(ms: int) -> str:
    """Write a time for people, in UTC."""
    if ms >= NO_LIMIT:
        return "no day"
    at = moment(ms)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC") if at else f"{ms} ms"


class Wording:
    """Speaks of one notice and the bureaus of one directory. `annex` None: clearances are not told, nor known."""

    def __init__(
        self, header: Header, routing: Routing, known: Facts, directory: Directory, annex: Annex | None
    ) -> None:
        self._header, self._routing, self._known, self._directory = header, routing, known, directory
        self._annex = annex
        self._asked: dict[int, tuple[tuple[str, str], ...]] = {}
        self._of_all: dict[str, str] = {}
        self._saying: dict[int, Say] = {}
        self._lists: dict[Value, str] = {}
        self._levels: dict[str, str] = {}
        self._together: dict[tuple[str, ...], str] = {}

    # Of the issuer's own terms

    @cached_property
    def audience(self) -> str:
        """Whom the issuer means, in words."""
        audience = self._routing.audience
        if audience.everyone:
            return "the audience is everyone"
        circles = [f"agreement {each}" for each in audience.agreements]
        return f"the audience is {_list([*circles, *audience.to]) or 'nobody'}"

    def circles(self, bureau: Bureau) -> str:
        """Name the agreements by which an issuer could mean a bureau, too."""
        named = self._circles(bureau)
        return f", or name an agreement of {bureau.member} ({', '.join(named)})" if named else ""

    def named_in(self, names: Iterable[str], bureau: Bureau) -> str:
        """Name the entries of a list that mean a bureau."""
        return " and ".join(each for each in names if each in (bureau.id, bureau.member)) or bureau.id

    def reach(self, bureau: Bureau) -> str:
        """Say how a receiver was reached."""
        if self._known.addressed >> bureau.index & 1:
            return "It is addressed."
        if self._header.urgency == "flash":
            return "A flash goes to the whole audience."
        if self._carried >> bureau.index & 1:
            return "It holds what this notice corrects: a correction goes on although the agreement is suspended."
        if self._known.holders >> bureau.index & 1:
            return "It holds what this notice corrects."
        if self._header.kind in TO_HOLDERS:
            return "It held what this notice ends, whatever the policy says."
        return "It has subscribed to one of the topics."

    @cached_property
    def _carried(self) -> int:
        return carried(self._routing, self._known, self._directory)

    # Of the rules

    def facts(self, condition: Expression, bureau: Bureau) -> tuple[str, ...]:
        """Say what each fact is that a condition asks about, for one bureau."""
        return self.saying(condition)(bureau)

    def saying(self, condition: Expression) -> Say:
        """Give what says `facts` of a condition for one bureau after the other."""
        found = self._saying.get(id(condition))
        if found is None:
            plan = tuple(self._sayer(*each) for each in self._asks(condition))
            found = self._saying[id(condition)] = _all_of(plan)
        return found

    def _sayer(self, of: str, name: str) -> str | Callable[[Bureau], str]:
        """Give the sentence of one fact, or what makes it for a bureau."""
        if of == "principal":
            return self._of_bureau(name)
        if name == "lawful":
            return self._lawful
        return self._among(name) if name in BUREAU_SETS else self._of_notice(name)

    def _among(self, name: str) -> Callable[[Bureau], str]:
        mask, where = getattr(self._known, name), _AMONG.get(name, f"among its {_plain(name)}")
        within, without = f" is {where}", f" is not {where}"
        return lambda bureau: bureau.id + (within if mask >> bureau.index & 1 else without)

    def _asks(self, condition: Expression) -> tuple[tuple[str, str], ...]:
        """List what a condition asks about, the bureau's first; worked out once a condition."""
        found = self._asked.get(id(condition))
        if found is None:
            found = self._asked[id(condition)] = tuple(sorted(attributes_of(condition), reverse=True))
        return found

    @cached_property
    def _subjects(self) -> dict[str, Mapping[str, Value]]:
        """What rules may ask of each bureau; taken as a whole, so only for what is not found more cheaply."""
        return {each.id: each.attributes for each in subjects(self._directory, self._annex or NO_ANNEX)}

    def _attribute(self, name: str, bureau: Bureau) -> Value:
        if name == "mandates":
            return bureau.mandates
        if name == "cleared_for":
            return frozenset((self._annex or NO_ANNEX).cleared_for(bureau.id))
        if name == "agreements":
            return frozenset(self._circles(bureau))
        return self._subjects.get(bureau.id, {}).get(name, frozenset())

    def _circles(self, bureau: Bureau) -> list[str]:
        """Name the agreements in force of which a bureau's member is part."""
        return self._circles_by_index.get(bureau.index, [])

    @cached_property
    def _circles_by_index(self) -> Mapping[int, list[str]]:
        listed, found = self._directory, dict[int, list[str]]()
        for name in sorted(listed.agreements):
            for index in indices(listed.agreement_mask(name)):
                found.setdefault(index, []).append(name)
        return found

    def _of_bureau(self, name: str) -> Callable[[Bureau], str]:
        if name == "cleared_for" and self._annex is None:
            return lambda bureau: f"what {bureau.id} is cleared for stands in the annex"

        def said(bureau: Bureau) -> str:
            return self._listed(self._attribute(name, bureau))

        if name == "mandates":
            return lambda bureau: f"{bureau.id} has a mandate for {self._listed(bureau.mandates) or 'nothing'}"
        if name == "cleared_for":
            return self._cleared
        if name == "agreements":
            return lambda bureau: (
                f"{bureau.member} takes part, in force, in {_list(self._circles(bureau)) or 'no agreement'}"
            )
        return lambda bureau: f"{_plain(name)} of {bureau.id}: {said(bureau) or 'none'}"

    def _cleared(self, bureau: Bureau) -> str:
        annex = self._annex or NO_ANNEX
        highest = annex.clearance(bureau.id)
        found = self._levels.get(highest)
        if found is None:
            found = self._levels[highest] = self._listed(annex.cleared_for(bureau.id)) or "nothing"
        return f"{bureau.id} is cleared for {found}"

    def _listed(self, value: Value) -> str:
        """List what a bureau's fact holds; many bureaus have the same."""
        found = self._lists.get(value)
        if found is None:
            names = sorted(map(str, value)) if isinstance(value, frozenset) else [str(value)]
            found = self._lists[value] = _list(names)
        return found

    def _lacking(self, bureau: Bureau) -> tuple[str, ...]:
        """Name the sources whose data may not go to a bureau, under the agreements that the notice names."""
        return self._lacking_by_index.get(bureau.index, ())

    @cached_property
    def _lacking_by_index(self) -> Mapping[int, tuple[str, ...]]:
        listed, under, found = self._directory, self._known.agreements, dict[int, tuple[str, ...]]()
        for name in sorted(self._known.sources):
            lawful = listed.lawful_mask((name,), under) | self._known.lawful
            for index in indices((1 << len(listed.by_index)) - 1 & ~lawful):
                found[index] = (*found.get(index, ()), name)
        return found

    @cached_property
    def _resting(self) -> Mapping[tuple[str, str], list[str]]:
        """Name for each pair of members the agreements with terms of their own that a basis rests on."""
        circles = self._directory.agreements.values()
        own, sources = {each.id for each in circles if each.active and each.own_terms}, self._known.sources
        found: dict[tuple[str, str], list[str]] = {}
        for each in self._directory.transfers if own else ():
            if each.agreement in own and each.source in sources:
                found.setdefault((each.source, each.target), []).append(str(each.agreement))
        return found

    def _lawful(self, bureau: Bureau) -> str:
        lacking = self._lacking(bureau)
        some = "no basis" if lacking else "a basis"
        of = self._joined(lacking) if lacking else self._listed(self._known.sources)
        return f"{some} is recorded on which data of {of} may go to {bureau.member}{self._under}"

    def _joined(self, names: tuple[str, ...]) -> str:
        """List names; many bureaus lack the same."""
        found = self._together.get(names)
        if found is None:
            found = self._together[names] = _list(names)
        return found

    @cached_property
    def _under(self) -> str:
        return f" under {_list(sorted(self._known.agreements))}" if self._known.agreements else ""

    def _of_notice(self, name: str) -> str:
        if name == "supervised" and self._annex is None:
            return "whether its sender is under supervision stands in the annex"
        if name not in self._of_all:
            self._of_all[name] = self._plainly(name)
        return self._of_all[name]

    def _plainly(self, name: str) -> str:
        """Say a fact that is the same for every bureau."""
        value: Value = getattr(self._known, name)
        if name in DAYS and isinstance(value, int):
            return f"{_DAYS.get(name, _plain(name))} {day(value)}"
        if isinstance(value, frozenset):
            return f"{_SAID.get(name, f'its {_plain(name)}:')} {_list(sorted(map(str, value))) or 'none'}"
        if isinstance(value, bool):
            return _FLAGS.get(name, (f"not {_plain(name)}", _plain(name)))[value]
        return f"{_SAID.get(name, f'its {_plain(name)}:')} {value}"

    def remedies(self, condition: Expression, bureau: Bureau) -> tuple[str, ...]:
        """Say what in directory or notice would have to be otherwise, as far as it can be said."""
        return self.mending(condition)(bureau)

    def mending(self, condition: Expression) -> Say:
        """Give what says the `remedies` of a condition for one bureau after the other."""
        plan = self._remedies(condition)
        return lambda bureau: tuple([said for each in plan if (said := each(bureau))])

    def changing(self, condition: Expression, last: str) -> Callable[[Bureau], str]:
        """Give what says the `remedies` of a condition, and `last`, in one sentence for one bureau after the other."""
        plan = self._remedies(condition)
        if not plan:
            return lambda _: last
        if len(plan) == 1:
            only = plan[0]
            return lambda bureau: f"{said}, or {last}" if (said := only(bureau)) else last
        plan.append(lambda _: last)
        return lambda bureau: ", or ".join([said for each in plan if (said := each(bureau))])

    def _remedies(self, condition: Expression) -> list[Callable[[Bureau], str]]:
        return [partial(_REMEDIES[name], self) for _, name in self._asks(condition) if name in _REMEDIES]

    # What would have to be otherwise

    def _mandate(self, bureau: Bureau) -> str:
        if self._known.purpose in bureau.mandates:
            return ""
        return f"the directory would have to give {bureau.id} a mandate for {self._known.purpose}"

    def _clearance(self, bureau: Bureau) -> str:
        return f"the annex would have to clear {bureau.id} for {self._known.confidentiality}"

    def _circle(self, bureau: Bureau) -> str:
        named = _list(sorted(self._known.agreements), "or") or "an agreement of the notice"
        return f"{named} would have to be in force for {bureau.member}, or the issuer would have to address it"

    def _basis(self, bureau: Bureau) -> str:
        lacking = self._lacking(bureau)
        if not lacking:
            return ""
        basis = f"a basis for data of {self._joined(lacking)} to go to {bureau.member} would have to be recorded in the"
        if not self._resting:
            return f"{basis} directory"
        resting = sorted([name for source in lacking for name in self._resting.get((source, bureau.member), ())])
        name = f", or the notice would have to name {_list(resting, 'or')}" if resting else ""
        return f"{basis} directory{name}"

    def _released(self, _: Bureau) -> str:
        return "" if self._known.released else "a reviewing bureau would have to release it"

    def _named(self, bureau: Bureau) -> str:
        return f"the issuer would have to name {bureau.id} itself"

    def _consent(self, bureau: Bureau) -> str:
        if self._known.consented >> bureau.index & 1:
            return ""
        return f"{self._owners} would have to consent to {bureau.id}"

    @cached_property
    def _owners(self) -> str:
        return _list(sorted({each.owner or "?" for each in self._routing.origins})) or "the origins"

    def _origins(self, _: Bureau) -> str:
        return "" if self._known.origins_known else "the issuer would have to name every origin"

    def _protected(self, bureau: Bureau) -> str:
        return f"the issuer would have to stop protecting the person from {bureau.member}"

    def _retention(self, _: Bureau) -> str:
        return f"the issuer would have to correct retain-until ({day(self._known.retain_until)})"

    def _review(self, _: Bureau) -> str:
        return f"the issuer would have to review it and correct review-due ({day(self._known.review_due)})"


def _all_of(plan: tuple[str | Callable[[Bureau], str], ...]) -> Say:
    """Say all of these; what is the same for every bureau is a string already."""
    if all(isinstance(each, str) for each in plan):
        return lambda _: plan  # type: ignore[return-value]  # strings only
    return lambda bureau: tuple([each if isinstance(each, str) else each(bureau) for each in plan])


def _list(names: Iterable[str], last: str = "and") -> str:
    given = list(names)
    return given[0] if len(given) == 1 else f"{', '.join(given[:-1])} {last} {given[-1]}" if given else ""


def _plain(name: str) -> str:
    return name.replace("_", " ")


_AMONG = {
    "audience": "in the audience",
    "denied": "on the issuer's deny list",
    "addressed": "addressed",
    "named": "named by bureau",
    "granted": "among those that hold a grant in force",
    "holders": "among those that hold what it corrects",
    "consented": "among those to whom every origin consents",
    "protected_from": "of a state from which the person is protected",
}
_DAYS = {"now": "it was judged at", "retain_until": "it may be kept until", "review_due": "its review is due on"}
_SAID = {
    "kind": "its kind is",
    "issuer": "it was issued by",
    "owner": "its owner is",
    "purpose": "its purpose is",
    "confidentiality": "its confidentiality is",
    "urgency": "its urgency is",
    "handling": "its handling is",
    "agreements": "it names the agreements",
    "sources": "its facts come from",
    "subject_categories": "it speaks of:",
    "minor": "a minor:",
    "special_categories": "special categories:",
    "areas": "its topics begin with:",
}
_FLAGS = {
    "everyone": ("the audience is not everyone", "the audience is everyone"),
    "exercise": ("it is no exercise", "it is an exercise"),
    "corrects": ("it corrects nothing", "it corrects an earlier notice"),
    "released": ("no reviewing bureau has released it", "a reviewing bureau has released it"),
    "supervised": ("its sender is not under supervision", "its sender is under supervision"),
    "unreadable": ("whom it names reads its language", "a bureau that it names reads none of its languages"),
    "derogation": ("its issuer claims no threat to life", "its issuer claims a threat to life"),
    "origins_known": ("an origin is not known", "every origin is known"),
}
_REMEDIES: dict[str, Callable[[Wording, Bureau], str]] = {
    "mandates": Wording._mandate,  # noqa: SLF001 -- the table of this very class
    "cleared_for": Wording._clearance,  # noqa: SLF001
    "agreements": Wording._circle,  # noqa: SLF001
    "lawful": Wording._basis,  # noqa: SLF001
    "released": Wording._released,  # noqa: SLF001
    "named": Wording._named,  # noqa: SLF001
    "consented": Wording._consent,  # noqa: SLF001
    "origins_known": Wording._origins,  # noqa: SLF001
    "protected_from": Wording._protected,  # noqa: SLF001
    "retain_until": Wording._retention,  # noqa: SLF001
    "review_due": Wording._review,  # noqa: SLF001
}
