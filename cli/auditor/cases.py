"""Case numbers that bureaus told, held against the digests that their receipts put on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import BaseModel, ConfigDict, ValidationError

from broker.errors import ConfigurationError, ProofError
from cli.cases import FORMAT

SIZE_LIMIT = 64 * 1024 * 1024
Cases = Mapping[str, str]
"""Digest in hex → case number."""


class _Case(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    case: str
    digest: str
    salt: str


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    format: Literal["valise/cases/1"]
    cases: tuple[_Case, ...]


def told(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that names bureaus' files."""
    return click.option(
        "--cases", "case_files", multiple=True, type=click.Path(path_type=Path),
        help="A bureau's case numbers (`valise cases --to FILE`), to open the digests on record.",
    )(command)  # fmt: skip


def read(files: Sequence[Path]) -> Cases:
    """Read what bureaus told. Raises ConfigurationError for no such file, ProofError where a digest is another's."""
    return {each.digest: each.case for file in files for each in _read(file)}


def _read(file: Path) -> tuple[_Case, ...]:
    try:
        if file.stat().st_size > SIZE_LIMIT:
            raise ConfigurationError(f"{file} is over the limit of {SIZE_LIMIT:,} bytes")
        found = _File.model_validate_json(file.read_bytes()).cases
        wrong = [each for each in found if _digest(each) != each.digest]
    except (OSError, ValidationError, ValueError) as error:
        raise ConfigurationError(f"{file} holds no case numbers ({FORMAT}): `valise cases --to FILE`") from error
    if wrong:
        message = f"{file}: {len(wrong)} case numbers are not those that their digests were made of"
        raise ProofError(message)
    return found


def _digest(each: _Case) -> str:
    return sha256(bytes.fromhex(each.salt) + each.case.encode()).hexdigest()
