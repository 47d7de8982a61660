"""A federation made by hand, with the commands of the README and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.versions import Versions

POLICIES = Path(__file__).parent.parent.parent / "policies"
DRAFT = {
    "record": "lv-1",
    "kind": "person",
    "topics": ["organised-crime.eurasian"],
    "purpose": "criminal-analysis",
    "legal_basis": "invented",
    "handling": ["H0"],
    "confidentiality": "restricted",
    "urgency": "routine",
    "languages": ["en"],
    "audience": {"agreements": ["project-millennium"]},
    "deny": ["RU"],
    "subject_categories": ["suspect"],
    "minor": "no",
    "compartments": {
        "identity": {"names": [{"family": "Testov", "given": "Ivo", "script": "Latn", "kind": "primary"}]}
    },
}


def _valise(home: Path, *words: str) -> str:
    command = [sys.executable, "-m", "cli.main", *words, "--home", str(home)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@contextmanager
def _broker(home: Path, **known: str) -> Iterator[None]:
    environment = os.environ | known
    command = [sys.executable, "-m", "cli.main", "broker", "up", "--home", str(home)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            assert "is up" in process.stdout.readline()
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_two_members_join_exchange_and_audit_with_the_commands_of_the_readme(tmp_path: Path) -> None:
    draft = tmp_path / "person.json"
    draft.write_text(json.dumps(DRAFT), encoding="utf-8")
    home = tmp_path / "home"
    _valise(home, "broker", "init")
    for bureau in ("LV/organised-crime", "GE/organised-crime"):
        _valise(home, "key", "new", "--bureau", bureau)
    _valise(home, "broker", "directory")
    draft_directory = str(home / "operator" / "drafts" / "1.draft.json")
    for bureau in ("LV/organised-crime", "GE/organised-crime"):
        _valise(home, "directory", "sign", draft_directory, "--bureau", bureau, "--yes")
    assert "wrote directory version 1" in _valise(home, "directory", "activate", draft_directory)
    versions = Versions(home / "operator" / "versions")
    annex = versions.newest().annex
    assert annex
    (home / "operator" / "versions" / annex.hex()).unlink()  # as where the directory was drafted on another machine
    with _broker(home):
        _valise(home, "subscribe", "organised-crime.*", "--bureau", "GE/organised-crime")
        published = _valise(home, "publish", str(draft), "--bureau", "LV/organised-crime", "--wait", "45")
        assert "routed to 1 bureau\n" in published
        assert "1 notice for GE/organised-crime" in _valise(home, "inbox", "--bureau", "GE/organised-crime")
    (home / "bus.db").unlink()
    assert "The trail is good" in _valise(home, "audit", "verify", "--policy", str(POLICIES))
