"""What `valise kafka check` tells of the nodes, and what it makes again; who else brings streams up makes no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from broker import bindings, certificates, kafka_admin, topics
from broker.certificates import Credentials, pki_of
from broker.streams import CHECKPOINTS, REGISTER
from cli.operator_home import OperatorHome, operator_home
from cli.operator_streams import ACCESS
from cli.stage import Stage
from tests.trust.on_node import served
from tests.trust.test_commands import valise

INBOX = "inbox.at.ncb"


@pytest.fixture(scope="module")
def on_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One node for all tests: each mends what it took, but for the last."""
    with served(tmp_path_factory.mktemp("made") / "home") as made:
        yield made


@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("lost", [("topic", "describe"), ("topic", "describe_configs"), ("cluster", "describe")])
async def test_of_topics_that_operator_may_not_see_none_is_called_gone_and_mend_lets_it(
    on_kafka: Stage, lost: tuple[str, str]
) -> None:
    home = on_kafka.home
    _begin_trail(on_kafka.operator)
    _unbind(on_kafka.operator, lost)
    told = (await valise(home, "kafka", "check", "--json")).value["differs"]
    assert [(each["topic"], each["name"]) for each in told] == [("operator", ACCESS)]
    assert (await valise(home, "kafka", "check", "--mend", "--json")).value["differs"] == []


@pytest.mark.kafka
@pytest.mark.timeout(300)
async def test_register_and_checkpoints_are_made_again_by_no_command_once_the_trail_has_leaves(on_kafka: Stage) -> None:
    """Empty, the one would have the broker forget who was given what; by the other no member could check what comes."""
    home = on_kafka.home
    _begin_trail(on_kafka.operator)
    _delete(on_kafka.operator, REGISTER, CHECKPOINTS, INBOX)
    assert (await valise(home, "certificate", "stop", "at.adapter", "--yes")).code == 0
    assert {REGISTER, CHECKPOINTS, INBOX} & _there(on_kafka.operator).keys() == {INBOX}
    mended = await valise(home, "kafka", "check", "--mend")
    assert (mended.code, "checkpoints and register: never made again, for empty" in mended.out) == (1, True)
    assert not {REGISTER, CHECKPOINTS} & _there(on_kafka.operator).keys()


def _begin_trail(operator: OperatorHome) -> None:
    (operator.folder / "trail").mkdir(exist_ok=True)
    (operator.folder / "trail" / "checkpoint").touch()


def _setup(operator: OperatorHome) -> tuple[str, Credentials]:
    home = operator_home(operator.folder.parent)
    return home.settings.bus_address, certificates.credentials(pki_of(home.folder), "setup")


def _there(operator: OperatorHome) -> dict[str, int]:
    return topics.existing(*_setup(operator))


def _delete(operator: OperatorHome, *streams: str) -> None:
    admin = AdminClient(kafka_admin.client_settings(*_setup(operator)))
    for done in admin.delete_topics(list(streams)).values():
        done.result(30)
    kafka_admin.until(lambda: not {*streams} & _there(operator).keys(), "they are still there")


def _unbind(operator: OperatorHome, lost: tuple[str, str]) -> None:
    address, setup = _setup(operator)

    def goes(each: bindings.Binding) -> bool:
        return (each.principal, each.resource, each.operation) == ("operator", *lost)

    wanted = {each for each in bindings.standing(address, setup) if not goes(each)}
    bindings.bind(AdminClient(kafka_admin.client_settings(address, setup)), wanted, goes)
    bindings.await_bindings(address, setup, wanted, goes)
