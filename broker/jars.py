"""What a Kafka node runs on: Java, and jars that Maven fetches, each checked against the digest that we keep."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEPLOY = Path(__file__).resolve().parent.parent / "deploy" / "kafka"
"""pom.xml, jars.sha256, server.properties.in and log4j2.yaml; the jars lie under its target/libs."""
FETCH_LIMIT_S = 600.0
MIN_JAVA = 17


def jars(deploy: Path = DEPLOY, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of a node's jars, every one of them checked; what is missing is fetched first.

    Raises ConfigurationError if a jar is missing, changed or not on the list, or if Maven cannot fetch.
    """
    folder, expected = deploy / "target" / "libs", digests(deploy / "jars.sha256")
    if _lacks(folder, expected):
        if not folder.parent.is_dir():
            folder.parent.mkdir(exist_ok=True)
            folder.parent.chmod(0o755)  # other accounts may start nodes from here, too, whatever our umask
        with (folder.parent / "fetching").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be fetching them
            if _lacks(folder, expected):
                progress(f"fetching {len(expected)} jars of Apache Kafka with Maven (44 MB, once)")
                fetch(deploy)
    check(folder, expected)
    return folder


def _lacks(folder: Path, expected: Mapping[str, str]) -> bool:
    return any(not (folder / name).is_file() for name in expected)


def digests(path: Path) -> dict[str, str]:
    """Read a list of `sha256  name` lines, as sha256sum writes it."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ConfigurationError(
            f"{path} is missing: it comes with the project and says which jars are ours"
        ) from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def check(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare every jar with its digest. Raises ConfigurationError naming what is missing, changed or unknown."""
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    changed = sorted(name for name in expected.keys() & found.keys() if _sha256(found[name]) != expected[name])
    said = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("changed", changed), ("not on the list", unknown))
        if names
    ]
    if said:
        raise ConfigurationError(
            f"the jars in {folder} are not those of jars.sha256 ({'; '.join(said)}): "
            "nothing was started; remove that folder and start again to fetch them anew"
        )


def fetch(deploy: Path) -> None:
    """Let Maven copy the jars of pom.xml to target/libs; what is there already stays as it is."""
    maven = shutil.which("mvn")
    if maven is None:
        raise ConfigurationError("Maven is missing, which fetches Apache Kafka: apt-get install maven")
    command = [maven, "-B", "-q", "-f", str(deploy / "pom.xml"), "dependency:copy-dependencies"]
    try:
        done = subprocess.run(  # noqa: S603 -- nothing in the command comes from outside
            command, capture_output=True, text=True, timeout=FETCH_LIMIT_S, check=False, umask=0o022
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(
            f"Maven did not end within {FETCH_LIMIT_S:.0f} s: is there a way to the network?"
        ) from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise ConfigurationError("Maven could not fetch Apache Kafka: " + (said[0] if said else "it did not say why"))


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def found_java() -> str:
    """Find the Java to run. Raises ConfigurationError where there is none, or one that is too old."""
    java = shutil.which("java")
    if java is None:
        raise ConfigurationError("Java is missing, which runs Apache Kafka: apt-get install openjdk-17-jre-headless")
    command = [java, "-version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr  # noqa: S603 -- fixed
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < MIN_JAVA:
        raise ConfigurationError(f"{java} is not Java {MIN_JAVA} or newer: apt-get install openjdk-17-jre-headless")
    return java
