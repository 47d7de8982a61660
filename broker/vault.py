"""Encrypts a stream of bytes in pieces, so that whoever destroys the key destroys the bytes.

AES-256-GCM under a key that HKDF-SHA256 makes of the given key and a salt of each stream's own. A piece's nonce is its
number and whether it is the last: pieces cannot be reordered, left out or cut off at the end. Layout: `MAGIC`, u8
length and bytes of the key's name, salt(32), then for each piece u32 length and ciphertext; all of it authenticated.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.errors import DamagedError

MAGIC = b"valise/vault/v1\0"
KEY_SIZE, SALT_SIZE, TAG_SIZE = 32, 32, 16
PIECE = 1 << 20
"""Bytes of clear text in a piece; the last may have fewer."""


class Writer(io.RawIOBase):
    """Encrypts what is written to it; nothing counts before `finish`."""

    def __init__(self, to: BinaryIO, name: str, key: bytes) -> None:
        super().__init__()
        salt = os.urandom(SALT_SIZE)
        self._to, self._head = to, _head(name, salt)
        self._cipher, self._number, self._waiting = _cipher(key, salt), 0, bytearray()
        to.write(self._head)

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data: object) -> int:
        """Take bytes in."""
        taken = bytes(memoryview(data))  # type: ignore[arg-type] # any buffer, as io has it
        self._waiting += taken
        while len(self._waiting) > PIECE:
            self._put(bytes(self._waiting[:PIECE]), last=False)
            del self._waiting[:PIECE]
        return len(taken)

    def finish(self) -> None:
        """Write the last piece."""
        self._put(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _put(self, clear: bytes, *, last: bool) -> None:
        piece = self._cipher.encrypt(_nonce(self._number, last=last), clear, self._head)
        self._to.write(len(piece).to_bytes(4, "big") + piece)
        self._number += 1


class Reader(io.RawIOBase):
    """Decrypts a stream; gives nothing of a piece that was not checked. Raises DamagedError."""

    def __init__(self, source: BinaryIO, key: bytes) -> None:
        super().__init__()
        name, salt = name_of(source)
        self._source, self._head, self._cipher = source, _head(name, salt), _cipher(key, salt)
        self._number, self._clear, self._ended = 0, bytearray(), False

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Give up to `size` bytes; fewer only at the end."""
        while not self._ended and (size < 0 or len(self._clear) < size):
            self._take()
        wanted = len(self._clear) if size < 0 else size
        given = bytes(self._clear[:wanted])
        del self._clear[:wanted]
        return given

    def _take(self) -> None:
        length = int.from_bytes(self._whole(4), "big")
        if not TAG_SIZE <= length <= PIECE + TAG_SIZE:
            raise DamagedError
        piece = self._whole(length)
        ahead = self._source.read(1)
        self._source.seek(-len(ahead), io.SEEK_CUR)
        self._ended = not ahead
        try:
            self._clear += self._cipher.decrypt(_nonce(self._number, last=self._ended), piece, self._head)
        except InvalidTag as error:
            raise DamagedError from error
        self._number += 1

    def _whole(self, size: int) -> bytes:
        return _exactly(self._source, size)


def name_of(source: BinaryIO) -> tuple[str, bytes]:
    """Read the name of the key, and the salt, from the beginning of a stream. Raises DamagedError."""
    if _exactly(source, len(MAGIC)) != MAGIC:
        raise DamagedError
    name = _exactly(source, _exactly(source, 1)[0])
    try:
        return name.decode("ascii"), _exactly(source, SALT_SIZE)
    except UnicodeDecodeError as error:
        raise DamagedError from error


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise DamagedError
    return data


def _head(name: str, salt: bytes) -> bytes:
    return MAGIC + bytes([len(name)]) + name.encode("ascii") + salt


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_SIZE, salt, MAGIC).derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return bytes([last]) + number.to_bytes(11, "big")
