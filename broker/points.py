"""Which 32 bytes may be an Ed25519 public key (RFC 8032 §5.1.3; nothing secret is worked with here)."""

from __future__ import annotations

from functools import lru_cache

_PRIME = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
_ROOT = pow(2, (_PRIME - 1) // 4, _PRIME)
_SMALL_ORDER = (
    0,
    1,
    _PRIME - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)
"""y of the eight points of small order: under such a key one signature fits any message."""
_Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T (RFC 8032 §5.1.4)."""


@lru_cache(maxsize=4096)
def check(raw: bytes) -> None:
    """Check that 32 bytes are the one encoding of a point that is not of small order. Raises ValueError."""
    if len(raw) != 32:
        message = "a public key has 32 bytes"
        raise ValueError(message)
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _PRIME:
        message = "no Ed25519 public key: its encoding is not canonical"
        raise ValueError(message)
    if y in _SMALL_ORDER:
        message = "no Ed25519 public key: a point of small order, under which one signature fits any message"
        raise ValueError(message)
    if pow(_square_of_x(y), (_PRIME - 1) // 2, _PRIME) != 1:
        message = "no Ed25519 public key: no point of the curve"
        raise ValueError(message)


def check_new(raw: bytes) -> None:
    """Check a key that is to be entered: also that it lies in the group that every honest key lies in.

    Outside of it verifiers differ about the same signature ("Taming the many EdDSAs", 2020). Takes some milliseconds.
    Raises ValueError.
    """
    check(raw)
    point = _point(raw)
    x, y, z, _ = _times(_ORDER, point)
    if x % _PRIME or (y - z) % _PRIME:
        message = "no Ed25519 public key: it has a part of small order"
        raise ValueError(message)


def _square_of_x(y: int) -> int:
    return (y * y - 1) * pow(_D * y * y + 1, -1, _PRIME) % _PRIME


def _point(raw: bytes) -> _Point:
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    square = _square_of_x(y)
    x = pow(square, (_PRIME + 3) // 8, _PRIME)
    if (x * x - square) % _PRIME:
        x = x * _ROOT % _PRIME
    if x & 1 != sign:
        x = _PRIME - x
    return x, y, 1, x * y % _PRIME


def _times(number: int, point: _Point) -> _Point:
    result: _Point = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = _sum(result, point)
        point = _sum(point, point)
        number >>= 1
    return result


def _sum(p: _Point, q: _Point) -> _Point:
    """Add two points, equal or not (RFC 8032 §5.1.4)."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % _PRIME
    b = (p[1] + p[0]) * (q[1] + q[0]) % _PRIME
    c = 2 * p[3] * q[3] * _D % _PRIME
    d = 2 * p[2] * q[2] % _PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _PRIME, g * h % _PRIME, f * g % _PRIME, e * h % _PRIME
