"""Which certificates end soon, or have: the operator's own, those of its nodes, and what it gave to members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from broker import certificates
from broker.certificates import RENEW_BEFORE, pki_of
from broker.errors import ConfigurationError
from broker.streams import DAY_MS, SETUP
from cli import answer
from cli.home import world_of
from cli.operator_home import OperatorHome
from cli.operator_streams import NEVER, stops
from cli.trust import issuing

MEMBERS_MS = 7 * DAY_MS
"""Their own commands have told members for three weeks by then."""
_NEXT = "make the next one with `valise broker init`"
_DAMAGED = "cannot be read: put that of a backup in its place"


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate after which there is no next one. `until` in ms; None: that of before, with which a node runs.

    Or one that nobody knows the end of: `damaged`.
    """

    principal: str
    until: int | None
    then: str
    damaged: bool = False

    def said(self, now: int) -> str:
        """Say it in a line."""
        if self.damaged:
            return f"the certificate of {self.principal} {self.then}"
        if self.until is None:
            return f"{self.principal} runs with its certificate of before, whenever that ends: {self.then}"
        ends = "ends" if self.until > now else "has ended"
        return f"the certificate of {self.principal} {ends} {answer.when(self.until)}: {self.then}"


def of_operator(home: OperatorHome, now: int) -> list[Ending]:
    """Tell which of the operator's own end within 30 days: whoever runs is cut off by its next connection."""
    found = [_of(name, home.folder / each.certificate, now) for name, each in home.settings.tls.items()]
    return [each for each in found if each] + list(_of_nodes(home, now))


def _of(name: str, path: Path, now: int) -> Ending | None:
    try:
        until = _ms(certificates.expiry(path))
    except FileNotFoundError:
        return None
    except (ConfigurationError, OSError):  # whoever runs may not need it: that of `setup`, or of a node, ends no broker
        return Ending(name, None, _DAMAGED, damaged=True)
    if until > now + RENEW_BEFORE.days * DAY_MS:
        return None
    return Ending(name, until, f"{_NEXT}{' --setup' if name == SETUP else ''}, `--from` and passphrase as before")


def _of_nodes(home: OperatorHome, now: int) -> Iterator[Ending]:
    """Tell of the nodes of this machine: a home on another bus has none."""
    from broker import node  # noqa: PLC0415 -- only a Kafka home needs it

    data, pki = home.folder / "kafka", pki_of(home.folder)
    if home.settings.bus_kind != "kafka" or not (data / node.CONFIG).is_file():
        return
    cluster = node.load(data, pki)
    for each in node.statuses(cluster):
        name, again = f"node-{each.number}", "`valise kafka down`, then `valise kafka up`"
        if ending := _of(name, pki / f"{name}.crt", now):
            yield replace(ending, then=f"{ending.then}, then {again}")
        elif each.pid is not None and node.is_outdated(cluster, each.number):
            yield Ending(name, None, again)


def of_members(home: OperatorHome, now: int) -> list[Ending]:
    """Tell which of the members that take part end within a week, or have: without the next one they are cut off.

    Raises ConfigurationError where what it gave them is damaged here.
    """
    directory, known, last = home.versions.newest_if_any(), stops(home), dict[str, int]()
    principals = frozenset(world_of(directory).principals()) if directory else frozenset[str]()
    for each in issuing.kept(home):
        stop, member = known.get(each.principal, NEVER), each.principal.partition(".")[0].upper()
        comes_in = not stop.stopped and each.resumed == stop.resumed
        if comes_in and directory and each.principal in principals and directory.is_active(member):
            last[each.principal] = max(each.until, last.get(each.principal, 0))
    then = "its member asks for the next one with `valise certificate request`"
    return [Ending(name, until, then) for name, until in sorted(last.items()) if until <= now + MEMBERS_MS]


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
