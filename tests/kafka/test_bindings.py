"""The bindings are what the table of streams says, and no wider."""

from __future__ import annotations

from broker.bindings import Binding, derived
from broker.streams import FAMILIES, World
from broker.topics import STEADY, partitions, topic_config
from tests.kafka_world import WORLD

MEMBERS = ("at.adapter", "lv.adapter", "at.ncb", "lv.ncb")


def of(principal: str) -> set[tuple[str, str, str, bool]]:
    found = (binding for binding in derived(WORLD) if binding.principal == principal)
    return {(binding.resource, binding.name, binding.operation, binding.prefixed) for binding in found}


def test_a_bureau_reads_its_inbox_and_signs_receipts() -> None:
    assert of("at.ncb") == {
        ("topic", "inbox.at.ncb", "read", False),
        ("topic", "versions", "read", False),
        ("topic", "checkpoints", "read", False),
        ("topic", "receipts.at", "write", False),
        ("group", "at.ncb.", "read", True),
    }


def test_the_auditor_reads_what_proves_and_neither_notices_nor_receipts_nor_inboxes() -> None:
    assert of("auditor") == {
        ("topic", "versions", "read", False),
        ("topic", "annexes", "read", False),
        ("topic", "asks", "write", False),
        ("topic", "trail", "read", False),
        ("topic", "checkpoints", "read", False),
        ("group", "auditor.", "read", True),
    }


def test_the_router_alone_reads_what_members_send() -> None:
    for stream in ("notices.at", "receipts.at", "routed", "register"):
        assert WORLD.readers(stream) == {"router"}
    assert WORLD.readers("inbox.at.ncb") == {"at.ncb"}
    assert WORLD.readers("inbox.at.organised-crime") == WORLD.readers("outcomes.at") == {"at.adapter"}


def test_a_member_whose_name_begins_like_anothers_has_nothing_of_it() -> None:
    alike = World(("EU", "EUROPOL"), ("EU/ncb", "EUROPOL/ncb"), frozenset({"EU/ncb", "EUROPOL/ncb"}))
    assert alike.writers("receipts.eu") == {"eu.adapter", "eu.ncb"}
    assert alike.writers("receipts.europol") == {"europol.adapter", "europol.ncb"}


def test_the_operator_sees_lags_and_names_and_writes_versions() -> None:
    assert of("operator") == {
        ("topic", "versions", "write", False),
        ("topic", "versions", "read", False),
        ("topic", "annexes", "write", False),
        ("topic", "asks", "write", False),
        ("topic", "checkpoints", "read", False),
        ("topic", "*", "describe", False),
        ("topic", "*", "describe_configs", False),
        ("group", "*", "describe", False),
        ("cluster", "kafka-cluster", "describe", False),
    }


def test_every_prefix_ends_in_a_dot() -> None:
    assert all(binding.name.endswith(".") for binding in derived(WORLD) if binding.prefixed)


def test_the_router_alone_has_transactions() -> None:
    found = [binding for binding in derived(WORLD) if binding.resource == "transactional_id"]
    assert found == [Binding("router", "transactional_id", "router.", "write", prefixed=True)]


def test_no_binding_lets_anyone_create_alter_or_delete() -> None:
    assert {binding.operation for binding in derived(WORLD)} == {"read", "write", "describe", "describe_configs"}
    assert not any(binding.denies or binding.host != "*" for binding in derived(WORLD))


def test_setup_needs_no_binding_and_has_none() -> None:
    assert of("setup") == set()


def test_a_new_member_changes_nobody_elses_bindings() -> None:
    wider = World((*WORLD.members, "EE"), (*WORLD.bureaus, "EE/ncb"), WORLD.certified)
    assert {binding.principal for binding in set(derived(wider)) ^ set(derived(WORLD))} == {"ee.adapter"}


def test_no_sender_sets_the_clock_and_nothing_that_erasure_needs_is_left_to_a_default() -> None:
    needed = {"retention.ms", "segment.ms", "max.compaction.lag.ms", "file.delete.delay.ms", "delete.retention.ms"}
    for family in FAMILIES.values():
        config = topic_config(family)
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert needed <= config.keys()


def test_a_family_keeps_what_its_row_says() -> None:
    kept = {
        name: (topic_config(family)["cleanup.policy"], topic_config(family)["retention.ms"])
        for name, family in FAMILIES.items()
    }
    assert kept["inbox"] == ("delete", str(30 * 86_400_000))
    assert kept["register"] == ("compact", "-1")
    assert kept["checkpoints"] == kept["versions"] == kept["annexes"] == ("delete", "-1")
    assert kept["notices"] == ("delete", str(30 * 86_400_000))
    assert STEADY.segment <= 3_600_000


def test_what_every_shard_reads_whole_has_one_partition() -> None:
    assert {name: partitions(name, 4) for name in ("versions", "annexes", "asks", "trail", "inbox.at.ncb")} == {
        "versions": 1,
        "annexes": 1,
        "asks": 4,
        "trail": 4,
        "inbox.at.ncb": 4,
    }
