"""Who witnesses the operator's log: the settings, read as keys and places; and how long ago a quorum did."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from broker import cosignature, witnessed
from broker.errors import ConfigurationError, ProofError
from broker.fetch import Place
from broker.kafka_tls import Context
from broker.notes import Vkey
from broker.owner import Known, Witnesses
from broker.settings import Settings, Tls, Witness
from broker.trail import Trail


def named(folder: Path, settings: Settings) -> Witnesses:
    """Read the witnesses of a home's settings. Raises ConfigurationError that says which is wrong."""
    known = tuple(_known(folder, each) for each in settings.witnesses)
    try:
        cosignature.check_distinct([each.cosigner for each in known])
    except ProofError as error:
        raise ConfigurationError(f"{folder / 'settings.toml'}: {error}") from error
    return Witnesses(known, settings.witness_quorum)


def _known(folder: Path, witness: Witness) -> Known:
    try:
        cosigner = cosignature.parse_cosigner(witness.vkey)
        return Known(cosigner, Place.of(witness.url, _context(folder, witness.tls) if witness.tls else None))
    except (ProofError, OSError) as error:
        raise ConfigurationError(f"{folder / 'settings.toml'}, witness {witness.url}: {error}") from error


def _context(folder: Path, files: Tls) -> ssl.SSLContext:
    return Context.of(*(str(folder / each) for each in (files.ca, files.certificate, files.key)))


@dataclass(frozen=True, slots=True)
class WitnessedUpTo:
    """How witnesses stand by the log. `at` in ms: when a quorum last did, or since when one could have."""

    quorum: int
    of: list[str]
    size: int
    by: list[str]
    at: int | None
    red: bool


def standing(trail: Trail, log: Vkey, witnesses: Witnesses, now: int) -> WitnessedUpTo | None:
    """Look at the checkpoints on disk; None where no witness is named."""
    if not witnesses.known:
        return None
    cosigners, quorum = witnesses.cosigners, witnesses.quorum
    found = witnessed.confirmed(trail.folder, log, cosigners, quorum)
    at = witnessed.since(trail, log, cosigners, quorum)
    return WitnessedUpTo(
        quorum=quorum,
        of=[each.name for each in cosigners],
        size=found.head.size if found else 0,
        by=sorted(each.by.name for each in found.found.values()) if found else [],
        at=at,
        red=at is not None and now - at >= witnessed.NO_QUORUM_MS,
    )
