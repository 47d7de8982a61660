"""A file imports only from lower levels, and each foreign library has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import FIRST

ROOT = Path(__file__).parent.parent
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "crash", "durable", "reading", "writing", "scrub", "threads", "turns", "quick", "few", "moments"),
    ("notice", "bus", "streams", "settings"),
    (
        "flat",
        "usual",
        "avro",
        "by_hand",
        "codec",
        "strict",
        "points",
        "signing",
        "vault",
        "token",
        "possession",
        "merkle",
        "notes",
        "cosignature",
        "tiles",
        "pem",
        "certificates",
        "authorities",
        "fair",
    ),
    (
        "directory",
        "members",
        "trust",
        "facts",
        "masks",
        "cases",
        "likeness",
        "rules",
        "wording",
        "register",
        "begun",
        "trail",
        "witnessed",
        "witness",
        "records",
        "recorded",
        "index",
        "extent",
        "earlier",
        "report",
        "seen",
        "leaves",
        "examine",
        "key_use",
    ),
    (
        "verify",
        "decide",
        "explain",
        "welcome",
        "bounds",
        "redecide",
        "compare",
        "proofread",
        "route",
        "confirm",
        "bundle",
        "holders",
        "admissible",
        "once",
        "signers",
        "statements",
        "rejections",
        "recheck",
        "given",
    ),
    (
        "fetch",
        "owner",
        "overdue",
        "judge",
        "step",
        "trial",
        "marker",
        "checking",
        "checker",
        "adopt",
        "handover",
        "ingest",
        "seal",
        "erase",
        "distribute",
        "submit",
        "remembers",
        "resume",
        "up",
        "begin",
    ),
    (
        "sqlite_batch",
        "sqlite_pages",
        "sqlite_file",
        "sqlite",
        "kafka_batch",
        "kafka_answers",
        "kafka_ids",
        "kafka_metadata",
        "kafka_read",
        "kafka_send",
        "kafka_quota",
        "kafka_tls",
        "kafka",
        "jars",
        "node_address",
        "node_log",
        "node_process",
        "node",
        "kafka_admin",
        "bindings",
        "principals",
        "topics",
    ),
)
"""Files of `broker`, lowest first. Within a level a file may import those before it."""
DOORS = {
    "aiokafka": (
        "broker/kafka.py",
        "broker/kafka_answers.py",
        "broker/kafka_ids.py",
        "broker/kafka_metadata.py",
        "broker/kafka_quota.py",
        "broker/kafka_read.py",
        "broker/kafka_send.py",
    ),
    "nacl": ("broker/signing.py",),
    "uvloop": ("cli/main.py",),
    "google_crc32c": ("broker/kafka_batch.py",),
    "fastavro": ("broker/avro.py",),
    "cryptography": (
        "broker/signing.py",
        "broker/pem.py",
        "broker/certificates.py",
        "broker/authorities.py",
        "broker/vault.py",
    ),
    "tuf": ("broker/trust",),
    "securesystemslib": ("broker/trust",),
    "pkcs11": ("broker/token.py",),
    "cedarpy": ("broker/rules",),
    "confluent_kafka": ("broker/bindings.py", "broker/kafka_admin.py", "broker/principals.py", "broker/topics.py"),
    "defusedxml": ("adapters/",),
    "rich": ("cli/",),
    "click": ("cli/",),
    "h11": ("broker/fetch.py",),
    "starlette": ("cli/auditor/answering.py",),
    "uvicorn": ("cli/auditor/answering.py",),
}
PURE = ("verify", "decide", "route", "confirm", "merkle", "cosignature")


@pytest.fixture(scope="module", autouse=True)
def trees() -> Iterator[None]:
    """Kept for these tests only: each collection of garbage in the rest of a run would walk through all of them."""
    yield
    _tree.cache_clear()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(path: Path) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [f"{node.module}.{each.name}" for each in node.names]
    return tuple(found)


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    """The file's place in LEVELS: its own name, or its folder's where a file became a folder."""
    first = path.relative_to(ROOT / "broker").parts[0]
    return first.removesuffix(".py")


def _place(name: str) -> int:
    flat = [each for level in LEVELS for each in level]
    return flat.index(name)


def test_every_file_of_the_broker_stands_on_a_level() -> None:
    known = {each for level in LEVELS for each in level}
    assert {_name(path) for path in _files("broker")} - {"__init__"} == known


def test_a_file_imports_only_from_lower_levels() -> None:
    wrong = []
    for path in _files("broker"):
        if _name(path) == "__init__":
            continue
        for target in _imports(path):
            parts = target.split(".")
            if parts[0] != "broker" or len(parts) < 2 or parts[1] == _name(path):
                continue
            if _place(parts[1]) > _place(_name(path)):
                wrong.append(f"{path.name} imports {parts[1]}")
    assert wrong == []


def test_the_broker_never_imports_adapters_or_the_command() -> None:
    wrong = [
        (path.name, each)
        for path in _files("broker")
        for each in _imports(path)
        if each.split(".")[0] in ("adapters", "cli")
    ]
    assert wrong == []


def test_adapters_import_the_broker_up_to_level_four_only() -> None:
    allowed = {each for level in LEVELS[:5] for each in level}
    wrong = [
        (path.name, each)
        for path in _files("adapters")
        for each in _imports(path)
        if each.split(".")[0] == "cli" or (each.startswith("broker.") and each.split(".")[1] not in allowed)
    ]
    assert wrong == []


def test_each_foreign_library_has_one_door() -> None:
    wrong = [
        (str(path.relative_to(ROOT)), each)
        for folder in ("broker", "adapters", "cli", "schemas")
        for path in _files(folder)
        for each in _imports(path)
        if each.split(".")[0] in DOORS and not str(path.relative_to(ROOT)).startswith(DOORS[each.split(".")[0]])
    ]
    assert wrong == []


def test_what_is_pure_neither_awaits_nor_logs_nor_reads_the_clock() -> None:
    wrong = []
    for name in PURE:
        tree = _tree(ROOT / "broker" / f"{name}.py")
        wrong += [(name, "await") for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]
        forbidden = {"time", "datetime", "random", "secrets", "os", "structlog", "sqlite3", "asyncio", "pathlib"}
        wrong += [(name, each) for each in _imports(ROOT / "broker" / f"{name}.py") if each.split(".")[0] in forbidden]
    assert wrong == []


def test_all_that_a_command_prints_goes_through_one_door() -> None:
    """What others wrote must not reach a terminal as it came (cli/answer.py)."""
    wrong = [
        (str(path.relative_to(ROOT)), node.lineno)
        for path in _files("cli")
        if path.name != "answer.py"
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Attribute) and node.attr in ("echo", "secho", "echo_via_pager")
    ]
    assert wrong == []


def test_nothing_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "helpers", "common", "base", "manager", "core", "misc"}
    named = {path.stem for folder in ("broker", "adapters", "cli", "schemas") for path in _files(folder)}
    assert named & empty == set()


def test_what_is_to_begin_first_is_there() -> None:
    assert [each for each in FIRST if not (ROOT / "tests" / each).is_file()] == []
