"""Turns a condition on a bureau and a notice into a function from facts to a mask of bureaus.

What depends on the bureau only becomes a fixed mask; what depends on the notice only becomes a plain boolean, tested
first; what joins both is a set of bureaus of the notice itself, or a bounded memo keyed by the notice's part. There is
no construct here that could fail while it is evaluated; anything else is refused when it is loaded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from broker.facts import Facts

if TYPE_CHECKING:
    from broker.directory import Annex, Directory

MEMO_LIMIT = 4096
"""Entries of one memo; full, it starts anew."""
TYPES = {each.name: str(each.type) for each in fields(Facts)}
"""Fact → the type that it is declared with."""
CONTEXT = frozenset({"now"})
NOTICE = frozenset(TYPES) - CONTEXT
PRINCIPAL = frozenset({"member", "mandates", "cleared_for", "agreements"})
BUREAU_SETS = frozenset(name for name, kind in TYPES.items() if kind == "Mask")
"""Facts that are sets of bureaus, so masks already."""
BUREAUS = BUREAU_SETS | {name for name, kind in TYPES.items() if "BureauId" in kind}
"""Facts that are or hold bureaus."""
MEMBERS = frozenset({"member"}) | {name for name, kind in TYPES.items() if "MemberId" in kind}
"""Facts and attributes of the bureau that are or hold members."""

Scalar = str | int | bool
Value = Scalar | frozenset[Scalar]


class OutsideSubsetError(Exception):
    """A construct that has no compiled form; the message says which."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal, or a set of literals; an entity stands as its id."""

    value: Value


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of the bureau (`principal`) or of the notice and its context (`notice`)."""

    of: Literal["principal", "notice"]
    name: str


@dataclass(frozen=True, slots=True)
class Principal:
    """The bureau itself."""


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator and its operands."""

    op: str
    operands: tuple[Expression, ...]


Expression = Constant | Attribute | Principal | Apply


