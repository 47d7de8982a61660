"""What of aiokafka's own parts we use, in one place: a new aiokafka that drops one is known here, not at a member's."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, client, conn
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer import fetcher, group_coordinator
from aiokafka.producer import message_accumulator, sender
from aiokafka.record import _crecords

from broker.kafka_batch import Batch

BROKER = Path(__file__).parents[2] / "broker"

# What we touch, and whose it is. Where something is not there any more, the file named here has to be read anew beside
# what aiokafka has in its place.
USED: dict[tuple[str, type], tuple[str, ...]] = {
    ("kafka.py", AIOKafkaProducer): ("_message_accumulator", "_sender", "client", "stop"),
    ("kafka.py", message_accumulator.MessageAccumulator): ("fail_all",),
    ("kafka.py", sender.Sender): ("sender_task",),
    ("kafka.py", AIOKafkaConsumer): ("_client",),
    ("kafka.py", client.AIOKafkaClient): ("close", "fetch_all_metadata"),
    ("kafka_ids.py", AIOKafkaConsumer): ("_client",),
    ("kafka_ids.py", client.AIOKafkaClient): ("get_random_node", "send"),
    ("kafka_metadata.py", client.AIOKafkaClient): ("_metadata_update", "cluster"),
    ("kafka_quota.py", AIOKafkaAdminClient): ("_send_request",),
    ("kafka_read.py", fetcher.PartitionRecords): (
        "_aborted_producers",
        "_consume_aborted_up_to",
        "_consumer_record",
        "_contains_abort_marker",
        "_records",
        "_tp",
        "_unpack_records",
        "next_fetch_offset",
    ),
    ("kafka_read.py", group_coordinator.GroupCoordinator): (
        "_send_req",
        "coordinator_dead",
        "fetch_committed_offsets",
        "group_id",
    ),
    ("kafka_read.py", AIOKafkaConsumer): ("_client", "_coordinator"),
    ("kafka_read.py", client.AIOKafkaClient): ("_wait_on_metadata",),
    ("kafka_send.py", conn.AIOKafkaConnection): (
        "_client_id",
        "_host",
        "_loop",
        "_next_correlation_id",
        "_port",
        "_request_timeout",
        "_requests",
        "_versions",
        "_writer",
        "close",
        "send",
    ),
}
# Looked up by aiokafka itself where we have put something else: (who looks it up, its name).
REPLACED = (
    (client.AIOKafkaClient, "_metadata_update"),
    (sender, "BACKOFF_OVERRIDE"),
    (fetcher, "PartitionRecords"),
    (conn.AIOKafkaConnection, "send"),
    (group_coordinator.GroupCoordinator, "_send_req"),
)


def has(owner: type, name: str) -> bool:
    """Say whether a class has a method of this name, or sets an attribute of it."""
    return (
        hasattr(owner, name)
        or f"self.{name} = " in inspect.getsource(owner)
        or f"self.{name}: " in inspect.getsource(owner)
    )


@pytest.mark.parametrize(
    ("file", "owner", "name"), [(file, owner, name) for (file, owner), names in USED.items() for name in names]
)
def test_aiokafka_has_what_we_use_of_it(file: str, owner: type, name: str) -> None:
    assert has(owner, name), f"{owner.__module__}.{owner.__name__} has no {name} any more: see broker/{file}"


@pytest.mark.parametrize(("owner", "name"), REPLACED)
def test_aiokafka_looks_up_what_we_replace(owner: object, name: str) -> None:
    assert hasattr(owner, name)
    source = inspect.getsource(owner if inspect.ismodule(owner) else sys.modules[owner.__module__])
    assert source.count(name) > 1, f"{owner!r} does not use {name} any more"


def test_the_compiled_reader_looks_up_how_gzip_is_read() -> None:
    assert hasattr(_crecords.default_records, "gzip_decode")


def test_our_batches_have_all_that_aiokafka_asks_of_its_own() -> None:
    asked = set()
    for cls in (message_accumulator.MessageBatch, message_accumulator.MessageAccumulator):
        for each in ast.walk(ast.parse(inspect.getsource(cls))):
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name | ast.Attribute):
                owner = each.value.id if isinstance(each.value, ast.Name) else each.value.attr
                if owner in ("builder", "_builder"):
                    asked.add(each.attr)
    assert asked
    assert not {each for each in asked if not hasattr(Batch, each)} - {"size"}


def _is_self(owner: ast.expr) -> bool:
    return isinstance(owner, ast.Name) and owner.id == "self"


def private(path: Path) -> set[str]:
    """Name what a file reads of others under a name that begins with `_`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [each for each in ast.walk(tree) if isinstance(each, ast.Attribute)]
    own = {each.attr for each in attributes if isinstance(each.ctx, ast.Store) and _is_self(each.value)}
    own |= {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {
        each for each in {each.attr for each in attributes} - own if each.startswith("_") and not each.startswith("__")
    }


@pytest.mark.parametrize("path", sorted(BROKER.glob("kafka*.py")), ids=lambda path: path.name)
def test_the_list_is_whole(path: Path) -> None:
    listed = {name for (file, _), names in USED.items() if file == path.name for name in names}
    assert private(path) <= listed
