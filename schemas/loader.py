"""Reads the schema files: which there are, one by name and version, its latest version, its example."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUFFIX = ".avsc"


@cache  # they are installed with the code that asks for them, and asked for with each directory that is read
def names() -> tuple[tuple[str, str], ...]:
    """List every schema and version, sorted; versions by number, so that 1.10 follows 1.9."""
    found = [
        (folder.name, file.name.removesuffix(SUFFIX))
        for folder in _root().iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(SUFFIX)
    ]
    return tuple(sorted(found, key=lambda item: (item[0], _order(item[1]))))


def latest(name: str) -> str:
    """Give the highest version of one schema. Raises KeyError if there is no such schema."""
    versions = [version for found, version in names() if found == name]
    if not versions:
        raise KeyError(name)
    return versions[-1]


def load(name: str, version: str | None = None) -> dict[str, Any]:
    """Give one schema, parsed from JSON; its latest version unless one is named. Raises KeyError if there is none."""
    file = _root() / name / ((version or latest(name)) + SUFFIX)
    try:
        schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise KeyError(f"{name}/{version}") from error
    return schema


def example(name: str) -> dict[str, Any]:
    """Give an invented value that fits the latest version of a body schema. Raises KeyError if there is none."""
    try:
        text = (_root() / "examples" / f"{name}.json").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise KeyError(name) from error
    value: dict[str, Any] = json.loads(text)
    return value


def digests() -> dict[str, str]:
    """Give the SHA-256 of the canonical content of every file, by `name/version`: layout may change, words may not."""
    return {f"{name}/{version}": _digest(load(name, version)) for name, version in names()}


def _digest(schema: dict[str, Any]) -> str:
    canonical = json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _root() -> Traversable:
    return files("schemas")


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
