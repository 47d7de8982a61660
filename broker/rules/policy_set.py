"""The files of one version of the policies, as they travel and as they are installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from types import MappingProxyType

from broker.errors import VersionRefusedError

SCHEMA = "schema.cedarschema"


def refused(file: str, line: int, reason: str) -> VersionRefusedError:
    """Make the refusal of a set for what stands at a place."""
    return VersionRefusedError(f"policies: {file}:{line}: {reason}")


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The files of one version by name: `*.cedar`, the schema, `cases/*.toml`."""

    files: Mapping[str, str]
    content: bytes
    digest: bytes

    @classmethod
    def of(cls, files: Mapping[str, str]) -> PolicySet:
        """Take files by name."""
        content = json.dumps({"files": dict(files)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return cls(MappingProxyType(dict(sorted(files.items()))), content, sha256(content).digest())

    @classmethod
    def parse(cls, content: bytes) -> PolicySet:
        """Read a set as it travels. Raises VersionRefusedError; the digest is that of the bytes as they arrived."""
        try:
            files = json.loads(content)["files"]
            given = cls.of({str(name): str(text) for name, text in files.items()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise VersionRefusedError("policies: this is no policy set") from error
        if given.content != content:
            raise VersionRefusedError("policies: not in canonical form")
        return given

    @classmethod
    def packaged(cls) -> PolicySet:
        """Read the set that is installed with the program."""
        folder = resources.files("policies")
        files = {each.name: each.read_text("utf-8") for each in folder.iterdir() if _is_policy(each.name)}
        for each in folder.joinpath("cases").iterdir():
            if each.name.endswith(".toml"):
                files[f"cases/{each.name}"] = each.read_text("utf-8")
        return cls.of(files)

    @property
    def policy_files(self) -> tuple[str, ...]:
        """Names of the files that hold rules."""
        return tuple(name for name in self.files if name.endswith(".cedar"))


def _is_policy(name: str) -> bool:
    return name == SCHEMA or name.endswith(".cedar")
