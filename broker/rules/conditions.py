"""Turns the syntax tree of a rule into the condition that is compiled; what has no compiled form is refused."""

from __future__ import annotations

from collections.abc import Iterator

from cedarpy import pst

from broker.masks import (
    CONTEXT,
    NOTICE,
    PRINCIPAL,
    TYPES,
    Apply,
    Attribute,
    Constant,
    Expression,
    OutsideSubsetError,
    Principal,
)

_COMPARISONS = frozenset({"eq", "not_eq", "less", "less_eq", "greater", "greater_eq"})
_OPERATORS = _COMPARISONS | {"and", "or", "in", "contains", "contains_all", "contains_any"}
_BUREAU, _NOTICE, _MEMBER = (pst.EntityType(each) for each in ("Bureau", "Notice", "Member"))
_OVERFLOW = "it can overflow, and what overflows decides nothing; compare two facts, or have the sum made a fact"
_EXTENSION = "facts are strings, whole numbers and sets of these"
INSTEAD = {
    "Like": "name the values that are meant, ['a', 'b'].contains(…)",
    "HasAttr": "every attribute of the schema is always there, so leave the question out",
    "IfThenElse": "write (a && b) || (!a && c)",
    "Is": "the principal is always a Bureau and the resource a Notice, so leave the question out",
    "GetAttr": "only principal, resource and context have attributes here; have what is meant made a fact",
    "Record": "compare each field by itself",
    "Var": "ask for an attribute of it, and name actions in the rule's head",
    "Slot": "write one rule for each instead of a template",
    **dict.fromkeys(("add", "sub", "mul", "neg"), _OVERFLOW),
    **dict.fromkeys(("get_tag", "has_tag"), "have what is meant made an attribute of the schema"),
}
"""What to write instead of a construct that has no compiled form."""
_SET = "Set<{}>"
_KINDS = {"bool": "Bool", "int": "Long", "str": "String", "MemberId": "Member", "BureauId": "Bureau"}
_KINDS |= {f"frozenset[{name}]": _SET.format(kind) for name, kind in _KINDS.items()} | {"Mask": "Set<Bureau>"}
_OPERANDS = {
    **dict.fromkeys(("not", "and", "or"), ("Bool",)),
    **dict.fromkeys(("less", "less_eq", "greater", "greater_eq"), ("Long",)),
}
"""What each operand of an operator must be, where that is one kind."""


def condition(template: pst.Template) -> Expression:
    """Give what must hold for a rule to be met, its actions aside. Raises OutsideSubsetError."""
    if template.resource not in (pst.ScopeAny(), pst.ScopeIs(_NOTICE)):
        raise OutsideSubsetError("a rule for one notice only has no compiled form: say what is special about it")
    parts: list[Expression] = list(_scope(template.principal))
    for clause in template.clauses:
        found = _expression(clause.expr)
        parts.append(found if isinstance(clause, pst.When) else Apply("not", (found,)))
    return Apply("and", tuple(parts)) if parts else Constant(True)


def named(template: pst.Template) -> frozenset[str]:
    """List the members and bureaus that a rule names, in its head or in a condition."""
    return frozenset(each.id for each in pst.entity_uids(template) if each.type in (_MEMBER, _BUREAU))


def _scope(scope: pst.PrincipalOrResourceConstraint) -> Iterator[Expression]:
    if isinstance(scope, pst.ScopeIs | pst.ScopeIsIn) and scope.entity_type != _BUREAU:
        raise OutsideSubsetError("a principal is a Bureau")
    if isinstance(scope, pst.ScopeEq):
        yield Apply("eq", (Principal(), _entity(scope.entity)))
    if isinstance(scope, pst.ScopeIn | pst.ScopeIsIn):
        yield Apply("in", (Principal(), _entity(scope.entity)))


