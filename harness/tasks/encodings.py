"""From the bytes of a file to its text: decompressed, decoded, with line breaks of one kind."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.sources import archive

#: Byte order marks that say how a text is encoded; the longer ones first, because one begins with another.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

#: The first bytes of a compressed file, and what opens it.
_COMPRESSIONS: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"BZh", bz2.open),
)

#: The first bytes of files that are no text, and what to do about them.
_NOT_TEXT = (
    (b"PK\x03\x04", "it is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "it is an Excel workbook; save the sheet as CSV"),
    (b"PAR1", "it is a Parquet file; set reader.format: parquet"),
    (b"ARROW1", "it is an Arrow file; set reader.format: arrow"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with Zstandard; unpack it"),
    (b"%PDF", "it is a PDF; save its text"),
    (b"version https://git-lfs", "it is a pointer of Git LFS and not the data; run 'git lfs pull'"),
    (b"<!DOCTYPE html", "it is a web page and no data; download the file itself"),
    (b"<html", "it is a web page and no data; download the file itself"),
)

#: Encodings that are told apart by the words that they give.
_CANDIDATES = ("cp1252", "cp1251", "shift_jis", "gb18030", "euc_kr")
#: Western texts have fewer bytes beyond ASCII than this share; others consist of them.
_FEW_FOREIGN = 0.3
#: Zero bytes that a text in UTF-8 may hold by mistake: this many, or this share. In UTF-16 each space brings one.
_FEW_ZEROS, _RARE = 2, 0.01
_LOOKED_AT_BYTES = 200_000


def check_regular(path: Path) -> None:
    """Raise InputError for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is a pipe or a device; give a file")


def content_of(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is compressed, whatever its name."""
    with path.open("rb") as stream:
        start = stream.read(8)
    opener = next((opener for mark, opener in _COMPRESSIONS if start.startswith(mark)), None)
    return path.read_bytes() if opener is None else archive.decompressed(path, opener)


def decoded(content: bytes, encoding: str) -> str:
    """The text with line feeds alone, by its byte order mark or ``encoding``.

    Raises ValueError for what is no text, and for another encoding, with the likely one.
    """
    is_default = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    marked = next((name for mark, name in _MARKS if is_default and content.startswith(mark)), encoding)
    if reason := next((reason for mark, reason in _NOT_TEXT if content.startswith(mark)), None):
        raise ValueError(reason)
    try:
        # A byte order mark in front of every part of a file that was put together.
        text = content.decode(marked).lstrip("\ufeff").replace("\n\ufeff", "\n")
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is not {marked}"
        raise UnicodeError(f"{place}; set reader.encoding: {_likely(content, error.start)}") from error
    if zeros := text.count("\0"):
        if zeros <= max(_FEW_ZEROS, _RARE * len(text)):
            line = text.count("\n", 0, text.index("\0")) + 1
            several = f"{zeros} zero bytes, the first in" if zeros > 1 else "a zero byte in"
            raise UnicodeError(f"it holds {several} line {line}, which no text has; take them out of the file")
        raise UnicodeError(f"it holds zero bytes, so it is not {marked}; set reader.encoding: {_likely(content, 0)}")
    text = text.replace("\r\n", "\n")
    return text if "\n" in text.rstrip("\n") else text.replace("\r", "\n")


def _likely(content: bytes, place: int) -> str:
    """The encoding that the file probably has, with a word on how sure that is."""
    head = content[:4096]
    if b"\0" in head:
        return "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
    part = content[max(place - _LOOKED_AT_BYTES // 2, 0) :][:_LOOKED_AT_BYTES]
    # Lines without foreign letters say nothing, and outvote the others.
    telling = b"\n".join(line for line in part.split(b"\n") if not line.isascii())
    foreign = sum(byte > 127 for byte in telling) / max(len(telling), 1)
    return f"{_western(telling) if foreign < _FEW_FOREIGN else _by_words(telling)} (a guess)"


def _western(text: bytes) -> str:
    """Windows' encoding, unless it lacks a byte of the text."""
    try:
        text.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _by_words(text: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(text, cp_isolation=list(_CANDIDATES)).best()
    return _western(text) if best is None else best.encoding


def told(path: Path, kind: str, error: Exception) -> InputError:
    """What went wrong with a file, as one line."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnicodeError):
        return InputError(f"{path}: {reason}")
    return InputError(f"{path}: cannot be read as {kind}: {reason}")
