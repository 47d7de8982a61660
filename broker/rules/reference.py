"""The same set as Cedar itself evaluates it: slow, and what the masks are held against."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

import cedarpy

from broker.directory import Annex, Directory
from broker.errors import VersionRefusedError
from broker.facts import LATER, Facts
from broker.likeness import Answer
from broker.masks import BUREAU_SETS, BUREAUS, CONTEXT, MEMBERS, NOTICE, Value, subjects
from broker.rules.policy_set import SCHEMA, PolicySet


class Reference:
    """Answers as Cedar does. Only an error makes a difference: Cedar passes over a rule that fails, here it denies."""

    def __init__(self, policies: PolicySet, directory: Directory, annex: Annex) -> None:
        self._directory = directory
        self._schema = cedarpy.Schema.from_str(policies.files[SCHEMA])
        self._facts = sorted(NOTICE - LATER | _declared(LATER, policies.files[SCHEMA]))
        text = "\n".join(policies.files[name] for name in policies.policy_files)
        self._policies = cedarpy.PolicySet.from_str(text)
        entities = [_entity("Member", each, {}) for each in directory.members]
        for subject in subjects(directory, annex):
            attributes = {name: self._value(name, value) for name, value in subject.attributes.items()}
            parents = [_uid("Member", str(subject.attributes["member"]))]
            entities.append(_entity("Bureau", subject.id, attributes, parents))
        self._entities = _conform(lambda: cedarpy.Entities.from_json_str(json.dumps(entities), self._schema))

    def answers(self, facts: Facts, asked: list[tuple[str, str]]) -> list[Answer]:
        """Answer requests of (bureau, action) on one notice. Any error while evaluating is a deny."""
        attributes = {name: self._value(name, getattr(facts, name)) for name in self._facts}
        added = json.dumps([_entity("Notice", "notice", attributes)])
        entities = _conform(lambda: self._entities.with_added_json_str(added, self._schema))
        context = {name: getattr(facts, name) for name in sorted(CONTEXT)}
        requests = [
            {
                "principal": _uid("Bureau", bureau),
                "action": _uid("Action", action),
                "resource": _uid("Notice", "notice"),
                "context": context,
            }
            for bureau, action in asked
        ]
        results = cedarpy.is_authorized_batch(requests, self._policies, entities, self._schema)
        return [_answer(each) for each in results]

    def _value(self, name: str, value: Value) -> object:
        if name in BUREAU_SETS and isinstance(value, int):
            return [_uid("Bureau", each) for each in self._directory.bureaus_in(value)]
        kind = "Member" if name in MEMBERS else "Bureau" if name in BUREAUS else ""
        if isinstance(value, frozenset):
            return [_uid(kind, str(each)) if kind else each for each in sorted(value, key=str)]
        return _uid(kind, str(value)) if kind else value


def _declared(names: frozenset[str], schema: str) -> frozenset[str]:
    """Give those of these names that a schema declares as attributes."""
    text = "\n".join(line.partition("//")[0] for line in schema.splitlines())
    return frozenset(name for name in names if re.search(rf'\b{name}"?\s*\??\s*:', text))


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _entity(
    kind: str, name: str, attributes: Mapping[str, object], parents: list[dict[str, str]] | None = None
) -> dict[str, object]:
    return {"uid": _uid(kind, name), "attrs": dict(attributes), "parents": parents or []}


def _conform(make: Callable[[], cedarpy.Entities]) -> cedarpy.Entities:
    try:
        return make()
    except ValueError as error:
        raise VersionRefusedError(f"policies: {SCHEMA} does not declare the facts that there are: {error}") from error


def _answer(result: cedarpy.AuthzResult) -> Answer:
    found = result.diagnostics
    names = found.id_annotations_by_reason
    return Answer(result.allowed and not found.errors, frozenset(names[each] for each in found.reasons))
