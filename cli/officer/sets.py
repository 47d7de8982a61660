"""Opens a policy set by what people call it: a folder, or the first digits of a version's digest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import ConfigurationError, VersionRefusedError

if TYPE_CHECKING:
    from adapters.versions import Versions
    from broker.rules import PolicySet

SHORTEST = 6
"""Digits of a digest that are needed to name a version."""


def open_set(name: str, versions: Versions | None) -> PolicySet:
    """Open a set. Raises ConfigurationError that says what there is."""
    if Path(name).is_dir():
        return of_folder(Path(name))
    if versions is not None and len(name) >= SHORTEST and set(name) <= set("0123456789abcdef"):
        return _of_digest(name, versions)
    message = f"{name} is neither a folder of policies nor the digest of a version that was published here"
    raise ConfigurationError(message)


def of_folder(folder: Path) -> PolicySet:
    """Read schema.cedarschema, *.cedar and cases/*.toml. Raises ConfigurationError for a file that is no text."""
    from broker.rules import SCHEMA, PolicySet  # noqa: PLC0415 -- cedarpy is slow to import

    paths = [*folder.glob("*.cedar"), *folder.glob("cases/*.toml"), folder / SCHEMA]
    files = {}
    for path in sorted(each for each in paths if each.is_file()):
        try:
            files[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"{path} cannot be read as text: {error}"
            raise ConfigurationError(message) from error
    if not files:
        message = f"{folder} holds no policies: a set is {SCHEMA}, *.cedar and cases/*.toml"
        raise ConfigurationError(message)
    return PolicySet.of(files)


def published(versions: Versions) -> list[PolicySet]:
    """List the policy sets that a home keeps."""
    from broker.rules import PolicySet  # noqa: PLC0415

    found = []
    for digest in versions.kept():
        content = versions.content(bytes.fromhex(digest)) or b""
        if content.startswith(b'{"files":'):
            try:
                found.append(PolicySet.parse(content))
            except VersionRefusedError:
                continue  # something else that begins like one
    return found


def _of_digest(name: str, versions: Versions) -> PolicySet:
    found = [each for each in published(versions) if each.digest.hex().startswith(name)]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(each.digest.hex()[:12] for each in (found or published(versions))) or "none"
    why = "several versions begin with" if found else "no policy set was published whose digest begins with"
    message = f"{why} {name}: there are {listed}"
    raise ConfigurationError(message)
