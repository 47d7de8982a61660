"""The TLS context of one principal: whoever connects anew shows the certificate that lies in its file by then."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from broker.certificates import expiry
from broker.errors import ConfigurationError


class _Object(ssl.SSLObject):
    """Tells its context why a node was refused: aiokafka says only that there is no connection."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            self._tell(error.verify_message)
            raise
        self._tell("")  # once it is over: one that is under way says nothing yet, and others go on beside it

    def _tell(self, refused: str) -> None:
        if isinstance(self.context, Context):
            self.context.refused = refused


class Context(ssl.SSLContext):
    """Trusts one file of authorities, and heeds that the certificate and its key are replaced before they end.

    A broker that runs for a year would otherwise go on with the one that it was started with, until nodes refuse it.
    """

    sslobject_class = _Object
    refused = ""
    """Why the last node that we connected to was refused, in OpenSSL's words."""
    _files: tuple[Path, Path]
    _loaded: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, authorities: str, certificate: str, key: str) -> Self:
        """Make one from PEM files; the key is not encrypted. Raises OSError for what cannot be read."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(authorities)
        made.load_from(Path(certificate), Path(key))
        return made

    def load_from(self, certificate: Path, key: Path) -> None:
        """Show the certificate of this file, and whatever replaces it. Raises OSError for what cannot be read."""
        self._files = (certificate, key)
        lying = self._lying()  # before: what is replaced while it is loaded is loaded again
        self.load_cert_chain(*self._files)
        self._loaded = lying

    def fault(self) -> str:
        """Say what about certificates keeps us and the nodes apart; "" where nothing does, as far as is known here."""
        with suppress(ConfigurationError, OSError):  # damaged since: what was loaded before is shown on
            if (end := expiry(self._files[0])) <= datetime.now(UTC):
                return f"our certificate ended at {end:%Y-%m-%d %H:%M} UTC, and the nodes let nobody in with it"
        return f"a node's certificate is refused here: {self.refused}" if self.refused else ""

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection, as asyncio does."""
        self._load_again()
        return super().wrap_bio(*arguments, **named)

    def _load_again(self) -> None:
        try:
            if (lying := self._lying()) != self._loaded:
                # Tried apart first: of files that are just being replaced the new one may be beside the old.
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*self._files)
                self.load_cert_chain(*self._files)
                self._loaded = lying
        except OSError:  # of TLS, too: the next connection tries again
            return

    def _lying(self) -> tuple[tuple[int, int], ...]:
        return tuple((found.st_ino, found.st_mtime_ns) for found in (each.stat() for each in self._files))