@dataclass(frozen=True, slots=True)
class Subject:
    """A bureau as the rules see it."""

    bit: int
    id: str
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Holds for these bureaus, whatever the notice."""

    mask: int


@dataclass(frozen=True, slots=True)
class Plain:
    """Holds for all bureaus or none."""

    holds: Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Joined:
    """Holds for bureaus that the notice tells."""

    mask: Callable[[Facts], int]


Condition = Fixed | Plain | Joined


def literals(expressions: Iterable[Expression]) -> dict[str, frozenset[Scalar]]:
    """List for each fact the values that conditions compare it with."""
    found: dict[str, frozenset[Scalar]] = {}
    for each in expressions:
        if not isinstance(each, Apply):
            continue
        parts = [*each.operands]
        values = frozenset[Scalar]().union(*(_values(part) for part in parts))
        inner = [(part.name, values) for part in parts if isinstance(part, Attribute) and part.of == "notice"]
        for name, more in (*inner, *literals(parts).items()):
            found[name] = found.get(name, frozenset()) | more
    return found


def _values(expression: Expression) -> frozenset[Scalar]:
    if not isinstance(expression, Constant):
        return frozenset()
    return expression.value if isinstance(expression.value, frozenset) else frozenset({expression.value})


def subjects(directory: Directory, annex: Annex) -> tuple[Subject, ...]:
    """Describe the bureaus of active members, in the order of their indices."""
    return tuple(
        Subject(
            1 << bureau.index,
            bureau.id,
            {
                "member": bureau.member,
                "mandates": bureau.mandates,
                "cleared_for": annex.cleared_for(bureau.id),
                "agreements": frozenset(
                    each.id for each in directory.agreements.values() if each.active and bureau.member in each.members
                ),
            },
        )
        for bureau in directory.by_index
        if bureau is not None and directory.is_active(bureau.member)
    )


class Compiler:
    """Compiles conditions for one directory."""

    def __init__(self, bureaus: Sequence[Subject]) -> None:
        self._bureaus = tuple(bureaus)
        self._everyone = sum(each.bit for each in bureaus)

    def function(self, expression: Expression) -> Callable[[Facts], int]:
        """Compile a whole condition. Raises OutsideSubsetError."""
        condition, everyone = self.condition(_normal(expression)), self._everyone
        if isinstance(condition, Fixed):
            fixed = condition.mask
            return lambda _: fixed
        if isinstance(condition, Plain):
            holds = condition.holds
            return lambda facts: everyone if holds(facts) else 0
        return condition.mask

    def condition(self, expression: Expression) -> Condition:
        """Compile a condition. Raises OutsideSubsetError."""
        if isinstance(expression, Apply):
            if expression.op in ("and", "or"):
                return self._combine(expression.op, [self.condition(each) for each in expression.operands])
            if expression.op == "not":
                return self._negate(self.condition(expression.operands[0]))
            return self._relation(expression)
        if isinstance(expression, Constant) and isinstance(expression.value, bool):
            return Fixed(self._everyone if expression.value else 0)
        if isinstance(expression, Attribute) and expression.of == "notice":
            get = _getter(expression)
            return Plain(lambda facts: get(facts) is True)
        raise OutsideSubsetError("this is no condition")

    def _negate(self, condition: Condition) -> Condition:
        everyone = self._everyone
        if isinstance(condition, Fixed):
            return Fixed(everyone & ~condition.mask)
        if isinstance(condition, Plain):
            holds = condition.holds
            return Plain(lambda facts: not holds(facts))
        mask = condition.mask
        return Joined(lambda facts: everyone & ~mask(facts))

    def _combine(self, op: str, parts: Sequence[Condition]) -> Condition:
        """Combine by `and` or `or`: what is plain is tested first and may spare the rest."""
        everyone, both = self._everyone, op == "and"
        fixed = everyone if both else 0
        for part in parts:
            if isinstance(part, Fixed):
                fixed = fixed & part.mask if both else fixed | part.mask
        plain = tuple(part.holds for part in parts if isinstance(part, Plain))
        joined = tuple(part.mask for part in parts if isinstance(part, Joined))
        if not plain and not joined:
            return Fixed(fixed)
        if fixed == (everyone if both else 0):
            if not joined:
                return Plain(_every(plain) if both else _any(plain))
            if not plain and len(joined) == 1:
                return Joined(joined[0])
        return Joined(_intersection(fixed, plain, joined) if both else _union(fixed, everyone, plain, joined))

    def _relation(self, expression: Apply) -> Condition:
        found = self._bureau_set(expression)
        if found is not None:
            return found
        test = _OPERATORS.get(expression.op)
        if test is None:
            raise OutsideSubsetError(f"{expression.op} has no compiled form")
        if expression.op == "in" and not isinstance(expression.operands[0], Principal):
            raise OutsideSubsetError("only the principal can be asked what it is in")
        sides = {_side(each) for each in expression.operands} - {"constant"}
        if sides <= {"principal"}:
            return Fixed(sum(each.bit for each in self._bureaus if _holds(test, expression, each)))
        if sides == {"notice"}:
            return Plain(_plain(_OF_NOTICE.get(expression.op, test), expression))
        return Joined(self._memo(test, expression))

    def _bureau_set(self, expression: Apply) -> Condition | None:
        """Compile what may be asked of a notice's set of bureaus; None where none is concerned."""
        if not any(_is_bureau_set(each) for each in expression.operands):
            return None
        first = expression.operands[0]
        if isinstance(first, Attribute) and _is_bureau_set(first):
            get, everyone = operator.attrgetter(first.name), self._everyone
            if expression.op == "is_empty":
                return Plain(lambda facts: not get(facts))
            if expression.op == "contains" and isinstance(expression.operands[1], Principal):
                return Joined(lambda facts: get(facts) & everyone)
        raise OutsideSubsetError("of a notice's bureaus only contains(principal) and isEmpty() have a compiled form")

    def _memo(self, test: Callable[..., bool], expression: Apply) -> Callable[[Facts], int]:
        left, right = expression.operands
        turned = _side(left) == "notice"
        mine, theirs = (right, left) if turned else (left, right)
        values = tuple((each.bit, _of_subject(mine, each)) for each in self._bureaus)
        key_of = _getter(theirs)
        table: dict[Value, int] = {}

        def mask(facts: Facts) -> int:
            key = key_of(facts)
            found = table.get(key)
            if found is None:
                if len(table) >= MEMO_LIMIT:
                    table.clear()
                found = sum(bit for bit, value in values if (test(key, value) if turned else test(value, key)))
                table[key] = found
            return found

        return mask


def _normal(expression: Expression, *, negated: bool = False) -> Expression:
    """Carry each `not` down to the questions and join what is nested: so all that is plain is tested first."""
    if not isinstance(expression, Apply) or expression.op not in ("and", "or", "not"):
        return Apply("not", (expression,)) if negated else expression
    if expression.op == "not":
        return _normal(expression.operands[0], negated=not negated)
    op = expression.op if not negated else "or" if expression.op == "and" else "and"
    parts = [_normal(each, negated=negated) for each in expression.operands]
    return Apply(op, tuple(inner for each in parts for inner in _parts(op, each)))


