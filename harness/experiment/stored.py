"""The size of a checkpoint on disk."""

from __future__ import annotations


class StoredBytes(int):
    """Bytes of a saved checkpoint whose reloaded model gave the same outputs. An ``int``."""

    def __repr__(self) -> str:
        return f"stored per task: {self / 1e6:.2f} MB; reloaded into a fresh base: same outputs"

    # Else a format or an f-string would show the sentence where a number is asked for.
    __str__ = int.__repr__
