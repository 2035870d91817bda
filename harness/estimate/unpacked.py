"""How many weights of a network are kept in fewer bits than it computes with, from its size alone."""

from __future__ import annotations

#: Bytes of a number, and of a weight in 4 bits.
_BYTES = {"float32": 4.0, "tf32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_PACKED_BYTES = 0.5


def unpacked_params(total_params: int, weights_bytes: int, dtype: str) -> int:
    """The weights that are missing from ``weights_bytes`` if each packed one takes 4 bits; 0 where none is.

    Scales and buffers are left out, and so are networks of 16-bit numbers that train in 32: they take more bytes.
    """
    plain = _BYTES[dtype]
    return max(0, round((plain * total_params - weights_bytes) / (plain - _PACKED_BYTES)))