def _parts(op: str, expression: Expression) -> tuple[Expression, ...]:
    return expression.operands if isinstance(expression, Apply) and expression.op == op else (expression,)


def _every(tests: tuple[Callable[[Facts], bool], ...]) -> Callable[[Facts], bool]:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda facts: first(facts) and second(facts)
    return lambda facts: all(test(facts) for test in tests)


def _any(tests: tuple[Callable[[Facts], bool], ...]) -> Callable[[Facts], bool]:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda facts: first(facts) or second(facts)
    return lambda facts: any(test(facts) for test in tests)


def _intersection(
    fixed: int, plain: tuple[Callable[[Facts], bool], ...], joined: tuple[Callable[[Facts], int], ...]
) -> Callable[[Facts], int]:
    def mask(facts: Facts) -> int:
        for holds in plain:
            if not holds(facts):
                return 0
        found = fixed
        for part in joined:
            found &= part(facts)
        return found

    return mask


def _union(
    fixed: int,
    everyone: int,
    plain: tuple[Callable[[Facts], bool], ...],
    joined: tuple[Callable[[Facts], int], ...],
) -> Callable[[Facts], int]:
    def mask(facts: Facts) -> int:
        for holds in plain:
            if holds(facts):
                return everyone
        found = fixed
        for part in joined:
            found |= part(facts)
        return found

    return mask


def _is_bureau_set(expression: Expression) -> bool:
    return isinstance(expression, Attribute) and expression.of == "notice" and expression.name in BUREAU_SETS


def _side(expression: Expression) -> str:
    if isinstance(expression, Constant):
        return "constant"
    if isinstance(expression, Principal):
        return "principal"
    if isinstance(expression, Attribute):
        return expression.of
    raise OutsideSubsetError(f"{expression.op} inside a comparison has no compiled form")


def _getter(expression: Expression) -> Callable[[Facts], Value]:
    if isinstance(expression, Constant):
        value = expression.value
        return lambda _: value
    if isinstance(expression, Attribute):
        return operator.attrgetter(expression.name)
    raise OutsideSubsetError("this depends on the bureau")


def _of_subject(expression: Expression, subject: Subject) -> Value | Subject:
    if isinstance(expression, Constant):
        return expression.value
    if isinstance(expression, Attribute):
        return subject.attributes[expression.name]
    return subject


def _holds(test: Callable[..., bool], expression: Apply, subject: Subject) -> bool:
    return test(*(_of_subject(each, subject) for each in expression.operands))


def _plain(test: Callable[..., bool], expression: Apply) -> Callable[[Facts], bool]:
    getters = tuple(_getter(each) for each in expression.operands)
    if len(getters) == 1:
        only = getters[0]
        return lambda facts: test(only(facts))
    left, right = getters
    constant = expression.operands[1]
    if isinstance(constant, Constant):
        value = constant.value
        return lambda facts: test(left(facts), value)
    return lambda facts: test(left(facts), right(facts))


def _equal(left: object, right: object) -> bool:
    """Compare values, or the bureau itself with a bureau's id."""
    return _id(left) == _id(right)


def _contains(container: frozenset[Scalar], item: object) -> bool:
    return _id(item) in container


def _in(subject: Subject, group: Value | Subject) -> bool:
    """Keep Cedar's hierarchy: a bureau is in itself and in its member; `in` a set is in any of it."""
    groups = group if isinstance(group, frozenset) else {_id(group)}
    return subject.id in groups or subject.attributes["member"] in groups


def _id(value: object) -> object:
    return value.id if isinstance(value, Subject) else value


_OPERATORS: dict[str, Callable[..., bool]] = {
    "eq": _equal,
    "not_eq": lambda left, right: not _equal(left, right),
    "less": operator.lt,
    "less_eq": operator.le,
    "greater": operator.gt,
    "greater_eq": operator.ge,
    "contains": _contains,
    "contains_all": operator.ge,
    "contains_any": lambda left, right: not left.isdisjoint(right),
    "is_empty": operator.not_,
    "in": _in,
}
# Where no bureau takes part the plain operators do, and are faster.
_OF_NOTICE: dict[str, Callable[..., bool]] = {
    "eq": operator.eq,
    "not_eq": operator.ne,
    "contains": operator.contains,
}
