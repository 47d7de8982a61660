"""Signs members' certificates, as the operator: for whom the directory says, each request once, every one on record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from broker import authorities, certificates, durable, reading
from broker.certificates import NODES_CA, pki_of
from broker.errors import ConfigurationError
from broker.notice import CLOCK_SKEW_MS
from broker.signing import Passphrase
from broker.trust import roles
from broker.trust.bundle import Opened
from cli import answer, passphrases
from cli.operator_home import OperatorHome
from cli.operator_streams import NEVER, Stop, keep_stops, stops
from cli.trust import vouched
from cli.trust.vouched import Vouched

ADAPTER = "adapter"
LIMIT = 64 * 1024


Ms = Annotated[int, Field(ge=0, lt=2**53)]


class Issued(BaseModel):
    """One certificate as the operator keeps it, and as its member gets it: nothing of it is secret. Times in ms."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    principal: str
    serial: str
    key: str
    """SHA-256 of its SubjectPublicKeyInfo."""
    since: Ms
    until: Ms
    made: Ms
    """When the member signed the request."""
    asked: str
    """SHA-256 of the request: it is answered once."""
    chain: str
    nodes_ca: str

    @property
    def resumed(self) -> int:
        """When its principal had last been resumed, as its chain says; 0: never."""
        return certificates.leaf_of(self.chain.encode()).resumed

    @property
    def file(self) -> str:
        """The name under which the operator keeps it."""
        return f"{self.principal}.{self.serial}.json"


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of requests."""

    issued: tuple[Path, ...]
    """The certificates: for a request that was answered before, the one that it got then."""
    refused: tuple[str, ...]
    """File and reason."""


def issue(
    home: OperatorHome,
    paths: Iterable[Path],
    now: int,
    another_key: Collection[str] = (),
    passphrase: Passphrase | None = None,
) -> Answers:
    """Sign the certificates that members ask for; a request that is refused stops no other.

    `another_key` names principals that may have a second key beside one of which a certificate is still in force.
    Raises ConfigurationError where no signed directory says who the members are, or the authorities' keys are encrypted
    and the passphrase is not theirs.
    """
    opened = home.versions.guard().opened
    if opened is None:
        message = "no signed directory says yet who the members are: `valise directory activate` the first one"
        raise ConfigurationError(message)
    pki, folder = pki_of(home.folder), issued_folder(home)
    secret = authorities.passphrase_of(pki, passphrase or passphrases.for_old())  # nobody waits while it is asked for
    done, refused = list[Path](), list[str]()
    with durable.alone(pki):
        authorities.check_opens(pki, secret)  # before the first request: a wrong one is no fault of theirs
        durable.make_lasting(folder)
        issuer = _Issuer(home, opened, now, frozenset(another_key), secret)
        for path in paths:
            try:
                done.append(folder / issuer.answer(vouched.read(path)).file)
            except ConfigurationError as error:
                refused.append(f"{path}: {error}")
    return Answers(tuple(done), tuple(refused))


@dataclass(frozen=True, slots=True)
class _Issuer:
    """What requests are held against: the directory in force, and what each principal got so far."""

    home: OperatorHome
    opened: Opened
    now: int
    another_key: frozenset[str]
    passphrase: bytes | None = field(repr=False)
    """Of the authorities' keys."""

    def answer(self, asked: Vouched) -> Issued:
        """Sign what is asked for, or give the certificate that this request got before."""
        asked.check(self.opened.directory.federation, roles.keys_of(self.opened.targets, asked.member), self.now)
        self._check_named(asked)
        resumed, before = self._check_not_stopped(asked), kept(self.home, asked.principal)
        for each in before:
            if each.asked == asked.digest:
                return each
        if before:
            self._check_follows(asked, before, resumed)
        return self._sign(asked, resumed)

    def _check_named(self, asked: Vouched) -> None:
        """Check that the directory knows this principal."""
        directory = self.opened.directory
        member = directory.members.get(asked.member)
        if member is None or not member.active:
            message = f"{asked.member} does not take part by the directory in force"
            raise ConfigurationError(message)
        bureau = directory.bureaus.get(f"{asked.member}/{asked.unit}")
        if asked.unit != ADAPTER and (bureau is None or not bureau.certified):
            message = f"the directory names no bureau {asked.member}/{asked.unit} with a certificate of its own"
            raise ConfigurationError(message)

    def _check_not_stopped(self, asked: Vouched) -> int:
        """Check that nobody has stopped this principal since it asked; give when it was last resumed."""
        known = stops(self.home).get(asked.principal, NEVER)
        if known.stopped:
            message = f"{asked.principal} was stopped: `valise certificate resume {asked.principal}` once that is over"
            raise ConfigurationError(message)
        if known.resumed > self.now + CLOCK_SKEW_MS:
            message = (
                f"{asked.principal} was resumed, on {answer.when(known.resumed)}, by a clock that was ahead: "
                "stop and resume it again, then have it ask anew"
            )
            raise ConfigurationError(message)
        if asked.made <= known.resumed:
            message = f"{asked.principal} was stopped and resumed since: have it ask anew, for a new key"
            raise ConfigurationError(message)
        return known.resumed

    def _check_follows(self, asked: Vouched, before: Sequence[Issued], resumed: int) -> None:
        last, key = before[-1], certificates.key_of(asked.request)
        if asked.made <= last.made:
            message = f"{asked.principal} has asked anew since: this request is answered no more"
            raise ConfigurationError(message)
        if any(each.key == key and each.resumed != resumed for each in before):
            message = (
                f"{asked.principal} was stopped with this key: have its member move pki/{asked.principal}.key away "
                "and ask anew"
            )
            raise ConfigurationError(message)
        live = last.until > self.now and last.resumed == resumed
        if key != last.key and live and asked.principal not in self.another_key:
            until = answer.when(last.until)
            message = (
                f"{asked.principal} has a certificate for another key, in force until {until}: ask the member by "
                f"another way whether its key is a new one, and why; then `--another-key {asked.principal}`"
            )
            raise ConfigurationError(message)

    def _sign(self, asked: Vouched, resumed: int) -> Issued:
        pki, at = pki_of(self.home.folder), datetime.fromtimestamp(self.now / 1000, UTC)
        # The directory is the list of members, not who made this home.
        authorities.add_member(pki, asked.member, at, passphrase=self.passphrase)
        chain = authorities.sign_request(pki, asked.member, asked.unit, asked.request, at, self.passphrase, resumed)
        leaf = certificates.leaf_of(chain)
        made = Issued(
            principal=asked.principal,
            serial=leaf.serial,
            key=leaf.key,
            since=self.now,
            until=_ms(leaf.until),
            made=asked.made,
            asked=asked.digest,
            chain=chain.decode(),
            nodes_ca=(pki / f"{NODES_CA}.pem").read_text(encoding="utf-8"),
        )
        # Nobody gets a certificate that is not on record: this file is what the member gets.
        durable.put(issued_folder(self.home) / made.file, made.model_dump_json(indent=2).encode() + b"\n")
        return made


