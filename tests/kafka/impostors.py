"""Certificates that nobody should have: made with the authorities' real keys, as a thief or a rogue member would."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.x509.oid import ExtendedKeyUsageOID

from broker import authorities, certificates, pem
from broker.certificates import Credentials

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography import x509

BOTH_WAYS = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def signed_by(pki: Path, authority: str, subject: x509.Name, folder: Path, hosts: Sequence[str] = ()) -> Credentials:
    """Let one of the authorities in `pki` sign any Subject at all."""
    now = datetime.now(UTC)
    signer, key = authorities._load(pki, authority), pem.new_key()
    usages = BOTH_WAYS if hosts else (ExtendedKeyUsageOID.CLIENT_AUTH,)
    leaf = authorities._sign_leaf(signer, subject, key.public_key(), now, usages=usages, hosts=hosts)
    folder.mkdir(parents=True, exist_ok=True)
    pem.write_leaf(folder, "impostor", key, pem.cert_pem(leaf) + pem.cert_pem(signer.certificate))
    return Credentials(pki / "nodes-ca.pem", folder / "impostor.crt", folder / "impostor.key")


def wrong_country(pki: Path, folder: Path) -> Credentials:
    """LV's bureau, signed by AT's authority."""
    return signed_by(pki, "member-at-ca", certificates.member_subject("LV", "ncb"), folder)


def foreign_root(pki: Path, folder: Path) -> Credentials:
    """AT's bureau, with everything right but the federation."""
    other = authorities.init_pki(folder / "foreign", ["AT"], datetime.now(UTC))
    found = signed_by(other, "member-at-ca", certificates.member_subject("AT", "ncb"), folder)
    return Credentials(pki / "nodes-ca.pem", found.chain, found.key)
