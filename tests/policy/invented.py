"""Invents federations, policy sets and notices out of a source of chance, over all that the compiled subset knows.

What there is to ask comes from the declared types of Facts and of the bureau's attributes, so that a new fact is asked
about without a line here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from broker import cases, likeness, masks
from broker.cases import World
from broker.directory import Annex, Directory
from broker.facts import NO_LIMIT, Facts
from broker.members import canonical, parse
from broker.notice import CONFIDENTIALITIES, PURPOSES
from broker.rules import ACTIONS, SCHEMA, PolicySet

PACKAGED = PolicySet.packaged()
PRINCIPAL = {
    "member": "Member",
    "mandates": "{str}",
    "cleared_for": "{str}",
    "agreements": "{str}",
}
"""Attribute of a bureau → its type here; a new one fails the test of the generator until it stands here."""
_HERE = {
    "bool": "bool",
    "int": "int",
    "str": "str",
    "MemberId": "Member",
    "BureauId": "Bureau",
    "frozenset[str]": "{str}",
    "frozenset[MemberId]": "{Member}",
    "frozenset[BureauId]": "{Bureau}",
}
_WORDS = {"mandates": PURPOSES, "cleared_for": CONFIDENTIALITIES}
ELEMENT = {"{str}": "str", "{Member}": "Member", "{Bureau}": "Bureau"}


def world(chance: random.Random) -> tuple[Directory, Annex]:
    """A federation of one to four members, some suspended, with gaps in the indices and members without a bureau."""
    names = [f"M{place}" for place in range(chance.randint(1, 4))]
    bureaus = {
        f"{name}/b{place}": chance.sample(PURPOSES, chance.randint(0, len(PURPOSES)))
        for name in names
        for place in range(chance.choice((1, 1, 2, 3)))
    }
    made = World(
        bureaus=bureaus,
        suspended=chance.sample(names[1:], chance.randint(0, len(names) - 1) // 2),
        agreements=_circles(chance, names, "open"),
        suspended_agreements=_circles(chance, names, "shut"),
        transfers=[f"{a}>{b}" for a in names for b in names if a != b and chance.random() < 0.7],
        clearances={each: chance.choice(CONFIDENTIALITIES) for each in bureaus if chance.random() < 0.5},
    )
    written = json.loads(canonical(cases._directory(made)))
    indices = chance.sample(range(3 * len(bureaus)), len(bureaus))
    for each, index in zip(written["bureaus"], indices, strict=True):
        each["index"] = index
    written["members"].append({"id": "EMPTY", "name": "no bureau", "kind": "organisation"})
    _, annex = cases.world_of(made)
    return parse(json.dumps(written).encode()), annex


def _circles(chance: random.Random, names: list[str], prefix: str) -> dict[str, list[str]]:
    return {f"{prefix}{i}": chance.sample(names, chance.randint(1, len(names))) for i in range(chance.randint(0, 2))}


def notice(chance: random.Random, directory: Directory, literals: likeness.Literals = likeness.NO_LITERALS) -> Facts:
    """A notice, harmless but for a few facts, or wild in many; `now` is any."""
    facts = likeness.made_up(chance, directory, literals)
    names = sorted(likeness.TYPES.keys() - {"kind"})
    wild = chance.sample(names, chance.choice((0, 0, 3, len(names))))
    values = {name: likeness._value(chance, directory, name, literals) for name in wild}
    # Bureaus of suspended members are no principals, even where a set of bureaus holds one.
    for name in chance.sample(sorted(masks.BUREAU_SETS), 2):
        values[name] = sum(1 << each.index for each in directory.bureaus.values() if chance.random() < 0.5)
    return replace(facts, **values)


def policies(text: str) -> PolicySet:
    """A set of one file under the packaged schema; it has no cases, so it can be read and not loaded."""
    return PolicySet.of({SCHEMA: PACKAGED.files[SCHEMA], "one.cedar": text})


def head(name: str) -> str:
    """The comment and the annotations above a rule."""
    return f'// It says something.\n@id("{name}") @owner("o") @basis("b")\n'


@dataclass(frozen=True)
class Author:
    """Writes rules about the bureaus and members of one federation."""

    chance: random.Random
    directory: Directory
    depth: int = 3
    """How many `and`, `or`, `not` may stand inside each other."""

    def rules(self) -> str:
        """One to seven rules; most permit something."""
        return "\n".join(f"{head(f'r{place}')}{self.rule()}" for place in range(self.chance.randint(1, 7)))

    def permits(self, count: int) -> str:
        """So many permits for everything: Cedar names each that is met, so one answer tells of all conditions."""
        every = "permit (principal, action, resource)"
        return "\n".join(
            f"{head(f'r{place}')}{every} {('when', 'unless')[place % 2]} {{ {self.condition(self.depth)} }};"
            for place in range(count)
        )

    def rule(self) -> str:
        """One rule without its annotations."""
        effect = self.chance.choice(("permit", "permit", "forbid"))
        clauses = [
            f"{self.chance.choice(('when', 'unless'))} {{ {self.condition(self.depth)} }}"
            for _ in range(self.chance.choice((0, 1, 1, 2)))
        ]
        about = self.chance.choice(("resource", "resource is Notice"))
        return f"{effect} ({self._who()}, {self._what()}, {about}) {' '.join(clauses)};"

    def _who(self) -> str:
        member, bureau = self._member(), self._bureau()
        scopes = (f"== {bureau}", f"in {member}", f"in {bureau}", "is Bureau", f"is Bureau in {member}")
        return f"principal {self.chance.choice((*('',) * 10, *scopes))}".strip()

    def _what(self) -> str:
        some = [f'Action::"{each}"' for each in self.chance.sample(ACTIONS, self.chance.randint(1, 8))]
        group = 'Action::"see"'
        scopes = ("", "", f"== {some[0]}", f"in {some[0]}", f"in {group}", f"in [{', '.join([*some, group])}]")
        listed = f"in [{', '.join(some)}]"
        return f"action {self.chance.choice((*scopes, listed, listed))}".strip()

    def condition(self, depth: int) -> str:
        """A condition with at most so many `and`, `or`, `not` inside each other."""
        act = self.chance.randrange(6) if depth else 5
        if act == 0:
            return f"!({self.condition(depth - 1)})"
        if act < 4:
            parts = [f"({self.condition(depth - 1)})" for _ in range(self.chance.choice((2, 2, 3)))]
            return self.chance.choice((" && ", " || ")).join(parts)
        return self.chance.choice(self._questions())()

    def _questions(self) -> Sequence[Callable[[], str]]:
        often = (self._same, self._holds, self._overlaps, self._order, self._of_masks, self._of_masks)
        return (*often, *often, self._flag, self._inside, self._empty, self._constant)

    # Questions

    def _flag(self) -> str:
        return self._attribute("bool")[0]

    def _constant(self) -> str:
        return self.chance.choice(("true", "false", "1 < 2", '"a" == "b"', "[1, 2].contains(2)"))

    def _same(self) -> str:
        kind = self.chance.choice(("bool", "int", "str", "str", "Member", "Bureau", "Bureau", "{str}", "{Member}"))
        left, right = self._pair(kind)
        return f"{left} {self.chance.choice(('==', '!='))} {right}"

    def _order(self) -> str:
        left, right = self._pair("int")
        return f"{left} {self.chance.choice(('<', '<=', '>', '>='))} {right}"

    def _holds(self) -> str:
        kind = self.chance.choice(("{str}", "{str}", "{Member}", "{Bureau}"))
        if kind == "{Bureau}" or self.chance.random() < 0.3:
            item, words = self._attribute(ELEMENT[kind])
            return f"{self._literal_set(ELEMENT[kind], words)}.contains({item})"
        box, words = self._attribute(kind)
        return f"{box}.contains({self._other(ELEMENT[kind], words)})"

    def _overlaps(self) -> str:
        left, right = self._pair(self.chance.choice(("{str}", "{Member}")))
        return f"{left}.{self.chance.choice(('containsAny', 'containsAll'))}({right})"

    def _empty(self) -> str:
        return f"{self._attribute(self.chance.choice(('{str}', '{Member}')))[0]}.isEmpty()"

    def _of_masks(self) -> str:
        name = self.chance.choice(sorted(masks.BUREAU_SETS))
        return f"resource.{name}.{self.chance.choice(('contains(principal)', 'contains(principal)', 'isEmpty()'))}"

    def _inside(self) -> str:
        groups = (
            self._other("Member", ()),
            self._other("Bureau", ()),
            self._attribute("{Member}")[0],
            self._literal_set("Member", ()),
            self._literal_set("Bureau", ()),
        )
        return f"principal in {self.chance.choice(groups)}"

    # Terms

    def _pair(self, kind: str) -> tuple[str, str]:
        left, words = self._attribute(kind)
        right = self._other(kind, words)
        return (left, right) if self.chance.random() < 0.5 else (right, left)

    def _other(self, kind: str, words: Sequence[str]) -> str:
        return self._attribute(kind)[0] if self.chance.random() < 0.5 else self._literal(kind, words)

    def _attribute(self, kind: str) -> tuple[str, Sequence[str]]:
        """An attribute of this type, and the words that it may be or hold."""
        found = [(f"principal.{name}", name) for name, each in PRINCIPAL.items() if each == kind]
        found += [
            (f"{'context' if name in masks.CONTEXT else 'resource'}.{name}", name)
            for name, each in likeness.TYPES.items()
            if _HERE.get(each) == kind
        ]
        if kind == "Bureau":
            found += [("principal", "principal")] * 2
        text, name = self.chance.choice(found)
        if name == "agreements":
            return text, sorted(self.directory.agreements)
        return text, _WORDS.get(name, likeness._WORDS.get(name, ()))

    def _literal(self, kind: str, words: Sequence[str]) -> str:
        if kind in ELEMENT:
            return self._literal_set(ELEMENT[kind], words)
        match kind:
            case "bool":
                return self.chance.choice(("true", "false"))
            case "int":
                return str(self.chance.choice((-1, 0, likeness.NOW - 1, likeness.NOW, likeness.NOW + 1, NO_LIMIT)))
            case "Member":
                return self._member()
            case "Bureau":
                return self._bureau()
        return json.dumps(self.chance.choice([*words, "unheard-of"]), ensure_ascii=False)

    def _literal_set(self, kind: str, words: Sequence[str]) -> str:
        return f"[{', '.join(self._literal(kind, words) for _ in range(self.chance.randint(1, 3)))}]"

    def _member(self) -> str:
        return f'Member::"{self.chance.choice([*self.directory.members, "NONE"])}"'

    def _bureau(self) -> str:
        return f'Bureau::"{self.chance.choice([*self.directory.bureaus, "NONE/b0"])}"'
