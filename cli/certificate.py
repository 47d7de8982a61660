"""`valise certificate`: ask for, sign, take home and list the certificates with which members connect, stop one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import click

from broker import authorities, certificates
from broker import settings as settings_file
from broker.certificates import pki_of
from broker.errors import ConfigurationError
from broker.streams import SETUP
from cli import answer, ending, exits, passphrases
from cli.home import clock, member_home
from cli.operator_home import OperatorHome, operator_home, tls_of
from cli.operator_streams import NEVER, Stop, has_streams, stopped, stops
from cli.options import Everywhere, Group, bureau, confirm, everywhere
from cli.trust import issuing, proposing, vouched
from cli.trust.issuing import ADAPTER

_PRINCIPAL = re.compile(r"[a-z][a-z0-9]*\.[a-z0-9-]+")


@click.group(cls=Group)
def certificate() -> None:
    """On Kafka: ask for, sign, take home and list members' certificates; stop one whose key is lost."""


@certificate.command()
@click.option("--adapter", is_flag=True, help="For the member's adapter; else for the bureau.")
@bureau
@everywhere
def request(given: Everywhere, bureau: str | None, *, adapter: bool) -> None:
    """Ask for the certificate of a bureau or of the member's adapter, first or next; the member's own key signs it.

    The private key is made here if there is none, and stays. To change it, move it away first (pki/NAME.key).
    """
    home = member_home(given.home, bureau)
    unit = ADAPTER if adapter else home.unit
    path = vouched.write(home.folder, home.member, unit, home.settings.federation, clock())
    answer.show(
        f"{home.member} asks for the certificate of {unit} in {path}",
        {"request": str(path)},
        as_json=given.as_json,
        then=f"send {path} to the operator; the key itself stays here",
    )


@certificate.command()
@click.option(
    "--requests",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help=f"Files, or folders with *{vouched.SUFFIX}. Default: HOME/members.",
)
@click.option(
    "--another-key", multiple=True, metavar="NAME", help="This one may have a second key: its member said so."
)
@passphrases.asked
@passphrases.passphrase_file
@everywhere
def sign(
    given: Everywhere,
    requests: tuple[Path, ...],
    another_key: tuple[str, ...],
    passphrase_file: Path | None,
    *,
    ask: bool,
) -> None:
    """Sign what members ask for (operator), if the directory in force names them and the key that vouches for it.

    The passphrase is that of the authorities' keys.
    """
    home = _kafka(given)
    asyncio.run(_follow(home))
    paths = vouched.found_in(list(requests or (home.folder.parent / "members",)))
    done = issuing.issue(home, paths, clock(), another_key, passphrases.for_old(passphrase_file, ask=ask))
    for each in done.refused:
        answer.aside(f"refused: {each}")
    issuing.tell_bare(home)
    answer.show(
        f"{answer.count(len(done.issued), 'certificate')}, {answer.count(len(done.refused), 'request')} refused",
        {"issued": list(map(str, done.issued)), "refused": done.refused},
        as_json=given.as_json,
        table=answer.Table(("send to its member",), [(str(each),) for each in done.issued]),
        then=given.again("valise certificate list"),
    )
    if done.refused:
        raise click.exceptions.Exit(exits.FAILED)


@certificate.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@bureau
@everywhere
def accept(given: Everywhere, file: Path, bureau: str | None) -> None:
    """Take a certificate that the operator signed into the member's home; what runs uses it once it is started anew."""
    home = member_home(given.home, bureau)
    accepted = issuing.accept(home.folder, home.member, file, clock())
    principal, until = accepted.principal, accepted.until
    if principal not in home.settings.tls:
        tls = home.settings.tls | {principal: tls_of(principal)}
        settings_file.save(home.folder, home.settings.model_copy(update={"tls": tls}))
    answer.show(
        f"{principal} has its certificate until {answer.when(until)}",
        {"principal": principal, "until": until},
        as_json=given.as_json,
        then=given.again(f"valise inbox --bureau {home.bureau}"),
    )


@certificate.command()
@click.option(
    "--new-passphrase-file",
    type=click.Path(path_type=Path),
    help="File with the passphrase from now on; without it, whoever sits at the terminal is asked.",
)
@passphrases.asked
@passphrases.passphrase_file
@everywhere
def passphrase(given: Everywhere, passphrase_file: Path | None, new_passphrase_file: Path | None, *, ask: bool) -> None:
    """Give the authorities' keys a passphrase, or another one (operator).

    --passphrase and --passphrase-file are for the one of before, if they have one.
    """
    pki = pki_of(_kafka(given).folder)
    now = passphrases.from_file(new_passphrase_file) if new_passphrase_file else None
    # Of what a kill has left under the new one already nobody has one of before.
    before = authorities.passphrase_of(pki, passphrases.for_old(passphrase_file, ask=ask), now)
    now = now or passphrases.for_new(None, ask=True)
    assert now is not None  # a file or a person gives one
    changed = authorities.encrypt(pki, now, before)
    answer.show(
        f"the authorities' keys lie under this passphrase; {len(changed)} did not before",
        {"changed": list(map(str, changed))},
        as_json=given.as_json,
        then="copies of before, in backups or on disks, open as they did before: destroy them",
    )


