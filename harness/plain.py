"""Text of others as it may be shown: what would steer a terminal, a table or the reading order is written out."""

from __future__ import annotations

import re

#: Control characters but for tab and newline, separators of lines, marks that turn the reading order round, and halves
#: of a pair that no encoding takes.
_STEERING = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_IN_LINES = re.compile(f"[{_STEERING}]")
_IN_A_LINE = re.compile(f"[\t\n{_STEERING}]")

#: Characters of a reason: enough for any message with its paths, too few to fill a table.
REASON = 1000
#: Room for how many are left out.
_TOLD = 40


def lines(text: str) -> str:
    """``text`` of several lines, where an escape sequence is seen and does nothing: ``\\u001b[2J``."""
    return _IN_LINES.sub(_written_out, text)


def line(text: object, most: int = REASON) -> str:
    """``text`` in one line of at most ``most`` characters; what is left out is told."""
    return _IN_A_LINE.sub(_written_out, bounded(str(text), most))


def bounded(text: str, most: int = REASON) -> str:
    """``text``; of one with more than ``most`` characters its beginning, and how many are left out."""
    kept = most - _TOLD
    return text if len(text) <= most else f"{text[:kept]} … ({len(text) - kept:,} more characters)"


def _written_out(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