def tell_bare(home: OperatorHome) -> None:
    """Say where the authorities' keys lie without a passphrase, and how they get one."""
    pki = pki_of(home.folder)
    if authorities.bare(pki):
        answer.aside(
            f"the authorities' keys in {pki} lie there without a passphrase: whoever reads them is `setup`; "
            "`valise certificate passphrase` encrypts them"
        )


def issued_folder(home: OperatorHome) -> Path:
    """Where the operator keeps the certificates that members got."""
    return pki_of(home.folder) / "issued"


def kept(home: OperatorHome, principal: str = "*") -> list[Issued]:
    """Give the certificates that members got, or one principal, each principal's in the order in which it asked.

    Raises ConfigurationError that names a file of theirs that is damaged.
    """
    found = (_kept(each) for each in issued_folder(home).glob(f"{principal}.*.json"))
    return sorted(found, key=lambda each: (each.principal, each.made))


def _kept(path: Path) -> Issued:
    try:
        return read(path)
    except ConfigurationError as error:
        message = (
            f"{path} is damaged: put that of a backup in its place; without one move it away, and before you sign for "
            "that name again ask its member by another way which keys are its own"
        )
        raise ConfigurationError(message) from error


def read(path: Path) -> Issued:
    """Read a certificate as it was issued, which says of itself what its chain says. ConfigurationError names the file.

    Who signed it is not known by this.
    """
    try:
        found = Issued.model_validate_json(reading.read(path, LIMIT))
        leaf = certificates.leaf_of(found.chain.encode())
    except (OSError, ValueError, ConfigurationError) as error:
        message = f"{path} holds no certificate that the operator issued: have it sent again"
        raise ConfigurationError(message) from error
    if (found.serial, found.key, found.until) != (leaf.serial, leaf.key, _ms(leaf.until)):
        message = f"{path} says something else than the certificate in it: have it sent again"
        raise ConfigurationError(message)
    return found


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def accept(folder: Path, member: str, file: Path, now: int) -> Issued:
    """Take a certificate into a member's home, for the key that asked for it.

    Raises ConfigurationError if it is not the member's, or does not fit.
    """
    found = read(file)
    of, _, unit = found.principal.partition(".")
    if of != member.lower():
        message = f"{file} is for {found.principal}, not for {member}"
        raise ConfigurationError(message)
    at = datetime.fromtimestamp(now / 1000, UTC)
    certificates.accept(pki_of(folder), member, unit, found.chain.encode(), found.nodes_ca.encode(), at)
    return found


def is_known(home: OperatorHome, principal: str) -> bool:
    """Say whether this home knows a principal of this name, gave it a certificate once, or has stopped it."""
    got = issued_folder(home).glob(f"{principal}.*.json")  # by their names: a damaged one must not keep a thief in
    return principal in home.world().principals() or principal in stops(home) or any(got)


def stop(home: OperatorHome, principal: str) -> None:
    """Say that a principal may do nothing on the bus, and ask for no certificate; kept before any node hears of it."""
    with durable.alone(pki_of(home.folder)):
        found = stops(home)
        before = found.get(principal, NEVER)
        keep_stops(home, found | {principal: before.model_copy(update={"stopped": True})})


def resume(home: OperatorHome, principal: str, now: int, *, old_keys: bool = False) -> bool:
    """Let a principal go on, with certificates that it asks for from now on; say whether it was stopped.

    With `old_keys` also with those that it had: whoever holds such a key comes in again.
    """
    with durable.alone(pki_of(home.folder)):
        found = stops(home)
        before = found.get(principal, NEVER)
        if before.stopped:
            resumed = before.resumed if old_keys else _after(before.resumed, now)
            keep_stops(home, found | {principal: Stop(stopped=False, resumed=resumed)})
    return before.stopped


def _after(before: int, now: int) -> int:
    """Give another time than a principal was resumed at before: no name comes twice, though the clock was set back.

    Where that was far ahead it does not count: until then no request would be dated after it.
    """
    return now if before > now + CLOCK_SKEW_MS else max(now, before + 1)


def in_force(home: OperatorHome, principal: str, now: int) -> Iterator[Issued]:
    """Give the certificates with which a principal can come in now, or could if it were not stopped."""
    resumed = stops(home).get(principal, NEVER).resumed
    return (each for each in kept(home, principal) if each.until > now and each.resumed == resumed)