@certificate.command("list")
@everywhere
def list_issued(given: Everywhere) -> None:
    """List the certificates that members got (operator), the newest of each last, and what was stopped."""
    home = _kafka(given)
    now, known, out = clock(), stops(home), stopped(home)
    rows = [_row(each, now, known.get(each.principal, NEVER)) for each in issuing.kept(home)]
    ends = ending.of_members(home, now)
    first = f"{answer.count(len(rows), 'certificate')}; stopped: {', '.join(sorted(out)) or 'nobody'}"
    answer.show(
        "\n".join([first, *(f"RED: {each.said(now)}" for each in ends)]),
        {"certificates": rows, "stopped": sorted(out), "ending": [each.principal for each in ends]},
        as_json=given.as_json,
        table=answer.Table(
            ("for", "serial", "key", "state", "until"),
            [
                (row["principal"], row["serial"][:16], row["key"][:16], row["state"], answer.when(row["until"]))
                for row in rows
            ],
        ),
        then=given.again("valise certificate stop NAME"),
    )


def _row(each: issuing.Issued, now: int, known: Stop) -> dict[str, Any]:
    out = known.stopped or each.resumed != known.resumed
    state = "ended" if each.until <= now else "stopped" if out else "in force"
    return each.model_dump(exclude={"chain", "nodes_ca"}) | {"state": state}


@certificate.command()
@click.argument("principal")
@everywhere
def stop(given: Everywhere, principal: str) -> None:
    """Let PRINCIPAL (at.ncb, at.adapter) do nothing more on the bus, at once (operator, with setup's certificate)."""
    home = _kafka(given)
    _check_known(home, principal)
    if not given.yes:
        confirm(f"{principal} can neither send nor receive until it is resumed: stop it?")
    issuing.stop(home, principal)
    asyncio.run(proposing.bring_up(home))
    answer.show(
        f"{principal} may do nothing on the bus any more, and gets no certificate",
        {"stopped": sorted(stopped(home))},
        as_json=given.as_json,
        then=given.again(f"valise certificate resume {principal}"),
    )


@certificate.command()
@click.argument("principal")
@click.option("--old-keys", is_flag=True, help="Nothing was lost: also with the keys and certificates that it has.")
@everywhere
def resume(given: Everywhere, principal: str, *, old_keys: bool) -> None:
    """Let PRINCIPAL go on (operator), with a new key: what it had until now stays out for good."""
    home = _kafka(given)
    _check_known(home, principal)
    if not old_keys and principal in stopped(home):
        _check_called(home, principal)
    if old_keys and (live := _live(home, principal)) and not given.yes:
        confirm(f"whoever holds these keys comes in again: {', '.join(live)}; resume {principal}?")
    was_stopped = issuing.resume(home, principal, clock(), old_keys=old_keys)
    asyncio.run(proposing.bring_up(home))
    # Also where it was not: a kill may have come between the list and the nodes.
    out = ", ".join(sorted(stopped(home))) or "nobody"
    not_stopped = "" if was_stopped else f"; it was not stopped, stopped are: {out}"
    live = _live(home, principal)
    anew = f"its member moves pki/{principal}.key away and asks for its certificate anew: valise certificate request"
    answer.show(
        f"{principal} may do again what the table of streams says{not_stopped}",
        {"stopped": sorted(stopped(home)), "in_force": live},
        as_json=given.as_json,
        then=given.again("valise certificate list") if live else anew,
    )


def _live(home: OperatorHome, principal: str) -> list[str]:
    return [
        f"key {each.key[:16]} until {answer.when(each.until)}" for each in issuing.in_force(home, principal, clock())
    ]


def _check_known(home: OperatorHome, principal: str) -> None:
    """Check that a name is a member's on the bus, as its nodes or this home say: a slip would leave the thief in.

    Raises ConfigurationError, UnavailableError.
    """
    from broker import bindings  # noqa: PLC0415 -- only a Kafka home needs it

    if not _PRINCIPAL.fullmatch(principal):
        message = f"{principal!r} is no member's name on the bus: write at.ncb or at.adapter"
        raise ConfigurationError(message)
    setup = certificates.credentials(pki_of(home.folder), SETUP)
    bound = {each.principal for each in bindings.standing(home.settings.bus_address, setup)}
    if principal not in bound and not issuing.is_known(home, principal):
        message = f"nobody is called {principal} on the bus, and nobody was: see `valise certificate list`"
        raise ConfigurationError(message)


def _check_called(home: OperatorHome, principal: str) -> None:
    """Check that the nodes take the name by which a principal comes back: else its member would stay outside.

    Raises ConfigurationError, UnavailableError.
    """
    from broker import principals  # noqa: PLC0415 -- only a Kafka home needs it

    setup = certificates.credentials(pki_of(home.folder), SETUP)
    member, _, unit = principal.partition(".")
    new = certificates.on_bus(unit, clock())
    subject = certificates.renamed(certificates.member_subject(member.upper(), unit), new).rfc4514_string()
    if found := principals.strangers(home.settings.bus_address, setup, subject, f"{member}.{new}"):
        message = (
            f"node {', '.join(map(str, found))} runs with settings of before, by which nobody can be {member}.{new}: "
            "`valise kafka down`, then `valise kafka up`; on nodes of your own set ssl.principal.mapping.rules as in "
            "deploy/kafka. Nothing was changed"
        )
        raise ConfigurationError(message)


async def _follow(home: OperatorHome) -> None:
    """Take in the directory in force: by an older one a member that was suspended since would get a certificate.

    Raises ConfigurationError, UnavailableError.
    """
    if not await has_streams(home):
        message = "the bus shows the operator no directory: `valise directory activate` the draft that is in force"
        raise ConfigurationError(message)
    await proposing.standing(home)


def _kafka(given: Everywhere) -> OperatorHome:
    home = operator_home(given.home)
    if home.settings.bus_kind != "kafka":
        message = "the embedded bus has no certificates: they are for Kafka"
        raise ConfigurationError(message)
    return home
