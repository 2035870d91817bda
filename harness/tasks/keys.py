"""Which of a task's words a cell of its data is: programs write one word in several ways."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any


def one_form(text: str) -> str:
    """``text`` with the one code point for each character that may also be written as several (Unicode's form C)."""
    return unicodedata.normalize("NFC", text)


def in_one_form(value: Any) -> Any:
    """``value`` with every text and key inside it in :func:`one_form`; keys that would become one stay."""
    if isinstance(value, dict):
        alike = len(set(map(one_form, value))) < len(value)
        return {key if alike else one_form(key): in_one_form(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(in_one_form, value))
    return one_form(value) if isinstance(value, str) else value


def is_blank(text: str) -> bool:
    """Whether nothing of ``text`` can be seen: it is empty, or of spaces and characters without a width."""
    return all(sign.isspace() or sign in "\u200b\u200c\u200d\u2060\ufeff" for sign in text)


def named(value: str, keys: Iterable[str]) -> str | None:
    """The one of ``keys`` that ``value`` is; None if it is none of them, or may be two.

    As it is written, else as the same whole number (1.0 for 1), the same truth value (true for Python's True), or the
    same characters in another form of Unicode. Another case and a stray space make another word.
    """
    known = tuple(keys)
    if value in known:
        return value
    same = [key for key in known if plain(key) == plain(value)]
    return same[0] if len(same) == 1 else None


def plain(text: str) -> str:
    """What the ways to write one whole number, truth value or text have in common."""
    if number := re.fullmatch(r"([-+]?\d+)\.0+", text):
        return number[1]
    return text.lower() if text in ("True", "False", "TRUE", "FALSE") else one_form(text)
