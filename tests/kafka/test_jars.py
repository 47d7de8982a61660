"""A node runs on exactly the jars whose digests the project keeps, or not at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from broker import jars
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

CONTENTS = {"one.jar": b"first", "two.jar": b"second"}


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    libs = tmp_path / "target" / "libs"
    libs.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (libs / name).write_bytes(content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in CONTENTS.items()]
    (tmp_path / "jars.sha256").write_text("".join(lines), encoding="ascii")
    return tmp_path


def test_the_right_jars_are_used_without_a_word(deploy: Path) -> None:
    told: list[str] = []
    assert jars.jars(deploy, told.append) == deploy / "target" / "libs"
    assert told == []


def test_a_changed_jar_is_refused_by_name(deploy: Path) -> None:
    (deploy / "target" / "libs" / "two.jar").write_bytes(b"second!")
    with pytest.raises(ConfigurationError, match=r"changed: two\.jar"):
        jars.jars(deploy)


def test_a_jar_that_is_not_on_the_list_is_refused_by_name(deploy: Path) -> None:
    (deploy / "target" / "libs" / "agent.jar").write_bytes(b"third")
    with pytest.raises(ConfigurationError, match=r"not on the list: agent\.jar"):
        jars.jars(deploy)


def test_a_missing_jar_is_refused_by_name(deploy: Path) -> None:
    (deploy / "target" / "libs" / "one.jar").unlink()
    with pytest.raises(ConfigurationError, match=r"missing: one\.jar"):
        jars.check(deploy / "target" / "libs", jars.digests(deploy / "jars.sha256"))


def test_a_folder_in_place_of_a_jar_is_refused(deploy: Path) -> None:
    (deploy / "target" / "libs" / "one.jar").unlink()
    (deploy / "target" / "libs" / "one.jar").mkdir()
    with pytest.raises(ConfigurationError, match=r"changed: one\.jar"):
        jars.check(deploy / "target" / "libs", jars.digests(deploy / "jars.sha256"))


def test_without_maven_it_says_which_package_to_install(deploy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (deploy / "target" / "libs" / "one.jar").unlink()
    monkeypatch.setenv("PATH", str(deploy))
    told: list[str] = []
    with pytest.raises(ConfigurationError, match="apt-get install maven"):
        jars.jars(deploy, told.append)
    assert told == ["fetching 2 jars of Apache Kafka with Maven (44 MB, once)"]


def test_the_projects_own_list_is_sorted_and_names_apache_kafka_once() -> None:
    listed = list(jars.digests(jars.DEPLOY / "jars.sha256"))
    assert listed == sorted(listed)
    assert len(listed) == 46
    assert [name for name in listed if name.startswith("kafka_2.13-")] == ["kafka_2.13-4.3.1.jar"]