def _expression(node: pst.Expr) -> Expression:
    match node:
        case pst.Var("principal"):
            return Principal()
        case pst.GetAttr(pst.Var(variable), name):
            return _attribute(variable, name)
        case pst.UnaryOp("not" | "is_empty" as op, arg):
            return _applied(op, arg)
        case pst.BinaryOp(op, left, right) if op in _OPERATORS:
            return _applied(op, left, right)
    return _constant(node)


def _applied(op: str, *operands: pst.Expr) -> Apply:
    """Apply an operator to what it takes. Raises OutsideSubsetError.

    Cedar neither checks nor evaluates what a constant keeps it from (`false && resource.kind < 3`); masks, which ask
    whatever is quickest first, would fail there, or take 1 for true.
    """
    found, kinds = tuple(map(_expression, operands)), tuple(map(_kind, operands))
    if not _fits(op, kinds):
        message = f"{op} takes no {' and '.join(kinds)}: ask of a fact what its type in the schema allows"
        raise OutsideSubsetError(message)
    return Apply(op, found)


def _fits(op: str, kinds: tuple[str, ...]) -> bool:
    """Tell whether an operator takes operands of these kinds."""
    entities, last = {"Bureau", "Member"}, kinds[-1]
    if op in _OPERANDS:
        return set(kinds) == set(_OPERANDS[op])
    if op in ("eq", "not_eq"):
        return len(set(kinds)) == 1 or set(kinds) == entities
    if op == "in":
        return kinds[0] in entities and last in {*entities, *map(_SET.format, entities)}
    if op == "contains":
        return kinds[0] == _SET.format(last)
    return kinds[0].startswith("Set") and len(set(kinds)) == 1


def _kind(node: pst.Expr) -> str:
    """Name the type of what has a compiled form, as Cedar does."""
    match node:
        case pst.Var():
            return "Bureau"
        case pst.GetAttr(pst.Var("principal"), name):
            return "Member" if name == "member" else _SET.format("String")
        case pst.GetAttr(_, name):
            return _KINDS[TYPES[name]]
        case pst.EntityLit(value):
            return str(value.type)
        case pst.Set(elements):
            return _SET.format(" or ".join(sorted({_kind(each) for each in elements})))
    return {"LongLit": "Long", "StringLit": "String"}.get(type(node).__name__, "Bool")


def _constant(node: pst.Expr) -> Constant:
    match node:
        case pst.BoolLit(value) | pst.LongLit(value) | pst.StringLit(value):
            return Constant(value)
        case pst.EntityLit(value):
            return _entity(value)
        case pst.Set(elements):
            return Constant(frozenset(_literal(each) for each in elements))
    name = str(getattr(node, "op", type(node).__name__))
    raise OutsideSubsetError(f"{name} has no compiled form: {INSTEAD.get(name, _EXTENSION)}")


def _literal(node: pst.Expr) -> str | int | bool:
    value = _constant(node).value
    if isinstance(value, frozenset):
        raise OutsideSubsetError("a set of sets has no compiled form: ask for one after the other")
    return value


def _entity(entity: pst.EntityOrSlot) -> Constant:
    """Stand by its id: ids of bureaus have a slash, ids of members none, so that one is never taken for the other."""
    if isinstance(entity, pst.EntityUid):
        if entity.type == _MEMBER and "/" not in entity.id:
            return Constant(entity.id)
        if entity.type == _BUREAU and "/" in entity.id:
            return Constant(entity.id)
    raise OutsideSubsetError(f'{entity} has no compiled form: a member is Member::"AT", a bureau Bureau::"AT/ncb"')


def _attribute(variable: str, name: str) -> Attribute:
    if variable == "principal" and name in PRINCIPAL:
        return Attribute("principal", name)
    if name in {"resource": NOTICE, "context": CONTEXT}.get(variable, frozenset()):
        return Attribute("notice", name)
    raise OutsideSubsetError(f"{variable}.{name} is not among the facts: {variable} has only what the broker computes")
