"""What the operator's home makes of its bus: the streams of a world, who may use them, and how they are set."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from broker import certificates, codec, durable, streams
from broker.certificates import pki_of
from broker.errors import ConfigurationError, ForbiddenStreamError
from broker.notice import Version
from broker.streams import OPERATOR, SETUP, World
from cli import answer
from cli.operator_home import NOBODY, OperatorHome, credentials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.topics import Difference


ACCESS = "access"
"""Beside what differs of a topic: somebody may not do what the table says."""
_AS_THE_TABLE = "as the table of streams says"


async def make_streams(home: OperatorHome, world: World, *, take_away: bool = True) -> tuple[Difference, ...]:
    """Make the streams that a world needs and the bus lacks; on Kafka the bindings, too, which become the world's.

    Without `take_away` nobody loses a binding but who was stopped, and the names that it had until then. On Kafka
    called in turn (`proposing.in_turn`), from the look at what is in force on: an older world, or list of who was
    stopped, would give back what a newer one took away. What is not to be made again (`not_made_again`) is not. Returns
    what of Kafka's topics is not the table's.
    """
    if home.settings.bus_kind == "kafka":
        from broker import kafka_quota, topics  # noqa: PLC0415 -- only a Kafka home needs it

        setup = certificates.credentials(pki_of(home.folder), SETUP)
        address = home.settings.bus_address
        # On new nodes, and before their first stream: after a kill this is a new node still. What is set later stays.
        if streams.VERSIONS not in topics.existing(address, setup):
            await kafka_quota.bound(address, setup)
        return topics.establish(
            address, setup, world, take_away=take_away, names=names(home), not_made=not_made_again(home)
        ).differs
    async with home.bus(SETUP, world) as bus:
        await bus.create(list(world.streams()))
    return ()


def not_made_again(home: OperatorHome) -> frozenset[str]:
    """Name the streams that only a node's data can bring back, once the trail has leaves.

    Made again they would be empty: the broker would have forgotten what is in force, and no member could check what
    comes, as it goes on from no head that the member has. Each delivery would be refused and passed over.
    """
    began = any(home.folder.glob("trail*/checkpoint"))
    return frozenset({streams.CHECKPOINTS, streams.REGISTER, streams.VERSIONS}) if began else frozenset()


def differences(home: OperatorHome) -> list[Difference]:
    """Compare Kafka's topics, and who lacks access to them, with the table of streams; raises UnavailableError.

    Who has more than the table says is not told: a restored home may know an older one. It goes with the next change.
    Where `operator` itself lacks access nothing is said of topics: those that it may not see would look gone.
    """
    if home.settings.bus_kind != "kafka":
        return []
    from broker import bindings, topics  # noqa: PLC0415 -- only a Kafka home needs it

    who, address, world = credentials(home, OPERATOR), home.settings.bus_address, home.world()
    wanted = set(bindings.named(bindings.derived(world), names(home)))
    there = set(bindings.standing(address, who))
    if not there:  # so it is, too, where `operator` may list none
        return [topics.Difference(OPERATOR, ACCESS, "too little to see who has any", _AS_THE_TABLE)]
    lacking = Counter(each.principal for each in wanted - there)
    denied = [
        topics.Difference(principal, ACCESS, f"{answer.count(count, 'binding', 'bindings')} less", _AS_THE_TABLE)
        for principal, count in sorted(lacking.items())
    ]
    return denied if OPERATOR in lacking else [*topics.differences(address, who, world), *denied]


def gone(found: Sequence[Difference]) -> frozenset[str]:
    """Name the streams of which no topic was found."""
    if not found:
        return frozenset()
    from broker.topics import TOPIC  # noqa: PLC0415 -- only a Kafka home needs it

    return frozenset(each.topic for each in found if each.name == TOPIC)


def told(each: Difference) -> str:
    """Say how a topic differs from the table of streams."""
    return f"{each.topic}: {each.name} is {each.found}, and should be {each.wanted}"


async def has_streams(home: OperatorHome) -> bool:
    """Say whether the bus shows the operator a stream of versions; changes nothing there. Raises UnavailableError."""
    if home.settings.bus_kind == "kafka":
        from broker import topics  # noqa: PLC0415 -- only a Kafka home needs it

        who = credentials(home, OPERATOR)
        return streams.VERSIONS in topics.existing(home.settings.bus_address, who)
    if not home.versions.has_read() and not (home.folder / home.settings.bus_address).is_file():
        return False  # not made yet; where anything came from it, it is lost
    async with home.bus(OPERATOR, NOBODY) as bus:
        with suppress(ForbiddenStreamError):
            await bus.end(streams.VERSIONS)
            return True
    return False


class Stop(BaseModel):
    """What is known of a principal that was stopped once (`valise certificate stop`)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    stopped: bool
    """Whether it is now: no node lets it do anything."""
    resumed: Annotated[int, Field(ge=0, lt=10**13)] = 0
    """When it was last resumed, ms: no node takes a certificate of before; 0: never, or with its keys of before."""


NEVER = Stop(stopped=False)
"""What is known of all others."""
_STOPS = TypeAdapter(dict[str, Stop])


def stops(home: OperatorHome) -> dict[str, Stop]:
    """Tell which principals were stopped once. A list, as versions before wrote, names who is stopped.

    Raises ConfigurationError where that cannot be read: nobody is let in again for that.
    """
    path = stopped_path(home)
    try:
        found = json.loads(path.read_bytes())
        return _STOPS.validate_python(dict.fromkeys(found, Stop(stopped=True)) if isinstance(found, list) else found)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        message = (
            f"{path} cannot be read: put that of a backup in its place, and stop again what was stopped since; without "
            "one write the names that are stopped, and that ever were, into it, as a JSON list"
        )
        raise ConfigurationError(message) from error


def keep_stops(home: OperatorHome, found: Mapping[str, Stop]) -> None:
    """Keep them; a version before takes each of them for stopped."""
    told = {name: each for name, each in sorted(found.items()) if each != NEVER}
    durable.put(stopped_path(home), _STOPS.dump_json(told))


def stopped(home: OperatorHome) -> frozenset[str]:
    """Name the principals that are stopped. Raises ConfigurationError."""
    return frozenset(name for name, each in stops(home).items() if each.stopped)


def names(home: OperatorHome) -> dict[str, str | None]:
    """Give the names by which those that were stopped once are let in on the bus; None: not at all."""
    return {
        name: None if each.stopped else certificates.on_bus(name, each.resumed) for name, each in stops(home).items()
    }


def stopped_path(home: OperatorHome) -> Path:
    """Where the principals stand that were stopped once."""
    return pki_of(home.folder) / "stopped.json"


def record(kind: str, content: bytes) -> tuple[bytes, bytes]:
    """Write a version as its stream carries it."""
    return b"", codec.encode(Version(kind, content))
